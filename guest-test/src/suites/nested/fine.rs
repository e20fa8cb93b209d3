//! Traps of later features: fine-grained ones bit by bit (FEAT_FGT), those of FEAT_EVT, and FEAT_HCX.

use super::access::{Access, guest_at, is_nobodys};
use super::{EC_HVC, guest_code, guest_el1, need_el2, once, slot, svc, to_el0};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mem::scratch;
use crate::rt::sysreg;

/// Rows `register,name,bit,access,op0,op1,CRn,CRm,op2` of what each bit traps.
const TRAPS: &str = include_str!("../../../../crates/nested/tests/fine.csv");
/// In the order of HFGRTR_EL2, HFGWTR_EL2, HFGITR_EL2, HDFGRTR_EL2, HDFGWTR_EL2: how their names begin.
const REGISTERS: [&str; 5] = ["HFGR", "HFGW", "HFGI", "HDFGR", "HDFGW"];
const EC_SYSREG: u64 = 0x18;

guest_code! {
    /// SVC from EL1.
    svc_el1 "svc #7";
    /// ERET from EL1 to itself.
    eret_el1 "adr x0, 3f\n msr ELR_EL1, x0\n mov x0, #0x3c5\n msr SPSR_EL1, x0\n eret\n 3: nop";
    /// IC IALLUIS.
    ialluis "ic ialluis";
    /// IC IALLU.
    iallu "ic iallu";
    /// IC IVAU.
    ivau_x1 "ic ivau, x1";
    /// DC CVAU.
    cvau_x1 "dc cvau, x1";
    /// CLIDR_EL1.
    clidr "mrs x0, CLIDR_EL1";
    /// CSSELR_EL1.
    csselr "msr CSSELR_EL1, xzr";
    /// TLBI VMALLE1.
    vmalle1 "tlbi vmalle1";
    /// TLBI VMALLE1IS.
    vmalle1is "tlbi vmalle1is";
    /// TLBI VAE1IS.
    vae1is "tlbi vae1is, xzr";
    /// TLBI VMALLE1OS.
    vmalle1os "sys #0, c8, c1, #0";
    /// TLBI RVAE1OS.
    rvae1os "sys #0, c8, c5, #1, xzr";
    /// CNTV_CTL_EL0.
    cntv_ctl "mrs x0, CNTV_CTL_EL0";
    /// CNTVCT_EL0.
    cntvct "mrs x0, CNTVCT_EL0";
    /// CNTVCTSS_EL0.
    cntvctss "mrs x0, S3_3_C14_C0_6";
    /// TLBI VMALLE1NXS.
    vmalle1nxs "sys #0, c9, c7, #0";
}

struct Row {
    /// Index in [`REGISTERS`].
    register: usize,
    bit: u32,
    name: &'static str,
    access: Access,
}

fn rows() -> impl Iterator<Item = Row> {
    TRAPS.lines().filter_map(|line| {
        let mut fields = line.split(',');
        let register = fields.next()?;
        let register = REGISTERS.iter().position(|name| register.starts_with(name))?;
        let bit = fields.nth(1)?.parse().ok()?;
        let name = fields.next()?;
        let access = Access::parse(matches!(register, 0 | 3), fields)?;
        Some(Row { register, bit, name, access })
    })
}

/// Runs code once under these fine-grained traps.
fn under(code: u64, traps: [u64; 5]) -> (Exit, Guest) {
    let mut guest = guest_at(code);
    let write = |traps: [u64; 5]| {
        msr!("S3_4_C1_C1_4", traps[0]);
        msr!("S3_4_C1_C1_5", traps[1]);
        msr!("S3_4_C1_C1_6", traps[2]);
        msr!("S3_4_C3_C1_4", traps[3]);
        msr!("S3_4_C3_C1_5", traps[4]);
    };
    let exit = at_el2(|| {
        write(traps);
        let exit = with_guest(&guest_el1(), 0, 0, || el2::enter(&mut guest));
        write([0; 5]);
        exit
    });
    (exit, guest)
}

fn has_fgt() -> bool {
    sysreg::field(mrs!("id_aa64mmfr0_el1"), 56) != 0
}

