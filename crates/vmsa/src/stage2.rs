//! Stage 2: a VM's IPA space, from its size to its leaves.
//!
//! [`Geometry`] says how many levels the walk has; [`Stage2`] is a [`Tree`](crate::tree) with typed
//! addresses and attributes; [`tables_needed`] is the budget for a map that is known in advance.

use addr::{Canonical, Ipa, PAGE_SIZE, Pa, Range};

use crate::attr::{S2Attr, S2Features, S2Memory};
use crate::descriptor::{Level, physical_size};
use crate::memory::{InputAddress, TableMemory, Tlb};
use crate::tree::{Change, MapError, Plan, Span, Tree};

/// Shape of a VM's tables (D8.2.2).
///
/// Up to 16 tables may stand side by side at the root and save a level: so an IPA space of 40 to 43
/// bits starts at level 1 (which is also the only way where the machine has less than 44 bits of
/// physical address), and only larger ones start at level 0. Spaces of up to 30 bits start at level
/// 2. Those of 31 to 34 bits could too, but then 1 GiB blocks would be lost and the root alone would
/// take up to 64 KiB: they start at level 1 with one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    ipa_bits: u8,
    output_bits: u8,
    physical_size: u64,
    start: Level,
    tables: usize,
}

impl Geometry {
    /// The shape for IPAs of `ipa_bits` (25 to 48) on a machine with physical addresses of
    /// `pa_bits` (32 to 56, as `ID_AA64MMFR0_EL1.PARange` says); `None` if the IPAs are wider than
    /// the machine's addresses or not possible at all.
    #[must_use]
    pub const fn new(ipa_bits: u8, pa_bits: u8) -> Option<Self> {
        let Some(physical_size) = physical_size(pa_bits) else { return None };
        if ipa_bits < 25 || ipa_bits > 48 || ipa_bits > pa_bits {
            return None;
        }
        let (start, extra_bits) = match ipa_bits {
            25..=30 => (Level::Two, 0),
            31..=39 => (Level::One, 0),
            40..=43 => (Level::One, ipa_bits.wrapping_sub(39)),
            _ => (Level::Zero, 0),
        };
        let output_bits = if pa_bits < 48 { pa_bits } else { 48 };
        Some(Self { ipa_bits, output_bits, physical_size, start, tables: 1 << extra_bits })
    }

    /// The smallest size that holds all addresses below `end`; above 48 it is no possible one.
    #[must_use]
    pub const fn ipa_bits_for(end: Ipa<Canonical>) -> u8 {
        let bits = 64_u32.saturating_sub(end.get().saturating_sub(1).leading_zeros());
        if bits < 25 { 25 } else { bits as u8 }
    }

    /// Width of an IPA.
    #[must_use]
    pub const fn ipa_bits(&self) -> u8 {
        self.ipa_bits
    }

    /// Level of the root.
    #[must_use]
    pub const fn start_level(&self) -> Level {
        self.start
    }

    /// Number of concatenated tables at the root.
    #[must_use]
    pub const fn root_tables(&self) -> usize {
        self.tables
    }

    /// The whole `VTCR_EL2` (D24.2): 4 KiB granule, walks inner shareable and write-back, no
    /// hardware update of access flag or dirty state. `vmid16`: VMIDs have 16 bits
    /// (`ID_AA64MMFR1_EL1.VMIDBits`).
    #[must_use]
    pub const fn vtcr(&self, vmid16: bool) -> u64 {
        let t0sz = 64_u64.wrapping_sub(self.ipa_bits as u64);
        let sl0: u64 = match self.start {
            Level::Two | Level::Three => 0,
            Level::One => 1,
            Level::Zero => 2,
        };
        let (irgn0, orgn0, sh0, tg0) = (0b01 << 8, 0b01 << 10, 0b11 << 12, 0b00 << 14);
        let (ps, vs, res1) = (self.physical_size << 16, (vmid16 as u64) << 19, 1 << 31);
        t0sz | sl0 << 6 | irgn0 | orgn0 | sh0 | tg0 | ps | vs | res1
    }
}

