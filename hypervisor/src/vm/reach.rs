//! A VM's memory and tags as control VMs reach them, while its vCPUs run and its map changes.
//!
//! Each page is looked up and copied under `vm.map`: what is held that long is some hundred
//! instructions. Between pages the lock is free, and two VMs' locks are never held at once, so all goes
//! through a buffer of EL2's own.

use super::Vm;
use super::map::GuestMap;
use crate::arch::copy::bytes_mut;
use crate::mem::window;
use crate::vm::lazy::Change;
use abi::hypercall::CopyEnd;
use addr::{BLOCK_2M, Canonical, Ipa, IpaRange, PAGE_SIZE, Pa};
use cmo::Kind;
use manifest::{RegionKind, RegionSpec, Tags};
use tags::copy::{PageTags, is_zero};
use vmsa::attr::S2Memory;
use vmsa::descriptor::Level;

/// What memory is reached for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The caller's own buffer: its RAM, which nobody else sees.
    Buffer,
    /// All of a VM's memory, read-only regions too: what its loader does, or who migrates it.
    Whole,
    /// What a device could do by DMA.
    Device,
}

/// How much was done, and why no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    /// Bytes of data, or pages of tags.
    pub(crate) done: usize,
    /// Why it ended.
    pub(crate) end: CopyEnd,
}

impl Purpose {
    /// Whether a region may be reached so.
    fn check(self, region: &RegionSpec, write: bool) -> Result<(), CopyEnd> {
        match (&region.kind, self) {
            (RegionKind::Ram, _) | (RegionKind::Shared { .. }, Self::Whole | Self::Device) => Ok(()),
            (RegionKind::ReadOnly { .. }, Self::Whole) => Ok(()),
            (RegionKind::ReadOnly { .. }, _) if !write => Ok(()),
            (RegionKind::ReadOnly { .. }, Self::Device) => Err(CopyEnd::ReadOnly),
            (
                RegionKind::ReadOnly { .. } | RegionKind::Shared { .. } | RegionKind::Device { .. },
                Self::Buffer,
            ) => Err(CopyEnd::Buffer),
            (RegionKind::Device { .. }, Self::Whole | Self::Device) => Err(CopyEnd::Device),
        }
    }
}

/// The page that `ipa` is in.
pub(crate) fn page(ipa: Ipa<Canonical>) -> IpaRange {
    // A page below the end of the address space does not wrap, and regions end below 2^48.
    IpaRange::new(ipa.align_down(PAGE_SIZE), PAGE_SIZE).unwrap_or_else(|| panic!("{ipa} is no IPA"))
}

impl Vm {
    /// The region at `ipa`.
    pub(crate) fn region(&self, ipa: Ipa<Canonical>) -> Result<&RegionSpec, CopyEnd> {
        self.spec.regions.iter().find(|r| r.ipa.contains(ipa)).ok_or(CopyEnd::NoRegion)
    }

    /// Where data is, good as long as the map is locked.
    fn data(map: &mut GuestMap, ipa: Ipa<Canonical>, write: bool) -> Result<(Pa, Kind), CopyEnd> {
        // Whoever finds it on the move carries on with that: maybe no vCPU comes by any more.
        if write && map.lazy.ledger.is_broken(ipa) && map.settle(ipa) != Change::Done(true) {
            return Err(CopyEnd::Moving);
        }
        // What moves is not mapped, but known.
        if let Some(pa) = map.lazy_memory(ipa) {
            return Ok((pa, Kind::WriteBack));
        }
        let leaf = map.leaf(ipa).ok_or(CopyEnd::Moving)?;
        match leaf.attr.memory {
            S2Memory::WriteBack | S2Memory::WriteBackNoTag => Ok((leaf.pa, Kind::WriteBack)),
            S2Memory::NonCacheable => Ok((leaf.pa, Kind::NonCacheable)),
            S2Memory::DeviceNGnRnE | S2Memory::DeviceNGnRE => Err(CopyEnd::Device),
        }
    }

    /// Reads data from `ipa` on.
    pub(crate) fn read(&self, ipa: u64, to: &mut [u8], purpose: Purpose) -> Reached {
        self.each_page(ipa, to.len(), purpose, false, |map, at, done, size| {
            let (pa, kind) = Self::data(map, at, false)?;
            let part = to.get_mut(done..).and_then(|rest| rest.get_mut(..size));
            part.and_then(|part| window::read(pa, kind, part)).ok_or(CopyEnd::NoRegion)
        })
    }

    /// Writes data from `ipa` on; the dirty log has it.
    pub(crate) fn write(&self, ipa: u64, from: &[u8], purpose: Purpose) -> Reached {
        self.each_page(ipa, from.len(), purpose, true, |map, at, done, size| {
            let (pa, kind) = Self::data(map, at, true)?;
            map.dirty.mark(at);
            let part = from.get(done..).and_then(|rest| rest.get(..size));
            part.and_then(|part| window::write(pa, kind, part)).ok_or(CopyEnd::NoRegion)
        })
    }

