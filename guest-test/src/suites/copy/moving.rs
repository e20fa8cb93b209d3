//! Copies of lazy memory in units of 2 MiB that were left on the move, and to a buffer there: only on a
//! machine with the VMs `target` (a puppet whose region at [`LAZY`] has such units), `deep` (with virtual
//! EL2), a proxy that controls this VM, and in a VM whose second memory node has such units.

use super::demote::while_lazy_memory_changes;
use super::{Copied, LAZY, PAGE, buffer, complete, copied, expect, refused, target};
use crate::harness::{Outcome, Stop, check, check_eq, skip, suite};
use crate::modes::puppet::{Act, Puppet};
use crate::rt::machine::Machine;
use crate::rt::mem::{self, read64, write64};
use crate::rt::smccc::call_with;
use crate::rt::timer::{self, SECOND};
use crate::rt::{mmu, mte};
use crate::suites::control::{find, info};
use crate::suites::tags::outside;
use abi::hypercall::{
    COPY_FROM_GUEST, COPY_PACKED, CopyEnd, DEBUG_COPY, DIRTY_LOG, DirtyOp, Error, MEMORY_COPY, TAG_DEMOTE,
    TAG_STATS, TAGS_COPY, VM_START, VM_STOP, VmState,
};

suite!(
    "tags-moving",
    false,
    [
        while_lazy_memory_changes,
        a_buffer_on_the_move,
        a_stopped_vm,
        debug_copy_of_a_hypervisor,
        one_page_of_a_hypervisor_at_a_time,
    ]
);

const UNIT: u64 = 2 << 20;
/// Calls until a unit has moved: some hundred KiB of it at the least each time.
const PATIENCE: usize = 200;

/// Repeats a call that finds memory on the move; how often it did, and the last answer.
fn until_there(call: impl Fn() -> Copied) -> (usize, Copied) {
    let moving = refused(Error::Busy, CopyEnd::Moving);
    let mut last = moving;
    let turns = (0..PATIENCE).take_while(|_| {
        last = call();
        last == moving
    });
    (turns.count(), last)
}

/// Takes its tags away so far that it is not mapped.
fn leave_on_the_move(vm: &Puppet) -> Outcome {
    let x = call_with(TAG_DEMOTE, [vm.vm, LAZY, UNIT, 0, 0, 0, 0]);
    check_eq!([x[0], x[1]], [0, 0], "TAG_DEMOTE, its first step");
    Ok(())
}

fn becomes(vm: &Puppet, state: VmState) -> Outcome {
    let there = timer::wait(timer::PATIENCE, || info(vm.vm).is_ok_and(|i| i.state == state as u64));
    check!(there, "VM {} does not become {state:?}", vm.vm);
    Ok(())
}

/// No vCPU of it comes by: whoever copies carries the unit home.
fn a_stopped_vm(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let (start, size) = machine.memory()[0];
    let at = start + size - (2 << 20);
    puppet.must(Act::Fill, LAZY, LAZY + UNIT, 0x55)?;
    puppet.must(Act::Tag, LAZY, LAZY + 16, 5)?;
    check_eq!(call_with(VM_STOP, [puppet.vm, 0, 0, 0, 0, 0, 0])[0], 0, "VM_STOP");
    becomes(&puppet, VmState::Stopped)?;
    leave_on_the_move(&puppet)?;
    // Data to be read is known; data is written when it has arrived.
    let read = copied(MEMORY_COPY, [puppet.vm, LAZY + UNIT - 8, 8, at, COPY_FROM_GUEST, 0, 0]);
    expect("data on the move", read, complete(8, 8))?;
    check_eq!(read64(at), (LAZY + UNIT - 8) ^ 0x55, "data on the move");
    write64(at, 7);
    let (turns, written) = until_there(|| copied(MEMORY_COPY, [puppet.vm, LAZY + 8, 8, at, 0, 0, 0]));
    expect("to a unit on the move", written, complete(8, 8))?;
    check!(turns > 1, "it never moved");
    let (_, tags) = until_there(|| copied(TAGS_COPY, [puppet.vm, LAZY, PAGE, at, COPY_FROM_GUEST, 0, 0]));
    expect("its tags", tags, complete(PAGE, 256))?;
    check!((at..at + 256).step_by(8).all(|word| read64(word) == 0), "tags that were taken away");
    for (offset, want) in [(0, LAZY ^ 0x55), (8, 7), (PAGE, (LAZY + PAGE) ^ 0x55)] {
        let read = copied(MEMORY_COPY, [puppet.vm, LAZY + offset, 8, at, COPY_FROM_GUEST, 0, 0]);
        expect("data afterwards", read, complete(8, 8))?;
        check_eq!(read64(at), want, "data at {offset:#x}");
    }
    let starts = info(puppet.vm)?.starts;
    check_eq!(call_with(VM_START, [puppet.vm, 0, 0, 0, 0, 0, 0])[0], 0, "VM_START");
    becomes(&puppet, VmState::Running)?;
    check_eq!(info(puppet.vm)?.starts, starts + 1, "starts");
    check!(timer::wait(timer::PATIENCE, || puppet.is_done()), "it does not answer");
    Ok(())
}

