//! The dirty log of a VM: which pages were written since they were last asked for.
//!
//! A page is in one of three states while the log is on: *clean and write-protected*, *dirty and writable*,
//! and, between a call and the next store, *dirty and write-protected*; never clean and writable. Whoever
//! holds the log keeps that: it protects before it clears, and marks before it allows.

use addr::{Canonical, Ipa, IpaRange, PAGE_SIZE};
use alloc::vec::Vec;

/// Pages of a word of the log.
pub const WORD_PAGES: u64 = 64;

/// The pages of one region: the first in bit 0 of the first word.
#[derive(Debug)]
struct Pages {
    range: IpaRange,
    bits: Vec<u64>,
}

/// A VM's log.
#[derive(Debug, Default)]
pub struct DirtyLog {
    regions: Vec<Pages>,
    on: bool,
}

impl DirtyLog {
    /// A log that is off and knows no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { regions: Vec::new(), on: false }
    }

    /// Adds a region, of whole pages.
    pub fn add(&mut self, range: IpaRange) {
        let pages = range.size() / PAGE_SIZE;
        let words = usize::try_from(pages.div_ceil(WORD_PAGES)).unwrap_or(0);
        self.regions.push(Pages { range, bits: alloc::vec![0; words] });
    }

    /// Whether stores are noted.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// Turns it on: the caller protects and [`clear`](Self::clear)s the memory it wants to know about.
    pub const fn start(&mut self) {
        self.on = true;
    }

    /// Turns it off.
    pub const fn stop(&mut self) {
        self.on = false;
    }

    /// Whether `range`, which is not empty, lies in one region of the log.
    #[must_use]
    pub fn covers(&self, range: &IpaRange) -> bool {
        range.size() != 0 && self.regions.iter().any(|region| region.range.contains_range(range))
    }

    fn place(&mut self, ipa: Ipa<Canonical>) -> Option<(&mut u64, u32)> {
        let region = self.regions.iter_mut().find(|region| region.range.contains(ipa))?;
        let page = ipa.offset_from(region.range.start())? / PAGE_SIZE;
        let word = region.bits.get_mut(usize::try_from(page / WORD_PAGES).ok()?)?;
        Some((word, (page % WORD_PAGES) as u32))
    }

    /// Notes a store to the page of `ipa`, if the log is on.
    pub fn mark(&mut self, ipa: Ipa<Canonical>) {
        if self.on
            && let Some((word, bit)) = self.place(ipa)
        {
            *word |= 1_u64.unbounded_shl(bit);
        }
    }

    /// The page of `ipa` is clean from now on; whether it was dirty.
    pub fn clear(&mut self, ipa: Ipa<Canonical>) -> bool {
        let Some((word, bit)) = self.place(ipa) else { return false };
        let dirty = word.unbounded_shr(bit) & 1 != 0;
        *word &= !1_u64.unbounded_shl(bit);
        dirty
    }

    /// The pages from `ipa` on, `count` of them and at most [`WORD_PAGES`]: bit *n* says whether page *n* is
    /// dirty. With `clear`, they are clean from now on.
    pub fn word(&mut self, ipa: Ipa<Canonical>, count: u64, clear: bool) -> u64 {
        let mut all = 0;
        let mut page = 0;
        while page < count.min(WORD_PAGES) {
            let at = ipa.checked_add(page.saturating_mul(PAGE_SIZE));
            let Some((word, bit)) = at.and_then(|at| self.place(at)) else { break };
            // What is left of this word, and of what is asked for.
            let left =
                WORD_PAGES.saturating_sub(u64::from(bit)).min(count.min(WORD_PAGES).saturating_sub(page));
            let mask = u64::MAX.unbounded_shr(64_u32.saturating_sub(left as u32));
            let found = word.unbounded_shr(bit) & mask;
            all |= found.unbounded_shl(page as u32);
            if clear {
                *word &= !mask.unbounded_shl(bit);
            }
            page = page.saturating_add(left);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn range(page: u64, pages: u64) -> IpaRange {
        IpaRange::new(Ipa::new(page * PAGE_SIZE), pages * PAGE_SIZE).unwrap()
    }

    fn log() -> DirtyLog {
        let mut log = DirtyLog::new();
        log.add(range(16, 200));
        log.add(range(300, 5));
        log
    }

    #[test]
    fn off_notes_nothing() {
        let mut log = log();
        log.mark(Ipa::new(20 * PAGE_SIZE));
        assert_eq!(log.word(Ipa::new(16 * PAGE_SIZE), 64, false), 0);
        log.start();
        log.mark(Ipa::new(20 * PAGE_SIZE + 4095));
        assert_eq!(log.word(Ipa::new(16 * PAGE_SIZE), 64, false), 1 << 4);
        log.stop();
        assert!(!log.is_on());
    }

    #[test]
    fn covers_one_region() {
        let log = log();
        assert!(log.covers(&range(16, 200)) && log.covers(&range(302, 1)));
        assert!(!log.covers(&range(15, 2)) && !log.covers(&range(16, 201)) && !log.covers(&range(20, 0)));
        assert!(!log.covers(&range(200, 101)), "two regions");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Mark(u64),
        Clear(u64),
        Word(u64, u64, bool),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..320_u64).prop_map(Op::Mark),
            (0..320_u64).prop_map(Op::Clear),
            (16..216_u64, 0..70_u64, any::<bool>()).prop_map(|(a, n, c)| Op::Word(a, n, c)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn like_a_set(ops in prop::collection::vec(op(), 0..if cfg!(miri) { 20 } else { 200 })) {
            let mut log = log();
            log.start();
            let known = |page: &u64| (16..216).contains(page) || (300..305).contains(page);
            let mut model = BTreeSet::new();
            for op in ops {
                match op {
                    Op::Mark(page) => {
                        log.mark(Ipa::new(page * PAGE_SIZE));
                        model.extend(Some(page).filter(known));
                    }
                    Op::Clear(page) => {
                        prop_assert_eq!(log.clear(Ipa::new(page * PAGE_SIZE)), model.remove(&page));
                    }
                    Op::Word(from, count, clear) => {
                        let word = log.word(Ipa::new(from * PAGE_SIZE), count, clear);
                        for bit in 0..64 {
                            let asked = bit < count && from + bit < 216;
                            let expected = asked && model.contains(&(from + bit));
                            prop_assert_eq!(word >> bit & 1 == 1, expected, "page {}", from + bit);
                            if clear && asked {
                                model.remove(&(from + bit));
                            }
                        }
                    }
                }
            }
        }
    }
}
