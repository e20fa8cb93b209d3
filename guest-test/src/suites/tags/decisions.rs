//! Faults that wait for a control VM: region policy `report`, in the third memory node of this VM and in
//! region `asked` of the VM `held`.

use super::outside::{self, SELF, await_fault, call, decide, demote, fault, fault_event, stats, stats_of};
use crate::harness::{Outcome, Stop, check, check_eq, skip};
use crate::rt::exception::{EC_DABT_EL1, FSC_EXTERNAL, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::read64;
use crate::rt::mmu::tagged;
use crate::rt::timer::{self, PATIENCE, SECOND};
use crate::rt::{cpu, mte};
use crate::suites::control::{call0, find, info};
use abi::hypercall::{
    EVENT_NEXT, Error, EventKind, FaultDecision, FaultState, StopCause, VM_START, VM_STOP, VmState,
};

/// Lazy memory that injects, lazy memory that reports, and another vCPU.
fn setting(machine: &Machine) -> Result<((u64, u64), u64, usize, u64), Stop> {
    if outside::is_backed(machine)? {
        skip!("there are no tag faults without FEAT_MTE_PERM");
    }
    let Some(&(asked, size)) = machine.memory().get(2) else { skip!("no memory that reports") };
    demote(machine, asked, size)?;
    let pool = outside::fresh(machine)?;
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one vCPU") };
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    while fault_event(machine)?.is_some() {}
    Ok((pool, asked, index, mpidr))
}

/// Tags all that the quota allows.
fn use_up(machine: &Machine, start: u64) -> Outcome {
    let Ok(stats) = stats(machine) else { return Ok(()) };
    for at in (start..start + stats.quota * 4096).step_by(4096 * stats.unit as usize) {
        mte::stg(mte::with_tag(tagged(at), 1));
    }
    Ok(())
}

/// On the other vCPU: 1 if the store of a tag went well, 2 if it took an external abort at `at`, 3 for
/// anything else.
fn tag(at: u64) -> u64 {
    let va = mte::with_tag(tagged(at), 9);
    match expect_fault(|| mte::stg(va)) {
        None => 1,
        Some(f) if (f.ec(), f.fsc(), f.far) == (EC_DABT_EL1, FSC_EXTERNAL, va) && f.write() => 2,
        Some(_) => 3,
    }
}

/// The fault waits, is announced, and comes again while there is no quota; then the access succeeds. All
/// the time this vCPU goes on.
pub(super) fn retry(machine: &Machine) -> Outcome {
    let (pool, asked, index, _) = setting(machine)?;
    let vcpu = index as u64;
    use_up(machine, pool.0)?;
    cpu::submit(index, tag, asked + 48);
    let waiting = await_fault(machine, SELF, vcpu)?;
    check_eq!((waiting.ipa, waiting.decision), (asked + 48, 0), "IPA, decision");
    check_eq!(waiting.access, 2, "access: tag write");
    check_eq!(fault_event(machine)?, Some((SELF, vcpu)), "event");
    check_eq!(decide(machine, SELF, vcpu, FaultDecision::Retry)?, 0, "FAULT_DECIDE");
    let again = await_fault(machine, SELF, vcpu)?;
    check_eq!(again.count, waiting.count + 1, "faults");
    demote(machine, pool.0, stats(machine)?.unit * 4096)?;
    check_eq!(decide(machine, SELF, vcpu, FaultDecision::Retry)?, 0, "FAULT_DECIDE again");
    check_eq!(cpu::collect(index), Some(1), "how the access ended");
    check_eq!(mte::ldg(tagged(asked + 48)), 9, "the tag");
    let late = decide(machine, SELF, vcpu, FaultDecision::Retry)?;
    check_eq!(late, Error::Empty as i64, "a decision that nobody waits for");
    let past = fault(machine, SELF, vcpu)?.map(|i| (i.state, i.decision));
    check_eq!(past, Some((FaultState::Past as u64, FaultDecision::Retry as u64)), "state, decision");
    Ok(())
}

/// The abort that is decided later is the one that an immediate one would have been. An interrupt that came
/// meanwhile is not lost.
pub(super) fn inject_later(machine: &Machine) -> Outcome {
    let (pool, asked, index, mpidr) = setting(machine)?;
    use_up(machine, pool.0)?;
    cpu::submit(index, tag, asked + 4096);
    await_fault(machine, SELF, index as u64)?;
    crate::rt::gic::send(3, mpidr);
    timer::delay(SECOND / 100);
    check_eq!(decide(machine, SELF, index as u64, FaultDecision::Inject)?, 0, "FAULT_DECIDE");
    check_eq!(cpu::collect(index), Some(2), "how the access ended");
    check_eq!(read64(asked + 4096), 0, "data");
    let taken = cpu::run_on(index, |_| u64::from(crate::rt::gic::acknowledge()), 0);
    check_eq!(taken, Some(3), "the interrupt that waited");
    cpu::run_on(
        index,
        |intid| {
            crate::rt::gic::end(intid as u32);
            0
        },
        3,
    );
    Ok(())
}

/// The VM "held", which this VM may control, runs until its fault waits.
fn held(machine: &Machine) -> Result<u64, Stop> {
    if outside::is_backed(machine)? {
        skip!("there are no tag faults without FEAT_MTE_PERM");
    }
    let Some(held) = find("held") else { skip!("no VM is called held") };
    check_eq!(call0(VM_START, held), 0, "VM_START");
    Ok(held)
}

fn becomes(vm: u64, state: VmState) -> Outcome {
    let there = timer::wait(PATIENCE, || info(vm).is_ok_and(|i| i.state == state as u64));
    check!(there, "VM {vm} does not get into state {state:?}");
    Ok(())
}

pub(super) fn stop_at_fault(machine: &Machine) -> Outcome {
    let held = held(machine)?;
    let waiting = await_fault(machine, held, 0)?;
    check_eq!(waiting.access, 2, "access: tag write");
    check!(stats_of(machine, held)?.used > 0, "it tagged nothing");
    check_eq!(decide(machine, held, 0, FaultDecision::Stop)?, 0, "FAULT_DECIDE");
    becomes(held, VmState::Stopped)?;
    // The stop was the fault's.
    let mut cause = Ok(None);
    timer::wait(PATIENCE, || {
        cause = call(machine, EVENT_NEXT, [0; 3]).map(|x| match x[..3] {
            [0, kind, vm] if (kind, vm) == (EventKind::Stopped as u64, held) => Some(x[3]),
            _ => None,
        });
        !matches!(cause, Ok(None))
    });
    check_eq!(cause?, Some(StopCause::Fault as u64), "cause");
    Ok(())
}

/// Nobody decides: the VM is stopped and starts again, without tags, to the same fault.
pub(super) fn nobody_answers(machine: &Machine) -> Outcome {
    let held = held(machine)?;
    for _ in 0..3 {
        await_fault(machine, held, 0)?;
        check!(stats_of(machine, held)?.used > 0, "it tagged nothing");
        check_eq!(call0(VM_STOP, held), 0, "VM_STOP");
        becomes(held, VmState::Stopped)?;
        check_eq!(call0(VM_START, held), 0, "VM_START");
    }
    await_fault(machine, held, 0)?;
    check_eq!(call0(VM_STOP, held), 0, "the last VM_STOP");
    becomes(held, VmState::Stopped)
}

/// The control VM ends while a fault waits for it: another one can still stop the VM. Nothing that asks the
/// control VM can run behind this.
pub(super) fn nobody_left(machine: &Machine) -> Outcome {
    let held = held(machine)?;
    await_fault(machine, held, 0)?;
    outside::dismiss(machine)?;
    let Some(keeper) = find("keeper") else { skip!("no VM is called keeper") };
    becomes(keeper, VmState::Stopped)?;
    check_eq!(info(held)?.state, VmState::Running as u64, "state of held");
    check_eq!(call0(VM_STOP, held), 0, "VM_STOP");
    becomes(held, VmState::Stopped)
}
