//! What a change does to one entry, and how many tables it takes in all.

use addr::Pa;

use super::{MapError, Table};
use crate::descriptor::{ADDRESS, Kind, Level, TABLE_OR_PAGE, VALID, kind, leaf};
use crate::memory::TableMemory;

/// Part of the input address space. Ends stay below 2^49, so that sums do not wrap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The part of a span that one entry translates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// First input address of the entry.
    pub(crate) base: u64,
    pub(crate) span: Span,
    pub(crate) level: Level,
}

impl Span {
    /// Cuts the span at the borders of entries of `level`.
    pub(crate) fn slots(self, level: Level) -> impl Iterator<Item = Slot> {
        let mut at = self.start;
        core::iter::from_fn(move || {
            let base = at & !level.size().wrapping_sub(1);
            let span = Span { start: at, end: base.wrapping_add(level.size()).min(self.end) };
            at = span.end;
            (span.start < self.end).then_some(Slot { base, span, level })
        })
    }
}

impl Slot {
    /// Whether the span is all that the entry translates.
    fn is_full(&self) -> bool {
        self.span.end.wrapping_sub(self.span.start) == self.level.size()
    }

    /// Whether a leaf here may map the span's start to `pa`.
    pub(crate) fn fits_leaf(&self, pa: u64) -> bool {
        self.level.has_leaves() && self.is_full() && pa & self.level.size().wrapping_sub(1) == 0
    }

    /// The table that a descriptor in this slot points to.
    pub(super) fn table(&self, pa: Pa) -> Option<Table> {
        Some(Table { pa, base: self.base, level: self.level.next()? })
    }
}

/// The descriptor as it was before the break pass took its valid bit.
pub(super) fn restored(descriptor: u64) -> u64 {
    if descriptor == 0 { 0 } else { descriptor | VALID }
}

/// What the table that splits the leaf `whole` of `slot` holds for `input`; zero if `whole` is.
pub(super) fn part(whole: u64, slot: &Slot, input: u64) -> u64 {
    match slot.level.next() {
        Some(level) if whole != 0 => {
            let pa = (whole & ADDRESS).wrapping_add(input.wrapping_sub(slot.base));
            leaf(pa, whole & !(ADDRESS | TABLE_OR_PAGE), level)
        }
        Some(_) | None => 0,
    }
}

/// What a change does to one entry.
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// Write this: a leaf, or zero.
    Set(u64),
    /// Change the table that is there.
    Descend(Table),
    /// Put a table in place of the leaf or of nothing, and change that.
    Split,
}

/// A [`Change`] with all addresses made numbers.
#[derive(Clone, Copy)]
pub(super) enum Edit {
    /// Physical address minus input address; attribute bits.
    Map(u64, u64),
    /// Attribute bits that stay, and those that are set.
    Update(u64, u64),
    Unmap,
}

impl Edit {
    /// The decision: `descriptor` is what the entry of `slot` holds.
    pub(super) fn step(self, descriptor: u64, slot: &Slot) -> Result<Step, MapError<u64>> {
        let here = slot.span.start;
        Ok(match (kind(descriptor, slot.level), self) {
            (Kind::Table(next), _) => slot.table(next).map_or(Step::Keep, Step::Descend),
            (Kind::Invalid, Self::Map(delta, attributes)) => {
                let pa = slot.span.start.wrapping_add(delta);
                if slot.fits_leaf(pa) { Step::Set(leaf(pa, attributes, slot.level)) } else { Step::Split }
            }
            (Kind::Invalid, Self::Update(..)) => return Err(MapError::Unmapped(here)),
            (Kind::Invalid, Self::Unmap) => Step::Keep,
            (Kind::Leaf, Self::Map(..)) => return Err(MapError::Mapped(here)),
            (Kind::Leaf, Self::Update(keep, set)) => {
                let kept = descriptor & keep & !(ADDRESS | TABLE_OR_PAGE | VALID);
                let new = leaf(descriptor & ADDRESS, kept | set, slot.level);
                match new == descriptor {
                    true => Step::Keep,
                    false if slot.is_full() => Step::Set(new),
                    false => Step::Split,
                }
            }
            (Kind::Leaf, Self::Unmap) if slot.is_full() => Step::Set(0),
            (Kind::Leaf, Self::Unmap) => Step::Split,
        })
    }
}

/// A table that exists, or that will take the place of `whole` in `slot`.
pub(super) enum Node {
    Table(Table),
    Future { whole: u64, slot: Slot },
}

/// How many new tables `edit` needs in `span`.
pub(super) fn count_tables(
    mem: &dyn TableMemory,
    node: Node,
    edit: Edit,
    span: Span,
) -> Result<usize, MapError<u64>> {
    let level = match node {
        Node::Table(table) => Some(table.level),
        // A new table of pages needs no further ones and hides nothing.
        Node::Future { slot, .. } => slot.level.next().filter(|&level| level != Level::Three),
    };
    let Some(level) = level else { return Ok(0) };
    let mut tables = 0_usize;
    for slot in span.slots(level) {
        let descriptor = match &node {
            Node::Table(table) => mem.read(table.entry(slot.base)),
            Node::Future { whole, slot: outer } => part(*whole, outer, slot.base),
        };
        let below = match edit.step(descriptor, &slot)? {
            Step::Keep | Step::Set(_) => 0,
            Step::Descend(next) => count_tables(mem, Node::Table(next), edit, slot.span)?,
            Step::Split => {
                let future = Node::Future { whole: descriptor, slot };
                count_tables(mem, future, edit, slot.span)?.saturating_add(1)
            }
        };
        tables = tables.saturating_add(below);
    }
    Ok(tables)
}
