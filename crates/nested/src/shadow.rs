//! Shadow stage 2: for each stage 2 of L1's in use, tables for the hardware that join it with the VM's
//! own stage 2.
//!
//! [`Shadows`] is a VM's bounded pool. A vCPU that enters L2 [attaches](Shadows::attach) to the shadow
//! for its registers ([`Key`]); two vCPUs with the same registers share it, and it stays, with all it
//! holds, until another stage 2 needs its place. Each shadow has a VMID of its own in hardware,
//! whatever VMID L1 wrote: the caller knows it by the shadow's index.
//!
//! A shadow is a cache of L1's tables like a TLB: filled by faults ([`Shadows::map`]), emptied by L1's
//! TLBI ([`Shadows::invalidate`]), and by the hypervisor where the VM itself loses memory or rights
//! ([`Shadows::forget_canonical`]). L1's tables are read with no lock held, so a fault's translation
//! may be outdated when it is to be mapped: [`Shadows::generation`] tells, and the fault is then
//! handled again.

use addr::{BLOCK_2M, Canonical, Ipa, Nested, PAGE_SIZE, Pa, Range};
use alloc::vec::Vec;
use vmsa::attr::{AttrError, S2Features};
use vmsa::memory::{Flush, Tlb};
use vmsa::stage2::Geometry;

use crate::attributes::Mapping;
use crate::stage2::input_bits;
use crate::tlbi::{Extent, Stage2};

mod key;
mod reverse;
mod tables;
mod tree;

pub use key::{Key, guest_vmid};
use reverse::{Record, ReverseMap};
pub use tables::TableMemory;
use tables::Tables;
use tree::{LeafSizes, Span, Tree};

/// Root entries in use in all shadows together. As tables are, they are what it costs to forget all, which
/// happens in one go; so when there would be more, all is forgotten.
const MOST_TOUCHED: usize = 1024;
/// Entries that one invalidation by address looks at in all shadows together; those for which that is not
/// enough are forgotten.
const MOST_CUT: usize = 2048;

/// The CPUs' TLBs, as far as shadows fill them.
pub trait Tlbs {
    /// Returns when no CPU uses the old translations of shadow `slot` any more, as
    /// [`Tlb::flush`] for the shadow's VMID.
    fn flush(&mut self, slot: usize, flush: Flush<Ipa<Nested>>);
    /// The same for all translations under the shadow's VMID, of both stages.
    fn flush_all(&mut self, slot: usize);
    /// Makes entries that were invalid before visible to walkers: DSB ISHST; ISB.
    fn publish(&mut self);
}

/// The TLBs for one shadow.
struct Of<'a, T> {
    tlbs: &'a mut T,
    slot: usize,
}

impl<T: Tlbs> Tlb<Ipa<Nested>> for Of<'_, T> {
    fn flush(&mut self, flush: Flush<Ipa<Nested>>) {
        self.tlbs.flush(self.slot, flush);
    }
    fn publish(&mut self) {
        self.tlbs.publish();
    }
}

/// What a pool is made of.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Shadows, at least one more than the VM has vCPUs; at most 255.
    pub slots: usize,
    /// Zeroed memory of [`Config::frames`] tables, aligned to the size of a root.
    pub memory: Pa,
    /// Tables beside the roots: the VM's budget. At least 8.
    pub tables: usize,
    /// Mappings that can be traced back from the VM's own addresses.
    pub records: usize,
    /// The machine has VMIDs of 16 bits.
    pub vmid16: bool,
    /// Width of a physical address of the machine.
    pub pa_bits: u8,
    /// What the machine can do, which shadows are encoded for.
    pub features: S2Features,
}

impl Config {
    /// 4 KiB tables that a shadow's root takes.
    #[must_use]
    pub const fn root_tables(&self) -> usize {
        match self.pa_bits {
            // From 44 bits on, spaces of 40 to 43 bits start at level 0 instead.
            40..=43 => 1 << self.pa_bits.saturating_sub(39),
            _ => 1,
        }
    }

