//! Data, and data with tags.

use super::{
    AREA, BARE, Copied, INVALID, LAZY, PAGE, ROM, UNTOUCHED, buffer, complete, copied, differing, expect,
    fill, partial, refused, target,
};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::modes::puppet::{Act, Puppet};
use crate::rt::machine::Machine;
use crate::rt::mem::{read8, read64, write8, write64};
use crate::rt::timer::{self, PATIENCE};
use abi::hypercall::{
    COPY_FROM_GUEST, COPY_PACKED, CopyEnd, DEBUG_COPY, DEVICE_COPY, Error, MEMORY_COPY, MIGRATE_COPY,
};

fn bytes(n: u64) -> u8 {
    (n * 31 + 7) as u8
}

pub(super) fn memory_copy(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 3 * PAGE);
    let call = |ipa, length, flags| copied(MEMORY_COPY, [puppet.vm, ipa, length, at, flags, 0, 0]);
    puppet.must(Act::Fill, AREA, AREA + 3 * PAGE, 0x1234_5678)?;
    puppet.must(Act::Tag, AREA, AREA + 3 * PAGE, 9)?;
    expect("from", call(AREA + 5, 2 * PAGE + 1, COPY_FROM_GUEST), complete(2 * PAGE + 1, 2 * PAGE + 1))?;
    let word = |n: u64| ((AREA + n / 8 * 8) ^ 0x1234_5678).to_le_bytes()[n as usize % 8];
    check_eq!(differing(at, (5..2 * PAGE + 6).map(word).chain([UNTOUCHED])), 0, "bytes read");
    (0..PAGE).for_each(|n| write8(at + n, bytes(n)));
    expect("to", call(AREA + 100, PAGE, 0), complete(PAGE, PAGE))?;
    fill(at, 2 * PAGE);
    expect("and back", call(AREA + 99, PAGE + 2, COPY_FROM_GUEST), complete(PAGE + 2, PAGE + 2))?;
    let around = [word(99)].into_iter().chain((0..PAGE).map(bytes)).chain([word(PAGE + 100)]);
    check_eq!(differing(at, around), 0, "bytes written, and around them");
    puppet.must(Act::CountOtherTags, AREA, AREA + 3 * PAGE, 9)?;
    // A loader writes what the guest only reads.
    expect("read-only memory", call(ROM, 16, 0), complete(16, 16))?;
    expect("a hole", call(ROM + 2 * PAGE, 16, 0), refused(Error::Fault, CopyEnd::NoRegion))?;
    expect("up to a hole", call(ROM + PAGE, PAGE + 1, 1), partial(PAGE, CopyEnd::NoRegion, PAGE))?;
    expect("the UART", call(0x900_0000, 4, 1), refused(Error::Fault, CopyEnd::NoRegion))?;
    expect("wrong flags", call(AREA, 4, 2), INVALID)?;
    expect("wraps", call(u64::MAX, 4, 1), INVALID)?;
    expect("nothing", call(AREA, 0, 1), complete(0, 0))
}

pub(super) fn device_copy(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, PAGE);
    let call = |ipa, length, flags| copied(DEVICE_COPY, [puppet.vm, ipa, length, at, flags, 0, 0]);
    puppet.must(Act::Tag, AREA, AREA + PAGE, 9)?;
    (0..64).for_each(|n| write8(at + n, bytes(n)));
    expect("to tagged memory", call(AREA + 8, 64, 0), complete(64, 64))?;
    puppet.must(Act::CountOtherTags, AREA, AREA + PAGE, 9)?;
    fill(at, 64);
    expect("from it", call(AREA + 8, 64, COPY_FROM_GUEST), complete(64, 64))?;
    check_eq!(differing(at, (0..64).map(bytes)), 0, "bytes");
    expect("to read-only memory", call(ROM, 4, 0), refused(Error::Fault, CopyEnd::ReadOnly))?;
    expect("from read-only memory", call(ROM, 4, 1), complete(4, 4))?;
    expect("memory without tags", call(BARE, 4, 0), complete(4, 4))?;
    puppet.must(Act::Fill, LAZY, LAZY + 2 * PAGE, 5)?;
    puppet.must(Act::Tag, LAZY + PAGE, LAZY + 2 * PAGE, 5)?;
    expect("lazy memory", call(LAZY + PAGE - 8, 16, COPY_FROM_GUEST), complete(16, 16))?;
    check_eq!(read64(at), (LAZY + PAGE - 8) ^ 5, "data of lazy memory");
    expect("lazy memory", call(LAZY + PAGE, 16, 0), complete(16, 16))?;
    puppet.must(Act::CountOtherTags, LAZY + PAGE, LAZY + 2 * PAGE, 5)
}

/// A call until the vCPU's registers are known.
fn by_va(vm: u64, va: u64, length: u64, at: u64, flags: u64) -> Copied {
    let mut last = INVALID;
    timer::wait(PATIENCE, || {
        last = copied(DEBUG_COPY, [vm, 0, va, length, at, flags, 0]);
        last.x0 != Error::Busy as i64
    });
    last
}

