//! No data and no tags of one VM reach another, whatever happens to the memory: restarts, shared regions,
//! lazy memory, copies that are cut off. Only in a control VM, on a machine with the VMs `a` (MTE), `b` (MTE)
//! and `c` (no MTE), which do what they are told ([`modes::puppet`](crate::modes::puppet)).

use super::control::{call0, find, info};
use crate::harness::{Outcome, Stop, check, check_eq, skip, suite};
use crate::modes::puppet::{Act, Puppet};
use crate::rt::machine::Machine;
use crate::rt::mem::{read8, read64, write8, write64};
use crate::rt::smccc::call_with;
use crate::rt::timer::{self, PATIENCE};
use abi::hypercall::{
    COPY_FROM_GUEST, COPY_PACKED, Error, MEMORY_COPY, MIGRATE_COPY, TAG_DEMOTE, TAGS_COPY, TAGS_MAP,
    VM_RESTART, VmState,
};

suite!(
    "tags-isolation",
    false,
    [
        a_restart_forgets_all,
        a_copy_into_a_restart,
        shared_memory_without_mte,
        shared_memory_after_a_restart,
        lazy_memory_forgets_tags,
        memory_of_others_is_untouched,
        without_mte_nothing_shows,
    ]
);

/// Memory of every VM that its payload does not use, of 16 MiB.
const AREA: u64 = 0x40c0_0000;
const END: u64 = 0x4100_0000;
const PAGE: u64 = 4096;
const LAZY: u64 = 0x8000_0000;
const BOARD: u64 = 0xa800_0000;
const BOARD_SIZE: u64 = 64 << 10;
const SECRET: u64 = 0x5ec4_e75e_c4e7_5ec4;

struct Vms {
    a: Puppet,
    b: Puppet,
    c: Puppet,
}

fn vms(machine: &Machine) -> Result<Vms, Stop> {
    if machine.control.is_none() || find("a").is_none() {
        skip!("no VMs are called a, b and c");
    }
    let [a, b, c] = [("a", 0), ("b", 1), ("c", 2)].map(|(name, mail)| Puppet::find(machine, name, mail));
    let (Some(a), Some(b), Some(c)) = (a, b, c) else { skip!("not all of a, b and c are there") };
    for vm in [&a, &b, &c] {
        vm.answer()?;
        vm.must(Act::CountNot, AREA, AREA, 0)?;
    }
    Ok(Vms { a, b, c })
}

/// A page of this VM's for buffers.
fn buffer(machine: &Machine) -> u64 {
    let (start, size) = machine.memory()[0];
    start + size - (2 << 20)
}

/// Starts it again and waits until it answers.
fn restart(vm: &Puppet) -> Outcome {
    let before = info(vm.vm)?.starts;
    check_eq!(call0(VM_RESTART, vm.vm), 0, "VM_RESTART");
    await_start(vm, before)
}

fn await_start(vm: &Puppet, before: u64) -> Outcome {
    let running = || info(vm.vm).is_ok_and(|i| i.starts == before + 1 && i.state == VmState::Running as u64);
    check!(timer::wait(PATIENCE, running), "VM {} does not start again", vm.vm);
    // What it was told in its last life is answered when it is up.
    check!(timer::wait(PATIENCE, || vm.is_done()), "VM {} does not answer", vm.vm);
    Ok(())
}

/// All of the area of a VM, data and tags, by its own loads and by those of the hypervisor.
fn is_empty(machine: &Machine, vm: &Puppet, mte: bool) -> Outcome {
    vm.must(Act::CountNot, AREA, END, 0)?;
    let at = buffer(machine);
    if mte {
        vm.must(Act::CountOtherTags, AREA, END, 0)?;
        let mut done = 0;
        while done < END - AREA {
            let x = call_with(TAGS_MAP, [vm.vm, AREA + done, END - AREA - done, at, 0, 0, 0]);
            check!(x[0] == 0 && x[1] > 0, "TAGS_MAP: {:x?}", &x[..4]);
            let tagged = (at..at + x[3]).filter(|byte| read8(*byte) != 0).count();
            check_eq!(tagged, 0, "bytes of the map of tags from {:#x} on", AREA + done);
            done += x[1];
        }
    }
    for ipa in [AREA, END - PAGE] {
        let x = call_with(MEMORY_COPY, [vm.vm, ipa, PAGE, at, COPY_FROM_GUEST, 0, 0]);
        check_eq!(x[0], 0, "MEMORY_COPY");
        check!((at..at + PAGE).step_by(8).all(|word| read64(word) == 0), "data at {ipa:#x}");
    }
    Ok(())
}

/// T2.1, as frames stay with their VM: another life of it.
fn a_restart_forgets_all(machine: &Machine) -> Outcome {
    let vms = vms(machine)?;
    for (vm, mte) in [(&vms.a, true), (&vms.c, false)] {
        vm.must(Act::Fill, AREA, END, SECRET)?;
        if mte {
            vm.must(Act::Tag, AREA, END, 7)?;
        } else {
            vm.tell(Act::StoreEveryWay, AREA, AREA + PAGE, 7)?;
        }
        restart(vm)?;
        is_empty(machine, vm, mte)?;
    }
    Ok(())
}

