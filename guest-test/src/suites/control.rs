//! Control of other VMs: only in a VM whose device tree has a `tagvisor,control` node, on a machine
//! that also has a VM called "held" which waits to be started.

use crate::harness::{Message, Outcome, Stop, check, check_eq, skip, suite};
use crate::rt::machine::Machine;
use crate::rt::smccc::call;
use crate::rt::timer::PATIENCE;
use crate::rt::{cpu, gic, timer};
use abi::hypercall::{
    EVENT_NEXT, Error, EventKind, StopCause, VM_INFO, VM_LIST, VM_RESTART, VM_START, VM_STOP, VmState,
};

suite!(
    "control",
    true,
    [
        list,
        list_from,
        info_of_each,
        wrong_vm,
        self_control,
        start_stop_restart,
        wrong_state,
        events,
        event_interrupt
    ]
);

/// What VM_INFO says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info {
    /// A [`VmState`].
    pub(crate) state: u64,
    /// Its name, zero-padded.
    pub(crate) name: [u8; 16],
    /// How many vCPUs.
    pub(crate) vcpus: u64,
    /// How often it was started.
    pub(crate) starts: u64,
    /// RAM in bytes.
    pub(crate) ram: u64,
}

/// VM_INFO.
pub(crate) fn info(vm: u64) -> Result<Info, Stop> {
    let x = call(VM_INFO, vm, 0, 0);
    if x[0] != 0 {
        return Err(Stop::Fail(Message::new(format_args!("VM_INFO({vm}): {}", x[0] as i64))));
    }
    let mut name = [0; 16];
    name[..8].copy_from_slice(&x[2].to_le_bytes());
    name[8..].copy_from_slice(&x[3].to_le_bytes());
    Ok(Info { state: x[1], name, vcpus: x[4], starts: x[5], ram: x[6] })
}

/// The result of a call with one argument.
pub(crate) fn call0(id: u32, vm: u64) -> i64 {
    call(id, vm, 0, 0)[0] as i64
}

fn count() -> u64 {
    call(VM_LIST, 0, 0, 0)[1]
}

/// The VM with this name.
pub(crate) fn find(name: &str) -> Option<u64> {
    (0..count())
        .find(|&vm| info(vm).is_ok_and(|i| i.name.starts_with(name.as_bytes()) && i.name[name.len()] == 0))
}

/// Takes all events; returns how many.
pub(crate) fn drain_events() -> usize {
    // A queue that never ends is a failure somewhere else.
    (0..1000).take_while(|_| call0(EVENT_NEXT, 0) == 0).count()
}

fn needs(machine: &Machine) -> Result<u32, Stop> {
    match machine.control {
        Some(intid) => Ok(intid),
        None => skip!("this is no control VM"),
    }
}

/// The VM "held", stopped and without events.
fn held(machine: &Machine) -> Result<u64, Stop> {
    needs(machine)?;
    let Some(vm) = find("held") else { skip!("no VM is called held") };
    if info(vm)?.state != VmState::Stopped as u64 {
        call0(VM_STOP, vm);
        becomes(vm, VmState::Stopped)?;
    }
    drain_events();
    Ok(vm)
}

fn becomes(vm: u64, state: VmState) -> Outcome {
    let mut last = None;
    let there = timer::wait(PATIENCE, || {
        last = info(vm).ok().map(|i| i.state);
        last == Some(state as u64)
    });
    check!(there, "VM {vm} is in state {last:?}, not {state:?}");
    Ok(())
}

fn next_event() -> Option<[u64; 4]> {
    let mut event = None;
    timer::wait(PATIENCE, || {
        let x = call(EVENT_NEXT, 0, 0, 0);
        if x[0] == 0 {
            event = Some([x[1], x[2], x[3], x[4]]);
        }
        event.is_some()
    });
    event
}

fn expect_event(kind: EventKind, vm: u64, detail: u64) -> Outcome {
    check_eq!(next_event(), Some([kind as u64, vm, detail, 0]), "event {kind:?}");
    Ok(())
}

fn list(machine: &Machine) -> Outcome {
    needs(machine)?;
    let x = call(VM_LIST, 0, 0, 0);
    check_eq!(x[0], 0, "VM_LIST");
    check!((1..=64).contains(&x[1]), "{} VMs", x[1]);
    check!(x[1] >= 64 || x[2] >> x[1] == 0, "VM_LIST has bits behind the last VM: {:#x}", x[2]);
    Ok(())
}

fn list_from(machine: &Machine) -> Outcome {
    needs(machine)?;
    let (all, from_one) = (call(VM_LIST, 0, 0, 0), call(VM_LIST, 1, 0, 0));
    check_eq!(from_one[1], all[1], "number of VMs");
    check_eq!(from_one[2], all[2] >> 1, "the bitmap from VM 1 on");
    Ok(())
}

