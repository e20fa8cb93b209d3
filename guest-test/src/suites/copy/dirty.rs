//! The dirty log.

use super::{
    AREA, Copied, INVALID, LAZY, PAGE, ROM, buffer, complete, copied, expect, fill, refused, target,
};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::modes::puppet::{Act, Puppet};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write8};
use abi::hypercall::{
    COPY_DIRTY, COPY_FROM_GUEST, CopyEnd, DEVICE_COPY, DIRTY_LOG, DirtyOp, Error, MIGRATE_COPY, TAGS_COPY,
};

fn call(vm: u64, op: DirtyOp, ipa: u64, length: u64, at: u64) -> Copied {
    copied(DIRTY_LOG, [vm, op as u64, ipa, length, at, 0, 0])
}

/// The log of `pages` pages from `ipa` on begins anew.
fn start(vm: u64, ipa: u64, pages: u64) -> Outcome {
    let mut done = 0;
    while done < pages * PAGE {
        let step = call(vm, DirtyOp::Start, ipa + done, pages * PAGE - done, 0);
        check!(step.x0 == 0 && step.done > 0, "start: {step:?}");
        done += step.done;
    }
    Ok(())
}

/// The log of 64 pages, cleared.
fn take(machine: &Machine, vm: u64, ipa: u64) -> Result<u64, crate::harness::Stop> {
    let at = buffer(machine, 8);
    expect("get and clear", call(vm, DirtyOp::GetAndClear, ipa, 64 * PAGE, at), complete(64 * PAGE, 8))?;
    Ok(read64(at))
}

pub(super) fn stores_dirty_pages(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    start(puppet.vm, AREA, 1024)?;
    check_eq!(take(machine, puppet.vm, AREA)?, 0, "nothing was written");
    for page in [0, 5, 63] {
        puppet.must(Act::Fill, AREA + page * PAGE, AREA + page * PAGE + 16, 1)?;
    }
    puppet.must(Act::CountOtherWords, AREA, AREA + 16, 1)?;
    let at = buffer(machine, 8);
    expect("get", call(puppet.vm, DirtyOp::Get, AREA, 64 * PAGE, at), complete(64 * PAGE, 8))?;
    check_eq!(read64(at), 1 | 1 << 5 | 1 << 63, "three pages");
    check_eq!(take(machine, puppet.vm, AREA)?, 1 | 1 << 5 | 1 << 63, "the same");
    check_eq!(take(machine, puppet.vm, AREA)?, 0, "and no more");
    puppet.must(Act::Fill, AREA + 5 * PAGE, AREA + 5 * PAGE + 16, 2)?;
    check_eq!(take(machine, puppet.vm, AREA)?, 1 << 5, "written again");
    // A range that begins and ends anywhere.
    puppet.must(Act::Fill, AREA + 70 * PAGE, AREA + 90 * PAGE, 3)?;
    expect("get", call(puppet.vm, DirtyOp::Get, AREA + 68 * PAGE, 70 * PAGE, at), complete(70 * PAGE, 16))?;
    check_eq!(read64(at), 0xf_ffff << 2, "twenty pages");
    stop(puppet.vm)?;
    puppet.must(Act::Fill, AREA, AREA + 512 * PAGE, 4)?;
    puppet.must(Act::CountOtherWords, AREA, AREA + 512 * PAGE, 4)
}

fn stop(vm: u64) -> Outcome {
    expect("stop", call(vm, DirtyOp::Stop, 0, 0, 0), complete(0, 0))
}

pub(super) fn tag_stores_dirty_pages(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    start(puppet.vm, AREA, 64)?;
    puppet.must(Act::Tag, AREA + 7 * PAGE, AREA + 7 * PAGE + 16, 3)?;
    puppet.must(Act::CountOtherTags, AREA, AREA + PAGE, 0).ok();
    check_eq!(take(machine, puppet.vm, AREA)?, 1 << 7, "a page whose tag was stored");
    puppet.must(Act::CountOtherTags, AREA + 7 * PAGE, AREA + 7 * PAGE + 16, 3)?;
    stop(puppet.vm)?;
    // Lazy memory that turns tagged while the log is on.
    start(puppet.vm, LAZY, 64)?;
    puppet.must(Act::Tag, LAZY + 9 * PAGE, LAZY + 9 * PAGE + 16, 3)?;
    puppet.must(Act::Fill, LAZY + 11 * PAGE, LAZY + 11 * PAGE + 16, 3)?;
    check_eq!(take(machine, puppet.vm, LAZY)?, 1 << 9 | 1 << 11, "lazy memory");
    puppet.must(Act::CountOtherTags, LAZY + 9 * PAGE, LAZY + 9 * PAGE + 16, 3)?;
    stop(puppet.vm)
}

