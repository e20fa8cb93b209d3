//! PSCI (DEN0022) with right and wrong arguments.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::exception::expect_fault;
use crate::rt::machine::Machine;
use crate::rt::smccc::{call, call_with_immediate, tagvisor, try_smc, w0};
use crate::rt::{cpu, entry, gic, timer};
use abi::psci::*;

suite!(
    "psci",
    true,
    [
        version,
        features,
        migrate_info_type,
        cpu_on_wrong_target,
        cpu_on_already_on,
        cpu_on_wrong_entry,
        cpu_on_twice_at_once,
        affinity_info,
        affinity_info_wrong,
        off_and_on_again,
        suspend_wakes_by_timer,
        unknown_functions,
        smc_like_hvc,
        hvc_immediate,
    ]
);

/// No CPU has this affinity: Aff3 is 0xee.
const NOBODY: u64 = 0xee_0000_0000;

fn signed(id: u32, a1: u64, a2: u64, a3: u64) -> i64 {
    call(id, a1, a2, a3)[0] as i64
}

fn version(_: &Machine) -> Outcome {
    let version = call(VERSION, 0, 0, 0)[0];
    check!(version >= 0x1_0000, "PSCI_VERSION {version:#x}");
    if tagvisor() {
        check_eq!(version, VERSION_1_1, "PSCI_VERSION");
    }
    Ok(())
}

fn features(_: &Machine) -> Outcome {
    for id in [
        VERSION,
        CPU_SUSPEND64,
        CPU_OFF,
        CPU_ON32,
        CPU_ON64,
        AFFINITY_INFO64,
        SYSTEM_OFF,
        SYSTEM_RESET,
        FEATURES,
    ] {
        let answer = w0(call(FEATURES, u64::from(id), 0, 0));
        check!(answer >= 0, "PSCI_FEATURES({id:#x}) is {answer}");
    }
    for id in [0x8400_001f, 0xc400_00ff, 0u32, 0x8400_0050] {
        check_eq!(w0(call(FEATURES, u64::from(id), 0, 0)), NOT_SUPPORTED, "PSCI_FEATURES({id:#x})");
    }
    if tagvisor() {
        for id in [SYSTEM_RESET2_64, abi::smccc::VERSION] {
            check!(w0(call(FEATURES, u64::from(id), 0, 0)) >= 0, "PSCI_FEATURES({id:#x})");
        }
    }
    Ok(())
}

fn migrate_info_type(_: &Machine) -> Outcome {
    check_eq!(w0(call(MIGRATE_INFO_TYPE, 0, 0, 0)), TRUSTED_OS_NOT_PRESENT as i64, "MIGRATE_INFO_TYPE");
    Ok(())
}

fn cpu_on_wrong_target(_: &Machine) -> Outcome {
    let at = entry::secondary_address();
    for target in [NOBODY, 0xff, 0xff00, 0xff_0000] {
        check_eq!(signed(CPU_ON64, target, at, 0), INVALID_PARAMETERS, "CPU_ON({target:#x})");
    }
    Ok(())
}

fn cpu_on_already_on(machine: &Machine) -> Outcome {
    let at = entry::secondary_address();
    check_eq!(signed(CPU_ON64, cpu::affinity(), at, 0), ALREADY_ON, "CPU_ON of the caller");
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON({mpidr:#x})");
        check_eq!(signed(CPU_ON64, mpidr, at, index as u64), ALREADY_ON, "CPU_ON of a CPU that is on");
    }
    Ok(())
}

fn cpu_on_wrong_entry(machine: &Machine) -> Outcome {
    let Some((_, mpidr)) = machine.secondaries().next() else { skip!("one CPU") };
    if !tagvisor() {
        skip!("this firmware does not look at the entry address");
    }
    let absent = machine.absent();
    for at in [absent, gic::GICD, !3] {
        check_eq!(signed(CPU_ON64, mpidr, at, 0), INVALID_ADDRESS, "CPU_ON at {at:#x}");
        check_eq!(call(AFFINITY_INFO64, mpidr, 0, 0)[0], AFFINITY_OFF, "state after it");
    }
    Ok(())
}

fn cpu_on_twice_at_once(machine: &Machine) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU") };
    if !tagvisor() {
        skip!("this firmware knows no pending CPU_ON");
    }
    let (at, context) = (entry::secondary_address(), cpu::CONTEXT | index as u64);
    let first = signed(CPU_ON64, mpidr, at, context);
    let second = signed(CPU_ON64, mpidr, at, context);
    let served = timer::wait(timer::PATIENCE, || cpu::run_on(index, |x| x + 1, 1) == Some(2));
    check_eq!(first, SUCCESS, "the first CPU_ON");
    check!(second == ON_PENDING || second == ALREADY_ON, "the second CPU_ON: {second}");
    check!(served, "the CPU does not serve");
    Ok(())
}

