//! What an AT instruction that a guest hypervisor executes at virtual EL2 puts into PAR_EL1.
//!
//! [`At::decode`] says what is asked, [`At::answer`] walks the tables that it means: L1's own stage 1,
//! or that of the guest whose EL1 registers L1 has loaded, and L1's stage 2 behind it. Table accesses of
//! the guest's stage 1 go through L1's stage 2 too, as the hardware's would (D8.15, C5.4, pseudocode
//! AArch64.AT and AArch64.EncodePAR).
//!
//! Deviations: access flags and dirty state are not updated, which the manual leaves open for AT; a
//! table in no memory is reported in PAR_EL1 rather than taken as an abort.

use core::cell::Cell;

use addr::{Canonical, Ipa, Nested, Va};
use trap::SysReg;
use vmsa::walk::{self, GuestMemory, Privilege, Regime, Stage1Fault, translate};

use crate::stage2::{self, Access, Fault, Leaf, Offered, Registers, Stop, Tables};
use crate::tlbi::Host;

/// Which stage 1 is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage1 {
    /// The guest's: EL1&0.
    El1,
    /// L1's own: EL2 or EL2&0.
    El2,
}

/// A decoded AT instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Which tables.
    pub stage1: Stage1,
    /// Stage 2 is asked for, too.
    pub both: bool,
    /// At which privilege.
    pub privilege: Privilege,
    /// For a write.
    pub write: bool,
    /// PSTATE.PAN counts.
    pub pan: bool,
}

impl At {
    /// What AT `reg` means at virtual EL2. `None`: the instruction is undefined. FEAT_PAN2 is taken for
    /// granted, FEAT_ATS1A is not offered.
    #[must_use]
    pub fn decode(reg: SysReg, host: Host) -> Option<Self> {
        if (reg.op0(), reg.crn()) != (1, 7) {
            return None;
        }
        // EL1's instructions mean the host's own regime where that has an EL0.
        let own = host.e2h && host.tge;
        let stage1 = if own { Stage1::El2 } else { Stage1::El1 };
        let write = reg.op2() & 1 != 0;
        let at = |privilege, both, pan| Self { stage1, both, privilege, write, pan };
        Some(match (reg.op1(), reg.crm(), reg.op2()) {
            (0, 8, 0 | 1) => at(Privilege::El1, false, false),
            (0, 8, 2 | 3) => at(Privilege::El0, false, false),
            (0, 9, 0 | 1) => at(Privilege::El1, false, true),
            (4, 8, 0 | 1) => Self { stage1: Stage1::El2, ..at(Privilege::El1, false, false) },
            (4, 8, 4 | 5) => at(Privilege::El1, !own, false),
            (4, 8, 6 | 7) => at(Privilege::El0, !own, false),
            _ => return None,
        })
    }
}

/// L1's stage 2, if it is on.
#[derive(Clone, Copy, Debug)]
pub struct Second<'a> {
    /// L1's registers.
    pub registers: &'a Registers,
    /// What L1 is offered.
    pub offered: &'a Offered,
    /// HCR_EL2.PTW: tables of stage 1 are in no device.
    pub protected: bool,
}

/// The guest's memory, through L1's stage 2. Remembers why a read failed.
struct GuestTables<'a> {
    tables: &'a dyn Tables,
    second: Option<Second<'a>>,
    fault: Cell<Option<Fault>>,
}

impl GuestMemory<Nested> for GuestTables<'_> {
    fn read_u64(&self, ipa: Ipa<Nested>) -> Option<u64> {
        let at = match self.second {
            None => Ipa::new(ipa.get()),
            Some(second) => match second.walk(self.tables, ipa) {
                Ok(leaf) => leaf.output,
                Err(fault) => {
                    self.fault.set(Some(fault));
                    return None;
                }
            },
        };
        self.tables.read(at)
    }
}

/// L1's memory, without updates.
struct ReadOnly<'a>(&'a dyn Tables);

