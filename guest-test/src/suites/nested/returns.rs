//! Exception returns of EL2's own that do not leave it.

use super::need_el2;
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::el2::{self, Own, at_el2};
use crate::rt::machine::Machine;
use crate::rt::sysreg;
use core::arch::asm;

const EC_ILLEGAL: u64 = 0x0e;

pub(super) fn illegal_returns(_: &Machine) -> Outcome {
    need_el2!();
    let tge = u64::from(el2::vhe()) << 27;
    // EL3, reserved, AArch32; and EL1 under TGE.
    for (spsr, hcr) in [(0x3cd_u64, 0), (0x3cc, 0), (0x3c2, 0), (0x3c7, 0), (0x3d3, 0), (0x3c5, tge)] {
        if spsr == 0x3c5 && hcr == 0 {
            continue;
        }
        let (own, pc) = at_el2(|| {
            let old = mrs!("hcr_el2");
            msr!("hcr_el2", old | hcr);
            el2::forget();
            let pc: u64;
            // SAFETY: the return does not leave EL2; its target raises the illegal state exception, which
            // EL2's vectors note, and go on behind the NOP.
            unsafe {
                asm!("adr {0}, 2f", "msr ELR_EL2, {0}", "msr SPSR_EL2, {1}", "eret", "2: nop",
                    out(reg) pc, in(reg) spsr, options(nostack))
            };
            msr!("hcr_el2", old);
            (el2::own(), pc)
        });
        check_eq!(own.count, 1, "exceptions after a return to {spsr:#x}");
        check_eq!(own.esr >> 26, EC_ILLEGAL, "EC after a return to {spsr:#x}");
        check_eq!(own.elr, pc, "ELR_EL2 after a return to {spsr:#x}");
        check_eq!(own.spsr & 0x10_001f, 0x10_0009, "SPSR_EL2 after a return to {spsr:#x}");
    }
    Ok(())
}

/// At EL2: returns to the next instruction by ERETAA or ERETAB, its address signed, with `flip` turned over.
macro_rules! signed_return {
    ($sign:literal, $eret:literal, $flip:expr) => {{
        el2::forget();
        let at: u64;
        // SAFETY: the return leads to the next instruction; if it is an exception instead, EL2's vectors note
        // it and go on there.
        unsafe {
            asm!(".arch_extension pauth", "adr {pc}, 2f", "mov {m}, sp", concat!($sign, " {pc}, {m}"),
                "eor {pc}, {pc}, {flip}", "msr ELR_EL2, {pc}", "mov {m}, #0x3c9", "msr SPSR_EL2, {m}",
                "adr {pc}, 3f", concat!("3: ", $eret), "2: nop",
                pc = out(reg) at, m = out(reg) _, flip = in(reg) $flip, options(nostack))
        };
        (el2::own(), at)
    }};
}

/// ERETAA and ERETAB return if the code is right, and fault if not.
pub(super) fn authenticated_returns(_: &Machine) -> Outcome {
    need_el2!();
    const EN_IA: u64 = 1 << 31;
    const EN_IB: u64 = 1 << 30;
    let (isar1, isar2) = (mrs!("id_aa64isar1_el1"), mrs!("id_aa64isar2_el1"));
    let level =
        [sysreg::field(isar1, 4), sysreg::field(isar1, 8), sysreg::field(isar2, 12)].into_iter().max();
    if level == Some(0) {
        skip!("no pointer authentication");
    }
    let faults = level == Some(5);
    let (right, wrong, off, generic) = at_el2(|| {
        let sctlr = mrs!("sctlr_el2");
        msr!("S3_0_C2_C1_0", 0x0123_4567_89ab_cdef);
        msr!("S3_0_C2_C1_1", 0x1111_2222_3333_4444);
        msr!("S3_0_C2_C1_2", 0xfedc_ba98_7654_3210);
        msr!("S3_0_C2_C1_3", 0x5555_6666_7777_8888);
        msr!("S3_0_C2_C3_0", 0x77);
        msr!("sctlr_el2", sctlr | EN_IA | EN_IB);
        // SAFETY: a barrier.
        unsafe { asm!("isb", options(nostack)) };
        let right = [signed_return!("pacia", "eretaa", 0u64), signed_return!("pacib", "eretab", 0u64)];
        let none = (Own::default(), 0);
        // A bit of the code; and the code of the other key.
        let wrong = if faults {
            [
                signed_return!("pacia", "eretaa", 1u64 << 50),
                signed_return!("pacib", "eretab", 1u64 << 40),
                signed_return!("pacib", "eretaa", 0u64),
            ]
        } else {
            [none; 3]
        };
        msr!("sctlr_el2", sctlr);
        // SAFETY: a barrier.
        unsafe { asm!("isb", options(nostack)) };
        // With the key off, nothing is signed and nothing checked.
        let off = signed_return!("pacia", "eretaa", 0u64);
        let generic = mrs!("S3_0_C2_C3_0");
        forget_keys();
        (right, wrong, off, generic)
    });
    for (own, _) in right.into_iter().chain([off]) {
        check_eq!(own.count, 0, "exceptions, the last with ESR {:#x} at {:#x}", own.esr, own.elr);
    }
    check_eq!(generic, 0x77, "APGAKeyLo_EL1");
    if !faults {
        skip!("no FEAT_FPACCOMBINE: what is wrong leads nowhere");
    }
    for ((own, at), key) in wrong.into_iter().zip([0, 1, 0]) {
        check_eq!((own.count, own.esr), (1, 0x1c << 26 | 1 << 25 | key), "exceptions, ESR_EL2");
        check_eq!((own.elr, own.spsr & 0x1f), (at, 0b01001), "ELR_EL2, SPSR_EL2.M");
    }
    Ok(())
}

fn forget_keys() {
    msr!("S3_0_C2_C1_0", 0);
    msr!("S3_0_C2_C1_1", 0);
    msr!("S3_0_C2_C1_2", 0);
    msr!("S3_0_C2_C1_3", 0);
    msr!("S3_0_C2_C3_0", 0);
}
