//! What a TLBI that a guest hypervisor executes at virtual EL2 means.
//!
//! [`Tlbi::decode`] turns encoding and operand into the regime, the addresses, and the ASID that it
//! forgets. Whom "the VMID" and "the regime" stand for is up to the caller: a guest's VMID, as L1
//! wrote it into VTTBR_EL2, may belong to several shadows, and all of them are meant.
//!
//! Two differences between instructions do not show here, because forgetting more than was asked for
//! is always allowed (D8.17.4): each is carried out for all CPUs of the VM, be it local, inner or
//! outer shareable; and each forgets table entries too, not just the last level. nXS forms are carried
//! out as the plain ones, which wait for more.

use addr::{Ipa, Nested, PAGE_SIZE};
use trap::SysReg;

/// Which TLBI instructions the VM's ID registers offer. Others are undefined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// FEAT_TLBIOS: outer shareable forms.
    pub outer: bool,
    /// FEAT_TLBIRANGE: range forms.
    pub range: bool,
    /// FEAT_XS: nXS forms.
    pub nxs: bool,
    /// FEAT_TTL: the operand's level hint means something.
    pub ttl: bool,
}

impl Offered {
    /// From the VM's ID_AA64ISAR0_EL1, ID_AA64ISAR1_EL1 and ID_AA64MMFR2_EL1.
    #[must_use]
    pub const fn from_ids(isar0: u64, isar1: u64, mmfr2: u64) -> Self {
        let tlb = isar0 >> 56 & 0b1111;
        Self {
            outer: tlb >= 1,
            range: tlb >= 2,
            nxs: isar1 >> 56 & 0b1111 != 0,
            ttl: mmfr2 >> 48 & 0b1111 != 0,
        }
    }
}

/// What of HCR_EL2 selects the regime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The virtual `HCR_EL2.E2H`: EL2's regime has ASIDs.
    pub e2h: bool,
    /// The virtual `HCR_EL2.TGE`: together with E2H, EL1's instructions mean EL2&0.
    pub tge: bool,
}

/// A stage-1 regime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// EL1&0 of the current VMID: the guests' own tables.
    El1,
    /// EL2, or EL2&0: the guest hypervisor's own tables.
    El2,
}

/// Pages of a stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Bits 55:12 of the first page's address, as the operand of TLBI VAE1 has them.
    pub first: u64,
    /// How many pages.
    pub count: u64,
    /// Distance between them, in units of 4 KiB: the granule.
    pub stride: u64,
    /// Only with this ASID, and global entries; otherwise with all.
    pub asid: Option<u16>,
}

/// Translations of a stage-1 regime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage1 {
    /// All.
    All,
    /// Those of an ASID, global ones aside.
    Asid(u16),
    /// Those of pages.
    Pages(Pages),
}

/// How far a stage-2 invalidation reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The leaf that translates the address, whatever its size.
    Leaf,
    /// This many bytes, a multiple of 4 KiB.
    Bytes(u64),
}

/// Translations of the current VMID's stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2 {
    /// First address; a multiple of the extent if that is one leaf's size.
    pub start: Ipa<Nested>,
    /// How far.
    pub extent: Extent,
}

/// A decoded TLBI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tlbi {
    /// Both stages of EL1&0, under every VMID.
    AllVmids,
    /// Both stages of EL1&0, under the current VMID.
    Vmid,
    /// Some of stage 2, under the current VMID; combined entries may stay.
    Stage2(Stage2),
    /// Some of a stage 1.
    Stage1(Regime, Stage1),
}

/// Which CPUs an instruction reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Domain {
    Local,
    Inner,
    Outer,
}

/// Where an operand's fields are (C5.5, TLBI).
#[derive(Clone, Copy)]
enum Form {
    Single,
    Range,
}

impl Tlbi {
    /// What TLBI `reg` with operand `x` means at virtual EL2. `None`: the instruction is undefined.
    #[must_use]
    pub fn decode(reg: SysReg, x: u64, host: Host, offered: Offered) -> Option<Self> {
        let known = reg.op0() == 1 && (reg.crn() == 8 || reg.crn() == 9 && offered.nxs);
        if !known {
            return None;
        }
        match reg.op1() {
            0 => el1(reg, x, host, offered),
            4 if matches!(reg.crm(), 0 | 4) => stage2(reg, x, offered),
            4 => el2(reg, x, host, offered),
            _ => None,
        }
    }

    /// The level hint of an operand, as bytes of a leaf: TTL of a TLBI by address.
    fn hinted_size(x: u64) -> Option<u64> {
        let (granule, level) = (x >> 46 & 0b11, x >> 44 & 0b11);
        // Without 52-bit addresses there are no blocks at level 0, nor at level 1 unless the granule is
        // 4 KiB; such a hint is reserved and none (D8.17.5).
        Some(match (granule, level) {
            (1, 1) => 1 << 30,
            (1, 2) => 2 << 20,
            (1, 3) => 4 << 10,
            (2, 2) => 32 << 20,
            (2, 3) => 16 << 10,
            (3, 2) => 512 << 20,
            (3, 3) => 64 << 10,
            _ => return None,
        })
    }
}

