//! The exact calls of each sequence.

use addr::Va;
use proptest::prelude::*;
use std::cell::RefCell;
use std::vec;
use std::vec::Vec;

use crate::recorder::{Did, Recorder};
use crate::*;

mod preparation;

/// What `run` makes of a machine with lines of 64 bytes, and of 128 for tags.
fn record(run: impl FnOnce(&mut Recorder<'_>)) -> Vec<Did> {
    let did = RefCell::default();
    run(&mut Recorder::new(6, 7, &did));
    did.into_inner()
}

/// What `fill` makes of it.
fn record_fill(va: u64, size: u64, kind: Kind) -> Vec<Did> {
    let did = RefCell::default();
    let mut ops = Recorder::new(6, 7, &did);
    let result = fill(&mut ops, Va::new(va), size, kind, || {
        did.borrow_mut().push(Did::Wrote);
        17
    });
    assert_eq!(result, 17);
    did.into_inner()
}

#[test]
fn strides_come_from_ctr() {
    // Neoverse N2: DminLine 4, IDC; no TminLine.
    let n2 = Lines::from_ctr(0x9444_c004);
    assert_eq!((n2.data.bytes(), n2.tags.bytes()), (64, 64));
    let lines = |dmin: u64, tmin: u64| Lines::from_ctr(tmin << 32 | dmin << 16);
    // Tag lines that cover more than a data line do not lengthen the stride; shorter ones shorten it.
    assert_eq!((lines(4, 7).data.bytes(), lines(4, 7).tags.bytes()), (64, 64));
    assert_eq!((lines(5, 3).data.bytes(), lines(5, 3).tags.bytes()), (128, 32));
    assert_eq!(lines(0, 0).data.bytes(), 4);
    assert_eq!((lines(15, 63).data.bytes(), lines(15, 63).tags.bytes()), (2048, 2048));
    assert_eq!(LineSize::from_log2(0).bytes(), 4);
    let both = lines(4, 6).combine(lines(5, 3));
    assert_eq!((both.data.bytes(), both.tags.bytes()), (64, 32));
}

#[test]
fn write_back_is_cleaned_after_the_write() {
    use Did::*;
    let expected = vec![Wrote, CleanInvalidate(0x1000), CleanInvalidate(0x1040), Complete];
    assert_eq!(record_fill(0x1000, 0x80, Kind::WriteBack), expected);
    // Unaligned at both ends.
    assert_eq!(record_fill(0x103f, 2, Kind::WriteBack), expected);
    assert_eq!(record_fill(0x107f, 1, Kind::WriteBack), [Wrote, CleanInvalidate(0x1040), Complete]);
}

#[test]
fn tags_are_cleaned_with_the_data() {
    use Did::*;
    let expected = [Wrote, CleanInvalidateTags(0x1000), CleanInvalidateTags(0x1080), Complete];
    assert_eq!(record_fill(0x1000, 0x100, Kind::Tagged), expected);
    assert_eq!(record_fill(0x107f, 2, Kind::Tagged), expected);
}

#[test]
fn non_cacheable_memory_has_no_lines_when_it_is_written() {
    use Did::*;
    let expected = [CleanInvalidate(0x40), CleanInvalidate(0x80), Complete, Wrote, Complete];
    assert_eq!(record_fill(0x50, 0x40, Kind::NonCacheable), expected);
}

#[test]
fn where_guests_bypass_the_caches() {
    use Did::*;
    let did = RefCell::default();
    let mut ops = Recorder { bypass: true, ..Recorder::new(6, 7, &did) };
    let mut fill = |at: u64, size| {
        fill(&mut ops, Va::new(at), size, Kind::WriteBack, || did.borrow_mut().push(Wrote));
        did.take()
    };
    // Both ends before, everything after.
    let (a, b, c) = (CleanInvalidate(0x1000), CleanInvalidate(0x1040), CleanInvalidate(0x1080));
    assert_eq!(fill(0x1010, 0xa0), [a, c, Complete, Wrote, a, b, c, Complete]);
    assert_eq!(fill(0x1048, 8), [b, Complete, Wrote, b, Complete]);
    assert_eq!(fill(0x1000, 0), [Wrote]);
    // What is looked at is invalidated before and after; elsewhere nothing is done at all.
    for (bypass, kind) in [(true, Kind::WriteBack), (true, Kind::NonCacheable), (false, Kind::WriteBack)] {
        let mut ops = Recorder { bypass, ..Recorder::new(6, 7, &did) };
        access(&mut ops, Va::new(0x1048), 8, kind, || did.borrow_mut().push(Wrote));
        let cleaned = vec![b, Complete, Wrote, b, Complete];
        let expected = if bypass && kind == Kind::WriteBack { cleaned } else { vec![Wrote] };
        assert_eq!(did.take(), expected);
    }
}

#[test]
fn instructions_once_behind_all_that_was_replaced() {
    use Did::*;
    let pages = [0x1000, 0x2000];
    for wrote in 0..=pages.len() {
        let did = RefCell::default();
        let write = || {
            for page in &pages[..wrote] {
                fill(&mut Recorder::new(11, 11, &did), Va::new(*page), 4, Kind::WriteBack, || {});
            }
            wrote
        };
        assert_eq!(replace(&mut Recorder::new(11, 11, &did), write, |wrote| *wrote != 0), wrote);
        let did = did.into_inner();
        let fetched = did.iter().filter(|did| **did == InvalidateInstructions).count();
        assert_eq!(fetched, usize::from(wrote != 0), "{did:?}");
        if wrote != 0 {
            assert!(did.ends_with(&[Complete, InvalidateInstructions, Complete, Synchronize]), "{did:?}");
        }
    }
}

#[test]
fn instructions_after_all_cleaning() {
    use Did::*;
    let did = record(|ops| {
        publish_uncached(ops, Va::new(0x2004), 4);
        publish_instructions(ops);
    });
    let expected =
        [CleanInvalidate(0x2000), Complete, Complete, InvalidateInstructions, Complete, Synchronize];
    assert_eq!(did, expected);
}

#[test]
fn before_the_mmu_is_on() {
    use Did::*;
    let did = record(|ops| before_mmu_on(ops, Va::new(0x2000), 0x80));
    assert_eq!(did, [Complete, Invalidate(0x2000), Invalidate(0x2040), Complete]);
    // What shares a line with somebody else is not thrown away.
    let did = record(|ops| before_mmu_on(ops, Va::new(0x2010), 0xa0));
    let expected = [Complete, CleanInvalidate(0x2000), Invalidate(0x2040), CleanInvalidate(0x2080), Complete];
    assert_eq!(did, expected);
    let did = record(|ops| before_mmu_on(ops, Va::new(0x2000), 0x3f));
    assert_eq!(did, [Complete, CleanInvalidate(0x2000), Complete]);
}

#[test]
fn nothing_for_nothing() {
    for kind in [Kind::WriteBack, Kind::Tagged, Kind::NonCacheable] {
        assert_eq!(record_fill(0x1020, 0, kind), [Did::Wrote]);
    }
    assert_eq!(record(|ops| publish_uncached(ops, Va::new(0x1020), 0)), []);
    assert_eq!(record(|ops| before_mmu_on(ops, Va::new(0), 0)), []);
}

#[test]
fn the_end_of_the_address_space() {
    use Did::*;
    let last = u64::MAX - 63;
    for size in [0x40, 0x41, u64::MAX] {
        let did = record(|ops| publish_uncached(ops, Va::new(last), size));
        assert_eq!(did, [CleanInvalidate(last), Complete]);
        let did = record(|ops| before_mmu_on(ops, Va::new(last), size));
        assert_eq!(did, [Complete, Invalidate(last), Complete]);
    }
    let did = record(|ops| publish_uncached(ops, Va::new(u64::MAX), 1));
    assert_eq!(did, [CleanInvalidate(last), Complete]);
}

proptest! {
    #[test]
    fn every_line_once(log2 in 2_u8..=11, start in any::<u64>(), size in 1_u64..20_000) {
        let line = 1_u64 << log2;
        let mut seen = Vec::new();
        LineSize::from_log2(log2).each(Va::new(start), size, |va| seen.push(va.get()));
        let last = start.saturating_add(size - 1);
        prop_assert_eq!(seen[0], start / line * line);
        prop_assert_eq!(*seen.last().unwrap(), last / line * line);
        prop_assert!(seen.windows(2).all(|w| w[1] - w[0] == line));
    }
}

#[test]
fn a_line_for_a_guest_is_complete_before_its_alias_goes() {
    let both = |how| Line { how, content: Content::Both };
    let did = |kind, line| record(|ops| maintain(ops, Va::new(0x1047), kind, line));
    // The address is the guest's, exact; an invalidation never drops changes.
    let cleans = both(How::CleanInvalidate);
    assert_eq!(did(Kind::Tagged, both(How::Invalidate)), [Did::Maintain(0x1047, cleans), Did::Complete]);
    let data = Line { how: How::Clean(Point::Persistence), content: Content::Data };
    let deep = both(How::Clean(Point::DeepPersistence));
    assert_eq!(did(Kind::WriteBack, deep), [Did::Maintain(0x1047, data), Did::Complete]);
    // Memory without tags.
    assert_eq!(did(Kind::WriteBack, Line { how: How::Invalidate, content: Content::Tags }), []);
}
