//! From L1's physical addresses to the L2 addresses that shadows map to them: so that a page that the
//! VM loses leaves exactly those shadow leaves.
//!
//! The memory is bounded. Each mapping of a shadow has a record; when a new one finds no room, the
//! oldest goes, and its mapping with it. A record may outlive its mapping (L1 invalidated that, or the
//! whole shadow): then following it forgets too much, never too little.

use addr::{BLOCK_1G, BLOCK_2M, Canonical, Ipa, PAGE_SIZE, Range};
use alloc::vec;
use alloc::vec::Vec;

use super::tree::Span;

/// No record.
const NONE: u32 = u32::MAX;
/// Records of one hash at most. A hypervisor that maps one page over and over would make a list that takes
/// long to look through.
const LONGEST: usize = 512;
/// Mappings that are forgotten one by one at most; of more, all shadows are forgotten, which costs less.
const MOST_BY_RECORD: usize = 32;
/// Records that are looked at for that at most.
const MOST_LOOKED_AT: usize = 512;
/// In a range of more bytes it is the records that are looked through, not the pages.
const MOST_BYTES_BY_PAGE: u64 = 8 * PAGE_SIZE;
/// Sizes of mappings.
const SIZES: [u64; 5] = [PAGE_SIZE, 16 << 10, 64 << 10, BLOCK_2M, BLOCK_1G];

/// A mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// L1's physical address, a multiple of the size.
    pub(super) canonical: u64,
    /// L2's, likewise.
    pub(super) nested: u64,
    /// Index of the size.
    pub(super) size: u8,
    /// The shadow.
    pub(super) slot: u8,
    /// The shadow's life in which it was mapped.
    pub(super) life: u32,
}

impl Record {
    /// A record for a mapping; `None` if no mapping has this size.
    pub(super) fn new(canonical: u64, nested: u64, bytes: u64, slot: usize, life: u32) -> Option<Self> {
        let size = SIZES.iter().position(|size| *size == bytes)? as u8;
        Some(Self { canonical, nested, size, slot: slot as u8, life })
    }

    fn bytes(&self) -> u64 {
        SIZES.get(usize::from(self.size)).copied().unwrap_or(PAGE_SIZE)
    }

    /// L2's addresses.
    pub(super) fn span(&self) -> Span {
        Span { start: self.nested, end: self.nested.saturating_add(self.bytes()) }
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    record: Record,
    next: u32,
}

/// The first record of a hash, if it is of the map's epoch.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    epoch: u32,
    first: u32,
}

/// Records by canonical address.
#[derive(Debug)]
pub(super) struct ReverseMap {
    buckets: Vec<Bucket>,
    /// Counts how often all records were dropped, without a visit to each bucket.
    epoch: u32,
    links: Vec<Link>,
    capacity: usize,
    /// The oldest record, once all are in use.
    oldest: usize,
}