fn own_pool(machine: &Machine) -> Result<u64, Stop> {
    match machine.memory().get(1) {
        Some(&(start, _)) => Ok(start),
        None => skip!("no lazy memory"),
    }
}

/// The dirty log loses no page because the caller's buffer moves.
fn a_buffer_on_the_move(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let pool = own_pool(machine)?;
    let area = super::AREA;
    let log = |op: DirtyOp, at| copied(DIRTY_LOG, [puppet.vm, op as u64, area, 64 * PAGE, at, 0, 0]);
    expect("start", log(DirtyOp::Start, 0), complete(64 * PAGE, 0))?;
    for page in [0, 5, 63] {
        puppet.must(Act::Fill, area + page * PAGE, area + page * PAGE + 16, 1)?;
    }
    write64(pool, u64::MAX);
    mte::stg(mte::with_tag(mmu::tagged(pool + UNIT - 16), 3));
    mem::barrier();
    // Another VM takes this one's tags away, and stops halfway.
    let x = outside::call(machine, TAG_DEMOTE, [outside::SELF, pool, UNIT])?;
    check_eq!([x[0], x[1]], [0, 0], "TAG_DEMOTE, its first step");
    let (turns, got) = until_there(|| log(DirtyOp::GetAndClear, pool));
    expect("get and clear", got, complete(64 * PAGE, 8))?;
    check!(turns > 1, "the buffer never moved");
    check_eq!(read64(pool), 1 | 1 << 5 | 1 << 63, "the pages that were written");
    expect("stop", log(DirtyOp::Stop, 0), complete(0, 0))
}

/// What its EL1 registers mean is not known outside.
fn debug_copy_of_a_hypervisor(machine: &Machine) -> Outcome {
    let (start, size) = machine.memory()[0];
    let at = start + size - (2 << 20);
    let Some(deep) = find("deep") else { skip!("no VM is called deep") };
    let not_supported = refused(Error::NotSupported, CopyEnd::Complete);
    let x = [deep, 0, start, 8, at, COPY_FROM_GUEST, 0];
    for _ in 0..3 {
        expect("DEBUG_COPY", copied(DEBUG_COPY, x), not_supported)?;
        timer::delay(SECOND / 20);
    }
    Ok(())
}

/// A page that turns tagged, or back, is looked for in all that a hypervisor has mapped: one for each call.
fn one_page_of_a_hypervisor_at_a_time(machine: &Machine) -> Outcome {
    const PAGES: u64 = 16;
    let Some(deep) = find("deep") else { skip!("no VM is called deep") };
    let turned = || {
        let x = call_with(TAG_STATS, [deep, u64::MAX, 0, 0, 0, 0, 0]);
        [x[5], x[6]]
    };
    let back = |done: u64| call_with(TAG_DEMOTE, [deep, LAZY + done, PAGES * PAGE - done, 0, 0, 0, 0]);
    if back(0)[0] as i64 == Error::Invalid as i64 {
        skip!("lazy memory is like backed memory here");
    }
    // Every other page, in a packed group: the map, then 128 bytes for each.
    let at = buffer(machine, 8 + PAGES / 2 * 128);
    write64(at, 0x5555);
    let packed = || copied(TAGS_COPY, [deep, LAZY, PAGES * PAGE, at, COPY_PACKED, 0, 0]);
    let (mut calls, begin) = (0, turned());
    loop {
        let ([before, _], end) = (turned(), packed().end);
        let [after, _] = turned();
        check!(after <= before + 1, "{} pages in a call", after - before);
        calls += 1;
        if end != CopyEnd::Moving as u64 {
            check_eq!(end, CopyEnd::Complete as u64, "the group is there");
            break;
        }
        check!(calls < 1000, "TAGS_COPY does not get on");
    }
    check_eq!(turned()[0] - begin[0], PAGES / 2, "pages turned tagged");
    let (mut done, mut calls) = (0, 0);
    while done < PAGES * PAGE {
        let x = back(done);
        check!(x[0] == 0 && x[2] <= 1, "TAG_DEMOTE at {done:#x}: {:#x}, {} pages", x[0], x[2]);
        (done, calls) = (done + x[1], calls + 1);
        check!(calls < 1000, "TAG_DEMOTE does not get on");
    }
    check_eq!(turned()[1] - begin[1], PAGES / 2, "pages turned back");
    Ok(())
}
