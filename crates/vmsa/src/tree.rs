//! A tree of translation tables and the one way to change it: plan, which may fail and shows
//! nothing, then a commit that cannot fail.
//!
//! [`Tree::plan`] checks the whole range and takes every table that the change needs out of the
//! [`TableMemory`]; a plan that is dropped gives them back. [`Plan::commit`] then obeys
//! break-before-make (D8.16.1) in passes over the range, so that the number of TLB invalidations
//! does not grow with it:
//!
//! 1. *break*: leaves that cannot change in place (other memory type or size) become invalid, with
//!    their other bits kept; one [`Tlb::flush`];
//! 2. *make*: write the new leaves and link new tables, each filled before it is visible. Tables
//!    that became empty are unlinked, and those that hold one contiguous range with equal
//!    attributes become a (still invalid) block; one flush of what changed;
//! 3. *mend*: make the joined blocks valid, free the unlinked tables.
//!
//! Between the passes other CPUs may see translation faults in the range; who handles faults takes
//! the same lock as who changes tables, and retries. The flush is a callback rather than a result
//! because tables may be freed only after it; it cannot be forgotten.

use core::marker::PhantomData;

use addr::{Canonical, Ipa, Nested, PAGE_SIZE, Pa, Range, Va};

use crate::attr::AttrError;
use crate::descriptor::{ADDRESS, Kind, Level, TABLE_OR_PAGE, VALID, kind, leaf, needs_break, table_at};

/// Where tables live. Only tables that came from it are read or written.
pub trait TableMemory {
    /// One zeroed 4 KiB table.
    fn alloc(&mut self) -> Option<Pa>;
    /// `tables` zeroed and adjacent tables, aligned to their size; `tables` is a power of two of at
    /// most 16.
    fn alloc_root(&mut self, tables: usize) -> Option<Pa>;
    /// Takes back what [`alloc`](Self::alloc) gave; its content is arbitrary.
    fn free(&mut self, table: Pa);
    /// Takes back what [`alloc_root`](Self::alloc_root) gave; its content is arbitrary.
    fn free_root(&mut self, root: Pa, tables: usize);
    /// The descriptor at `entry`.
    fn read(&self, entry: Pa) -> u64;
    /// Stores the descriptor at `entry` as one 64-bit store with release semantics: a walker that
    /// sees it also sees everything written before. Cleans the cache where walkers need that.
    fn write(&mut self, entry: Pa, descriptor: u64);
}

/// An address that a tree translates.
pub trait InputAddress: Copy {
    /// The address with this value.
    fn from_u64(value: u64) -> Self;
    /// Its value.
    fn to_u64(self) -> u64;
    /// First address and length of `range`.
    fn split(range: Range<Self>) -> (u64, u64);
}

macro_rules! input_address {
    ($($address:ty),*) => {$(
        impl InputAddress for $address {
            fn from_u64(value: u64) -> Self {
                Self::new(value)
            }
            fn to_u64(self) -> u64 {
                self.get()
            }
            fn split(range: Range<Self>) -> (u64, u64) {
                (range.start().get(), range.size())
            }
        }
    )*};
}
input_address!(Va, Ipa<Canonical>, Ipa<Nested>);

/// Translations that changed: all of `start..end` must leave the TLBs, last-level entries and
/// cached table pointers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush<A> {
    /// First address, page-aligned.
    pub start: A,
    /// First address behind.
    pub end: A,
    /// Deepest level that changed: one invalidation by address for each [`Level::size`] suffices.
    pub level: Level,
}

/// The CPUs' TLBs.
pub trait Tlb<A> {
    /// Returns when no CPU uses the old translations any more.
    ///
    /// Stage 2: DSB ISHST; TLBI IPAS2E1IS for each leaf (or VMALLS12E1IS for a long range); DSB ISH;
    /// TLBI VMALLE1IS, because combined entries survive the first; DSB ISH; ISB; all with the VM's
    /// VMID in VTTBR_EL2. EL2's stage 1: DSB ISHST; TLBI VAE2IS; DSB ISH; ISB.
    fn flush(&mut self, flush: Flush<A>);
    /// Makes entries that were invalid before visible to walkers: DSB ISHST; ISB.
    fn publish(&mut self);
}

/// For tables that no CPU uses yet.
#[derive(Clone, Copy, Debug)]
pub struct Unused;

impl<A> Tlb<A> for Unused {
    fn flush(&mut self, _: Flush<A>) {}
    fn publish(&mut self) {}
}

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
    /// All of it is mapped; give it these attribute bits.
    Protect {
        /// Leaf bits other than address, type and valid bit.
        attributes: u64,
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
    fn table(&self, pa: Pa) -> Option<Table> {
        Some(Table { pa, base: self.base, level: self.level.next()? })
    }
}

impl Table {
    /// Where the entry is that translates `input`, an address that the table covers.
    fn entry(&self, input: u64) -> Pa {
        let index = input.wrapping_sub(self.base) >> self.level.shift();
        Pa::new(self.pa.get().wrapping_add(index << 3))
    }
}

/// The descriptor as it was before the break pass took its valid bit.
fn restored(descriptor: u64) -> u64 {
    if descriptor == 0 { 0 } else { descriptor | VALID }
}