/// Each bit alone traps what it names, with the right syndrome; all others of its register do not.
pub(super) fn fine_traps(_: &Machine) -> Outcome {
    need_el2!();
    if !has_fgt() {
        skip!("no FEAT_FGT");
    }
    let (mut trapped, mut undefined) = (0, 0);
    for Row { register, bit, name, access } in rows() {
        let readable = rows().any(|other| other.access == Access { read: true, ..access });
        let (code, at) = access.assemble(readable && access.encoding[0] != 1);
        let (exit, open) = under(code, [0; 5]);
        check_eq!((exit, open.ec()), (Exit::Sync, EC_HVC), "{name}: exit without traps");
        let mut traps = [0; 5];
        traps[register] = 1 << bit;
        let (exit, guest) = under(code, traps);
        if is_nobodys(&access, &open) {
            check_eq!((exit, guest.ec(), guest.pc != at), (Exit::Sync, EC_HVC, true), "{name} is undefined");
            undefined += 1;
            continue;
        }
        check_eq!((exit, guest.ec(), guest.pc), (Exit::Sync, EC_SYSREG, at), "{name}: exit, EC, ELR_EL2");
        check_eq!(guest.esr & 0x1ff_ffff, access.iss(), "{name}: ISS");
        traps[register] = !(1 << bit);
        let (_, guest) = under(code, traps);
        check!(guest.ec() != EC_SYSREG || guest.pc != at, "{name}: another bit of the register traps it");
        trapped += 1;
    }
    println!("# {trapped} accesses trapped, {undefined} are undefined");
    check!(trapped > 120, "only {trapped} accesses exist");
    Ok(())
}

/// HFGITR_EL2 for SVC and ERET, which have syndromes of their own.
pub(super) fn fine_exceptions(_: &Machine) -> Outcome {
    need_el2!();
    if !has_fgt() {
        skip!("no FEAT_FGT");
    }
    let run = |code, traps| {
        let mut guest = Guest::new(code);
        guest.x[0] = svc();
        let exit = at_el2(|| {
            msr!("S3_4_C1_C1_6", traps);
            let exit = with_guest(&guest_el1(), 0, 0, || el2::enter(&mut guest));
            msr!("S3_4_C1_C1_6", 0);
            exit
        });
        (exit, guest.ec(), guest.esr & 0xffff, guest.pc)
    };
    let svc_at = svc() + 4;
    for (name, code, bit, want, clear) in [
        ("SVC_EL1", svc_el1(), 53, (0x15, 7, svc_el1()), slot(4)),
        ("SVC_EL0", to_el0(), 52, (0x15, 3, svc_at), slot(8)),
        ("ERET", eret_el1(), 51, (0x1a, 0, eret_el1() + 16), 0),
    ] {
        let (exit, ec, iss, pc) = run(code, 1u64 << bit);
        check_eq!(
            (exit, ec, iss, pc),
            (Exit::Sync, want.0, want.1, want.2),
            "{name}: exit, EC, ISS, ELR_EL2"
        );
        let (exit, ec, iss, _) = run(code, 0);
        check_eq!((exit, ec, iss), (Exit::Sync, EC_HVC, clear), "{name} clear");
        let others = 1u64 << 51 | 3 << 52;
        if name != "ERET" {
            let (_, ec, ..) = run(code, others & !(1 << bit | 1 << 51));
            check_eq!(ec, EC_HVC, "{name} by another bit");
        }
    }
    Ok(())
}

