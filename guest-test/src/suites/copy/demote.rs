//! Lazy memory whose tags are taken away, and which memory may have any.

use super::{
    AREA, BARE, Copied, INVALID, LAZY, PAGE, UNTOUCHED, buffer, complete, copied, differing, expect, target,
};
use crate::harness::{Outcome, Stop, check, check_eq, skip};
use crate::modes::puppet::{Act, Puppet};
use crate::rt::machine::Machine;
use crate::rt::mem::{read8, read64};
use crate::rt::smccc::call_with;
use abi::hypercall::{
    COPY_FROM_GUEST, CopyEnd, DEMOTE_SAVE, Error, MAP_TAGGED, MEMORY_COPY, TAG_DEMOTE, TAG_STATS, TAGS_COPY,
    TAGS_MAP,
};

/// Bytes of a page's tags.
const PACKED: u64 = 128;

/// TAG_DEMOTE: x0 to x2.
fn demote(vm: u64, ipa: u64, size: u64, flags: u64, at: u64) -> [u64; 3] {
    let x = call_with(TAG_DEMOTE, [vm, ipa, size, flags, at, 0, 0]);
    [x[0], x[1], x[2]]
}

/// All of a range, call by call; the pages that were turned back.
fn demote_all(vm: u64, ipa: u64, size: u64, flags: u64, at: u64) -> Result<u64, Stop> {
    let (mut done, mut pages, mut idle) = (0, 0, 0);
    while done < size {
        let [x0, bytes, turned] = demote(vm, ipa + done, size - done, flags, at + done / PAGE * PACKED);
        check!(x0 == 0, "TAG_DEMOTE at {done:#x}: {}", x0 as i64);
        // A large unit takes several calls.
        idle = if bytes == 0 { idle + 1 } else { 0 };
        check!(idle < 1000, "TAG_DEMOTE does not get on at {done:#x}");
        (done, pages) = (done + bytes, pages + turned);
    }
    Ok(pages)
}

/// All of the target's first pages of lazy memory have no tags; skipped where it is like backed memory.
fn fresh(puppet: &Puppet, pages: u64) -> Outcome {
    if demote(puppet.vm, LAZY, pages * PAGE, 0, 0)[0] as i64 == Error::Invalid as i64 {
        skip!("lazy memory is like backed memory here");
    }
    demote_all(puppet.vm, LAZY, pages * PAGE, 0, 0).map(drop)
}

pub(super) fn demote_saves_tags(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    const PAGES: u64 = 40;
    fresh(&puppet, PAGES)?;
    let at = buffer(machine, PAGES * PACKED);
    puppet.must(Act::Fill, LAZY, LAZY + PAGES * PAGE, 8)?;
    for page in (0..PAGES).step_by(2) {
        puppet.must(Act::Tag, LAZY + page * PAGE, LAZY + (page + 1) * PAGE, page % 15 + 1)?;
    }
    let used = demote_all(puppet.vm, LAZY, PAGES * PAGE, DEMOTE_SAVE, at)?;
    check_eq!(used, PAGES / 2, "pages turned back");
    for page in 0..PAGES {
        let tags = (page % 15 + 1) as u8 * 0x11;
        let want = if page % 2 == 0 { tags } else { UNTOUCHED };
        let bytes = core::iter::repeat_n(want, PACKED as usize);
        check_eq!(differing(at + page * PACKED, bytes), 0, "saved tags of page {page}");
    }
    puppet.must(Act::CountOtherWords, LAZY, LAZY + PAGES * PAGE, 8)?;
    puppet.must(Act::CountOtherTags, LAZY, LAZY + PAGES * PAGE, 0)?;
    // Nothing is taken away for a buffer that cannot have it.
    puppet.must(Act::Tag, LAZY, LAZY + 2 * PAGE, 3)?;
    let (start, size) = machine.memory()[0];
    let mail = machine.region_called("mail").map_or(0, |r| r.start);
    for wrong in [machine.absent(), start + size - 2 * PACKED + 8, 0x900_0000, mail, u64::MAX] {
        let x = demote(puppet.vm, LAZY, 2 * PAGE, DEMOTE_SAVE, wrong);
        check_eq!(x[0] as i64, Error::Fault as i64, "a buffer at {wrong:#x}");
    }
    check_eq!(demote(puppet.vm, LAZY, PAGE, 2, at)[0] as i64, Error::Invalid as i64, "wrong flags");
    puppet.must(Act::CountOtherTags, LAZY, LAZY + 2 * PAGE, 3)
}

/// A tag that the guest stores meanwhile is in the buffer or in memory.
pub(super) fn demote_loses_no_tag(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    const PAGES: u64 = 48;
    let at = buffer(machine, PAGES * (PACKED + 256));
    let left = at + PAGES * PACKED;
    for round in 0..4 {
        fresh(&puppet, PAGES)?;
        puppet.must(Act::Tag, LAZY, LAZY + PAGES * PAGE, 1)?;
        puppet.begin(Act::Tag, LAZY, LAZY + PAGES * PAGE, 2);
        let pages = demote_all(puppet.vm, LAZY, PAGES * PAGE, DEMOTE_SAVE, at)?;
        puppet.answer()?;
        check_eq!(pages, PAGES, "pages turned back");
        let now = copied(TAGS_COPY, [puppet.vm, LAZY, PAGES * PAGE, left, COPY_FROM_GUEST, 0, 0]);
        expect("the tags afterwards", now, complete(PAGES * PAGE, PAGES * 256))?;
        let mut saved = 0;
        for granule in 0..PAGES * 256 {
            let tag = read8(at + granule / 2) >> (granule % 2 * 4) & 15;
            let now = read8(left + granule);
            // Stored before: saved. Stored later: there.
            check!((tag, now) == (2, 0) || (tag, now) == (1, 2), "granule {granule}: {tag}, then {now}");
            saved += u64::from(tag == 2);
        }
        println!("# round {round}: {saved} of {} tags were stored before", PAGES * 256);
    }
    Ok(())
}

