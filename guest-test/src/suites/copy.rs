//! Copying tags and memory of another VM: only in a control VM, on a machine that has the VM `target`,
//! which does what it is told ([`modes::puppet`](crate::modes::puppet)). Numbers like T2.6 are those of
//! the list in `docs/testing.md`.

use crate::harness::{Message, Outcome, Stop, check, check_eq, skip, suite};
use crate::modes::puppet::{Act, Puppet};
use crate::rt::machine::Machine;
use crate::rt::mem::{read8, write8, write64};
use crate::rt::smccc::call_with;
use crate::rt::{mmu, mte};
use abi::hypercall::{
    COPY_FROM_GUEST, COPY_PACKED, CopyEnd, DEVICE_COPY, Error, MEMORY_COPY, TAG_STATS, TAGS_COPY, TAGS_MAP,
};

mod data;
mod demote;
mod dirty;
pub(super) mod moving;
mod packed;

use data::{debug_copy, device_copy, memory_copy, migrate, migrate_hostile};
use demote::{demote_loses_no_tag, demote_saves_tags, map_of_tagged_pages, while_lazy_memory_changes};
use dirty::{
    copies_dirty_pages, maintenance_dirties_nothing, migrate_while_it_writes, stores_dirty_pages,
    tag_stores_dirty_pages, wrong_arguments,
};
use packed::{map_of_tags, packed, packed_without_sense};

suite!(
    "tags-copy",
    false,
    [
        tags_from_guest,
        tags_to_guest,
        arguments,
        ends_at_a_hole,
        begins_in_a_hole,
        buffer_ends_within_a_page,
        wrong_buffers,
        read_only_memory,
        never_touched,
        memory_without_tags,
        packed,
        packed_without_sense,
        map_of_tags,
        map_of_tagged_pages,
        long_ranges_go_on,
        hostile_tags_in_the_buffer,
        while_it_stores_tags,
        wrong_callers,
        memory_copy,
        device_copy,
        debug_copy,
        migrate,
        migrate_hostile,
        stores_dirty_pages,
        tag_stores_dirty_pages,
        copies_dirty_pages,
        maintenance_dirties_nothing,
        wrong_arguments,
        migrate_while_it_writes,
        demote_saves_tags,
        demote_loses_no_tag,
        while_lazy_memory_changes,
    ]
);

/// Where the target's tests happen: the end of its 16 MiB of RAM.
const AREA: u64 = 0x40c0_0000;
const PAGE: u64 = 4096;
/// Its regions.
const LAZY: u64 = 0x8000_0000;
const BARE: u64 = 0x8800_0000;
const ROM: u64 = 0x9000_0000;
const ROM_SIZE: u64 = 2 * PAGE;
/// What a buffer holds before.
const UNTOUCHED: u8 = 0xee;

/// What a call of this family says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Copied {
    x0: i64,
    done: u64,
    end: u64,
    used: u64,
}

const fn complete(done: u64, used: u64) -> Copied {
    Copied { x0: 0, done, end: CopyEnd::Complete as u64, used }
}

const fn partial(done: u64, end: CopyEnd, used: u64) -> Copied {
    Copied { x0: 0, done, end: end as u64, used }
}

const fn refused(error: Error, end: CopyEnd) -> Copied {
    Copied { x0: error as i64, done: 0, end: end as u64, used: 0 }
}

const INVALID: Copied = refused(Error::Invalid, CopyEnd::Complete);

fn copied(id: u32, x: [u64; 7]) -> Copied {
    let x = call_with(id, x);
    Copied { x0: x[0] as i64, done: x[1], end: x[2], used: x[3] }
}

fn from(vm: u64, ipa: u64, length: u64, buffer: u64) -> Copied {
    copied(TAGS_COPY, [vm, ipa, length, buffer, COPY_FROM_GUEST, 0, 0])
}

fn to(vm: u64, ipa: u64, length: u64, buffer: u64) -> Copied {
    copied(TAGS_COPY, [vm, ipa, length, buffer, 0, 0, 0])
}

fn target(machine: &Machine) -> Result<Puppet, Stop> {
    if machine.control.is_none() {
        skip!("this is no control VM");
    }
    match Puppet::find(machine, "target", 0) {
        Some(puppet) => {
            puppet.tell(Act::CountNot, AREA, AREA, 0)?;
            Ok(puppet)
        }
        None => skip!("no VM is called target"),
    }
}

/// A buffer in this VM's RAM, far behind the payload: `size` bytes, all [`UNTOUCHED`].
fn buffer(machine: &Machine, size: u64) -> u64 {
    let (start, memory) = machine.memory()[0];
    let at = start + memory - (2 << 20);
    fill(at, size + 64);
    at
}