/// FEAT_EVT: each of its bits of HCR_EL2 traps what it names and nothing else.
pub(super) fn enhanced_traps(_: &Machine) -> Outcome {
    need_el2!();
    let level = sysreg::field(mrs!("id_aa64mmfr2_el1"), 56);
    if level == 0 {
        skip!("no FEAT_EVT");
    }
    const TID4: u32 = 49;
    const TICAB: u32 = 50;
    const TOCU: u32 = 52;
    const TTLBIS: u32 = 54;
    const TTLBOS: u32 = 55;
    const NONE: u32 = 0;
    let bits: &[u32] = if level > 1 { &[TID4, TICAB, TOCU, TTLBIS, TTLBOS] } else { &[TID4, TICAB, TOCU] };
    for (name, code, by) in [
        ("CLIDR_EL1", clidr(), TID4),
        ("CSSELR_EL1", csselr(), TID4),
        ("IC IALLUIS", ialluis(), TICAB),
        ("IC IALLU", iallu(), TOCU),
        ("IC IVAU", ivau_x1(), TOCU),
        ("DC CVAU", cvau_x1(), TOCU),
        ("TLBI VMALLE1IS", vmalle1is(), TTLBIS),
        ("TLBI VAE1IS", vae1is(), TTLBIS),
        ("TLBI VMALLE1OS", vmalle1os(), TTLBOS),
        ("TLBI RVAE1OS", rvae1os(), TTLBOS),
        ("TLBI VMALLE1", vmalle1(), NONE),
    ] {
        for bit in bits {
            let mut guest = Guest::new(code);
            guest.x[1] = scratch(21);
            let exit = once(&mut guest, 1 << bit, 0);
            let want = if *bit == by { (EC_SYSREG, code) } else { (EC_HVC, code + 8) };
            check_eq!(
                (exit, guest.ec(), guest.pc),
                (Exit::Sync, want.0, want.1),
                "{name} with HCR_EL2 bit {bit}"
            );
        }
    }
    Ok(())
}

/// FEAT_ECV: CNTHCTL_EL2 traps the virtual timer (EL1TVT) and counter (EL1TVCT).
pub(super) fn virtual_timer_traps(_: &Machine) -> Outcome {
    need_el2!();
    if sysreg::field(mrs!("id_aa64mmfr0_el1"), 60) == 0 {
        skip!("no FEAT_ECV");
    }
    const EL1TVT: u64 = 1 << 13;
    const EL1TVCT: u64 = 1 << 14;
    for (name, code, by) in [
        ("CNTV_CTL_EL0", cntv_ctl(), EL1TVT),
        ("CNTVCT_EL0", cntvct(), EL1TVCT),
        ("CNTVCTSS_EL0", cntvctss(), EL1TVCT),
    ] {
        for bit in [EL1TVT, EL1TVCT] {
            let mut guest = Guest::new(code);
            let exit = at_el2(|| {
                let old = mrs!("cnthctl_el2");
                msr!("cnthctl_el2", old | bit);
                let exit = with_guest(&guest_el1(), 0, 0, || el2::enter(&mut guest));
                msr!("cnthctl_el2", old);
                exit
            });
            let want = if bit == by { (EC_SYSREG, code) } else { (EC_HVC, code + 8) };
            check_eq!((exit, guest.ec(), guest.pc), (Exit::Sync, want.0, want.1), "{name} with {bit:#x}");
        }
    }
    Ok(())
}

/// FEAT_HCX: HCRX_EL2.FGTnXS takes the nXS form of TLBI out of fine-grained traps.
pub(super) fn extended_controls(_: &Machine) -> Outcome {
    need_el2!();
    let hcx = sysreg::field(mrs!("id_aa64mmfr1_el1"), 40) != 0;
    let xs = sysreg::field(mrs!("id_aa64isar1_el1"), 56) != 0;
    if !(hcx && xs && has_fgt()) {
        skip!("no FEAT_HCX, FEAT_XS or FEAT_FGT");
    }
    let run = |code, hcrx| {
        let old = at_el2(|| {
            let old = mrs!("S3_4_C1_C2_2");
            msr!("S3_4_C1_C2_2", hcrx);
            old
        });
        let (_, guest) = under(code, [0, 0, 1 << 42, 0, 0]);
        at_el2(|| msr!("S3_4_C1_C2_2", old));
        guest.ec()
    };
    check_eq!(run(vmalle1nxs(), 0), EC_SYSREG, "nXS");
    check_eq!(run(vmalle1nxs(), 1 << 4), EC_HVC, "nXS with FGTnXS");
    check_eq!(run(vmalle1(), 1 << 4), EC_SYSREG, "without nXS, with FGTnXS");
    Ok(())
}
