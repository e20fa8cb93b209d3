//! A change that has all it needs, and the passes that make it.

use addr::Pa;

use super::edit::{Edit, Node, Slot, Span, Step, count_tables, part, restored};
use super::{MapError, Table, Tree};
use crate::descriptor::{ADDRESS, Kind, Level, TABLE_OR_PAGE, VALID, kind, leaf, needs_break, table_at};
use crate::memory::{Flush, InputAddress, TableMemory, Tlb};

/// Tables that are not linked anywhere, each holding the address of the next in its first entry.
/// Such an entry is invalid, so a walker that still has a cached pointer to the table just faults.
#[derive(Default)]
struct Chain(Option<Pa>);

impl Chain {
    fn push(&mut self, mem: &mut dyn TableMemory, table: Pa) {
        mem.write(table, self.0.map_or(0, Pa::get));
        self.0 = Some(table);
    }

    /// Takes a table; its first entry is zero again.
    fn pop(&mut self, mem: &mut dyn TableMemory) -> Option<Pa> {
        let table = self.0?;
        // No table lies at address zero: there the list ends.
        self.0 = Some(Pa::new(mem.read(table))).filter(|next| next.get() != 0);
        mem.write(table, 0);
        Some(table)
    }

    fn free(&mut self, mem: &mut dyn TableMemory) {
        while let Some(table) = self.pop(mem) {
            mem.free(table);
        }
    }
}

/// What must leave the TLBs.
#[derive(Default)]
struct Stale(Option<(Span, Level)>);

impl Stale {
    fn add(&mut self, span: Span, level: Level) {
        let (old, deepest) = self.0.unwrap_or((span, level));
        let span = Span { start: old.start.min(span.start), end: old.end.max(span.end) };
        self.0 = Some((span, deepest.max(level)));
    }

    /// Flushes and reports whether there was anything.
    fn flush<A: InputAddress>(&mut self, tlb: &mut impl Tlb<A>) -> bool {
        let Some((span, level)) = self.0.take() else { return false };
        tlb.flush(Flush { start: A::from_u64(span.start), end: A::from_u64(span.end), level });
        true
    }
}

/// A change that has all it needs. Dropping it changes nothing.
#[must_use = "a plan changes nothing before it is committed"]
pub struct Plan<'a, A> {
    pub(super) tree: &'a mut Tree<A>,
    pub(super) passes: Passes<'a>,
    pub(super) span: Span,
    pub(super) tables: usize,
}

impl<A: InputAddress> Plan<'_, A> {
    /// How many tables the change takes.
    #[must_use]
    pub const fn tables(&self) -> usize {
        self.tables
    }

    /// Makes the change; on return no CPU uses the old translations.
    ///
    /// # Panics
    /// If the plan was wrong, a contradiction inside this module.
    pub fn commit(mut self, tlb: &mut impl Tlb<A>) {
        let root = self.tree.root;
        let span = self.span;
        let passes = &mut self.passes;
        let mut work = Work { stale: Stale::default(), retired: Chain::default(), joined: false };
        if !matches!(passes.edit, Edit::Map(..)) {
            passes.break_leaves(root, span, &mut work.stale);
            work.stale.flush(tlb);
        }
        passes.make(root, span, true, &mut work);
        let flushed = work.stale.flush(tlb);
        if work.joined {
            passes.mend(root, span);
        }
        if work.joined || !flushed {
            tlb.publish();
        }
        work.retired.free(passes.mem);
    }
}

/// What the passes work with. They are the same for all trees, and so know addresses as numbers.
pub(super) struct Passes<'a> {
    mem: &'a mut dyn TableMemory,
    edit: Edit,
    spare: Chain,
}

impl Drop for Passes<'_> {
    fn drop(&mut self) {
        self.spare.free(self.mem);
    }
}

impl<'a> Passes<'a> {
    /// Takes every table that `edit` needs in `span`; returns how many, too.
    pub(super) fn prepare(
        mem: &'a mut dyn TableMemory,
        root: Table,
        edit: Edit,
        span: Span,
    ) -> Result<(Self, usize), MapError<u64>> {
        let tables = count_tables(mem, Node::Table(root), edit, span)?;
        let mut passes = Self { mem, edit, spare: Chain::default() };
        for _ in 0..tables {
            // An early return drops the passes, which frees what they have.
            let table = passes.mem.alloc().ok_or(MapError::OutOfTables)?;
            passes.spare.push(passes.mem, table);
        }
        Ok((passes, tables))
    }