/// The tables of one VM.
#[derive(Debug)]
pub struct Stage2<S = Canonical> {
    tree: Tree<Ipa<S>>,
    geometry: Geometry,
    features: S2Features,
}

impl<S> Stage2<S>
where
    Ipa<S>: InputAddress,
{
    /// Tables that map nothing; `None` without memory for the root.
    pub fn new(mem: &mut impl TableMemory, geometry: Geometry, features: S2Features) -> Option<Self> {
        let Geometry { start, tables, ipa_bits, output_bits, .. } = geometry;
        let tree = Tree::new(mem, start, tables, ipa_bits, output_bits)?;
        Some(Self { tree, geometry, features })
    }

    /// The shape.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Physical address of the root.
    #[must_use]
    pub const fn root(&self) -> Pa {
        self.tree.root()
    }

    /// The whole `VTTBR_EL2` (D24.2), CnP clear.
    #[must_use]
    pub const fn vttbr(&self, vmid: u16) -> u64 {
        (vmid as u64) << 48 | self.tree.root().get()
    }

    /// Plans to map `range`, which is unmapped, to memory from `pa` on. 1 GiB and 2 MiB blocks are
    /// used wherever both addresses and the length allow.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub fn plan_map<'a>(
        &'a mut self,
        mem: &'a mut dyn TableMemory,
        range: Range<Ipa<S>>,
        pa: Pa,
        attr: S2Attr,
    ) -> Result<Plan<'a, Ipa<S>>, MapError<Ipa<S>>> {
        let attributes = attr.encode(self.features).map_err(MapError::Attr)?;
        self.tree.plan(mem, range, Change::Map { pa, attributes })
    }

    /// Plans to change the attributes of `range`, all of which is mapped. Blocks are split where
    /// the range ends within one, and tables joined to a block where they became uniform.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub fn plan_protect<'a>(
        &'a mut self,
        mem: &'a mut dyn TableMemory,
        range: Range<Ipa<S>>,
        attr: S2Attr,
    ) -> Result<Plan<'a, Ipa<S>>, MapError<Ipa<S>>> {
        let attributes = attr.encode(self.features).map_err(MapError::Attr)?;
        self.tree.plan(mem, range, Change::Update { keep: 0, set: attributes })
    }

    /// Plans to give `range`, all of which is mapped, another memory type. What the guest may do there
    /// stays as it is, page by page.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub fn plan_retype<'a>(
        &'a mut self,
        mem: &'a mut dyn TableMemory,
        range: Range<Ipa<S>>,
        memory: S2Memory,
    ) -> Result<Plan<'a, Ipa<S>>, MapError<Ipa<S>>> {
        let (mask, set) = memory.encode(self.features).map_err(MapError::Attr)?;
        self.tree.plan(mem, range, Change::Update { keep: !mask, set })
    }

    /// [`plan_retype`](Self::plan_retype) and commit, by the short way if `range` is a page that is one.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub fn retype<M: TableMemory>(
        &mut self,
        mem: &mut M,
        tlb: &mut impl Tlb<Ipa<S>>,
        range: Range<Ipa<S>>,
        memory: S2Memory,
    ) -> Result<(), MapError<Ipa<S>>> {
        let (mask, set) = memory.encode(self.features).map_err(MapError::Attr)?;
        let (start, size) = Ipa::<S>::split(range);
        if size == PAGE_SIZE && self.tree.update_page(mem, tlb, Ipa::<S>::from_u64(start), (!mask, set)) {
            return Ok(());
        }
        self.plan_retype(mem, range, memory).map(|plan| plan.commit(tlb))
    }

    /// Plans to allow or forbid stores to `range`, all of which is mapped; all else stays as it is.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub fn plan_writable<'a>(
        &'a mut self,
        mem: &'a mut dyn TableMemory,
        range: Range<Ipa<S>>,
        writable: bool,
    ) -> Result<Plan<'a, Ipa<S>>, MapError<Ipa<S>>> {
        let set = if writable { S2Attr::WRITE } else { 0 };
        self.tree.plan(mem, range, Change::Update { keep: !S2Attr::WRITE, set })
    }

    /// Plans to unmap what is mapped in `range`.
    ///
    /// # Errors
    /// [`MapError::OutOfTables`] if a block must be split; a misaligned or too high range.
    pub fn plan_unmap<'a>(
        &'a mut self,
        mem: &'a mut dyn TableMemory,
        range: Range<Ipa<S>>,
    ) -> Result<Plan<'a, Ipa<S>>, MapError<Ipa<S>>> {
        self.tree.plan(mem, range, Change::Unmap)
    }

    /// [`plan_map`](Self::plan_map) and commit.
    ///
    /// # Errors
    /// As the plan's.
    pub fn map(
        &mut self,
        mem: &mut dyn TableMemory,
        tlb: &mut impl Tlb<Ipa<S>>,
        range: Range<Ipa<S>>,
        pa: Pa,
        attr: S2Attr,
    ) -> Result<(), MapError<Ipa<S>>> {
        self.plan_map(mem, range, pa, attr).map(|plan| plan.commit(tlb))
    }

    /// [`plan_protect`](Self::plan_protect) and commit.
    ///
    /// # Errors
    /// As the plan's.
    pub fn protect(
        &mut self,
        mem: &mut dyn TableMemory,
        tlb: &mut impl Tlb<Ipa<S>>,
        range: Range<Ipa<S>>,
        attr: S2Attr,
    ) -> Result<(), MapError<Ipa<S>>> {
        self.plan_protect(mem, range, attr).map(|plan| plan.commit(tlb))
    }

    /// [`plan_unmap`](Self::plan_unmap) and commit.
    ///
    /// # Errors
    /// As the plan's.
    pub fn unmap(
        &mut self,
        mem: &mut dyn TableMemory,
        tlb: &mut impl Tlb<Ipa<S>>,
        range: Range<Ipa<S>>,
    ) -> Result<(), MapError<Ipa<S>>> {
        self.plan_unmap(mem, range).map(|plan| plan.commit(tlb))
    }

    /// Where `ipa` leads, with which attributes, and the level of its leaf.
    #[must_use]
    pub fn walk(&self, mem: &impl TableMemory, ipa: Ipa<S>) -> Option<(Pa, S2Attr, Level)> {
        let (leaf, pa, level) = self.tree.walk(mem, ipa)?;
        Some((pa, S2Attr::decode(leaf, self.features)?, level))
    }

    /// Frees all tables. No CPU uses them any more, and the VMID's TLB entries are gone.
    pub fn destroy(self, mem: &mut impl TableMemory) {
        self.tree.destroy(mem);
    }
}

