//! System registers: what the ID registers do not announce is undefined; what they do is sane.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::machine::Machine;
use crate::rt::smccc::tagvisor;
use crate::rt::sysreg::field;
use crate::rt::{cpu, el2, mte};

suite!(
    "sysreg",
    true,
    [
        hidden_are_undefined,
        ras_is_absent,
        higher_levels_are_undefined,
        reserved_id_registers_are_zero,
        id_registers,
        mte_as_on_the_command_line,
        mpidr,
        debug_registers,
        same_on_every_cpu,
        write_to_id_register,
        el1_state_keeps_values,
    ]
);

/// Checks that `register` is undefined if the field at `shift` of `id` is 0 (or 0xf where that
/// means "not there").
macro_rules! hidden {
    ($($id:literal, $shift:literal, $register:literal;)*) => {{
        let mut present = 0;
        $(
            let value = field(mrs!($id), $shift);
            if value == 0 || ($shift == 8 && $id == "id_aa64dfr0_el1" && value == 0xf) {
                match probe!($register) {
                    Ok(read) => check!(false, "{} reads {read:#x} though {}[{}] is 0", $register, $id, $shift),
                    Err(fault) => check!(fault.undefined(), "{} gives ESR {:#x}", $register, fault.esr),
                }
            } else {
                present += 1;
            }
        )*
        present
    }};
}

fn hidden_are_undefined(_: &Machine) -> Outcome {
    // Where the CPU has SVE and SME and a hypervisor hides them, CPACR_EL1.ZEN and SMEN still trap
    // to EL1 first: open them, so that what is left is the answer to the access.
    msr!("cpacr_el1", (3 << 16) | (3 << 20) | (3 << 24));
    let outcome = hidden_registers();
    msr!("cpacr_el1", 3 << 20);
    outcome
}

fn hidden_registers() -> Outcome {
    let _present: u32 = hidden! {
        "id_aa64dfr0_el1", 8, "pmcr_el0";
        "id_aa64dfr0_el1", 8, "pmccntr_el0";
        "id_aa64dfr0_el1", 8, "pmcntenset_el0";
        "id_aa64dfr0_el1", 8, "pmintenset_el1";
        "id_aa64dfr0_el1", 8, "pmceid0_el0";
        "id_aa64dfr0_el1", 8, "pmevcntr0_el0";
        "id_aa64dfr0_el1", 8, "pmuserenr_el0";
        "id_aa64dfr0_el1", 32, "S3_0_C9_C9_0";      // PMSCR_EL1
        "id_aa64dfr0_el1", 32, "S3_0_C9_C9_7";      // PMSIDR_EL1
        "id_aa64dfr0_el1", 44, "S3_0_C9_C11_0";     // TRBLIMITR_EL1
        "id_aa64dfr0_el1", 40, "S3_0_C1_C2_1";      // TRFCR_EL1
        "id_aa64dfr0_el1", 52, "S2_1_C9_C2_0";      // BRBIDR0_EL1
        "id_aa64pfr0_el1", 32, "S3_0_C1_C2_0";      // ZCR_EL1
        "id_aa64pfr0_el1", 44, "S3_3_C13_C2_0";     // AMCR_EL0
        "id_aa64pfr0_el1", 44, "S3_3_C13_C2_1";     // AMCFGR_EL0
        "id_aa64pfr0_el1", 44, "S3_3_C13_C4_0";     // AMEVCNTR00_EL0
        "id_aa64mmfr1_el1", 16, "S3_0_C10_C4_0";    // LORSA_EL1
        "id_aa64mmfr1_el1", 16, "S3_0_C10_C4_7";    // LORID_EL1
        "id_aa64pfr1_el1", 24, "S3_0_C1_C2_6";      // SMCR_EL1
        "id_aa64pfr1_el1", 24, "S3_1_C0_C0_6";      // SMIDR_EL1
        "id_aa64pfr1_el1", 44, "S3_0_C2_C5_0";      // GCSCR_EL1
        "id_aa64mmfr3_el1", 0, "S3_0_C2_C0_3";      // TCR2_EL1
        "id_aa64mmfr3_el1", 4, "S3_0_C1_C0_3";      // SCTLR2_EL1
        "id_aa64mmfr3_el1", 8, "S3_0_C10_C2_3";     // PIR_EL1
        "id_aa64mmfr3_el1", 16, "S3_0_C10_C2_4";    // POR_EL1
    };
    // ALLINT: a hypervisor can trap the write only (HCRX_EL2.TALLINT).
    if field(mrs!("id_aa64pfr1_el1"), 36) == 0 {
        let fault = crate::rt::exception::expect_fault(|| msr!("S3_0_C4_C3_0", 0));
        check!(fault.is_some_and(|f| f.undefined()), "MSR ALLINT without FEAT_NMI: {fault:x?}");
    }
    if field(mrs!("id_aa64pfr0_el1"), 40) == 0 && field(mrs!("id_aa64pfr1_el1"), 16) == 0 {
        for (name, result) in
            [("MPAM0_EL1", probe!("S3_0_C10_C5_1")), ("MPAMIDR_EL1", probe!("S3_0_C10_C4_4"))]
        {
            check!(result.is_err_and(|f| f.undefined()), "{name} is there without MPAM");
        }
    }
    Ok(())
}