fn fill(at: u64, size: u64) {
    (at..at + size).for_each(|byte| write8(byte, UNTOUCHED));
}

/// Bytes that are not what they should be.
fn differing(at: u64, bytes: impl Iterator<Item = u8>) -> usize {
    bytes.zip(at..).filter(|(byte, at)| read8(*at) != *byte).count()
}

/// The tag that tests give to a granule.
const fn pattern(granule: u64) -> u8 {
    (granule * 7 % 15 + 1) as u8
}

/// Tags page *n* of the area *n* + 1.
fn tag_pages(puppet: &Puppet, pages: u64) -> Outcome {
    for page in 0..pages {
        puppet.must(Act::Tag, AREA + page * PAGE, AREA + (page + 1) * PAGE, page % 15 + 1)?;
    }
    Ok(())
}

fn tags_from_guest(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 5 * 256);
    tag_pages(&puppet, 5)?;
    check_eq!(from(puppet.vm, AREA, 5 * PAGE, at), complete(5 * PAGE, 5 * 256), "five pages");
    let expected = (0..5_u8).flat_map(|page| core::iter::repeat_n(page % 15 + 1, 256));
    check_eq!(differing(at, expected.chain([UNTOUCHED; 64])), 0, "bytes of the buffer");
    check_eq!(from(puppet.vm, AREA, 0, at), complete(0, 0), "T2.9: nothing");
    Ok(())
}

fn tags_to_guest(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 512);
    // The high nibbles do not count.
    (0..512).for_each(|granule| write8(at + granule, pattern(granule) | 0xa0));
    check_eq!(to(puppet.vm, AREA, 2 * PAGE, at), complete(2 * PAGE, 512), "two pages");
    for granule in (0..512).step_by(37) {
        let (ipa, tag) = (AREA + granule * 16, u64::from(pattern(granule)));
        puppet.must(Act::CountOtherTags, ipa, ipa + 16, tag)?;
        puppet.must(Act::Checked, ipa, ipa + 16, tag)?;
        check_eq!(puppet.tell(Act::Checked, ipa, ipa + 16, tag ^ 1)?, 1, "a checked access by another tag");
    }
    fill(at, 512);
    check_eq!(from(puppet.vm, AREA, 2 * PAGE, at), complete(2 * PAGE, 512), "and back");
    check_eq!(differing(at, (0..512).map(pattern)), 0, "tags that came back");
    Ok(())
}

/// T2.9.
fn arguments(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 512);
    let call = |x: [u64; 7]| copied(TAGS_COPY, x);
    let vm = puppet.vm;
    let wrong = [
        [vm, AREA + 16, PAGE, at, 1, 0, 0],
        [vm, AREA, 16, at, 1, 0, 0],
        [vm, AREA, PAGE + 16, at, 1, 0, 0],
        [vm, 0_u64.wrapping_sub(PAGE), 2 * PAGE, at, 1, 0, 0],
        [vm, AREA, 1 << 31, at, 1, 0, 0],
        [vm, AREA, 1 << 63, at, 1, 0, 0],
        [vm, AREA, PAGE, at, 4, 0, 0],
        [vm, AREA, PAGE, at, 1 << 32, 0, 0],
        [vm, AREA, PAGE, at, 1, 1, 0],
        [vm, AREA, PAGE, at, 1, 0, 1 << 63],
        [vm, AREA, PAGE, u64::MAX - 16, 1, 0, 0],
        [1 << 40, AREA, PAGE, at, 1, 0, 0],
    ];
    for x in wrong {
        check_eq!(call(x), INVALID, "TAGS_COPY{x:x?}");
    }
    check_eq!(differing(at, [UNTOUCHED; 512].into_iter()), 0, "the buffer");
    if let Some(plain) = Puppet::find(machine, "plain", 1) {
        check_eq!(call([plain.vm, AREA, PAGE, at, 1, 0, 0]), INVALID, "a VM without MTE");
    }
    Ok(())
}

/// T2.6.
fn ends_at_a_hole(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 3 * 256);
    let read = from(puppet.vm, ROM, 3 * PAGE, at);
    check_eq!(read, partial(2 * PAGE, CopyEnd::NoRegion, 512), "three pages, the third nowhere");
    check_eq!(differing(at + 512, [UNTOUCHED; 256].into_iter()), 0, "bytes for the third page");
    check!(differing(at, [0; 512].into_iter()) == 0, "tags of read-only memory");
    Ok(())
}