    /// Whether `size` bytes from `ipa` on could be written as a caller's buffer.
    pub(crate) fn write_check(&self, ipa: u64, size: usize) -> CopyEnd {
        self.each_page(ipa, size, Purpose::Buffer, true, |map, at, _, _| Self::data(map, at, true).map(drop))
            .end
    }

    /// Whether `size` bytes from `ipa` on can be written as a caller's buffer, now and later: RAM that never
    /// moves.
    pub(crate) fn is_fixed_buffer(&self, ipa: u64, size: u64) -> bool {
        let range = IpaRange::new(Ipa::new(ipa), size);
        self.spec.regions.iter().any(|region| {
            matches!(region.kind, RegionKind::Ram)
                && region.tags != Tags::Lazy
                && range.as_ref().is_some_and(|range| region.ipa.contains_range(range))
        })
    }

    /// The data of a whole page and its tags, which is made clean in the dirty log before, all under one
    /// lock; tags are 0 where there are none. Whether the page was dirty, and stays so if this fails; `None`
    /// if it was not, and `only_dirty` pages are wanted: nothing is read then.
    pub(crate) fn page_with_tags(
        &self,
        at: Ipa<Canonical>,
        data: &mut [u64],
        tags: &mut PageTags,
        only_dirty: bool,
    ) -> Result<Option<bool>, CopyEnd> {
        Purpose::Whole.check(self.region(at)?, false)?;
        let mut map = self.map.lock();
        let dirty = map.dirty_take(at);
        if only_dirty && !dirty {
            return Ok(None);
        }
        let read = self.read_with_tags(&mut map, at, data, tags);
        if dirty && read.is_err() {
            map.dirty.mark(at);
        }
        read.map(|()| Some(dirty))
    }

    fn read_with_tags(
        &self,
        map: &mut GuestMap,
        at: Ipa<Canonical>,
        data: &mut [u64],
        tags: &mut PageTags,
    ) -> Result<(), CopyEnd> {
        if self.spec.mte {
            let end = self.load_tags(map, at, core::slice::from_mut(tags)).end;
            if end != CopyEnd::Complete && end != CopyEnd::NoTags {
                return Err(end);
            }
        }
        let (pa, kind) = Self::data(map, at, false)?;
        window::read(pa, kind, bytes_mut(data)).ok_or(CopyEnd::NoRegion)
    }

    /// Stores a whole page and its tags.
    pub(crate) fn set_page_with_tags(
        &self,
        at: Ipa<Canonical>,
        data: &[u8],
        tags: &PageTags,
    ) -> Result<(), CopyEnd> {
        Purpose::Whole.check(self.region(at)?, true)?;
        let mut map = self.map.lock();
        let tags = core::slice::from_ref(tags);
        let stored =
            if self.spec.mte { self.store_tags(&mut map, at, tags, true).end } else { CopyEnd::NoTags };
        // Where no tags can be, none are lost if there were none.
        if stored != CopyEnd::Complete && !(stored == CopyEnd::NoTags && tags.iter().all(is_zero)) {
            return Err(stored);
        }
        // Behind the tags, which may have moved it.
        let (pa, kind) = Self::data(&mut map, at, true)?;
        map.dirty.mark(at);
        window::write(pa, kind, data).ok_or(CopyEnd::NoRegion)
    }

    /// Runs `f` for the part of each page, with the map locked: the IPA, bytes done before, and bytes of it.
    fn each_page(
        &self,
        ipa: u64,
        size: usize,
        purpose: Purpose,
        write: bool,
        mut f: impl FnMut(&mut GuestMap, Ipa<Canonical>, usize, usize) -> Result<(), CopyEnd>,
    ) -> Reached {
        let mut done = 0;
        while done < size {
            let at = Ipa::new(ipa.saturating_add(done as u64));
            let in_page = (PAGE_SIZE - at.get() % PAGE_SIZE) as usize;
            let now = in_page.min(size - done);
            let checked = self.region(at).and_then(|region| purpose.check(region, write));
            // To the caller, whatever is wrong with its buffer is that.
            let checked = checked.and_then(|()| f(&mut self.map.lock(), at, done, now));
            if let Err(end) = checked {
                let buffer = purpose == Purpose::Buffer && end != CopyEnd::Moving;
                return Reached { done, end: if buffer { CopyEnd::Buffer } else { end } };
            }
            done += now;
        }
        Reached { done, end: CopyEnd::Complete }
    }

    /// Where tags are from `ipa` on, and for how many pages, `most` at most: as many as one window reaches.
    /// No address for memory whose tags were never made.
    fn tags_at(
        &self,
        map: &mut GuestMap,
        ipa: Ipa<Canonical>,
        most: usize,
    ) -> Result<(Option<Pa>, usize), CopyEnd> {
        let region = self.region(ipa)?;
        match (&region.kind, region.tags) {
            (RegionKind::Device { .. }, _) => return Err(CopyEnd::Device),
            (_, Tags::None) => return Err(CopyEnd::NoTags),
            (_, Tags::Backed | Tags::Lazy) => {}
        }
        // As for data.
        if map.lazy.ledger.is_broken(ipa) {
            map.settle(ipa);
        }
        let leaf = map.leaf(ipa).ok_or(CopyEnd::Moving)?;
        // A block is all the VM's, but not always all of this region.
        let in_block = match leaf.level {
            Level::Three => PAGE_SIZE,
            Level::Zero | Level::One | Level::Two => BLOCK_2M - leaf.pa.get() % BLOCK_2M,
        };
        let in_region = region.ipa.end().get() - ipa.get();
        let pages = (in_block.min(in_region) / PAGE_SIZE).min(most as u64) as usize;
        Ok((Some(leaf.pa).filter(|_| leaf.attr.memory == S2Memory::WriteBack), pages))
    }