/// Without FEAT_RAS its registers are undefined, or say that there are no error records.
fn ras_is_absent(_: &Machine) -> Outcome {
    if field(mrs!("id_aa64pfr0_el1"), 28) != 0 {
        skip!("FEAT_RAS is there");
    }
    for (name, result) in [
        ("ERRIDR_EL1", probe!("S3_0_C5_C3_0")),
        ("ERRSELR_EL1", probe!("S3_0_C5_C3_1")),
        ("ERXFR_EL1", probe!("S3_0_C5_C4_0")),
        ("ERXSTATUS_EL1", probe!("S3_0_C5_C4_2")),
        ("DISR_EL1", probe!("S3_0_C12_C1_1")),
    ] {
        match result {
            Ok(value) => check_eq!(value, 0, "{name}"),
            Err(fault) => check!(fault.undefined(), "{name} gives ESR {:#x}", fault.esr),
        }
    }
    Ok(())
}

/// Registers of EL2 and EL3 at EL1, and encodings that belong to nobody.
fn higher_levels_are_undefined(_: &Machine) -> Outcome {
    macro_rules! undefined {
        ($($register:literal)*) => {$(
            match probe!($register) {
                Ok(value) => check!(false, "{} reads {value:#x}", $register),
                Err(fault) => check!(fault.undefined(), "{} gives ESR {:#x}", $register, fault.esr),
            }
        )*};
    }
    undefined!("hcr_el2" "vttbr_el2" "vtcr_el2" "sctlr_el2" "esr_el2" "hpfar_el2" "cnthctl_el2");
    undefined!("vbar_el2" "tpidr_el2" "ich_hcr_el2" "ich_lr0_el2" "S3_4_C2_C2_0" "S3_5_C1_C0_0");
    undefined!("scr_el3" "sctlr_el3" "vbar_el3" "S3_0_C0_C0_1" "S3_7_C7_C7_7" "S3_0_C15_C15_7");
    Ok(())
}

fn reserved_id_registers_are_zero(_: &Machine) -> Outcome {
    // Unallocated encodings of the ID space read as zero (Arm ARM D23.3.1).
    macro_rules! zero {
        ($($register:literal)*) => {$(
            check_eq!(probe!($register), Ok(0), "{}", $register);
        )*};
    }
    zero!("S3_0_C0_C4_3" "S3_0_C0_C4_6" "S3_0_C0_C5_3" "S3_0_C0_C5_6" "S3_0_C0_C7_5" "S3_0_C0_C7_6" "S3_0_C0_C7_7");
    Ok(())
}

fn id_registers(_: &Machine) -> Outcome {
    let pfr0 = mrs!("id_aa64pfr0_el1");
    check!(matches!(field(pfr0, 0), 1 | 2), "PFR0.EL0 {pfr0:#x}");
    check!(matches!(field(pfr0, 4), 1 | 2), "PFR0.EL1 {pfr0:#x}");
    check_eq!(field(pfr0, 8), u64::from(el2::present()), "PFR0.EL2");
    check_eq!(field(pfr0, 20), field(pfr0, 16), "PFR0.FP and AdvSIMD {pfr0:#x}");
    check!(matches!(field(pfr0, 24), 1 | 3), "PFR0.GIC {pfr0:#x}");
    let mmfr0 = mrs!("id_aa64mmfr0_el1");
    check!(field(mmfr0, 0) <= 6 && field(mmfr0, 28) != 0xf, "MMFR0 {mmfr0:#x}");
    if tagvisor() {
        check_eq!(field(pfr0, 12), 0, "PFR0.EL3");
        check_eq!((field(pfr0, 0), field(pfr0, 4)), (1, 1), "PFR0.EL0 and EL1: AArch32 is hidden");
        check_eq!(field(pfr0, 44), 0, "PFR0.AMU");
        check_eq!(field(mrs!("id_aa64dfr0_el1"), 8), 0, "DFR0.PMUVer");
        check_eq!(field(mrs!("id_aa64mmfr2_el1"), 24), 0, "MMFR2.NV");
        check!(el2::present() || field(mrs!("id_aa64mmfr1_el1"), 8) == 0, "MMFR1.VH");
    }
    let (mte, pfr2) = (mte::level(), mrs!("S3_0_C0_C4_2"));
    check!(mte >= 2 || !tagvisor() || pfr2 & 0xfff == 0, "PFR2 {pfr2:#x} announces MTE that PFR1 does not");
    Ok(())
}

