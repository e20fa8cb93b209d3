//! Registers of EL2, and those of EL1 that guest and hypervisor have each for itself.

use super::{EC_HVC, guest_code, guest_el1, need_el2};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{self, El1, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::sysreg;
use core::arch::asm;

guest_code! {
    /// Reads its EL1 registers into x0 to x9, then writes their complement where that is harmless.
    bank "mrs x0, TTBR0_EL1\n mrs x1, TTBR1_EL1\n mrs x2, MAIR_EL1\n mrs x3, VBAR_EL1\n mrs x4, FAR_EL1\n \
          mrs x5, CONTEXTIDR_EL1\n mrs x6, ELR_EL1\n mrs x7, ESR_EL1\n mrs x8, CNTKCTL_EL1\n mrs x9, MPIDR_EL1\n \
          mrs x10, MIDR_EL1\n mov x11, #0x5000\n msr TTBR0_EL1, x11\n mov x11, #0x77\n msr FAR_EL1, x11\n \
          msr ELR_EL1, x11\n mov x11, #1\n msr CNTKCTL_EL1, x11\n mrs x12, CurrentEL";
}

/// Writes and reads back a register at EL2.
macro_rules! keeps {
    ($($reg:literal $value:expr),* $(,)?) => {{
        let mut wrong = None;
        $(
            let old = mrs!($reg);
            msr!($reg, $value);
            let got = mrs!($reg);
            msr!($reg, old);
            if got != $value && wrong.is_none() {
                wrong = Some(($reg, got, $value));
            }
        )*
        wrong
    }};
}

pub(super) fn el2_registers(_: &Machine) -> Outcome {
    need_el2!();
    let wrong = at_el2(|| {
        el2::forget();
        let wrong = keeps!(
            "tpidr_el2" 0x1234_5678_9abc_def0, "vttbr_el2" 0x7_0000_4000_0000, "vtcr_el2" 0x8002_3558,
            "vpidr_el2" 0x410f_d0c0, "vmpidr_el2" 0x8000_0001, "cntvoff_el2" 0x1_0000_0000, "hpfar_el2" 0x1230,
            "far_el2" 0xffff_0000_1234_5678, "esr_el2" 0x5600_0000, "elr_el2" 0x4008_0000, "spsr_el2" 0x3c5, "mdcr_el2" 0x200,
            "S3_4_C12_C12_0" 0x5080_0000_0000_0021, "S3_4_C12_C11_7" 0xff00_0002, "S3_4_C12_C11_0" 0,
            "cnthp_cval_el2" 0x7fff_ffff_ffff,
        );
        (wrong, el2::own())
    });
    let (wrong, own) = wrong;
    check_eq!(own.count, 0, "exceptions, the last with ESR {:#x} at {:#x}", own.esr, own.elr);
    if let Some((name, got, want)) = wrong {
        check_eq!(got, want, "{name}");
    }
    Ok(())
}

/// Restrictions of prediction work at EL2, if there are any.
pub(super) fn prediction_restrictions(_: &Machine) -> Outcome {
    need_el2!();
    let own = at_el2(|| {
        el2::forget();
        // SAFETY: they change nothing that can be seen. An exception is skipped.
        unsafe {
            asm!(
                "sys #3, C7, C3, #4, xzr",
                "sys #3, C7, C3, #5, xzr",
                "sys #3, C7, C3, #7, xzr",
                options(nostack)
            )
        };
        el2::own()
    });
    let absent = sysreg::field(mrs!("id_aa64isar1_el1"), 40) == 0;
    check_eq!(own.count, if absent { 3 } else { 0 }, "exceptions of CFP, DVP, CPP RCTX, ESR {:#x}", own.esr);
    Ok(())
}

/// Registers of features that are hidden are UNDEFINED, at EL2 too.
pub(super) fn hidden_registers(_: &Machine) -> Outcome {
    need_el2!();
    macro_rules! undefined {
        ($($reg:literal),*) => {{
            let mut wrong = None;
            $(
                el2::forget();
                let _ = mrs!($reg);
                let own = el2::own();
                if own.count != 1 || !matches!(own.esr >> 26, 0 | 0x18) {
                    wrong = Some(($reg, own));
                }
            )*
            wrong
        }};
    }
    let wrong = at_el2(|| {
        // SCXTNUM, TCR2, SCTLR2, PIR, MPAM2 and a reserved one of EL2.
        let wrong = undefined!(
            "S3_4_C13_C0_7",
            "S3_4_C2_C0_3",
            "S3_4_C1_C0_3",
            "S3_4_C10_C2_3",
            "S3_4_C10_C5_0",
            "S3_4_C15_C0_0"
        );
        if wrong.is_some() || el2::vhe() {
            return wrong;
        }
        // Without VHE: CNTHV_CTL_EL2, TTBR1_EL2, SCTLR_EL12, CNTKCTL_EL12, CNTV_CTL_EL02.
        undefined!("S3_4_C14_C3_1", "S3_4_C2_C0_1", "S3_5_C1_C0_0", "S3_5_C14_C1_0", "S3_5_C14_C3_1")
    });
    if let Some((name, own)) = wrong {
        check!(false, "{name}: {} exceptions, ESR {:#x}", own.count, own.esr);
    }
    Ok(())
}

/// What EL2 runs on reads as it was written.
pub(super) fn own_registers(_: &Machine) -> Outcome {
    need_el2!();
    let (sctlr, tcr, vbar, current) =
        at_el2(|| (mrs!("sctlr_el2"), mrs!("tcr_el2"), mrs!("vbar_el2"), mrs!("CurrentEL")));
    check_eq!(current, 8, "CurrentEL");
    check_eq!(sctlr & 5, 5, "SCTLR_EL2");
    check_eq!(tcr & 0x3f, 25, "TCR_EL2.T0SZ");
    check_eq!(tcr >> if el2::vhe() { 32 } else { 16 } & 7 != 0, true, "TCR_EL2 physical size");
    check!(vbar != 0 && vbar.is_multiple_of(2048), "VBAR_EL2 {vbar:#x}");
    let (hcr, vtr) = at_el2(|| (mrs!("hcr_el2"), mrs!("S3_4_C12_C11_1")));
    check_eq!(hcr >> 34 & 1, u64::from(el2::vhe()), "HCR_EL2.E2H");
    check_eq!(vtr >> 20 & 1, 1, "ICH_VTR_EL2: no GICv4");
    Ok(())
}

/// Guest and hypervisor do not see each other's EL1 registers.
pub(super) fn register_banks(_: &Machine) -> Outcome {
    need_el2!();
    let el1 = El1 {
        ttbr0: 0x1_0000,
        ttbr1: 0x2_0000,
        mair: 0x44,
        far: 0x123,
        contextidr: 9,
        elr: 0x456,
        esr: 0x789,
        cntkctl: 3,
        ..guest_el1()
    };
    let mut guest = Guest::new(bank());
    let (exit, after, changed) = at_el2(|| {
        let (vpidr, vmpidr) = (mrs!("vpidr_el2"), mrs!("vmpidr_el2"));
        msr!("vpidr_el2", 0x4100_1234);
        msr!("vmpidr_el2", 0x8000_0123);
        let own =
            || [mrs!("vbar_el2"), mrs!("sctlr_el2"), mrs!("tcr_el2"), mrs!("ttbr0_el2"), mrs!("mair_el2")];
        let before = own();
        let (exit, after) = with_guest(&el1, 0, 0, || (el2::enter(&mut guest), El1::read()));
        msr!("vpidr_el2", vpidr);
        msr!("vmpidr_el2", vmpidr);
        (exit, after, before != own())
    });
    check!(!changed, "registers of EL2 changed");
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "exit");
    check_eq!(
        &guest.x[..9],
        &[el1.ttbr0, el1.ttbr1, el1.mair, el1.vbar, el1.far, el1.contextidr, el1.elr, el1.esr, el1.cntkctl],
        "what the guest sees"
    );
    check_eq!((guest.x[9], guest.x[10]), (0x8000_0123, 0x4100_1234), "MPIDR_EL1, MIDR_EL1");
    check_eq!(guest.x[12], 4, "CurrentEL");
    check_eq!((after.ttbr0, after.far, after.elr, after.cntkctl), (0x5000, 0x77, 0x77, 1), "what it left");
    Ok(())
}
