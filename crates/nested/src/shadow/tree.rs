//! One shadow: stage-2 tables that hold what was needed of two stages joined.
//!
//! A shadow is a cache. What is in it may be forgotten at any time, which never needs memory: a leaf
//! that an invalidation touches goes as a whole, as a TLB entry would. So this is not the
//! [`vmsa::tree`] of a VM's own tables, whose changes are exact, and may need a table to split a block.
//!
//! Each leaf notes the size of L1's leaf that it is part of, and so does each table whose range is
//! part of a larger leaf of L1's: the bits left to software (58:55). An invalidation without a level
//! hint so reaches what L1's leaf spanned, and no more.

use addr::{BLOCK_1G, BLOCK_2M, Ipa, Nested, PAGE_SIZE, Pa};
use alloc::vec;
use alloc::vec::Vec;
use vmsa::descriptor::{Kind, Level, kind, leaf, needs_break, table_at};
use vmsa::memory::{Flush, Tlb};

use super::tables::{ENTRIES, TableMemory, Tables, entry};
use crate::attributes::Mapping;

const NOTE_SHIFT: u32 = 55;
const NOTE: u64 = 0b1111 << NOTE_SHIFT;

/// Sizes of L1's leaves and runs of leaves, as shifts; the index is the note.
const SIZES: [u8; 9] = [0, 12, 14, 16, 21, 25, 29, 30, 34];

const fn note(size: u64) -> u64 {
    let mut index = 0_u64;
    let mut rest: &[u8] = &SIZES;
    while let [shift, tail @ ..] = rest {
        if size == 1 << *shift {
            return index << NOTE_SHIFT;
        }
        (index, rest) = (index.wrapping_add(1), tail);
    }
    0
}

fn noted(descriptor: u64) -> u64 {
    let index = ((descriptor & NOTE) >> NOTE_SHIFT) as usize;
    SIZES.get(index).map_or(0, |shift| 1 << shift)
}

/// There is no table left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoTable;

/// Input addresses from start to end, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    /// The naturally aligned `size` bytes around `at`.
    pub(super) const fn around(at: u64, size: u64) -> Self {
        let start = at & !size.wrapping_sub(1);
        Self { start, end: start.saturating_add(size) }
    }

    pub(super) fn join(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// Where L1's tables and ours have leaves: what an address without a leaf may be part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeafSizes {
    pub(super) page: u64,
    pub(super) block: u64,
}

impl LeafSizes {
    /// By the width of L1's page offset.
    pub(super) const fn new(granule: u8) -> Self {
        match granule {
            14 => Self { page: 16 << 10, block: 32 << 20 },
            16 => Self { page: 64 << 10, block: 512 << 20 },
            _ => Self { page: PAGE_SIZE, block: BLOCK_2M },
        }
    }
}

/// The tree. Its root stays when it is forgotten.
#[derive(Debug)]
pub(super) struct Tree {
    root: Pa,
    /// Entries of the root: those of up to 16 adjacent tables.
    entries: u64,
    start: Level,
    /// Entries of the root that were written since all was last forgotten, a bit each: only these are
    /// looked at when it is forgotten again.
    touched: Vec<u64>,
    /// How many they are.
    count: usize,
}

impl Tree {
    /// An empty one, whose root has `tables` tables at most.
    pub(super) fn new(root: Pa, tables: usize) -> Self {
        let touched = vec![0; tables.saturating_mul((ENTRIES / 64) as usize)];
        Self { root, start: Level::Zero, entries: ENTRIES, touched, count: 0 }
    }

    /// Changes the shape of an empty one.
    pub(super) fn reshape(&mut self, start: Level, tables: usize) {
        self.start = start;
        self.entries = ENTRIES.saturating_mul(tables as u64);
    }

    /// Entries of the root that were written since all was last forgotten. Of a tree without any, no TLB
    /// holds anything.
    pub(super) const fn touched(&self) -> usize {
        self.count
    }

    /// Whether the entry of the root for `at` is one of them.
    pub(super) fn has_touched(&self, at: u64) -> bool {
        let index = at >> self.start.shift();
        self.touched.get((index >> 6) as usize).is_some_and(|bits| bits >> (index & 63) & 1 != 0)
    }

    fn touch(&mut self, at: u64) {
        if self.has_touched(at) {
            return;
        }
        let index = at >> self.start.shift();
        if let Some(bits) = self.touched.get_mut((index >> 6) as usize) {
            *bits |= 1 << (index & 63);
            self.count = self.count.saturating_add(1);
        }
    }