fn affinity_info(machine: &Machine) -> Outcome {
    check_eq!(call(AFFINITY_INFO64, cpu::affinity(), 0, 0)[0], AFFINITY_ON, "of the caller");
    for (index, mpidr) in machine.secondaries() {
        check_eq!(call(AFFINITY_INFO64, mpidr, 0, 0)[0], AFFINITY_OFF, "before CPU_ON");
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
        check_eq!(call(AFFINITY_INFO64, mpidr, 0, 0)[0], AFFINITY_ON, "after CPU_ON");
        check_eq!(w0(call(AFFINITY_INFO32, mpidr, 0, 0)), AFFINITY_ON as i64, "32-bit form");
        check!(cpu::stop(index, mpidr), "CPU_OFF");
    }
    Ok(())
}

fn affinity_info_wrong(_: &Machine) -> Outcome {
    check_eq!(signed(AFFINITY_INFO64, NOBODY, 0, 0), INVALID_PARAMETERS, "of nobody");
    if tagvisor() {
        for level in [4, 255, u64::from(u32::MAX)] {
            let answer = signed(AFFINITY_INFO64, cpu::affinity(), level, 0);
            check_eq!(answer, INVALID_PARAMETERS, "level {level}");
        }
    }
    Ok(())
}

fn off_and_on_again(machine: &Machine) -> Outcome {
    if machine.cpu_count < 2 {
        skip!("one CPU");
    }
    for round in 0..3 {
        for (index, mpidr) in machine.secondaries() {
            check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON, round {round}");
            check_eq!(cpu::run_on(index, |x| x + 1, 7), Some(8), "a job, round {round}");
        }
        for (index, mpidr) in machine.secondaries() {
            check!(cpu::stop(index, mpidr), "CPU_OFF, round {round}");
        }
    }
    Ok(())
}

fn suspend_wakes_by_timer(_: &Machine) -> Outcome {
    gic::enable(timer::virtual_intid());
    let start = timer::now();
    let duration = timer::ticks(timer::SECOND / 100);
    msr!("cntv_cval_el0", start + duration);
    msr!("cntv_ctl_el0", timer::ENABLE);
    // A standby state (StateType 0): the call returns, and interrupts wake it although masked.
    let answer = signed(CPU_SUSPEND64, 0, 0, 0);
    let slept = timer::now() - start;
    check_eq!(answer, SUCCESS, "CPU_SUSPEND");
    check!(slept >= duration, "woke after {slept} of {duration} ticks");
    check_eq!(gic::acknowledge_soon(), timer::virtual_intid(), "the interrupt that woke it");
    timer::off();
    gic::end(timer::virtual_intid());
    Ok(())
}

fn unknown_functions(_: &Machine) -> Outcome {
    for id in [0x8400_001fu32, 0xc400_00ff, 0x8400_ffff] {
        check_eq!(w0(call(id, 0, 0, 0)), NOT_SUPPORTED, "function {id:#x}");
    }
    Ok(())
}

fn smc_like_hvc(_: &Machine) -> Outcome {
    if !tagvisor() {
        skip!("no hypervisor traps SMC");
    }
    for id in [VERSION, abi::smccc::VERSION, 0x8400_001f, abi::hypercall::UID] {
        let hvc = call(id, 0, 0, 0);
        match try_smc(id, 0, 0, 0) {
            Ok(smc) => check_eq!(&smc[..4], &hvc[..4], "SMC {id:#x}"),
            Err(fault) => check!(false, "SMC gave ESR {:#x}", fault.esr),
        }
    }
    Ok(())
}

fn hvc_immediate(_: &Machine) -> Outcome {
    if !tagvisor() {
        skip!("no hypervisor");
    }
    // SMCCC 2.9 reserves immediates other than 0: an answer or an undefined instruction are both
    // right.
    let mut answer = NOT_SUPPORTED;
    let fault = expect_fault(|| answer = w0(call_with_immediate(VERSION)));
    check!(fault.is_none_or(|f| f.undefined()), "HVC #1: {fault:x?}");
    check!(answer == NOT_SUPPORTED || answer as u64 == VERSION_1_1, "HVC #1: {answer}");
    Ok(())
}