pub(super) fn debug_copy(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, PAGE);
    puppet.must(Act::Fill, AREA, AREA + 2 * PAGE, 77)?;
    puppet.must(Act::Tag, AREA, AREA + 2 * PAGE, 9)?;
    let word = |n: u64| ((AREA + n / 8 * 8) ^ 77).to_le_bytes()[n as usize % 8];
    // The target's windows: the same memory at other addresses, some with tags in them.
    for va in [AREA, crate::rt::mmu::tagged(AREA), crate::rt::mmu::tagged(AREA) | 3 << 56] {
        fill(at, 64);
        expect("from", by_va(puppet.vm, va + PAGE - 8, 64, at, COPY_FROM_GUEST), complete(64, 64))?;
        check_eq!(differing(at, (PAGE - 8..PAGE + 56).map(word)), 0, "bytes at VA {va:#x}");
    }
    (0..64).for_each(|n| write8(at + n, bytes(n)));
    expect("to", by_va(puppet.vm, crate::rt::mmu::tagged(AREA) + 8, 64, at, 0), complete(64, 64))?;
    puppet.must(Act::CountOtherTags, AREA, AREA + 2 * PAGE, 9)?;
    check_eq!(puppet.tell(Act::CountOtherWords, AREA, AREA + PAGE, 77)?, 8, "words that changed");
    let unmapped = refused(Error::Fault, CopyEnd::Unmapped);
    expect("an unmapped VA", by_va(puppet.vm, 1 << 40, 8, at, 1), unmapped)?;
    expect("no such vCPU", copied(DEBUG_COPY, [puppet.vm, 9, AREA, 8, at, 1, 0]), INVALID)?;
    if let Some(secret) = Puppet::find(machine, "plain", 1) {
        let denied = refused(Error::Denied, CopyEnd::Complete);
        expect("debug = false", copied(DEBUG_COPY, [secret.vm, 0, AREA, 8, at, 1, 0]), denied)?;
    }
    Ok(())
}

/// T2.12: data and tags go to another VM, which checks them.
pub(super) fn migrate(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let Some(twin) = Puppet::find(machine, "twin", 2) else { skip!("no VM is called twin") };
    const PAGES: u64 = 40;
    let space = PAGES * (PAGE + 136);
    let at = buffer(machine, space);
    puppet.must(Act::Fill, AREA, AREA + PAGES * PAGE, 0x77)?;
    puppet.must(Act::Tag, AREA, AREA + PAGES * PAGE, 0)?;
    for page in (0..PAGES).step_by(3) {
        puppet.must(Act::Tag, AREA + page * PAGE, AREA + (page + 1) * PAGE, page % 15 + 1)?;
    }
    twin.must(Act::Tag, AREA, AREA + PAGES * PAGE, 8)?;
    let (mut done, mut used) = (0, 0);
    while done < PAGES * PAGE {
        let x = [puppet.vm, AREA + done, PAGES * PAGE - done, at + used, space - used, COPY_FROM_GUEST, 0];
        let step = copied(MIGRATE_COPY, x);
        check!(step.x0 == 0 && step.done > 0, "from: {step:?}");
        (done, used) = (done + step.done, used + step.used);
    }
    check_eq!(used, PAGES * (PAGE + 8) + PAGES.div_ceil(3) * 128, "bytes of the stream");
    let mut eaten = 0;
    while eaten < used {
        let step = copied(MIGRATE_COPY, [twin.vm, AREA, PAGES * PAGE, at + eaten, used - eaten, 0, 0]);
        check!(step.x0 == 0 && step.used > 0, "to: {step:?}");
        eaten += step.used;
    }
    twin.must(Act::CountOtherWords, AREA, AREA + PAGES * PAGE, 0x77)?;
    for page in 0..PAGES {
        let tag = if page % 3 == 0 { page % 15 + 1 } else { 0 };
        twin.must(Act::CountOtherTags, AREA + page * PAGE, AREA + (page + 1) * PAGE, tag)?;
        twin.must(Act::Checked, AREA + page * PAGE, AREA + page * PAGE + 256, tag)?;
    }
    Ok(())
}

/// Streams that no copy wrote, and buffers that are too small.
pub(super) fn migrate_hostile(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 3 * PAGE);
    let call = |space, flags| copied(MIGRATE_COPY, [puppet.vm, AREA, PAGE, at, space, flags, 0]);
    puppet.must(Act::Fill, AREA, AREA + PAGE, 1)?;
    puppet.must(Act::Tag, AREA, AREA + PAGE, 9)?;
    expect("little space", call(PAGE + 135, 1), refused(Error::Fault, CopyEnd::Buffer))?;
    expect("enough", call(PAGE + 136, 1), complete(PAGE, PAGE + 136))?;
    check_eq!(read64(at), AREA | 1, "the record");
    check_eq!(read8(at + 8 + PAGE), 0x99, "its tags");
    let wrong = refused(Error::Invalid, CopyEnd::Stream);
    for head in [AREA | 2, AREA | 8, AREA + PAGE, AREA - PAGE, AREA | 1 << 52, u64::MAX] {
        write64(at, head);
        expect("a record that makes no sense", call(PAGE + 136, 0), wrong)?;
    }
    write64(at, AREA | 1);
    expect("a record cut short", call(PAGE + 135, 0), wrong)?;
    expect("less than a record", call(7, 0), wrong)?;
    expect("no record", call(0, 0), complete(0, 0))?;
    puppet.must(Act::CountOtherWords, AREA, AREA + PAGE, 1)?;
    puppet.must(Act::CountOtherTags, AREA, AREA + PAGE, 9)?;
    expect("wrong flags", call(PAGE, COPY_PACKED), INVALID)?;
    expect("wrong flags", call(PAGE, 4), INVALID)
}