    /// 4 KiB tables in all.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.slots.saturating_mul(self.root_tables()).saturating_add(self.tables)
    }

    /// The shape of a shadow for L2 addresses of `input` bits. It may be larger: what lies above L1's
    /// input size faults, and L1's tables say how.
    fn geometry(&self, input: u8) -> Option<Geometry> {
        let most = self.pa_bits.min(48);
        let bits = match input.clamp(31, most) {
            40..=43 if most >= 44 => 44,
            bits => bits,
        };
        Geometry::new(bits, self.pa_bits)
    }
}

/// A place for a shadow.
#[derive(Debug)]
struct Slot {
    key: Option<Key>,
    tree: Tree,
    /// VTCR_EL2 for the hardware.
    vtcr: u64,
    sizes: LeafSizes,
    /// vCPUs that are attached.
    users: usize,
    /// Counts how often everything in it was forgotten.
    life: u32,
}

impl Slot {
    /// What an invalidation reaches here: what L1's leaves at both ends span goes too, for a TLB forgets
    /// whole leaves.
    fn stale(&self, mem: &impl TableMemory, what: Stage2) -> Span {
        let start = what.start.get();
        let leaf = self.tree.leaf_span(mem, start, self.sizes);
        match what.extent {
            Extent::Leaf => leaf,
            Extent::Bytes(bytes) => {
                let end = start.saturating_add(bytes);
                let last = self.tree.leaf_span(mem, end.saturating_sub(1), self.sizes);
                Span { start, end }.join(leaf).join(last)
            }
        }
    }
}

/// What the hardware needs to know of a shadow; the VMID is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// VTTBR_EL2.BADDR; `None`: the VM's own tables, because L1's stage 2 is off.
    pub root: Option<Pa>,
    /// VTCR_EL2, to go with `root`.
    pub vtcr: u64,
}

/// Why a translation was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An invalidation came in between: translate again.
    Outdated,
    /// The attributes have no encoding on this machine.
    Attr(AttrError),
    /// The address is not the shadow's, or its tables cannot be had: a contradiction.
    NoRoom,
}

/// A VM's shadows. To be kept under a lock.
#[derive(Debug)]
pub struct Shadows {
    config: Config,
    slots: Vec<Slot>,
    tables: Tables,
    reverse: ReverseMap,
    /// Root entries of all shadows that were written since the shadow was last forgotten.
    touched: usize,
    /// Where the search for a place begins.
    next: usize,
    generation: u64,
}

impl Shadows {
    /// An empty pool; `None` if the configuration is impossible.
    #[must_use]
    pub fn new(config: Config) -> Option<Self> {
        let root = (config.root_tables() as u64).checked_mul(PAGE_SIZE)?;
        if config.slots == 0 || config.slots > 255 || config.tables < 8 || !config.memory.is_aligned(root) {
            return None;
        }
        config.geometry(48)?;
        let mut slots = Vec::with_capacity(config.slots);
        let mut base = config.memory;
        for _ in 0..config.slots {
            let tree = Tree::new(base, config.root_tables());
            slots.push(Slot { key: None, tree, vtcr: 0, sizes: LeafSizes::new(12), users: 0, life: 0 });
            base = base.checked_add(root)?;
        }
        Some(Self {
            tables: Tables::new(base, config.tables),
            reverse: ReverseMap::new(config.records),
            touched: 0,
            slots,
            next: 0,
            generation: 0,
            config,
        })
    }