/// How many 4 KiB tables, the root's included, it takes to map `ranges` at most. Exact if they are
/// sorted by IPA and do not overlap. A range with `true` may be split down to pages later, as changes
/// of a part of a block do; the tables for that are included.
pub fn tables_needed<A: InputAddress>(
    geometry: &Geometry,
    ranges: impl IntoIterator<Item = (Range<A>, Pa, bool)>,
) -> usize {
    let mut budget = Budget { last: [None; 3], tables: geometry.tables };
    for (range, pa, split) in ranges {
        let (start, size) = A::split(range);
        // Outside of the geometry nothing can be mapped.
        let end = start.saturating_add(size).min(1 << geometry.ipa_bits);
        budget.add(Span { start, end }, geometry.start, pa.get().wrapping_sub(start), split);
    }
    budget.tables
}

/// Counts tables along rising addresses.
struct Budget {
    /// First input address of the entry at levels 0 to 2 whose table was counted last.
    last: [Option<u64>; 3],
    tables: usize,
}

impl Budget {
    fn add(&mut self, span: Span, level: Level, delta: u64, split: bool) {
        // Pages need no further tables.
        let Some(next) = level.next() else { return };
        for slot in span.slots(level) {
            if !split && slot.fits_leaf(slot.span.start.wrapping_add(delta)) {
                continue;
            }
            if let Some(last) = self.last.get_mut(level as usize)
                && last.replace(slot.base) != Some(slot.base)
            {
                self.tables = self.tables.saturating_add(1);
            }
            self.add(slot.span, next, delta, split);
        }
    }
}

const _: () = assert!(PAGE_SIZE == Level::Three.size());

#[cfg(test)]
mod tests;