    /// Loads the tags of the pages from `ipa` on: zeros where there are none yet. The map is locked.
    pub(crate) fn load_tags(&self, map: &mut GuestMap, ipa: Ipa<Canonical>, to: &mut [PageTags]) -> Reached {
        let all = to.len();
        let mut rest = to;
        while !rest.is_empty() {
            let done = all - rest.len();
            let at = Ipa::new(ipa.get() + done as u64 * PAGE_SIZE);
            let (place, pages) = match self.tags_at(map, at, rest.len()) {
                Ok(found) => found,
                Err(end) => return Reached { done, end },
            };
            let (now, then) = rest.split_at_mut(pages);
            let loaded = place.is_some_and(|pa| window::load_tags(pa, now).is_some());
            if !loaded {
                now.fill([0; 16]);
            }
            rest = then;
        }
        Reached { done: all, end: CopyEnd::Complete }
    }

    /// Whether each of the pages from `ipa` on is one that the guest may have tagged since its tags were last
    /// zeroed: a bit each, at most 64; and how many they are. The map is locked.
    pub(crate) fn tagged_pages(
        &self,
        map: &GuestMap,
        ipa: Ipa<Canonical>,
        pages: u64,
    ) -> Result<(u64, u64), CopyEnd> {
        let region = self.region(ipa)?;
        match (&region.kind, region.tags) {
            (RegionKind::Device { .. }, _) => return Err(CopyEnd::Device),
            (_, Tags::None) => return Err(CopyEnd::NoTags),
            (_, Tags::Backed | Tags::Lazy) => {}
        }
        let pages = pages.min(64).min((region.ipa.end().get() - ipa.get()) / PAGE_SIZE);
        let ledger = &map.lazy.ledger;
        let mut bits = 0;
        for page in 0..pages {
            let at = Ipa::new(ipa.get() + page * PAGE_SIZE);
            // What no ledger knows of is backed, or like that for lack of NoTagAccess.
            let tagged = region.tags == Tags::Backed || ledger.unit(at).is_none() || ledger.has_tags(at);
            bits |= u64::from(tagged) << page;
        }
        Ok((bits, pages))
    }

    /// Stores the tags of the pages from `ipa` on; lazy memory becomes tagged if they are not all 0. The map
    /// is locked. `whole`: read-only memory too. A page that turns tagged is looked for in all shadows of a VM
    /// that hosts guests: there, one is enough for a stay at EL2.
    pub(crate) fn store_tags(
        &self,
        map: &mut GuestMap,
        ipa: Ipa<Canonical>,
        from: &[PageTags],
        whole: bool,
    ) -> Reached {
        let mut done = 0;
        let promoted = map.lazy.ledger.counts().promoted;
        while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
            let at = Ipa::new(ipa.get() + done as u64 * PAGE_SIZE);
            match self.store_some(map, at, rest, whole) {
                Ok(pages) => done += pages,
                Err(end) => return Reached { done, end },
            }
            if self.nested.is_some() && map.lazy.ledger.counts().promoted != promoted {
                return Reached { done, end: CopyEnd::Moving };
            }
        }
        Reached { done, end: CopyEnd::Complete }
    }

    /// Stores some of them; says how many.
    fn store_some(
        &self,
        map: &mut GuestMap,
        at: Ipa<Canonical>,
        from: &[PageTags],
        whole: bool,
    ) -> Result<usize, CopyEnd> {
        if !whole && matches!(self.region(at)?.kind, RegionKind::ReadOnly { .. }) {
            return Err(CopyEnd::ReadOnly);
        }
        let (mut place, mut pages) = self.tags_at(map, at, from.len())?;
        if place.is_none() {
            // One at a time: what turns tagged has a leaf of its own.
            pages = 1;
            if from.first().is_none_or(is_zero) {
                return Ok(pages);
            }
            match map.promote(at) {
                Change::Done(_) => (place, _) = self.tags_at(map, at, 1)?,
                Change::Underway => return Err(CopyEnd::Moving),
                Change::Refused => return Err(CopyEnd::NoTags),
            }
        }
        if map.dirty.is_on() {
            (0..pages as u64).for_each(|page| map.dirty.mark(Ipa::new(at.get() + page * PAGE_SIZE)));
        }
        let now = from.get(..pages).ok_or(CopyEnd::NoTags)?;
        place.and_then(|pa| window::store_tags(pa, now)).ok_or(CopyEnd::NoTags)?;
        Ok(pages)
    }
}
