//! A tree of translation tables and the one way to change it: plan, which may fail and shows
//! nothing, then a commit that cannot fail.
//!
//! [`Tree::plan`] checks the whole range and takes every table that the change needs out of the
//! [`TableMemory`]; a plan that is dropped gives them back. [`Plan::commit`] then obeys
//! break-before-make (D8.16.1) in passes over the range, so that the number of TLB invalidations
//! does not grow with it:
//!
//! 1. *break*: leaves that cannot change in place (other memory type or size) become invalid, with
//!    their other bits kept; one [`Tlb::flush`](crate::memory::Tlb::flush);
//! 2. *make*: write the new leaves and link new tables, each filled before it is visible. Tables
//!    that became empty are unlinked, and those that hold one contiguous range with equal
//!    attributes become a (still invalid) block; one flush of what changed;
//! 3. *mend*: make the joined blocks valid, free the unlinked tables.
//!
//! Between the passes other CPUs may see translation faults in the range; who handles faults takes
//! the same lock as who changes tables, and retries. The flush is a callback rather than a result
//! because tables may be freed only after it; it cannot be forgotten.

use core::fmt;
use core::marker::PhantomData;

use addr::{PAGE_SIZE, Pa, Range};

use crate::attr::AttrError;
use crate::descriptor::{ADDRESS, Kind, Level, TABLE_OR_PAGE, VALID, kind, needs_break};
use crate::memory::{Flush, InputAddress, TableMemory, Tlb};

mod edit;
mod plan;

use edit::Edit;
pub(crate) use edit::Span;
use plan::Passes;
pub use plan::Plan;

/// Why a change is impossible; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError<A> {
    /// Not a multiple of 4 KiB.
    Misaligned,
    /// Beyond the input address size.
    InputTooHigh,
    /// Beyond the output address size.
    OutputTooHigh,
    /// Something is mapped here already.
    Mapped(A),
    /// Nothing is mapped here.
    Unmapped(A),
    /// The table memory is exhausted.
    OutOfTables,
    /// The attributes have no encoding.
    Attr(AttrError),
}

impl MapError<u64> {
    /// The same of a tree for addresses `A`.
    fn of<A: InputAddress>(self) -> MapError<A> {
        match self {
            Self::Misaligned => MapError::Misaligned,
            Self::InputTooHigh => MapError::InputTooHigh,
            Self::OutputTooHigh => MapError::OutputTooHigh,
            Self::Mapped(at) => MapError::Mapped(A::from_u64(at)),
            Self::Unmapped(at) => MapError::Unmapped(A::from_u64(at)),
            Self::OutOfTables => MapError::OutOfTables,
            Self::Attr(error) => MapError::Attr(error),
        }
    }
}

impl<A> fmt::Display for MapError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Misaligned => "it is no multiple of 4 KiB",
            Self::InputTooHigh => "it ends above the IPA size",
            Self::OutputTooHigh => "its memory ends above the physical address size",
            Self::Mapped(_) => "something is mapped there already",
            Self::Unmapped(_) => "nothing is mapped there",
            Self::OutOfTables => "the tables set aside are used up",
            Self::Attr(AttrError::NoMtePerm) => "the machine lacks FEAT_MTE_PERM",
        })
    }
}

/// What happens to a range.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// Nothing is mapped there; map it to physical memory from `pa` on, with these attribute bits.
    Map {
        /// Physical address of the range's start.
        pa: Pa,
        /// Leaf bits other than address, type and valid bit.
        attributes: u64,
    },
    /// All of it is mapped; change these attribute bits. Both masks are of leaf bits other than address,
    /// type and valid bit.
    Update {
        /// Bits that stay as they are.
        keep: u64,
        /// Bits that are set.
        set: u64,
    },
    /// Nothing is mapped there afterwards.
    Unmap,
}

/// A tree of tables for input addresses `A`.
#[derive(Debug)]
pub struct Tree<A> {
    root: Table,
    root_tables: usize,
    input_bits: u8,
    output_bits: u8,
    address: PhantomData<A>,
}

/// A table (at the root: adjacent tables) and the input address of its first entry.
#[derive(Clone, Copy, Debug)]
struct Table {
    pa: Pa,
    base: u64,
    level: Level,
}

impl Table {
    /// Where the entry is that translates `input`, an address that the table covers.
    fn entry(&self, input: u64) -> Pa {
        let index = input.wrapping_sub(self.base) >> self.level.shift();
        Pa::new(self.pa.get().wrapping_add(index << 3))
    }
}

impl<A: InputAddress> Tree<A> {
    /// An empty tree of `tables` concatenated root tables at `level`; `None` without memory.
    pub(crate) fn new<M: TableMemory>(
        mem: &mut M,
        level: Level,
        tables: usize,
        input_bits: u8,
        output_bits: u8,
    ) -> Option<Self> {
        let root = Table { pa: mem.alloc_root(tables)?, base: 0, level };
        Some(Self { root, root_tables: tables, input_bits, output_bits, address: PhantomData })
    }

    /// Physical address of the root, for the TTBR or VTTBR.
    #[must_use]
    pub const fn root(&self) -> Pa {
        self.root.pa
    }

