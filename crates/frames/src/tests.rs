//! Whatever is taken, in whatever order: no frame is taken twice, none is outside of the memory, and memory
//! that needs tags has tag storage.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const MIB: u64 = 1 << 20;

fn range(start: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(start), size).unwrap()
}

fn overlap(a: &PaRange, b: &PaRange) -> bool {
    a.start() < b.end() && b.start() < a.end()
}

/// Memory in two banks, with something in each that is taken.
fn memory() -> (Vec<PaRange>, Vec<PaRange>) {
    let banks = [range(1 << 30, 64 * MIB), range(3 << 30, 32 * MIB)];
    let taken = [range((1 << 30) + 5 * MIB, 3 * MIB + 4096), range(3 << 30, 4096)];
    (banks.into(), taken.into())
}

/// Ranges with tag storage: across the end of a bank, and in the middle of the other.
fn taggable() -> Vec<PaRange> {
    [range((1 << 30) - MIB, 20 * MIB), range((3 << 30) + 8 * MIB, 8 * MIB)].into()
}

#[test]
fn nothing_is_left_out() {
    let (banks, taken) = memory();
    let all = 96 * MIB - (3 * MIB + 4096) - 4096;
    let tags = 19 * MIB - (3 * MIB + 4096) + 8 * MIB;
    let pools = Pools::new(&banks, &taken, &taggable());
    assert_eq!((pools.free(false), pools.free(true)), (all, tags));
    let pools = Pools::new(&banks, &taken, &banks);
    assert_eq!((pools.free(false), pools.free(true)), (all, all), "all has tag storage");
    let pools = Pools::new(&banks, &taken, &[]);
    assert_eq!((pools.free(false), pools.free(true)), (all, 0), "none has");
}

#[test]
fn what_is_too_much_takes_nothing() {
    let (banks, taken) = memory();
    let mut pools = Pools::new(&banks, &taken, &taggable());
    let before = (pools.free(false), pools.free(true));
    assert!(pools.take(0, 25 * MIB, true).is_none() && pools.take(0, 96 * MIB, false).is_none());
    assert_eq!((pools.free(false), pools.free(true)), before);
    let page = pools.taggable_page().unwrap();
    assert!(taggable().iter().any(|r| r.contains(page)));
    assert_eq!((pools.free(false), pools.free(true)), before, "the page stays free");
}

/// A request: alignment of the IPA, size in pages, whether it needs tags.
fn requests() -> impl Strategy<Value = Vec<(u32, u64, bool)>> {
    prop::collection::vec((0..14_u32, 1..3000_u64, any::<bool>()), 1..if cfg!(miri) { 20 } else { 30 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
    #[test]
    fn no_frame_has_two_owners(requests in requests()) {
        let (banks, taken) = memory();
        let mut pools = Pools::new(&banks, &taken, &taggable());
        let mut given: Vec<PaRange> = Vec::new();
        for (align, pages, tags) in requests {
            let (ipa, size) = (PAGE_SIZE << align, pages * PAGE_SIZE);
            let free = pools.free(false);
            let Some(pieces) = pools.take(ipa, size, tags) else {
                prop_assert_eq!(pools.free(false), free, "a refusal takes nothing");
                continue;
            };
            prop_assert_eq!(pieces.iter().map(PaRange::size).sum::<u64>(), size);
            prop_assert_eq!(free - pools.free(false), size);
            for piece in pieces {
                prop_assert!(banks.iter().any(|b| b.contains_range(&piece)), "{:?} is no memory", piece);
                prop_assert!(!taken.iter().any(|t| overlap(t, &piece)), "{:?} was taken", piece);
                prop_assert!(!given.iter().any(|g| overlap(g, &piece)), "{:?} has two owners", piece);
                // Pieces of one range lie in one range: the others are far away.
                prop_assert!(!tags || taggable().iter().any(|r| r.contains_range(&piece)), "{:?}", piece);
                given.push(piece);
            }
        }
    }
}