impl Tables for ReadOnly<'_> {
    fn read(&self, ipa: Ipa<Canonical>) -> Option<u64> {
        self.0.read(ipa)
    }
    fn compare_exchange(&self, _: Ipa<Canonical>, old: u64, _: u64) -> Option<u64> {
        Some(old)
    }
}

impl Second<'_> {
    /// The leaf for a read of a table.
    fn walk(&self, tables: &dyn Tables, ipa: Ipa<Nested>) -> Result<Leaf, Fault> {
        let leaf = self.leaf(tables, ipa)?;
        if self.protected && leaf.attributes.is_device() {
            return Err(Fault { kind: stage2::FaultKind::Permission, level: leaf.level });
        }
        leaf.check(Access::Read).map(|()| leaf)
    }

    fn leaf(&self, tables: &dyn Tables, ipa: Ipa<Nested>) -> Result<Leaf, Fault> {
        match stage2::walk(&ReadOnly(tables), self.registers, self.offered, ipa, false) {
            Ok(leaf) => Ok(leaf),
            Err(Stop::Fault(fault)) => Err(fault),
            // Without updates nothing races.
            Err(Stop::Retry) => Err(Fault { kind: stage2::FaultKind::Translation, level: 0 }),
        }
    }
}

/// PAR_EL1: the translation failed.
const F: u64 = 1;
/// PAR_EL1: in stage 2, on a walk of stage 1.
const PTW: u64 = 1 << 8;
/// PAR_EL1: in stage 2.
const S: u64 = 1 << 9;
/// PAR_EL1: RES1 without FEAT_RME.
const RES1: u64 = 1 << 11;

const fn fail(status: u8, which: u64) -> u64 {
    RES1 | which | (status as u64) << 1 | F
}

/// PAR_EL1 for an address, a MAIR byte, and a shareability.
const fn success(address: u64, memory: u8, shareability: u8) -> u64 {
    // Device and non-cacheable memory counts as outer shareable (PAR_EL1.SH).
    let outer = memory & 0xf0 == 0 || memory == 0x44;
    let shareability = if outer { 0b10 } else { shareability };
    (memory as u64) << 56 | address & 0x0000_ffff_ffff_f000 | (shareability as u64) << 7 | RES1
}

impl At {
    /// PAR_EL1 for `va`. `regime`: the registers of [`At::stage1`]; `second`: L1's stage 2 while that of
    /// the guest is asked for, `None` if it is off.
    #[must_use]
    pub fn answer(&self, tables: &dyn Tables, regime: &Regime, second: Option<Second<'_>>, va: Va) -> u64 {
        let regime = Regime { pan: regime.pan && self.pan, ..*regime };
        let access = if self.write { walk::Access::Write } else { walk::Access::Read };
        // Behind stage 1 of EL2 there is no stage of L1's.
        let second = second.filter(|_| self.stage1 != Stage1::El2);
        let memory = GuestTables { tables, second, fault: Cell::new(None) };
        let first = match translate(&memory, &regime, va, self.privilege, access) {
            Ok(found) => found,
            Err(Stage1Fault { kind: walk::FaultKind::TableRead(_), .. }) if memory.fault.get().is_some() => {
                return memory.fault.get().map_or(F, |fault| fail(fault.status_code(), S | PTW));
            }
            Err(fault) => return fail(fault.status_code(), 0),
        };
        let Some(second) = second.filter(|_| self.both) else {
            return success(first.ipa.get(), first.memory, first.shareability);
        };
        let access = if self.write { Access::Write } else { Access::Read };
        let allowed = |leaf: Leaf| match leaf.check(access) {
            // Hardware would let a clean page turn dirty.
            Err(_) if self.write && leaf.clean => Ok(leaf),
            Err(fault) => Err(fault),
            Ok(()) => Ok(leaf),
        };
        match second.leaf(tables, first.ipa).and_then(allowed) {
            Ok(leaf) => {
                let memory = combine(first.memory, leaf.descriptor, second);
                let shareability = stronger(first.shareability, (leaf.descriptor >> 8) as u8 & 0b11);
                success(leaf.output.get(), memory, shareability)
            }
            Err(fault) => fail(fault.status_code(), S),
        }
    }
}

