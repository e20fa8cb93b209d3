//! What the manifest calls taggable, joined with what the machine says of itself.

use crate::Taggable;
use addr::{Pa, PaRange};
use alloc::vec::Vec;

impl Taggable {
    /// The same without `untaggable`, the part of `memory` that the machine's device tree excludes; both
    /// are sorted, and their ranges lie apart.
    ///
    /// # Errors
    /// A range that the manifest names reaches into such memory: that range, and the memory.
    pub fn without(self, memory: &[PaRange], untaggable: &[PaRange]) -> Result<Self, (PaRange, PaRange)> {
        if untaggable.is_empty() {
            return Ok(self);
        }
        match self {
            Self::None => Ok(Self::None),
            Self::All => {
                let mut left = Vec::new();
                for range in memory {
                    subtract(*range, untaggable, &mut left);
                }
                Ok(Self::Ranges(left))
            }
            Self::Ranges(ranges) => {
                let both = ranges.iter().find_map(|named| {
                    untaggable
                        .iter()
                        .find(|without| without.overlaps(named))
                        .map(|without| (*named, *without))
                });
                both.map_or(Ok(Self::Ranges(ranges)), Err)
            }
        }
    }
}

/// Adds to `left` what is left of `range` without others, which are sorted and lie apart.
fn subtract(range: PaRange, others: &[PaRange], left: &mut Vec<PaRange>) {
    let mut from = range.start();
    let mut keep = |from, end: Pa| left.extend(PaRange::new(from, end.offset_from(from).unwrap_or(0)));
    for other in others.iter().filter(|other| other.overlaps(&range)) {
        if other.start() > from {
            keep(from, other.start());
        }
        from = other.end();
    }
    if range.end() > from {
        keep(from, range.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, size: u64) -> PaRange {
        PaRange::new(Pa::new(start), size).unwrap()
    }

    #[test]
    fn ranges_that_the_tree_excludes_are_named() {
        let memory = [range(0x4000, 0x4000)];
        let asked = Taggable::Ranges([range(0x4000, 0x1000), range(0x5000, 0x2000)].into());
        let out = |untaggable: &[PaRange]| asked.clone().without(&memory, untaggable);
        assert_eq!(out(&[]), Ok(asked.clone()));
        assert_eq!(out(&[range(0x7000, 0x1000)]), Ok(asked.clone()));
        assert_eq!(out(&[range(0x6000, 0x1000)]), Err((range(0x5000, 0x2000), range(0x6000, 0x1000))));
        assert_eq!(Taggable::None.without(&memory, &memory), Ok(Taggable::None));
        assert_eq!(Taggable::All.without(&memory, &[]), Ok(Taggable::All));
        assert_eq!(Taggable::All.without(&memory, &memory), Ok(Taggable::Ranges(Vec::new())));
    }

    proptest! {
        /// Page by page, all memory is what is left but what was excluded.
        #[test]
        fn all_means_all_but_that(gaps in proptest::collection::vec((0u64..3, 1u64..4), 0..6), have in (0u64..6, 1u64..12)) {
            let mut at = 0;
            let untaggable: Vec<_> = gaps
                .iter()
                .map(|&(gap, size)| {
                    // Apart: neighbours are merged by who reads the tree.
                    at += gap + 1;
                    let range = range(at, size);
                    at += size;
                    range
                })
                .collect();
            let memory = [range(have.0, have.1)];
            let left = match Taggable::All.without(&memory, &untaggable) {
                Ok(Taggable::Ranges(left)) => left,
                Ok(Taggable::All) => memory.to_vec(),
                other => panic!("{other:?}"),
            };
            for page in 0..40 {
                let holds = |ranges: &[PaRange]| ranges.iter().any(|r| r.contains(Pa::new(page)));
                prop_assert_eq!(holds(&left), holds(&memory) && !holds(&untaggable), "{}", page);
            }
        }
    }
}