    /// How many shadows there are.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Changes with every invalidation. A translation that was read from tables after this number, and
    /// is mapped by it, is not older than any invalidation before.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Attaches a vCPU to the shadow for `key`: the one that is there, or one made in a free place.
    /// `None` if no place is free: more vCPUs are attached than there are places.
    pub fn attach(&mut self, mem: &mut impl TableMemory, tlbs: &mut impl Tlbs, key: Key) -> Option<usize> {
        if let Some((index, slot)) = self.slots.iter_mut().enumerate().find(|(_, s)| s.key == Some(key)) {
            slot.users = slot.users.saturating_add(1);
            return Some(index);
        }
        let count = self.slots.len();
        let from = self.next;
        let index = (0..count)
            .filter_map(|i| from.wrapping_add(i).checked_rem(count))
            .find(|index| self.slots.get(*index).is_some_and(|slot| slot.users == 0))?;
        self.next = index.wrapping_add(1);
        self.forget_slot(mem, tlbs, index);
        let geometry = self.config.geometry(input_bits(key.registers.vtcr))?;
        let slot = self.slots.get_mut(index)?;
        slot.tree.reshape(geometry.start_level(), geometry.root_tables());
        slot.vtcr = geometry.vtcr(self.config.vmid16);
        slot.sizes = LeafSizes::new(key.granule);
        slot.key = Some(key);
        slot.users = 1;
        Some(index)
    }