/// T2.7.
fn begins_in_a_hole(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 256);
    let fault = refused(Error::Fault, CopyEnd::NoRegion);
    check_eq!(from(puppet.vm, ROM + ROM_SIZE, PAGE, at), fault, "nowhere, from");
    check_eq!(to(puppet.vm, ROM + ROM_SIZE, PAGE, at), fault, "nowhere, to");
    check_eq!(from(puppet.vm, 0x900_0000, PAGE, at), fault, "the UART");
    check_eq!(from(puppet.vm, 1 << 50, PAGE, at), fault, "beyond all IPAs");
    check_eq!(differing(at, [UNTOUCHED; 256].into_iter()), 0, "the buffer");
    Ok(())
}

/// T2.8.
fn buffer_ends_within_a_page(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let (start, size) = machine.memory()[0];
    let at = start + size - 256 - 100;
    (at..start + size).for_each(|byte| write8(byte, 3));
    puppet.must(Act::Tag, AREA, AREA + 3 * PAGE, 9)?;
    let end = partial(PAGE, CopyEnd::Buffer, 256);
    check_eq!(to(puppet.vm, AREA, 3 * PAGE, at), end, "a buffer of a page and 100 tags");
    puppet.must(Act::CountOtherTags, AREA, AREA + PAGE, 3)?;
    puppet.must(Act::CountOtherTags, AREA + PAGE, AREA + 2 * PAGE, 0)?;
    puppet.must(Act::CountOtherTags, AREA + 2 * PAGE, AREA + 3 * PAGE, 9)?;
    puppet.must(Act::Tag, AREA, AREA + 3 * PAGE, 9)?;
    check_eq!(from(puppet.vm, AREA, 3 * PAGE, at), end, "the same from the guest");
    check_eq!(differing(at, [9; 256].into_iter()), 0, "the page that fits");
    // A packed page that ends there, too.
    write64(start + size - 16, 1);
    let packed = |flags| copied(TAGS_COPY, [puppet.vm, AREA, PAGE, start + size - 16, flags, 0, 0]);
    let buffer = refused(Error::Fault, CopyEnd::Buffer);
    check_eq!(packed(COPY_PACKED), buffer, "packed, to");
    puppet.must(Act::CountOtherTags, AREA, AREA + PAGE, 0)?;
    puppet.must(Act::Tag, AREA, AREA + PAGE, 9)?;
    check_eq!(packed(COPY_PACKED | COPY_FROM_GUEST), buffer, "packed, from");
    Ok(())
}

fn wrong_buffers(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    puppet.must(Act::Tag, AREA, AREA + PAGE, 9)?;
    let rom = machine.region_called("rom").map(|r| r.start);
    let mail = machine.region_called("mail").map(|r| r.start + PAGE);
    let fault = refused(Error::Fault, CopyEnd::Buffer);
    for at in [Some(machine.absent()), Some(0x900_0000), Some(0x800_0000), mail, rom, Some(1 << 50)] {
        let Some(at) = at else { continue };
        check_eq!(from(puppet.vm, AREA, PAGE, at), fault, "TAGS_COPY from, to a buffer at {at:#x}");
        check_eq!(copied(TAGS_MAP, [puppet.vm, AREA, PAGE, at, 0, 0, 0]), fault, "TAGS_MAP to {at:#x}");
        let data = copied(MEMORY_COPY, [puppet.vm, AREA, PAGE, at, COPY_FROM_GUEST, 0, 0]);
        check_eq!(data, fault, "MEMORY_COPY to {at:#x}");
    }
    if let Some(rom) = rom {
        check_eq!(to(puppet.vm, AREA, PAGE, rom), complete(PAGE, 256), "a read-only buffer to read from");
    }
    if let Some(mail) = mail {
        // Memory that the target sees, too: the buffer would overlap what is copied.
        check_eq!(to(puppet.vm, AREA, PAGE, mail), fault, "a shared buffer");
        puppet.must(Act::CountOtherTags, AREA, AREA + PAGE, 0)?;
    }
    Ok(())
}

/// T2.10.
fn read_only_memory(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 256);
    check_eq!(to(puppet.vm, ROM, PAGE, at), refused(Error::Fault, CopyEnd::ReadOnly), "to");
    check_eq!(from(puppet.vm, ROM, PAGE, at), complete(PAGE, 256), "from");
    check_eq!(differing(at, [0; 256].into_iter()), 0, "its tags");
    Ok(())
}

/// T2.11.
fn never_touched(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 512);
    let promoted = || call_with(TAG_STATS, [puppet.vm, u64::MAX, 0, 0, 0, 0, 0])[5];
    let before = promoted();
    check_eq!(from(puppet.vm, LAZY, 2 * PAGE, at), complete(2 * PAGE, 512), "lazy memory");
    check_eq!(differing(at, [0; 512].into_iter()), 0, "its tags");
    check_eq!(to(puppet.vm, LAZY, 2 * PAGE, at), complete(2 * PAGE, 512), "zeros to lazy memory");
    check_eq!(promoted(), before, "pages that turned tagged");
    Ok(())
}