fn info_of_each(machine: &Machine) -> Outcome {
    needs(machine)?;
    let controlled = call(VM_LIST, 0, 0, 0)[2];
    for vm in (0..count()).filter(|vm| controlled >> vm & 1 == 1) {
        let info = info(vm)?;
        check!(info.state <= VmState::Stopping as u64, "state of VM {vm}: {}", info.state);
        check!((1..=16).contains(&info.vcpus), "vCPUs of VM {vm}: {}", info.vcpus);
        check!(info.ram > 0 && info.ram % 4096 == 0, "RAM of VM {vm}: {:#x}", info.ram);
        check!(info.name[0] != 0 && info.name[15] == 0, "name of VM {vm}");
    }
    Ok(())
}

fn wrong_vm(machine: &Machine) -> Outcome {
    needs(machine)?;
    for id in [VM_INFO, VM_START, VM_STOP, VM_RESTART] {
        for vm in [count(), count() + 1, 0xffff_ffff, 1 << 32, u64::MAX - 1] {
            check_eq!(call0(id, vm), Error::Invalid as i64, "call {id:#x} of VM {vm:#x}");
        }
    }
    Ok(())
}

/// A control VM controls the others.
fn self_control(machine: &Machine) -> Outcome {
    needs(machine)?;
    let controlled = call(VM_LIST, 0, 0, 0)[2];
    for vm in (0..count()).filter(|vm| controlled >> vm & 1 == 0) {
        for id in [VM_START, VM_STOP, VM_RESTART] {
            check_eq!(call0(id, vm), Error::Denied as i64, "call {id:#x} of VM {vm}");
        }
    }
    Ok(())
}

fn start_stop_restart(machine: &Machine) -> Outcome {
    let vm = held(machine)?;
    let before = info(vm)?.starts;
    check_eq!(call0(VM_START, vm), 0, "VM_START");
    becomes(vm, VmState::Running)?;
    check_eq!(info(vm)?.starts, before + 1, "starts");
    check_eq!(call0(VM_RESTART, vm), 0, "VM_RESTART");
    let again = timer::wait(PATIENCE, || {
        info(vm).is_ok_and(|i| i.starts == before + 2 && i.state == VmState::Running as u64)
    });
    check!(again, "VM {vm} does not run again: {:?}", info(vm).ok());
    check_eq!(call0(VM_STOP, vm), 0, "VM_STOP");
    becomes(vm, VmState::Stopped)?;
    check_eq!(call0(VM_RESTART, vm), 0, "VM_RESTART of a stopped VM");
    becomes(vm, VmState::Running)?;
    check_eq!(call0(VM_STOP, vm), 0, "the last VM_STOP");
    becomes(vm, VmState::Stopped)
}

fn wrong_state(machine: &Machine) -> Outcome {
    let vm = held(machine)?;
    check_eq!(call0(VM_STOP, vm), Error::Busy as i64, "VM_STOP of a stopped VM");
    check_eq!(call0(VM_START, vm), 0, "VM_START");
    check_eq!(call0(VM_START, vm), Error::Busy as i64, "VM_START of a VM that starts");
    becomes(vm, VmState::Running)?;
    check_eq!(call0(VM_START, vm), Error::Busy as i64, "VM_START of a VM that runs");
    check_eq!(call0(VM_STOP, vm), 0, "VM_STOP");
    becomes(vm, VmState::Stopped)
}

fn events(machine: &Machine) -> Outcome {
    let vm = held(machine)?;
    check_eq!(call0(EVENT_NEXT, 0), Error::Empty as i64, "EVENT_NEXT without events");
    check_eq!(call0(VM_START, vm), 0, "VM_START");
    expect_event(EventKind::Started, vm, 0)?;
    check_eq!(call0(VM_RESTART, vm), 0, "VM_RESTART");
    expect_event(EventKind::Stopped, vm, StopCause::Request as u64)?;
    expect_event(EventKind::Started, vm, 0)?;
    check_eq!(call0(VM_STOP, vm), 0, "VM_STOP");
    expect_event(EventKind::Stopped, vm, StopCause::Request as u64)?;
    check_eq!(call0(EVENT_NEXT, 0), Error::Empty as i64, "EVENT_NEXT after all events");
    Ok(())
}

fn event_interrupt(machine: &Machine) -> Outcome {
    let intid = needs(machine)?;
    let vm = held(machine)?;
    gic::route(intid, cpu::affinity());
    gic::set_edge(intid, true);
    gic::enable(intid);
    check!(gic::quiet(), "an event interrupt without an event");
    check_eq!(call0(VM_START, vm), 0, "VM_START");
    check!(timer::wait(PATIENCE, || gic::pending(intid)), "no interrupt for the start");
    check_eq!(gic::acknowledge_soon(), intid, "INTID");
    drain_events();
    gic::end(intid);
    check!(gic::quiet(), "an event interrupt after the queue was emptied");
    check_eq!(call0(VM_STOP, vm), 0, "VM_STOP");
    check!(timer::wait(PATIENCE, || gic::pending(intid)), "no interrupt for the stop");
    drain_events();
    Ok(())
}