    /// A vCPU leaves its shadow, which stays as it is as long as its place is not needed.
    pub fn detach(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.users = slot.users.saturating_sub(1);
        }
    }

    /// What the hardware needs to know of shadow `index`.
    #[must_use]
    pub fn loaded(&self, index: usize) -> Option<Loaded> {
        let slot = self.slots.get(index)?;
        let on = slot.key?.on;
        Some(Loaded { root: on.then_some(slot.tree.root()), vtcr: slot.vtcr })
    }

    /// The registers that shadow `index` stands for.
    #[must_use]
    pub fn key(&self, index: usize) -> Option<&Key> {
        self.slots.get(index)?.key.as_ref()
    }

    /// The shadows that stand for L1's VMID `vmid`.
    pub fn of_vmid(&self, vmid: u16) -> impl Iterator<Item = usize> {
        let matches = move |slot: &Slot| slot.key.is_some_and(|key| key.vmid == vmid);
        self.slots.iter().enumerate().filter(move |(_, slot)| matches(slot)).map(|(index, _)| index)
    }

    /// Maps a translation that was made at `generation`.
    ///
    /// # Errors
    /// [`Refused`]; nothing is mapped then.
    pub fn map(
        &mut self,
        mem: &mut impl TableMemory,
        tlbs: &mut impl Tlbs,
        index: usize,
        mapping: &Mapping,
        generation: u64,
    ) -> Result<(), Refused> {
        if generation != self.generation {
            return Err(Refused::Outdated);
        }
        let attributes = mapping.attr.encode(self.config.features).map_err(Refused::Attr)?;
        if self.try_map(mem, tlbs, index, mapping, attributes).is_none() {
            // No table is left: all shadows begin anew, and there is room for one.
            self.forget_slots(mem, tlbs);
            self.try_map(mem, tlbs, index, mapping, attributes).ok_or(Refused::NoRoom)?;
        }
        let life = self.slots.get(index).map_or(0, |slot| slot.life);
        let (nested, size) = (mapping.nested.start().get(), mapping.nested.size());
        let record = Record::new(mapping.canonical.get(), nested, size, index, life);
        if let Some(evicted) = record.and_then(|record| self.reverse.insert(record)) {
            self.follow(mem, tlbs, &evicted);
        }
        Ok(())
    }

    fn try_map(
        &mut self,
        mem: &mut impl TableMemory,
        tlbs: &mut impl Tlbs,
        index: usize,
        mapping: &Mapping,
        attributes: u64,
    ) -> Option<()> {
        let slot = self.slots.get_mut(index)?;
        let before = slot.tree.touched();
        if self.touched >= MOST_TOUCHED && !slot.tree.has_touched(mapping.nested.start().get()) {
            return None;
        }
        let mapped = slot.tree.map(mem, &mut self.tables, &mut Of { tlbs, slot: index }, mapping, attributes);
        self.touched = self.touched.saturating_add(slot.tree.touched().saturating_sub(before));
        mapped.ok()
    }

    /// Carries out an invalidation of stage 2 by L1 under its VMID `vmid`: in every shadow that stands
    /// for it.
    pub fn invalidate(&mut self, mem: &mut impl TableMemory, tlbs: &mut impl Tlbs, vmid: u16, what: Stage2) {
        self.generation = self.generation.wrapping_add(1);
        let mut left = MOST_CUT;
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index) else { break };
            if slot.tree.touched() == 0 || !slot.key.is_some_and(|key| key.on && key.vmid == vmid) {
                continue;
            }
            let span = slot.stale(mem, what);
            let mut tlb = Of { tlbs: &mut *tlbs, slot: index };
            if !slot.tree.unmap(mem, &mut self.tables, &mut tlb, span, &mut left) {
                // To forget more is always allowed, and costs less from here on.
                self.forget_slot(mem, tlbs, index);
            }
        }
    }

    /// Forgets both stages of every shadow that stands for L1's VMID `vmid`.
    pub fn forget_vmid(&mut self, mem: &mut impl TableMemory, tlbs: &mut impl Tlbs, vmid: u16) {
        self.generation = self.generation.wrapping_add(1);
        for index in 0..self.slots.len() {
            if self.slots.get(index).and_then(|slot| slot.key).is_some_and(|key| key.vmid == vmid) {
                self.forget_slot(mem, tlbs, index);
            }
        }
    }

    /// Forgets everything.
    pub fn forget_all(&mut self, mem: &mut impl TableMemory, tlbs: &mut impl Tlbs) {
        self.generation = self.generation.wrapping_add(1);
        self.forget_slots(mem, tlbs);
    }

    fn forget_slots(&mut self, mem: &mut impl TableMemory, tlbs: &mut impl Tlbs) {
        for index in 0..self.slots.len() {
            self.forget_slot(mem, tlbs, index);
        }
        self.reverse.clear();
    }

    fn forget_slot(&mut self, mem: &mut impl TableMemory, tlbs: &mut impl Tlbs, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let touched = slot.tree.touched();
        // TLBs hold something under its VMID only if there was a leaf, or if its guests use the VM's own.
        if slot.key.is_none_or(|key| key.on && touched == 0) {
            return;
        }
        slot.tree.clear(mem, &mut self.tables);
        self.touched = self.touched.saturating_sub(touched);
        slot.life = slot.life.wrapping_add(1);
        tlbs.flush_all(index);
    }

    /// Forgets what leads to L1's physical addresses `range`: the VM's own stage 2 has changed there.
    pub fn forget_canonical(
        &mut self,
        mem: &mut impl TableMemory,
        tlbs: &mut impl Tlbs,
        range: Range<Ipa<Canonical>>,
    ) {
        if range.size() > BLOCK_2M || !self.reverse.has_few(&range) {
            return self.forget_all(mem, tlbs);
        }
        self.generation = self.generation.wrapping_add(1);
        let Self { slots, tables, reverse, .. } = self;
        reverse.find(&range, |record| forget_record(slots, tables, mem, tlbs, record));
        for (index, slot) in slots.iter().enumerate() {
            // Where L1's stage 2 is off, its guests use the VM's own tables, under this VMID.
            if slot.key.is_some_and(|key| !key.on) {
                tlbs.flush_all(index);
            }
        }
    }

    fn follow(&mut self, mem: &mut impl TableMemory, tlbs: &mut impl Tlbs, record: &Record) {
        forget_record(&self.slots, &mut self.tables, mem, tlbs, record);
    }
}

/// Forgets the mapping that a record describes, if the shadow has not been forgotten since.
fn forget_record(
    slots: &[Slot],
    tables: &mut Tables,
    mem: &mut impl TableMemory,
    tlbs: &mut impl Tlbs,
    record: &Record,
) {
    let index = usize::from(record.slot);
    let Some(slot) = slots.get(index).filter(|slot| slot.life == record.life) else { return };
    // A leaf's size, or a table's.
    let mut left = usize::MAX;
    slot.tree.unmap(mem, tables, &mut Of { tlbs, slot: index }, record.span(), &mut left);
}

#[cfg(test)]
mod tests;