    /// Pass 1: leaves that must not change in place lose their valid bit.
    fn break_leaves(&mut self, table: Table, span: Span, stale: &mut Stale) {
        for slot in span.slots(table.level) {
            let entry = table.entry(slot.base);
            let old = self.mem.read(entry);
            let breaks = match self.edit.step(old, &slot) {
                Ok(Step::Descend(next)) => {
                    self.break_leaves(next, slot.span, stale);
                    false
                }
                Ok(Step::Set(new)) => needs_break(old, new),
                Ok(Step::Split) => old != 0,
                Ok(Step::Keep) | Err(_) => false,
            };
            if breaks {
                self.mem.write(entry, old & !VALID);
                stale.add(
                    Span { start: slot.base, end: slot.base.wrapping_add(slot.level.size()) },
                    slot.level,
                );
            }
        }
    }

    /// Pass 2: the new state, but for joined blocks. `live`: the table is linked.
    fn make(&mut self, table: Table, span: Span, live: bool, work: &mut Work) {
        for slot in span.slots(table.level) {
            let entry = table.entry(slot.base);
            let old = self.mem.read(entry);
            let whole = restored(old);
            let Ok(step) = self.edit.step(whole, &slot) else {
                panic!("the tables changed between plan and commit");
            };
            match step {
                Step::Keep => {}
                Step::Set(new) => {
                    self.mem.write(entry, new);
                    if live && old & VALID != 0 {
                        work.stale.add(slot.span, slot.level);
                    }
                }
                Step::Descend(next) => {
                    self.make(next, slot.span, live, work);
                    if !matches!(self.edit, Edit::Map(..)) {
                        self.collapse(entry, next, &slot, work);
                    }
                }
                Step::Split => {
                    let pa = self.spare.pop(self.mem);
                    let Some(next) = pa.and_then(|pa| slot.table(pa)) else {
                        panic!("the plan has too few tables");
                    };
                    self.fill(next, whole, &slot);
                    self.make(next, slot.span, false, work);
                    self.mem.write(entry, table_at(next.pa));
                }
            }
        }
    }

    /// Gives a new table what the leaf `whole` of `slot` said, if there was one.
    fn fill(&mut self, table: Table, whole: u64, slot: &Slot) {
        if whole != 0 {
            let all = Span { start: slot.base, end: slot.base.wrapping_add(slot.level.size()) };
            for inner in all.slots(table.level) {
                self.mem.write(table.entry(inner.base), part(whole, slot, inner.base));
            }
        }
    }

    /// Unlinks `next`, the table of `entry`, if it is empty or says no more than a block could.
    fn collapse(&mut self, entry: Pa, next: Table, slot: &Slot, work: &mut Work) {
        let first = restored(self.mem.read(next.pa));
        let block = if first == 0 {
            0
        } else if kind(first, next.level) == Kind::Leaf
            && slot.level.has_leaves()
            && (first & ADDRESS).is_multiple_of(slot.level.size())
        {
            leaf(first & ADDRESS, first & !(ADDRESS | TABLE_OR_PAGE), slot.level)
        } else {
            return;
        };
        let all = Span { start: slot.base, end: slot.base.wrapping_add(slot.level.size()) };
        let same =
            |inner: Slot| restored(self.mem.read(next.entry(inner.base))) == part(block, slot, inner.base);
        // The neighbours of what changed are the likeliest to differ: a change of one page costs a scan
        // of the table only where it is to be joined.
        let mut beside = Span { start: slot.span.end, end: all.end }.slots(next.level).take(1);
        if !beside.all(same) {
            return;
        }
        if all.slots(next.level).all(same) {
            self.mem.write(entry, block & !VALID);
            work.retired.push(self.mem, next.pa);
            work.joined |= block != 0;
            work.stale.add(all, Level::Three);
        }
    }

    /// Pass 3: joined blocks become valid.
    fn mend(&mut self, table: Table, span: Span) {
        for slot in span.slots(table.level) {
            let entry = table.entry(slot.base);
            let descriptor = self.mem.read(entry);
            match kind(descriptor, slot.level) {
                Kind::Invalid if descriptor != 0 => self.mem.write(entry, restored(descriptor)),
                Kind::Invalid | Kind::Leaf => {}
                Kind::Table(pa) => {
                    if let Some(next) = slot.table(pa) {
                        self.mend(next, slot.span);
                    }
                }
            }
        }
    }
}

/// What the passes leave for each other.
struct Work {
    stale: Stale,
    retired: Chain,
    joined: bool,
}
