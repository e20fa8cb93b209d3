//! Packed tags, and the map of pages that have some.

use super::{AREA, PAGE, UNTOUCHED, buffer, complete, copied, differing, target};
use crate::harness::{Outcome, check, check_eq};
use crate::modes::puppet::Act;
use crate::rt::machine::Machine;
use crate::rt::mem::{read8, read64, write8, write64};
use abi::hypercall::{COPY_FROM_GUEST, COPY_PACKED, TAGS_COPY, TAGS_MAP};

pub(super) fn packed(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 8 + 3 * 128);
    let call = |flags: u64| copied(TAGS_COPY, [puppet.vm, AREA, 5 * PAGE, at, COPY_PACKED | flags, 0, 0]);
    puppet.must(Act::Tag, AREA, AREA + 5 * PAGE, 0)?;
    puppet.must(Act::Tag, AREA + PAGE, AREA + 2 * PAGE, 5)?;
    puppet.must(Act::Tag, AREA + 4 * PAGE - 16, AREA + 4 * PAGE, 6)?;
    check_eq!(call(COPY_FROM_GUEST), complete(5 * PAGE, 8 + 2 * 128), "five pages, two with tags");
    check_eq!(read64(at), 0b01010, "the map");
    check_eq!(differing(at + 8, [0x55; 128].into_iter()), 0, "page 1");
    check_eq!(differing(at + 136, [0; 127].into_iter().chain([0x60, UNTOUCHED])), 0, "page 3");
    puppet.must(Act::Tag, AREA, AREA + 5 * PAGE, 9)?;
    check_eq!(call(0), complete(5 * PAGE, 8 + 2 * 128), "and back");
    puppet.must(Act::CountOtherTags, AREA, AREA + PAGE, 0)?;
    puppet.must(Act::CountOtherTags, AREA + PAGE, AREA + 2 * PAGE, 5)?;
    puppet.must(Act::CountOtherTags, AREA + 2 * PAGE, AREA + 4 * PAGE - 16, 0)?;
    puppet.must(Act::CountOtherTags, AREA + 4 * PAGE - 16, AREA + 4 * PAGE, 6)?;
    puppet.must(Act::CountOtherTags, AREA + 4 * PAGE, AREA + 5 * PAGE, 0)
}

/// Bits of the map behind the range mean nothing.
pub(super) fn packed_without_sense(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 8 + 128);
    write64(at, 0xffff_ffff_ffff_fffd);
    (0..128).for_each(|byte| write8(at + 8 + byte, 0x44));
    puppet.must(Act::Tag, AREA, AREA + 3 * PAGE, 9)?;
    let call = copied(TAGS_COPY, [puppet.vm, AREA, 2 * PAGE, at, COPY_PACKED, 0, 0]);
    check_eq!(call, complete(2 * PAGE, 8 + 128), "two pages");
    puppet.must(Act::CountOtherTags, AREA, AREA + PAGE, 4)?;
    puppet.must(Act::CountOtherTags, AREA + PAGE, AREA + 2 * PAGE, 0)?;
    puppet.must(Act::CountOtherTags, AREA + 2 * PAGE, AREA + 3 * PAGE, 9)
}

pub(super) fn map_of_tags(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 64);
    puppet.must(Act::Tag, AREA, AREA + 70 * PAGE, 0)?;
    for page in [0, 9, 64, 69] {
        puppet.must(Act::Tag, AREA + page * PAGE + 80, AREA + page * PAGE + 96, 1)?;
    }
    let map = copied(TAGS_MAP, [puppet.vm, AREA, 70 * PAGE, at, 0, 0, 0]);
    check_eq!(map, complete(70 * PAGE, 9), "70 pages");
    check_eq!(read64(at), 1 | 1 << 9, "pages 0 to 63");
    check_eq!([read8(at + 8), read8(at + 9)], [1 | 1 << 5, UNTOUCHED], "pages 64 to 69");
    Ok(())
}