    /// Plans `change` for `range`.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub fn plan<'a>(
        &'a mut self,
        mem: &'a mut dyn TableMemory,
        range: Range<A>,
        change: Change,
    ) -> Result<Plan<'a, A>, MapError<A>> {
        let span = self.span(range)?;
        let edit = match change {
            Change::Map { pa, attributes } => {
                self.check_output(pa, span)?;
                Edit::Map(pa.get().wrapping_sub(span.start), attributes)
            }
            Change::Update { keep, set } => Edit::Update(keep, set),
            Change::Unmap => Edit::Unmap,
        };
        let (passes, tables) = Passes::prepare(mem, self.root, edit, span).map_err(MapError::of)?;
        Ok(Plan { tree: self, passes, span, tables })
    }

    /// The short way for one page that is a page already and cannot be joined with its neighbours: its
    /// attribute bits become what [`Change::Update`] says. False, and nothing has changed, if that is not
    /// so: [`plan`](Self::plan) does it then.
    #[inline]
    pub fn update_page<M: TableMemory>(
        &mut self,
        mem: &mut M,
        tlb: &mut impl Tlb<A>,
        page: A,
        (keep, set): (u64, u64),
    ) -> bool {
        const FIXED: u64 = ADDRESS | TABLE_OR_PAGE | VALID;
        let at = page.to_u64();
        let Some(table) = self.last_table(mem, at).filter(|table| table.level == Level::Three) else {
            return false;
        };
        let entry = table.entry(at);
        let old = mem.read(entry);
        let new = old & FIXED | old & keep & !FIXED | set;
        // One of these is not the page itself, and they are the likeliest to differ.
        let block = at & !Level::Two.size().wrapping_sub(1);
        let others = [at.wrapping_add(PAGE_SIZE), at.wrapping_sub(PAGE_SIZE), block]
            .map(|other| block | other & Level::Two.size().wrapping_sub(1));
        let joins = |other: &u64| *other == at || (mem.read(table.entry(*other)) ^ new) & !ADDRESS == 0;
        if kind(old, Level::Three) != Kind::Leaf || others.iter().all(joins) {
            return false;
        }
        let end = A::from_u64(at.wrapping_add(PAGE_SIZE));
        let flush = Flush { start: page, end, level: Level::Three };
        if needs_break(old, new) {
            mem.write(entry, old & !VALID);
            tlb.flush(flush);
            mem.write(entry, new);
            tlb.publish();
        } else if old != new {
            mem.write(entry, new);
            tlb.flush(flush);
        }
        true
    }

    /// Translates `input`: the leaf's descriptor, the output address, and the level.
    pub(crate) fn walk<M: TableMemory>(&self, mem: &M, input: A) -> Option<(u64, Pa, Level)> {
        let input = input.to_u64();
        let table = self.last_table(mem, input)?;
        let descriptor = mem.read(table.entry(input));
        let offset = table.level.size().wrapping_sub(1);
        let pa = Pa::new(descriptor & ADDRESS & !offset | input & offset);
        (kind(descriptor, table.level) == Kind::Leaf).then_some((descriptor, pa, table.level))
    }

    /// Where the level-3 descriptor of `input` lies, valid or not.
    pub(crate) fn page_entry<M: TableMemory>(&self, mem: &M, input: A) -> Option<Pa> {
        let input = input.to_u64();
        let table = self.last_table(mem, input)?;
        (table.level == Level::Three).then(|| table.entry(input))
    }

    /// The table whose entry for `input` points to no other.
    fn last_table<M: TableMemory>(&self, mem: &M, input: u64) -> Option<Table> {
        if input >> self.input_bits != 0 {
            return None;
        }
        let mut table = self.root;
        while let Kind::Table(pa) = kind(mem.read(table.entry(input)), table.level) {
            let base = input & !table.level.size().wrapping_sub(1);
            table = Table { pa, base, level: table.level.next()? };
        }
        Some(table)
    }

    /// Frees every table, the root too. Nothing uses the tree any more: its TLB entries are gone.
    pub fn destroy<M: TableMemory>(self, mem: &mut M) {
        let span = Span { start: 0, end: 1 << self.input_bits };
        free_below(mem, self.root, span);
        mem.free_root(self.root.pa, self.root_tables);
    }

    fn span(&self, range: Range<A>) -> Result<Span, MapError<A>> {
        let (start, size) = A::split(range);
        if (start | size) & PAGE_SIZE.wrapping_sub(1) != 0 {
            return Err(MapError::Misaligned);
        }
        let end = start.checked_add(size).ok_or(MapError::InputTooHigh)?;
        if end > 1 << self.input_bits {
            return Err(MapError::InputTooHigh);
        }
        Ok(Span { start, end })
    }

    fn check_output(&self, pa: Pa, span: Span) -> Result<(), MapError<A>> {
        if !pa.is_aligned(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        match pa.checked_add(span.end.wrapping_sub(span.start)) {
            Some(end) if end.get() <= 1 << self.output_bits => Ok(()),
            Some(_) | None => Err(MapError::OutputTooHigh),
        }
    }
}

/// Frees the tables that `table` points to; there is no leaf to respect.
fn free_below<M: TableMemory>(mem: &mut M, table: Table, span: Span) {
    for slot in span.slots(table.level) {
        if let Kind::Table(pa) = kind(mem.read(table.entry(slot.base)), slot.level)
            && let Some(next) = slot.table(pa)
        {
            free_below(mem, next, slot.span);
            mem.free(pa);
        }
    }
}