/// Which pages may have tags, whatever they are now.
pub(super) fn map_of_tagged_pages(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let at = buffer(machine, 256);
    let map = |ipa, pages, flags| copied(TAGS_MAP, [puppet.vm, ipa, pages * PAGE, at, flags, 0, 0]);
    expect("backed memory", map(AREA, 64, MAP_TAGGED), complete(64 * PAGE, 8))?;
    check_eq!(read64(at), u64::MAX, "backed memory");
    expect("wrong flags", map(AREA, 64, 2), INVALID)?;
    let bare = copied(TAGS_MAP, [puppet.vm, BARE, PAGE, at, MAP_TAGGED, 0, 0]);
    check_eq!((bare.x0, bare.end), (Error::NoTags as i64, CopyEnd::NoTags as u64), "memory without tags");
    fresh(&puppet, 128)?;
    puppet.must(Act::Tag, LAZY + 3 * PAGE, LAZY + 3 * PAGE + 16, 0)?;
    puppet.must(Act::Tag, LAZY + 70 * PAGE, LAZY + 71 * PAGE, 5)?;
    expect("lazy memory", map(LAZY, 128, MAP_TAGGED), complete(128 * PAGE, 16))?;
    check_eq!([read64(at), read64(at + 8)], [1 << 3, 1 << 6], "a page with tags of 0 and one with others");
    expect("lazy memory", map(LAZY, 128, 0), complete(128 * PAGE, 16))?;
    check_eq!([read64(at), read64(at + 8)], [0, 1 << 6], "tags other than 0");
    // Not from the start of a word, and more than one call does of the other kind.
    expect("from page 1 on", map(LAZY + PAGE, 127, MAP_TAGGED), complete(127 * PAGE, 16))?;
    check_eq!([read64(at), read64(at + 8)], [1 << 2, 1 << 5], "from page 1 on");
    expect("600 pages", map(LAZY, 600, MAP_TAGGED), complete(600 * PAGE, 75))?;
    demote_all(puppet.vm, LAZY, 128 * PAGE, 0, 0)?;
    expect("turned back", map(LAZY, 128, MAP_TAGGED), complete(128 * PAGE, 16))?;
    check_eq!([read64(at), read64(at + 8)], [0, 0], "pages that lost their tags");
    Ok(())
}

/// Data and tags are copied, both ways, while the target's lazy memory turns tagged and back.
pub(super) fn while_lazy_memory_changes(machine: &Machine) -> Outcome {
    let puppet = target(machine)?;
    let unit = call_with(TAG_STATS, [puppet.vm, u64::MAX, 0, 0, 0, 0, 0])[2];
    let pages = unit.max(32);
    fresh(&puppet, pages)?;
    let at = buffer(machine, 2 * PAGE);
    let moving = |call: Copied| call.end == CopyEnd::Moving as u64;
    puppet.must(Act::Fill, LAZY, LAZY + pages * PAGE, 0x33)?;
    let (mut copies, mut moved, mut turned) = (0_u64, 0_u64, 0);
    for round in 0..3 {
        puppet.begin(Act::Tag, LAZY, LAZY + pages * PAGE, 3);
        let mut over = false;
        while !over {
            over = puppet.is_done();
            for page in (copies % 7..pages).step_by(pages as usize / 8) {
                let ipa = LAZY + page * PAGE + 8;
                let data = |flags| copied(MEMORY_COPY, [puppet.vm, ipa, PAGE - 16, at, flags, 0, 0]);
                expect("data from", data(COPY_FROM_GUEST), complete(PAGE - 16, PAGE - 16))?;
                let wrong = (0..PAGE - 16).step_by(8).filter(|n| read64(at + n) != (ipa + n) ^ 0x33).count();
                check_eq!(wrong, 0, "words of page {page} in round {round}");
                let back = data(0);
                check!(back.x0 == 0 || moving(back), "data to: {back:x?}");
                let tags = [puppet.vm, LAZY + page * PAGE, PAGE, at, COPY_FROM_GUEST, 0, 0];
                let tags = copied(TAGS_COPY, tags);
                check!(moving(tags) || tags == complete(PAGE, 256), "tags from: {tags:x?}");
                let other = |byte: &u64| !matches!(read8(*byte), 0 | 3);
                let others = (at..at + tags.used).filter(other).count();
                check_eq!(others, 0, "tags of page {page} that nobody stored");
                copies += 1;
                moved += u64::from(moving(back) || moving(tags));
            }
            turned += demote_all(puppet.vm, LAZY, pages * PAGE, 0, 0)?;
        }
        puppet.answer()?;
    }
    puppet.must(Act::CountOtherWords, LAZY, LAZY + pages * PAGE, 0x33)?;
    println!("# {copies} copies, {moved} of them to memory on the move; {turned} pages turned back");
    check!(turned > 0, "no page turned tagged meanwhile");
    Ok(())
}