fn memory_without_tags(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 256);
    let none = refused(Error::NoTags, CopyEnd::NoTags);
    check_eq!(from(puppet.vm, BARE, PAGE, at), none, "from");
    check_eq!(to(puppet.vm, BARE, PAGE, at), none, "to");
    check_eq!(copied(TAGS_MAP, [puppet.vm, BARE, PAGE, at, 0, 0, 0]), none, "map");
    // Lazy memory has tags as soon as one is not 0.
    (0..256).for_each(|granule| write8(at + granule, pattern(granule)));
    check_eq!(to(puppet.vm, LAZY + 4 * PAGE, PAGE, at), complete(PAGE, 256), "tags for lazy memory");
    puppet.must(Act::Checked, LAZY + 4 * PAGE, LAZY + 4 * PAGE + 16, u64::from(pattern(0)))?;
    Ok(())
}

/// A call does so much and says so.
fn long_ranges_go_on(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 256 * 256);
    puppet.must(Act::Tag, AREA, AREA + 256 * PAGE, 2)?;
    let (mut done, mut calls) = (0, 0);
    while done < 256 * PAGE {
        let step = from(puppet.vm, AREA + done, 256 * PAGE - done, at + done / 16);
        let end = if done + step.done < 256 * PAGE { CopyEnd::More } else { CopyEnd::Complete };
        check_eq!(step, partial(step.done, end, step.done / 16), "a step");
        check!(step.done > 0, "a step without progress");
        done += step.done;
        calls += 1;
    }
    check!(calls > 1, "one call for a megabyte");
    check_eq!(differing(at, core::iter::repeat_n(2, 256 * 256)), 0, "all tags");
    Ok(())
}

/// T2.14: the hypervisor's own accesses are not checked by the caller's tags.
fn hostile_tags_in_the_buffer(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    if mte::level() < 2 {
        skip!("no MTE here");
    }
    let at = buffer(machine, 1024);
    for page in [at, at + PAGE] {
        (page..page + PAGE).step_by(16).for_each(|pa| mte::stg(mte::with_tag(mmu::tagged(pa), 11)));
    }
    puppet.must(Act::Tag, AREA, AREA + 4 * PAGE, 13)?;
    check_eq!(from(puppet.vm, AREA, 4 * PAGE, at), complete(4 * PAGE, 1024), "from");
    check_eq!(differing(at, [13; 1024].into_iter()), 0, "tags");
    check_eq!(to(puppet.vm, AREA, 4 * PAGE, at), complete(4 * PAGE, 1024), "to");
    check_eq!(mte::ldg(mmu::tagged(at)), 11, "the tags of the buffer");
    let data = copied(DEVICE_COPY, [puppet.vm, AREA, 64, at, COPY_FROM_GUEST, 0, 0]);
    check_eq!(data, complete(64, 64), "data of tagged memory");
    (at..at + 2 * PAGE).step_by(16).for_each(|pa| mte::stg(mmu::tagged(pa)));
    Ok(())
}

/// Copies while the target's vCPU stores tags: each granule has an old or a new tag, and nothing else
/// changes.
fn while_it_stores_tags(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 32 * 256);
    puppet.must(Act::Tag, AREA, AREA + 32 * PAGE, 1)?;
    let mut rounds = 0;
    for tag in [2_u8, 1, 2, 1] {
        puppet.begin(Act::Tag, AREA, AREA + 32 * PAGE, tag.into());
        loop {
            let over = puppet.is_done();
            check_eq!(from(puppet.vm, AREA, 32 * PAGE, at), complete(32 * PAGE, 32 * 256), "32 pages");
            let others = (at..at + 32 * 256).filter(|byte| !(1..=2).contains(&read8(*byte))).count();
            check_eq!(others, 0, "tags that nobody stored");
            rounds += 1;
            if over {
                break;
            }
        }
        check_eq!(differing(at, core::iter::repeat_n(tag, 32 * 256)), 0, "tags afterwards");
    }
    println!("# {rounds} copies meanwhile");
    puppet.answer().map(drop)
}

fn wrong_callers(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 256);
    let own = (0..4).find(|vm| from(*vm, AREA, PAGE, at).x0 == Error::Denied as i64);
    check!(own.is_some_and(|vm| vm != puppet.vm), "a VM may copy its own tags: {own:?}");
    Ok(())
}

/// A failure that names the call.
fn expect(name: &str, got: Copied, want: Copied) -> Outcome {
    if got == want {
        return Ok(());
    }
    Err(Stop::Fail(Message::new(format_args!("{name}: {got:x?}, not {want:x?}"))))
}