/// Cache maintenance changes no data, so it dirties nothing, though DC IVAC needs write permission; but a
/// page of tables is dirty in which hardware sets a flag for it, and that is no fault either.
pub(super) fn maintenance_dirties_nothing(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let pages = |from: u64, to: u64| (AREA + from * PAGE, AREA + to * PAGE);
    let (first, last) = pages(0, 8);
    puppet.must(Act::Fill, first, last, 9)?;
    start(puppet.vm, AREA, 64)?;
    puppet.must(Act::Invalidate, first, last, 0)?;
    check_eq!(take(machine, puppet.vm, AREA)?, 0, "DC IVAC of clean pages");
    puppet.must(Act::Fill, first, first + 16, 9)?;
    puppet.must(Act::Invalidate, first, last, 0)?;
    check_eq!(take(machine, puppet.vm, AREA)?, 1, "of a page that was written");
    puppet.must(Act::CountOtherWords, first, last, 9)?;
    let (tables, end) = pages(10, 12);
    for access in [0, 1] {
        puppet.must(Act::Tables, tables, end, 0)?;
        check_eq!(take(machine, puppet.vm, AREA)?, 0b11 << 10, "tables");
        let flag = puppet.tell(Act::ByTables, tables, end, access)?;
        check!(flag < 2, "access {access} by tables that are logged faults");
        check!(access == 0 || flag == 1, "the access flag after a load");
        check_eq!(take(machine, puppet.vm, AREA)?, flag << 11, "the access flag");
    }
    stop(puppet.vm)
}

pub(super) fn copies_dirty_pages(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    start(puppet.vm, AREA, 64)?;
    let at = buffer(machine, 256);
    let from = copied(TAGS_COPY, [puppet.vm, AREA, PAGE, at, COPY_FROM_GUEST, 0, 0]);
    expect("tags from", from, complete(PAGE, 256))?;
    check_eq!(take(machine, puppet.vm, AREA)?, 0, "after reading");
    fill(at, 256);
    let to = copied(TAGS_COPY, [puppet.vm, AREA + PAGE, PAGE, at, 0, 0, 0]);
    expect("tags to", to, complete(PAGE, 256))?;
    let data = copied(DEVICE_COPY, [puppet.vm, AREA + 3 * PAGE - 8, 16, at, 0, 0, 0]);
    expect("data to", data, complete(16, 16))?;
    check_eq!(take(machine, puppet.vm, AREA)?, 0b1110, "pages that a copy wrote");
    stop(puppet.vm)
}

pub(super) fn wrong_arguments(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 8);
    let off = refused(Error::Busy, CopyEnd::Complete);
    expect("get of a log that is off", call(puppet.vm, DirtyOp::Get, AREA, PAGE, at), off)?;
    expect("no operation", copied(DIRTY_LOG, [puppet.vm, 4, AREA, PAGE, at, 0, 0]), INVALID)?;
    for (ipa, length) in [(AREA + 16, PAGE), (AREA, 16), (AREA, 0), (ROM, 3 * PAGE), (AREA, 1 << 40)] {
        expect("a wrong range", call(puppet.vm, DirtyOp::Start, ipa, length, at), INVALID)?;
    }
    start(puppet.vm, AREA, 1)?;
    puppet.must(Act::Fill, AREA, AREA + 16, 1)?;
    let fault = refused(Error::Fault, CopyEnd::Buffer);
    let clear = |at| call(puppet.vm, DirtyOp::GetAndClear, AREA, 64 * PAGE, at);
    expect("a buffer nowhere", clear(machine.absent()), fault)?;
    let (start, size) = machine.memory()[0];
    expect("a buffer that ends", clear(start + size - 4), fault)?;
    check_eq!(take(machine, puppet.vm, AREA)? & 1, 1, "the page is still dirty");
    stop(puppet.vm)
}

/// Rounds of a migration while the guest writes: in the end all is the same on the other side.
pub(super) fn migrate_while_it_writes(machine: &Machine) -> Outcome {
    const PAGES: u64 = 64;
    let puppet = target(machine)?;
    let Some(twin) = Puppet::find(machine, "twin", 2) else { skip!("no VM is called twin") };
    let space = PAGES * (PAGE + 136);
    let at = buffer(machine, 8);
    puppet.must(Act::Fill, AREA, AREA + PAGES * PAGE, 5)?;
    puppet.must(Act::Tag, AREA, AREA + PAGES * PAGE, 5)?;
    start(puppet.vm, AREA, PAGES)?;
    // All at first, then what was written since, until the guest is quiet.
    let mut flags = COPY_FROM_GUEST;
    let mut rounds = 0;
    let mut acts = [Act::Fill, Act::Tag, Act::Fill, Act::Tag].into_iter();
    loop {
        let mut quiet = puppet.is_done();
        if quiet && let Some(act) = acts.next() {
            puppet.begin(act, AREA, AREA + PAGES * PAGE, 6);
            quiet = false;
        }
        let (mut done, mut used) = (0, 0);
        while done < PAGES * PAGE {
            let x = [puppet.vm, AREA + done, PAGES * PAGE - done, at + used, space - used, flags, 0];
            let step = copied(MIGRATE_COPY, x);
            check!(step.x0 == 0, "from: {step:?}");
            (done, used) = (done + step.done, used + step.used);
            if step.end == CopyEnd::More as u64 && step.done == 0 {
                break;
            }
        }
        let mut eaten = 0;
        while eaten < used {
            let step = copied(MIGRATE_COPY, [twin.vm, AREA, PAGES * PAGE, at + eaten, used - eaten, 0, 0]);
            check!(step.x0 == 0 && step.used > 0, "to: {step:?}");
            eaten += step.used;
        }
        flags = COPY_FROM_GUEST | COPY_DIRTY;
        rounds += 1;
        // This round began when nothing was written any more.
        if quiet {
            break;
        }
    }
    println!("# {rounds} rounds");
    puppet.answer()?;
    twin.must(Act::CountOtherWords, AREA, AREA + PAGES * PAGE, 6)?;
    twin.must(Act::CountOtherTags, AREA, AREA + PAGES * PAGE, 6)?;
    write8(at, 0);
    stop(puppet.vm)
}