    pub(super) const fn root(&self) -> Pa {
        self.root
    }

    /// First address that has no entry.
    const fn limit(&self) -> u64 {
        self.entries.saturating_mul(self.start.size())
    }

    fn slot(&self, table: Pa, level: Level, at: u64) -> Pa {
        let index = at >> level.shift();
        let mask = if table == self.root { self.entries } else { ENTRIES }.wrapping_sub(1);
        entry(table, index & mask)
    }

    /// Maps `mapping`, in place of whatever there is.
    pub(super) fn map(
        &mut self,
        mem: &mut impl TableMemory,
        tables: &mut Tables,
        tlb: &mut impl Tlb<Ipa<Nested>>,
        mapping: &Mapping,
        attributes: u64,
    ) -> Result<(), NoTable> {
        let (start, size) = (mapping.nested.start().get(), mapping.nested.size());
        let level = match size {
            BLOCK_1G => Level::One,
            BLOCK_2M => Level::Two,
            _ => Level::Three,
        };
        let note = note(mapping.leaf);
        if mapping.nested.end().get() > self.limit() || level < self.start {
            return Err(NoTable);
        }
        self.touch(start);
        let mut at = self.start;
        let mut table = self.root;
        while at < level {
            table = self.descend(mem, tables, tlb, self.slot(table, at, start), at, mapping)?;
            at = at.next().ok_or(NoTable)?;
        }
        let mut offset = 0;
        while offset < size {
            let pa = mapping.pa.get().wrapping_add(offset);
            let input = start.wrapping_add(offset);
            let slot = self.slot(table, level, input);
            self.set(mem, tables, tlb, slot, level, input, leaf(pa, attributes | note, level));
            offset = offset.saturating_add(level.size());
        }
        tlb.publish();
        Ok(())
    }

    /// The table that `slot` points to, made if there is none.
    fn descend(
        &self,
        mem: &mut impl TableMemory,
        tables: &mut Tables,
        tlb: &mut impl Tlb<Ipa<Nested>>,
        slot: Pa,
        level: Level,
        mapping: &Mapping,
    ) -> Result<Pa, NoTable> {
        let old = mem.read(slot);
        // All of what the table translates is part of one leaf of L1's, or may be.
        let covered = if mapping.leaf >= level.size() { note(mapping.leaf) } else { 0 };
        if let Kind::Table(next) = kind(old, level) {
            if covered > old & NOTE {
                mem.write(slot, old & !NOTE | covered);
            }
            return Ok(next);
        }
        let next = tables.take(mem).ok_or(NoTable)?;
        if kind(old, level) == Kind::Leaf {
            mem.write(slot, 0);
            flush(tlb, Span::around(mapping.nested.start().get(), level.size()), level);
        }
        mem.write(slot, table_at(next) | covered);
        Ok(next)
    }

    /// Makes `slot` the leaf `new`, with break-before-make where that is needed (D8.16.1).
    #[expect(clippy::too_many_arguments, reason = "a table entry and where it is")]
    fn set(
        &self,
        mem: &mut impl TableMemory,
        tables: &mut Tables,
        tlb: &mut impl Tlb<Ipa<Nested>>,
        slot: Pa,
        level: Level,
        input: u64,
        new: u64,
    ) {
        let old = mem.read(slot);
        let span = Span::around(input, level.size());
        match kind(old, level) {
            Kind::Invalid => mem.write(slot, new),
            // Another CPU was faster.
            Kind::Leaf if old == new => {}
            Kind::Leaf => {
                if needs_break(old, new) {
                    mem.write(slot, 0);
                    flush(tlb, span, level);
                    mem.write(slot, new);
                } else {
                    mem.write(slot, new);
                    flush(tlb, span, level);
                }
            }
            Kind::Table(below) => {
                mem.write(slot, 0);
                flush(tlb, span, Level::Three);
                if let Some(below_level) = level.next() {
                    tables.give(mem, below, below_level);
                }
                mem.write(slot, new);
            }
        }
    }