fn mte_as_on_the_command_line(machine: &Machine) -> Outcome {
    match machine.option("mte") {
        Some("on") => check!(mte::level() >= 2, "PFR1.MTE is {}", mte::level()),
        Some("off") => check!(mte::level() < 2, "PFR1.MTE is {}", mte::level()),
        _ => skip!("no mte= on the command line"),
    }
    Ok(())
}

fn mpidr(machine: &Machine) -> Outcome {
    let mpidr = mrs!("mpidr_el1");
    check_eq!(mpidr >> 31 & 1, 1, "MPIDR_EL1 bit 31, RES1");
    let known = &machine.cpus[..machine.cpu_count];
    check!(known.contains(&cpu::affinity()), "{mpidr:#x} is not in the device tree");
    for (n, id) in known.iter().enumerate() {
        check!(!known[..n].contains(id), "two CPUs with affinity {id:#x}");
    }
    Ok(())
}

/// What an operating system does at boot: it must not fault.
fn debug_registers(_: &Machine) -> Outcome {
    let fault = crate::rt::exception::expect_fault(|| {
        msr!("oslar_el1", 0);
        msr!("osdlr_el1", 0);
        let mdscr = mrs!("mdscr_el1");
        msr!("mdscr_el1", mdscr & !0xa001);
        msr!("dbgbcr0_el1", 0);
        msr!("dbgbvr0_el1", 0);
        msr!("dbgwcr0_el1", 0);
        msr!("dbgwvr0_el1", 0);
        let _ = mrs!("oslsr_el1");
    });
    check!(fault.is_none(), "ESR {:#x} at {:#x}", fault.map_or(0, |f| f.esr), fault.map_or(0, |f| f.elr));
    Ok(())
}

fn fingerprint(_: u64) -> u64 {
    let mix = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x100_0000_01b3).rotate_left(17);
    [
        mrs!("midr_el1"),
        mrs!("id_aa64pfr0_el1"),
        mrs!("id_aa64pfr1_el1"),
        mrs!("id_aa64dfr0_el1"),
        mrs!("id_aa64isar0_el1"),
        mrs!("id_aa64isar1_el1"),
        mrs!("id_aa64isar2_el1"),
        mrs!("id_aa64mmfr0_el1"),
        mrs!("id_aa64mmfr1_el1"),
        mrs!("id_aa64mmfr2_el1"),
        mrs!("ctr_el0"),
        mrs!("clidr_el1"),
        mrs!("cntfrq_el0"),
    ]
    .into_iter()
    .fold(0xcbf2_9ce4_8422_2325, mix)
}

fn same_on_every_cpu(machine: &Machine) -> Outcome {
    if machine.cpu_count < 2 {
        skip!("one CPU");
    }
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
        check_eq!(cpu::run_on(index, fingerprint, 0), Some(fingerprint(0)), "ID registers of CPU {index}");
    }
    Ok(())
}

fn write_to_id_register(_: &Machine) -> Outcome {
    let fault = crate::rt::exception::expect_fault(|| msr!("S3_0_C0_C4_0", 0));
    check!(fault.is_some_and(|f| f.undefined()), "MSR to ID_AA64PFR0_EL1: {fault:x?}");
    Ok(())
}

/// Registers of EL1 and EL0 keep what was written over exits and time slices.
fn el1_state_keeps_values(_: &Machine) -> Outcome {
    let old = (mrs!("contextidr_el1"), mrs!("tpidr_el0"), mrs!("tpidrro_el0"), mrs!("csselr_el1"));
    for round in 0..5u64 {
        let value = 0x0123_4567_89ab_0000 + round;
        msr!("tpidr_el0", value);
        msr!("tpidrro_el0", !value);
        msr!("contextidr_el1", value & 0xffff_ffff);
        msr!("csselr_el1", round & 2);
        msr!("far_el1", value << 4);
        msr!("afsr0_el1", 0);
        crate::rt::timer::delay(crate::rt::timer::SECOND / 50);
        crate::rt::smccc::call(abi::psci::VERSION, 0, 0, 0);
        check_eq!(mrs!("tpidr_el0"), value, "TPIDR_EL0");
        check_eq!(mrs!("tpidrro_el0"), !value, "TPIDRRO_EL0");
        check_eq!(mrs!("contextidr_el1"), value & 0xffff_ffff, "CONTEXTIDR_EL1");
        check_eq!(mrs!("csselr_el1"), round & 2, "CSSELR_EL1");
        check_eq!(mrs!("far_el1"), value << 4, "FAR_EL1");
    }
    msr!("contextidr_el1", old.0);
    msr!("tpidr_el0", old.1);
    msr!("tpidrro_el0", old.2);
    msr!("csselr_el1", old.3);
    Ok(())
}