/// Copies to a VM that go on while it stops, is prepared, and starts: none reaches its next life, but for
/// those behind its start.
fn a_copy_into_a_restart(machine: &Machine) -> Outcome {
    let vms = vms(machine)?;
    let at = buffer(machine);
    (at..at + (64 << 8)).for_each(|byte| write8(byte, 9));
    let (mut rounds, mut all) = (0, 0);
    for round in 0..80 {
        if rounds >= 4 && all > 0 {
            return Ok(());
        }
        let before = info(vms.a.vm)?.starts;
        check_eq!(call0(VM_RESTART, vms.a.vm), 0, "VM_RESTART");
        let (mut copies, mut refused, mut missed) = (0, 0, false);
        let over = timer::wait(PATIENCE, || {
            let state = info(vms.a.vm).map_or(0, |i| i.state);
            // Data, tags, and both, in turn, as long as it has not started.
            let x = match (copies + refused) % 3 {
                0 => call_with(TAGS_COPY, [vms.a.vm, AREA, 64 * PAGE, at, 0, 0, 0]),
                1 => call_with(MEMORY_COPY, [vms.a.vm, AREA, 64 * PAGE, at, 0, 0, 0]),
                _ => call_with(TAGS_COPY, [vms.a.vm, AREA + (1 << 20), 64 * PAGE, at, 0, 0, 0]),
            };
            if x[0] as i64 == Error::Busy as i64 {
                refused += 1;
            } else {
                copies += 1;
            }
            // This VM had no time while the other one was prepared: the last copy may be behind its start.
            missed = info(vms.a.vm).is_ok_and(|i| i.starts > before && i.state == VmState::Running as u64);
            missed || state != VmState::Stopping as u64 && x[0] as i64 == Error::Busy as i64
        });
        check!(over, "round {round}: neither refused nor started; {copies} copies");
        println!("# round {round}: {copies} copies, {refused} refused");
        // From the VM, without a pause, until it runs: its preparation ends all the same.
        let runs = timer::wait(PATIENCE, || {
            call_with(TAGS_COPY, [vms.a.vm, AREA, 64 * PAGE, at, COPY_FROM_GUEST, 0, 0]);
            info(vms.a.vm).is_ok_and(|i| i.starts > before && i.state == VmState::Running as u64)
        });
        check!(runs, "round {round}: copies keep the VM from its start");
        await_start(&vms.a, before)?;
        if !missed {
            is_empty(machine, &vms.a, true)?;
            rounds += 1;
            all += copies;
        }
    }
    check!(false, "{all} copies were in time, in {rounds} rounds");
    Ok(())
}

/// A VM with MTE off sees no tag, and cannot store one by any instruction: of memory that it shares with a
/// VM with MTE, the hypervisor reads the tags back.
fn shared_memory_without_mte(machine: &Machine) -> Outcome {
    let vms = vms(machine)?;
    let at = buffer(machine);
    vms.a.must(Act::Fill, BOARD, BOARD + BOARD_SIZE, SECRET)?;
    vms.a.must(Act::Tag, BOARD, BOARD + BOARD_SIZE, 7)?;
    vms.b.must(Act::CountOtherTags, BOARD, BOARD + BOARD_SIZE, 7)?;
    vms.b.must(Act::Checked, BOARD, BOARD + PAGE, 7)?;
    vms.c.must(Act::CountOtherWords, BOARD, BOARD + BOARD_SIZE, SECRET)?;
    vms.c.must(Act::CountOtherTags, BOARD, BOARD + BOARD_SIZE, 0)?;
    vms.c.tell(Act::StoreEveryWay, BOARD, BOARD + 2 * PAGE, 5)?;
    let x = call_with(TAGS_COPY, [vms.a.vm, BOARD, 2 * PAGE, at, COPY_FROM_GUEST, 0, 0]);
    check_eq!([x[0], x[1]], [0, 2 * PAGE], "TAGS_COPY");
    let changed = (at..at + 512).filter(|byte| read8(*byte) != 7).count();
    check_eq!(changed, 0, "tags that a VM without MTE stored");
    vms.b.must(Act::CountOtherTags, BOARD, BOARD + BOARD_SIZE, 7)?;
    // Its own memory, from outside: there are no tags to ask for.
    let x = call_with(TAGS_COPY, [vms.c.vm, AREA, PAGE, at, COPY_FROM_GUEST, 0, 0]);
    check_eq!(x[0] as i64, Error::Invalid as i64, "TAGS_COPY of a VM without MTE");
    let x = call_with(TAGS_COPY, [vms.c.vm, AREA, PAGE, at, 0, 0, 0]);
    check_eq!(x[0] as i64, Error::Invalid as i64, "TAGS_COPY to a VM without MTE");
    Ok(())
}