impl ReverseMap {
    /// Room for `capacity` records, rounded up to a power of two.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, 1 << 24).next_power_of_two();
        let buckets = vec![Bucket { epoch: 0, first: NONE }; capacity];
        Self { buckets, epoch: 0, links: Vec::with_capacity(capacity), capacity, oldest: 0 }
    }

    /// Drops all records.
    pub(super) fn clear(&mut self) {
        self.links.clear();
        self.oldest = 0;
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // Buckets of so long ago would count again.
            self.buckets.fill(Bucket { epoch: 0, first: NONE });
        }
    }

    fn first(&self, bucket: usize) -> u32 {
        self.buckets.get(bucket).filter(|bucket| bucket.epoch == self.epoch).map_or(NONE, |b| b.first)
    }

    fn hash(&self, canonical: u64, size: u8) -> usize {
        let key = canonical >> 12 ^ u64::from(size) << 40;
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed as usize & self.capacity.wrapping_sub(1)
    }

    fn chain(&self, bucket: usize) -> impl Iterator<Item = (u32, &Link)> {
        let mut at = self.first(bucket);
        core::iter::from_fn(move || {
            let index = at;
            let link = self.links.get(index as usize)?;
            at = link.next;
            Some((index, link))
        })
    }

    /// Notes a mapping. Returns the record that had to go: its mapping goes too.
    pub(super) fn insert(&mut self, record: Record) -> Option<Record> {
        let bucket = self.hash(record.canonical, record.size);
        let mut at = self.first(bucket);
        let (mut room, mut last) = (LONGEST, NONE);
        while let Some(link) = self.links.get(at as usize) {
            if link.record == record {
                return None;
            }
            room = room.wrapping_sub(1);
            (last, at) = (at, link.next);
        }
        let mut link = Link { record, next: NONE };
        let index = if room == 0 {
            // The oldest of its hash.
            last as usize
        } else if self.links.len() < self.capacity {
            link.next = self.replace_first(bucket, self.links.len() as u32);
            // Within the capacity that was reserved.
            self.links.push(link);
            return None;
        } else {
            let oldest = self.oldest;
            self.oldest = oldest.wrapping_add(1) & self.capacity.wrapping_sub(1);
            oldest
        };
        let evicted = self.unlink(index);
        link.next = self.replace_first(bucket, index as u32);
        if let Some(place) = self.links.get_mut(index) {
            *place = link;
        }
        evicted
    }

    fn replace_first(&mut self, bucket: usize, index: u32) -> u32 {
        let old = self.first(bucket);
        if let Some(place) = self.buckets.get_mut(bucket) {
            *place = Bucket { epoch: self.epoch, first: index };
        }
        old
    }

    fn unlink(&mut self, index: usize) -> Option<Record> {
        let Link { record, next } = *self.links.get(index)?;
        let bucket = self.hash(record.canonical, record.size);
        let before = self.chain(bucket).find(|(_, link)| link.next as usize == index).map(|(i, _)| i);
        let place = match before {
            Some(before) => &mut self.links.get_mut(before as usize)?.next,
            None => &mut self.buckets.get_mut(bucket)?.first,
        };
        *place = next;
        Some(record)
    }

    /// Whether few records have a part in `range`, and few others are in the way.
    pub(super) fn has_few(&self, range: &Range<Ipa<Canonical>>) -> bool {
        let (mut looked_at, mut all) = (0_usize, 0_usize);
        let mut few = true;
        self.look(range, |_, found| {
            (looked_at, all) = (looked_at.saturating_add(1), all.saturating_add(found.into()));
            few = looked_at <= MOST_LOOKED_AT && all <= MOST_BY_RECORD;
            few
        });
        few
    }

    /// Shows `found` all records that have a part in `range`.
    pub(super) fn find(&self, range: &Range<Ipa<Canonical>>, mut found: impl FnMut(&Record)) {
        self.look(range, |record, is_one| {
            if is_one {
                found(record);
            }
            true
        });
    }

    /// Shows `look` those records, and others on the way: whether it is one, and as long as it wants to see
    /// more.
    fn look(&self, range: &Range<Ipa<Canonical>>, mut look: impl FnMut(&Record, bool) -> bool) {
        if range.size() > MOST_BYTES_BY_PAGE {
            let (start, end) = (range.start().get(), range.end().get());
            for Link { record, .. } in &self.links {
                let found = record.canonical < end && record.canonical.saturating_add(record.bytes()) > start;
                if !look(record, found) {
                    return;
                }
            }
            return;
        }
        for (index, size) in SIZES.into_iter().enumerate() {
            let index = index as u8;
            let mut at = range.start().align_down(size).get();
            while at < range.end().get() {
                for (_, link) in self.chain(self.hash(at, index)) {
                    let found = link.record.canonical == at && link.record.size == index;
                    if !look(&link.record, found) {
                        return;
                    }
                }
                at = at.saturating_add(size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(canonical: u64, nested: u64, life: u32) -> Record {
        Record::new(canonical, nested, PAGE_SIZE, 0, life).unwrap()
    }

    #[test]
    fn nothing_is_left_of_what_was_dropped() {
        let mut map = ReverseMap::new(16);
        let range = Range::<Ipa<Canonical>>::new(Ipa::new(0x5000), PAGE_SIZE).unwrap();
        let seen = |map: &ReverseMap| {
            let mut seen = Vec::new();
            map.find(&range, |record| seen.push(record.nested));
            seen
        };
        for epoch in [1, u32::MAX] {
            map.epoch = epoch;
            for n in 0..40 {
                let _ = map.insert(record(0x5000 + ((n % 3) << 12), n << 12, 0));
            }
            assert!(!seen(&map).is_empty());
            map.clear();
            assert_eq!(seen(&map), []);
            assert_eq!(map.insert(record(0x5000, 0x7000, 0)), None);
            assert_eq!(map.insert(record(0x6000, 0x8000, 0)), None);
            assert_eq!(seen(&map), [0x7000]);
            map.clear();
        }
    }

    #[test]
    fn no_list_is_long() {
        let mut map = ReverseMap::new(4096);
        // One page under many addresses, and over many lives of the shadow.
        for n in 0..4096 {
            let evicted = map.insert(record(0x5000, n << 12, 0));
            let oldest = (n as usize).checked_sub(LONGEST);
            assert_eq!(evicted, oldest.map(|n| record(0x5000, (n as u64) << 12, 0)));
        }
        for life in 1..4096 {
            let _ = map.insert(record(0x5000, 0x7000, life));
        }
        let range = Range::<Ipa<Canonical>>::new(Ipa::new(0x5000), PAGE_SIZE).unwrap();
        let (mut seen, mut lives) = (0, 0);
        map.find(&range, |record| (seen, lives) = (seen + 1, lives + usize::from(record.life > 3500)));
        assert_eq!((seen, lives), (LONGEST, LONGEST), "the newest are there");
        assert_eq!(map.insert(record(0x5000, 0x7000, 4095)), None, "one that is there");
        assert!(!map.has_few(&range));
        let other = Range::<Ipa<Canonical>>::new(Ipa::new(0x6000), PAGE_SIZE).unwrap();
        let _ = map.insert(record(0x6000, 0x7000, 0));
        assert!(map.has_few(&other));
    }
}