/// The wider of two shareabilities (pseudocode CombineS1S2Desc): outer, inner, none.
const fn stronger(a: u8, b: u8) -> u8 {
    match (a, b) {
        (0b10, _) | (_, 0b10) => 0b10,
        (0b11, _) | (_, 0b11) => 0b11,
        _ => 0b00,
    }
}

/// Normal memory, tagged.
const TAGGED: u8 = 0xf0;
/// The same, whose tags stage 2 forbids to access.
const NO_TAG_ACCESS: u8 = 0xe0;
/// Normal memory, inner and outer non-cacheable.
const NON_CACHEABLE: u8 = 0x44;
/// Normal memory, write-back, allocating for reads and writes.
const WRITE_BACK: u8 = 0xff;

/// The memory attributes of both stages, as a MAIR byte (D8.6.5, D8.6.6, pseudocode S2CombineS1MemAttrs
/// and EncodePARAttrs). `descriptor`: the leaf of stage 2.
fn combine(first: u8, descriptor: u64, second: Second<'_>) -> u8 {
    let mem_attr = (descriptor >> 2 & 0b1111) as u8;
    let no_tag = second.offered.mte_perm;
    let is_device = first & 0xf0 == 0;
    let tagged = |yes: u8| if first == TAGGED { yes } else { first };
    match (mem_attr, second.registers.fwb) {
        // Device: the stricter of both.
        (0b0000..=0b0011, _) if is_device => (mem_attr << 2).min(first & 0x0c),
        (0b0000..=0b0011, _) => mem_attr << 2,
        (0b0101, _) => {
            if is_device {
                first & 0x0c
            } else {
                NON_CACHEABLE
            }
        }
        // FWB: write-back is forced; stage 1's allocation hints stay if it has any.
        (0b0110, true) => forced(first),
        (0b1110, true) if no_tag => {
            if first == TAGGED {
                NO_TAG_ACCESS
            } else {
                forced(first)
            }
        }
        (0b1111, true) if no_tag => tagged(NO_TAG_ACCESS),
        // As stage 1 says; so are reserved values.
        (_, true) => first,
        (_, false) if is_device => first & 0x0c,
        (0b0100, false) if no_tag => tagged(NO_TAG_ACCESS),
        // 0b1111, and reserved values.
        (0b0100 | 0b1000 | 0b1100 | 0b1111, false) => first,
        (_, false) => {
            let first = if first == TAGGED { WRITE_BACK } else { first };
            half(first >> 4, mem_attr >> 2) << 4 | half(first & 0xf, mem_attr & 0b11)
        }
    }
}

/// Write-back by FWB: stage 1's hints, where it is cacheable.
const fn forced(first: u8) -> u8 {
    const WRITE_BACK_BIT: u8 = 0x44;
    match first {
        TAGGED => TAGGED,
        _ if first & 0xf0 == 0 || first == NON_CACHEABLE => WRITE_BACK,
        // 0bxxRW with W or R: write-through and transient forms keep their hints.
        _ => first | WRITE_BACK_BIT | 0x88,
    }
}

/// One half of a Normal attribute: inner or outer. `second`: 1 non-cacheable, 2 write-through, 3
/// write-back.
const fn half(first: u8, second: u8) -> u8 {
    const NON_CACHEABLE: u8 = 0b0100;
    match (first, second) {
        (NON_CACHEABLE, _) | (_, 0b01) => NON_CACHEABLE,
        // Write-through has bit 2 clear: 0b00RW transient, 0b10RW.
        (_, 0b10) => first & 0b1011,
        _ => first,
    }
}

#[cfg(test)]
mod tests;