/// Shared memory outlives a VM; the VM's own does not.
fn shared_memory_after_a_restart(machine: &Machine) -> Outcome {
    let vms = vms(machine)?;
    vms.a.must(Act::Fill, BOARD, BOARD + BOARD_SIZE, 3)?;
    vms.a.must(Act::Tag, BOARD, BOARD + BOARD_SIZE, 3)?;
    vms.a.must(Act::Tag, AREA, AREA + PAGE, 3)?;
    restart(&vms.a)?;
    vms.a.must(Act::CountOtherTags, BOARD, BOARD + BOARD_SIZE, 3)?;
    vms.b.must(Act::CountOtherWords, BOARD, BOARD + BOARD_SIZE, 3)?;
    is_empty(machine, &vms.a, true)
}

/// What turned tagged and back has no tag of before when it turns tagged again; its data stays.
fn lazy_memory_forgets_tags(machine: &Machine) -> Outcome {
    let vms = vms(machine)?;
    let size = 16 * PAGE;
    vms.a.must(Act::Fill, LAZY, LAZY + size, SECRET)?;
    vms.a.must(Act::Tag, LAZY, LAZY + size, 11)?;
    let x = call_with(TAG_DEMOTE, [vms.a.vm, LAZY, size, 0, 0, 0, 0]);
    if x[0] as i64 == Error::Invalid as i64 {
        skip!("lazy memory is like backed memory here");
    }
    check_eq!([x[0], x[1]], [0, size], "TAG_DEMOTE");
    vms.a.must(Act::CountOtherWords, LAZY, LAZY + size, SECRET)?;
    vms.a.must(Act::CountOtherTags, LAZY, LAZY + size, 0)?;
    vms.a.must(Act::CountOtherWords, LAZY, LAZY + size, SECRET)?;
    // And its next life has neither.
    vms.a.must(Act::Tag, LAZY, LAZY + size, 12)?;
    restart(&vms.a)?;
    vms.a.must(Act::CountNot, LAZY, LAZY + size, 0)?;
    vms.a.must(Act::CountOtherTags, LAZY, LAZY + size, 0)
}

/// What is copied to one VM is in no other; a stream cut off in the middle changes whole pages only.
fn memory_of_others_is_untouched(machine: &Machine) -> Outcome {
    let vms = vms(machine)?;
    restart(&vms.b)?;
    restart(&vms.c)?;
    // Behind the buffer that looking at the others uses.
    let at = buffer(machine) + (1 << 20);
    vms.a.must(Act::Fill, AREA, AREA + 8 * PAGE, SECRET)?;
    vms.a.must(Act::Tag, AREA, AREA + 8 * PAGE, 7)?;
    let x = call_with(MIGRATE_COPY, [vms.a.vm, AREA, 8 * PAGE, at, 1 << 20, COPY_FROM_GUEST, 0]);
    check_eq!([x[0], x[1], x[3]], [0, 8 * PAGE, 8 * (PAGE + 136)], "MIGRATE_COPY");
    is_empty(machine, &vms.b, true)?;
    is_empty(machine, &vms.c, false)?;
    // Three pages and a half.
    let cut = 3 * (PAGE + 136) + 2000;
    let x = call_with(MIGRATE_COPY, [vms.b.vm, AREA, 8 * PAGE, at, cut, 0, 0]);
    check_eq!([x[0], x[1], x[3]], [0, 3 * PAGE, 3 * (PAGE + 136)], "a stream cut off");
    vms.b.must(Act::CountOtherWords, AREA, AREA + 3 * PAGE, SECRET)?;
    vms.b.must(Act::CountOtherTags, AREA, AREA + 3 * PAGE, 7)?;
    vms.b.must(Act::CountNot, AREA + 3 * PAGE, END, 0)?;
    vms.b.must(Act::CountOtherTags, AREA + 3 * PAGE, END, 0)?;
    // Tags for a VM without MTE stay away from it, and so does its data.
    let x = call_with(MIGRATE_COPY, [vms.c.vm, AREA, 8 * PAGE, at, PAGE + 136, 0, 0]);
    check_eq!(x[0] as i64, Error::NoTags as i64, "tags for a VM without MTE");
    is_empty(machine, &vms.c, false)?;
    write64(at, 0);
    let x = call_with(TAGS_COPY, [vms.b.vm, AREA, 3 * PAGE, at, COPY_PACKED, 0, 0]);
    check_eq!(x[0], 0, "zeros");
    vms.b.must(Act::CountOtherTags, AREA, END, 0)
}

/// T2.13: what the VM without MTE sees of itself.
fn without_mte_nothing_shows(machine: &Machine) -> Outcome {
    let vms = vms(machine)?;
    check!(vms.c.tell(Act::Level, 0, 0, 0)? < 2, "ID_AA64PFR1_EL1.MTE");
    vms.c.tell(Act::StoreEveryWay, AREA, AREA + PAGE, 5)?;
    vms.c.must(Act::CountOtherTags, AREA, AREA + PAGE, 0)
}