/// What the table that splits the leaf `whole` of `slot` holds for `input`; zero if `whole` is.
fn part(whole: u64, slot: &Slot, input: u64) -> u64 {
    match slot.level.next() {
        Some(level) if whole != 0 => {
            let pa = (whole & ADDRESS).wrapping_add(input.wrapping_sub(slot.base));
            leaf(pa, whole & !(ADDRESS | TABLE_OR_PAGE), level)
        }
        Some(_) | None => 0,
    }
}

/// What a change does to one entry.
enum Step {
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
enum Edit {
    /// Physical address minus input address; attribute bits.
    Map(u64, u64),
    Protect(u64),
    Unmap,
}

impl Edit {
    /// The decision: `descriptor` is what the entry of `slot` holds.
    fn step<A: InputAddress>(self, descriptor: u64, slot: &Slot) -> Result<Step, MapError<A>> {
        let here = A::from_u64(slot.span.start);
        Ok(match (kind(descriptor, slot.level), self) {
            (Kind::Table(next), _) => slot.table(next).map_or(Step::Keep, Step::Descend),
            (Kind::Invalid, Self::Map(delta, attributes)) => {
                let pa = slot.span.start.wrapping_add(delta);
                if slot.fits_leaf(pa) { Step::Set(leaf(pa, attributes, slot.level)) } else { Step::Split }
            }
            (Kind::Invalid, Self::Protect(_)) => return Err(MapError::Unmapped(here)),
            (Kind::Invalid, Self::Unmap) => Step::Keep,
            (Kind::Leaf, Self::Map(..)) => return Err(MapError::Mapped(here)),
            (Kind::Leaf, Self::Protect(attributes)) => {
                let new = leaf(descriptor & ADDRESS, attributes, slot.level);
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
    pub fn plan<'a, M: TableMemory>(
        &'a mut self,
        mem: &'a mut M,
        range: Range<A>,
        change: Change,
    ) -> Result<Plan<'a, A, M>, MapError<A>> {
        let span = self.span(range)?;
        let edit = match change {
            Change::Map { pa, attributes } => {
                self.check_output(pa, span)?;
                Edit::Map(pa.get().wrapping_sub(span.start), attributes)
            }
            Change::Protect { attributes } => Edit::Protect(attributes),
            Change::Unmap => Edit::Unmap,
        };
        let tables = count_tables(mem, Node::Table(self.root), edit, span)?;
        let mut plan = Plan { tree: self, mem, edit, span, spare: Chain::default(), tables };
        for _ in 0..tables {
            // An early return drops the plan, which frees what it has.
            let table = plan.mem.alloc().ok_or(MapError::OutOfTables)?;
            plan.spare.push(plan.mem, table);
        }
        Ok(plan)
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

/// A table that exists, or that will take the place of `whole` in `slot`.
enum Node {
    Table(Table),
    Future { whole: u64, slot: Slot },
}

/// How many new tables `edit` needs in `span`.
fn count_tables<A: InputAddress, M: TableMemory>(
    mem: &M,
    node: Node,
    edit: Edit,
    span: Span,
) -> Result<usize, MapError<A>> {
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
        let below = match edit.step::<A>(descriptor, &slot)? {
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

/// Tables that are not linked anywhere, each holding the address of the next in its first entry.
/// Such an entry is invalid, so a walker that still has a cached pointer to the table just faults.
#[derive(Default)]
struct Chain(Option<Pa>);

impl Chain {
    fn push<M: TableMemory>(&mut self, mem: &mut M, table: Pa) {
        mem.write(table, self.0.map_or(0, Pa::get));
        self.0 = Some(table);
    }

    /// Takes a table; its first entry is zero again.
    fn pop<M: TableMemory>(&mut self, mem: &mut M) -> Option<Pa> {
        let table = self.0?;
        // No table lies at address zero: there the list ends.
        self.0 = Some(Pa::new(mem.read(table))).filter(|next| next.get() != 0);
        mem.write(table, 0);
        Some(table)
    }

    fn free<M: TableMemory>(&mut self, mem: &mut M) {
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
pub struct Plan<'a, A, M: TableMemory> {
    tree: &'a mut Tree<A>,
    mem: &'a mut M,
    edit: Edit,
    span: Span,
    spare: Chain,
    tables: usize,
}

impl<A, M: TableMemory> Drop for Plan<'_, A, M> {
    fn drop(&mut self) {
        self.spare.free(self.mem);
    }
}

impl<A: InputAddress, M: TableMemory> Plan<'_, A, M> {
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
        let mut work = Work { stale: Stale::default(), retired: Chain::default(), joined: false };
        if !matches!(self.edit, Edit::Map(..)) {
            self.break_leaves(root, span, &mut work.stale);
            work.stale.flush(tlb);
        }
        self.make(root, span, true, &mut work);
        let flushed = work.stale.flush(tlb);
        if work.joined {
            self.mend(root, span);
        }
        if work.joined || !flushed {
            tlb.publish();
        }
        work.retired.free(self.mem);
    }

    /// Pass 1: leaves that must not change in place lose their valid bit.
    fn break_leaves(&mut self, table: Table, span: Span, stale: &mut Stale) {
        for slot in span.slots(table.level) {
            let entry = table.entry(slot.base);
            let old = self.mem.read(entry);
            let breaks = match self.edit.step::<A>(old, &slot) {
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
            let Ok(step) = self.edit.step::<A>(whole, &slot) else {
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
