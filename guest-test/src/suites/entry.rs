//! The state in which CPUs start (Linux boot protocol; PSCI 1.1, DEN0022 6.4).

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::entry::EntryState;
use crate::rt::machine::Machine;
use crate::rt::{cpu, el2, entry};

suite!("entry", true, [primary, secondary, memory]);

const EL1: u64 = 1 << 2;
const EL2: u64 = 2 << 2;
const DAIF_ALL: u64 = 0xf << 6;
const M_A_C_I: u64 = 1 | (1 << 1) | (1 << 2) | (1 << 12);

fn common(state: &EntryState) -> Outcome {
    let el = if el2::present() { EL2 } else { EL1 };
    check_eq!(state.current_el, el, "CurrentEL");
    check_eq!(state.daif, DAIF_ALL, "DAIF");
    check_eq!(state.spsel, 1, "SPSel");
    check_eq!(state.sctlr & M_A_C_I, 0, "SCTLR_EL1 M, A, C, I");
    Ok(())
}

fn primary(machine: &Machine) -> Outcome {
    let state = entry::state_of(0);
    check_eq!(state.x[0], machine.tree, "x0");
    check_eq!(&state.x[1..], &[0, 0, 0], "x1 to x3");
    common(&state)
}

fn secondary(machine: &Machine) -> Outcome {
    if machine.cpu_count < 2 {
        skip!("one CPU");
    }
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
        let state = entry::state_of(index);
        check_eq!(state.x[0], cpu::CONTEXT | index as u64, "x0 of CPU {index}");
        common(&state)?;
        check_eq!(cpu::run_on(index, |_| cpu::affinity(), 0), Some(mpidr), "MPIDR of CPU {index}");
    }
    Ok(())
}

fn memory(machine: &Machine) -> Outcome {
    let (start, end) = crate::rt::mem::image();
    let inside = |at: u64| {
        machine.memory[..machine.memory_count].iter().any(|&(base, size)| at >= base && at - base < size)
    };
    check!(inside(start) && inside(end - 1), "the image is outside the memory nodes");
    check!(inside(machine.tree), "the device tree is outside the memory nodes");
    check_eq!(machine.cpus[0], cpu::affinity(), "the first CPU's reg");
    Ok(())
}