    /// What an invalidation at `at` without a level hint spans: L1's leaf, as far as it can be part of
    /// the shadow.
    pub(super) fn leaf_span(&self, mem: &impl TableMemory, at: u64, sizes: LeafSizes) -> Span {
        let mut level = self.start;
        let mut table = self.root;
        let mut found = sizes.page;
        while at < self.limit() {
            let descriptor = mem.read(self.slot(table, level, at));
            found = found.max(noted(descriptor));
            match (kind(descriptor, level), level.next()) {
                (Kind::Table(next), Some(below)) => (table, level) = (next, below),
                // Nothing here, but neighbours may be parts of one block of L1's with this address.
                (Kind::Invalid, Some(_)) => {
                    found = found.max(sizes.block);
                    break;
                }
                (Kind::Invalid | Kind::Leaf | Kind::Table(_), _) => break,
            }
        }
        Span::around(at, found)
    }

    /// Forgets every leaf that has a part in `span`, and looks at `left` entries for that at most, which it
    /// counts down. False: that was not enough, and some are left.
    pub(super) fn unmap(
        &self,
        mem: &mut impl TableMemory,
        tables: &mut Tables,
        tlb: &mut impl Tlb<Ipa<Nested>>,
        span: Span,
        left: &mut usize,
    ) -> bool {
        let span = Span { start: span.start, end: span.end.min(self.limit()) };
        let mut gone = Gone { span: None, level: self.start };
        let all = self.cut(mem, tables, (self.root, self.start), span, &mut gone, left);
        if let Some(span) = gone.span {
            flush(tlb, span, gone.level);
        }
        all
    }

    fn cut(
        &self,
        mem: &mut impl TableMemory,
        tables: &mut Tables,
        (table, level): (Pa, Level),
        span: Span,
        gone: &mut Gone,
        left: &mut usize,
    ) -> bool {
        let mut at = span.start;
        while at < span.end {
            let Some(fewer) = left.checked_sub(1) else { return false };
            *left = fewer;
            let slot = self.slot(table, level, at);
            let here = Span::around(at, level.size());
            let whole = span.start <= here.start && here.end <= span.end;
            match (kind(mem.read(slot), level), level.next()) {
                (Kind::Table(next), Some(below)) if whole => {
                    mem.write(slot, 0);
                    // It is not taken again before the flush at the end.
                    tables.give(mem, next, below);
                    gone.add(here, Level::Three);
                }
                (Kind::Table(next), Some(below)) => {
                    let part = Span { start: at, end: span.end.min(here.end) };
                    if !self.cut(mem, tables, (next, below), part, gone, left) {
                        return false;
                    }
                }
                (Kind::Leaf, _) => {
                    mem.write(slot, 0);
                    gone.add(here, level);
                }
                (Kind::Invalid | Kind::Table(_), _) => {}
            }
            at = here.end;
        }
        true
    }

    /// Forgets everything. The caller flushes the TLBs before tables are taken again.
    pub(super) fn clear(&mut self, mem: &mut impl TableMemory, tables: &mut Tables) {
        for (word, bits) in (0..).zip(&mut self.touched) {
            let mut left = core::mem::take(bits);
            while left != 0 {
                let slot = entry(self.root, (word << 6) | u64::from(left.trailing_zeros()));
                left &= left.wrapping_sub(1);
                let old = mem.read(slot);
                if let (Kind::Table(next), Some(below)) = (kind(old, self.start), self.start.next()) {
                    tables.give(mem, next, below);
                }
                mem.write(slot, 0);
            }
        }
        self.count = 0;
    }
}

#[cfg(test)]
impl Tree {
    /// The leaf at `at`, and its level.
    pub(super) fn leaf_at(&self, mem: &impl TableMemory, at: u64) -> Option<(u64, Level)> {
        let (mut table, mut level) = (self.root, self.start);
        if at >= self.limit() {
            return None;
        }
        loop {
            let descriptor = mem.read(self.slot(table, level, at));
            match kind(descriptor, level) {
                Kind::Invalid => return None,
                Kind::Leaf => return Some((descriptor, level)),
                Kind::Table(next) => (table, level) = (next, level.next()?),
            }
        }
    }
}

/// What an unmap forgot.
struct Gone {
    span: Option<Span>,
    level: Level,
}

impl Gone {
    fn add(&mut self, span: Span, level: Level) {
        self.span = Some(self.span.map_or(span, |old| old.join(span)));
        self.level = self.level.max(level);
    }
}

fn flush(tlb: &mut impl Tlb<Ipa<Nested>>, span: Span, level: Level) {
    tlb.flush(Flush { start: Ipa::new(span.start), end: Ipa::new(span.end), level });
}