/// The CPUs that CRm names for stage 1, and the form.
fn domain_and_form(crm: u32) -> Option<(Domain, Form)> {
    Some(match crm {
        1 => (Domain::Outer, Form::Single),
        3 => (Domain::Inner, Form::Single),
        7 => (Domain::Local, Form::Single),
        2 => (Domain::Inner, Form::Range),
        5 => (Domain::Outer, Form::Range),
        6 => (Domain::Local, Form::Range),
        _ => return None,
    })
}

impl Offered {
    fn allow(self, domain: Domain, form: Form) -> bool {
        (domain != Domain::Outer || self.outer) && (matches!(form, Form::Single) || self.range)
    }
}

const fn asid(x: u64) -> u16 {
    (x >> 48) as u16
}

/// The instructions of EL1, executed at EL2.
fn el1(reg: SysReg, x: u64, host: Host, offered: Offered) -> Option<Tlbi> {
    let (domain, form) = domain_and_form(reg.crm())?;
    if !offered.allow(domain, form) {
        return None;
    }
    let regime = if host.e2h && host.tge { Regime::El2 } else { Regime::El1 };
    let what = match (form, reg.op2()) {
        (Form::Single, 0) => Stage1::All,
        (Form::Single, 2) => Stage1::Asid(asid(x)),
        (_, 1 | 5) => Stage1::Pages(pages(x, form, Some(asid(x)))),
        (_, 3 | 7) => Stage1::Pages(pages(x, form, None)),
        _ => return None,
    };
    Some(Tlbi::Stage1(regime, what))
}

/// The instructions of EL2, those for stage 2 by address aside.
fn el2(reg: SysReg, x: u64, host: Host, offered: Offered) -> Option<Tlbi> {
    let (domain, form) = domain_and_form(reg.crm())?;
    if !offered.allow(domain, form) {
        return None;
    }
    let asid = host.e2h.then_some(asid(x));
    Some(match (form, reg.op2()) {
        (Form::Single, 0) => Tlbi::Stage1(Regime::El2, Stage1::All),
        (_, 1 | 5) => Tlbi::Stage1(Regime::El2, Stage1::Pages(pages(x, form, asid))),
        (Form::Single, 4) => Tlbi::AllVmids,
        (Form::Single, 6) => Tlbi::Vmid,
        _ => return None,
    })
}

/// IPAS2E1, RIPAS2E1 and their relatives.
fn stage2(reg: SysReg, x: u64, offered: Offered) -> Option<Tlbi> {
    let (domain, form) = match (reg.crm(), reg.op2()) {
        (0, 1 | 5) => (Domain::Inner, Form::Single),
        (0, 2 | 6) => (Domain::Inner, Form::Range),
        (4, 0 | 4) => (Domain::Outer, Form::Single),
        (4, 1 | 5) => (Domain::Local, Form::Single),
        (4, 2 | 6) => (Domain::Local, Form::Range),
        (4, 3 | 7) => (Domain::Outer, Form::Range),
        _ => return None,
    };
    if !offered.allow(domain, form) {
        return None;
    }
    let (start, extent) = match form {
        Form::Single => {
            let ipa = x.wrapping_mul(PAGE_SIZE) & 0x0000_ffff_ffff_f000;
            match Tlbi::hinted_size(x).filter(|_| offered.ttl) {
                Some(size) => (ipa & !size.wrapping_sub(1), Extent::Bytes(size)),
                None => (ipa, Extent::Leaf),
            }
        }
        Form::Range => {
            let pages = pages(x, form, None);
            let bytes = pages.count.wrapping_mul(pages.stride).wrapping_mul(PAGE_SIZE);
            // 48 bits of address: what lies above is not translated.
            let start = pages.first.wrapping_mul(PAGE_SIZE) & 0x0000_ffff_ffff_f000;
            (start, Extent::Bytes(bytes.min((1_u64 << 48).wrapping_sub(start))))
        }
    };
    Some(Tlbi::Stage2(Stage2 { start: Ipa::new(start), extent }))
}

/// The pages of an operand.
fn pages(x: u64, form: Form, asid: Option<u16>) -> Pages {
    match form {
        // The level hint is of no use: one invalidation forgets the leaf, whatever its size.
        Form::Single => Pages { first: x & 0x0fff_ffff_ffff, count: 1, stride: 1, asid },
        Form::Range => {
            let (num, scale) = (x >> 39 & 0b1_1111, x >> 44 & 0b11);
            // TG = 0 is reserved; the largest granule forgets enough.
            let stride: u64 = match x >> 46 & 0b11 {
                1 => 1,
                2 => 4,
                _ => 16,
            };
            let count = num.wrapping_add(1) << scale.wrapping_mul(5).wrapping_add(1);
            // BaseADDR is 37 bits of a signed page number.
            let base = (((x & 0x1f_ffff_ffff) << 27) as i64 >> 27) as u64;
            Pages { first: base.wrapping_mul(stride) & 0x0fff_ffff_ffff, count, stride, asid }
        }
    }
}

#[cfg(test)]
mod tests;
