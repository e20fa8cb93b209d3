use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const PAGE: u64 = PAGE_SIZE;

/// arm.md 2.2 has the rules; these are its examples.
#[test]
fn arguments_of_tags_copy() {
    let ok = |ipa, length, flags| TagCopy::new(ipa, length, 0x1000, flags, [0, 0]);
    assert!(ok(PAGE, 3 * PAGE, 0).is_some_and(|c| c.direction == Direction::ToGuest && !c.packed));
    assert!(ok(PAGE, 0, 1).is_some_and(|c| c.direction == Direction::FromGuest && c.range.size() == 0));
    assert!(ok(PAGE, PAGE, 3).is_some_and(|c| c.packed));
    assert_eq!(ok(PAGE + 16, PAGE, 1), None, "a granule is no page");
    assert_eq!(ok(PAGE, 16, 1), None);
    assert_eq!(ok(0_u64.wrapping_sub(PAGE), 2 * PAGE, 1), None, "wraps");
    assert_eq!(ok(0, 1 << 31, 1), None);
    assert!(ok(0, (1 << 31) - PAGE, 1).is_some());
    assert_eq!(ok(0, PAGE, 4), None);
    assert_eq!(ok(0, PAGE, 1 << 63), None);
    assert_eq!(TagCopy::new(0, PAGE, 0, 1, [0, 1]), None);
    assert_eq!(TagCopy::new(0, PAGE, 0, 1, [1, 0]), None);
    assert_eq!(TagCopy::new(0, PAGE, u64::MAX - 254, 1, [0, 0]), None, "the buffer wraps");
}

#[test]
fn arguments_of_a_data_copy() {
    assert!(DataCopy::new(3, 5, 7, 0).is_some());
    assert_eq!(DataCopy::new(3, 5, 7, 2), None);
    assert_eq!(DataCopy::new(u64::MAX, 1, 0, 0), None);
    assert_eq!(DataCopy::new(0, 1, u64::MAX, 0), None);
}

#[test]
fn a_packed_group() {
    assert_eq!(packed_offset(0b1011, 0), Some(8));
    assert_eq!(packed_offset(0b1011, 1), Some(136));
    assert_eq!(packed_offset(0b1011, 2), None);
    assert_eq!(packed_offset(0b1011, 3), Some(264));
    assert_eq!(packed_offset(u64::MAX, 63), Some(8 + 63 * 128));
    assert_eq!(packed_offset(u64::MAX, 64), None);
    assert_eq!(packed_bytes(0), 8, "pages without tags take a bit each");
}

#[test]
fn the_largest_buffer_is_that_of_bytes() {
    for pages in 1..=GROUP as u64 {
        let map = u64::MAX >> (GROUP as u64 - pages);
        assert!(packed_bytes(map) <= pages * SPREAD_BYTES);
    }
}

proptest! {
    #[test]
    fn bytes_are_the_low_nibbles(tags in any::<u64>(), noise in any::<[u64; 2]>()) {
        let bytes: Vec<u8> = spread(tags).into_iter().flat_map(u64::to_le_bytes).collect();
        for (n, byte) in bytes.iter().enumerate() {
            prop_assert_eq!(u64::from(*byte), tags >> (4 * n) & 0xf, "granule {}", n);
        }
        prop_assert_eq!(gather(spread(tags)), tags);
        let [a, b] = spread(tags);
        let high = |word: u64| word & 0xf0f0_f0f0_f0f0_f0f0;
        prop_assert_eq!(gather([a | high(noise[0]), b | high(noise[1])]), tags, "high nibbles do not count");
    }

    #[test]
    fn groups_hold_what_was_put_in(pages in prop::collection::vec(prop::option::of(1..u64::MAX), 0..=GROUP)) {
        // A writer as simple as the format.
        let map = pages.iter().enumerate().fold(0, |map, (n, p)| map | u64::from(p.is_some()) << n);
        let mut buffer = vec![map];
        for page in pages.iter().flatten() {
            buffer.extend([*page; 16]);
        }
        prop_assert_eq!(buffer.len() as u64 * 8, packed_bytes(map));
        for (n, page) in pages.iter().enumerate() {
            let read = packed_offset(map, n).map(|at| buffer[at as usize / 8]);
            prop_assert_eq!(read, *page);
        }
    }

    #[test]
    fn records_mean_one_thing(word in any::<u64>(), page in 0..1_u64 << 36, tags in any::<bool>()) {
        let record = Record { ipa: Ipa::new(page << 12), tags };
        prop_assert_eq!(Record::from_word(record.to_word()), Some(record));
        if let Some(read) = Record::from_word(word) {
            prop_assert_eq!(read.to_word(), word);
            prop_assert!(read.ipa.is_aligned(PAGE) && read.bytes() <= Record::LONGEST);
        }
    }

    #[test]
    fn hostile_arguments(ipa in any::<u64>(), length in any::<u64>(), buffer in any::<u64>(), flags in 0..9_u64) {
        if let Some(copy) = TagCopy::new(ipa, length, buffer, flags, [0, 0]) {
            prop_assert!(copy.range.is_aligned(PAGE) && copy.range.size() < 1 << 31);
            prop_assert!(copy.range.end() >= copy.range.start() && flags < 4);
        }
        if let Some(copy) = DataCopy::new(ipa, length, buffer, flags) {
            prop_assert!(copy.start.checked_add(copy.length).is_some());
        }
    }
}
