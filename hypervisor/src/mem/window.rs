//! A CPU's windows into memory that EL2 has no standing map of: guest RAM.
//!
//! Each CPU has two page-sized slots and one block-sized slot of virtual addresses, mapped while a closure
//! runs and unmapped behind it. The memory type is that of the region's stage-2 leaf ([`Kind`]), so EL2
//! never sees a location under another type than the guest does. For a guest that is written by
//! [`fill`], which leaves nothing of it in the caches; where guests bypass these, what EL2 reads leaves
//! nothing there either.
//!
//! UNSAFETY: hands out raw addresses for the closure's time only; there is no `&[u8]` into guest memory.

use crate::arch::copy;
use crate::arch::{cache, cpu, tags, tlb};
use crate::mem::map::{self, WindowPlace as Place};
use ::tags::copy::PageTags;
use addr::{BLOCK_2M, PAGE_SIZE, Pa, PaRange, Va};
use cmo::{Chunk, Kind, Line};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};
use vmsa::stage1::Memory;

/// Mapped guest memory: `size` bytes at `va`, for the closure that got it.
pub(crate) struct Window<'a> {
    va: u64,
    size: u64,
    kind: Kind,
    life: PhantomData<&'a ()>,
}

impl Window<'_> {
    /// Copies `data` to `offset` bytes into the window. Returns false, and copies nothing, if it
    /// does not fit.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> bool {
        let fits = offset.checked_add(data.len() as u64).is_some_and(|end| end <= self.size);
        if fits {
            let to = self.va.wrapping_add(offset) as *mut u8;
            // SAFETY: the destination is inside the window, mapped writable as Normal memory, and no
            // Rust reference points there; the source is a slice of EL2's own memory.
            unsafe { copy::any_alignment(data.as_ptr(), to, data.len()) };
        }
        fits
    }

    /// Copies as many bytes as `data` has from the start of the window, and nothing if there are not so many.
    fn read(&self, data: &mut [u8]) {
        if data.len() as u64 <= self.size {
            let from = self.va as *const u8;
            // SAFETY: the source is inside the window, mapped as Normal memory; the destination is EL2's own.
            unsafe { copy::any_alignment(from, data.as_mut_ptr(), data.len()) };
        }
    }

    /// Zeroes all of it, tags too where the guest sees some. Returns false, and zeroes nothing, unless
    /// it begins and ends at a page.
    pub(crate) fn zero(&self) -> bool {
        let whole_pages = (self.va | self.size) & (PAGE_SIZE - 1) == 0;
        if whole_pages && self.kind == Kind::Tagged {
            // SAFETY: the window is writable, Tagged, whole pages, and no Rust reference points there;
            // memory is of this kind only where all CPUs have MTE.
            unsafe { tags::zero_with_tags(self.va, self.size) };
        } else if whole_pages {
            // SAFETY: the window is writable, Normal, whole pages, and no Rust reference points there.
            unsafe { tags::zero(self.va, self.size) };
        }
        whole_pages
    }
}

/// Maps the page, or else the 2 MiB block, around `pa` and runs `f` on the `size` bytes there, which must
/// not cross a 2 MiB boundary. More than a page must be a [`Chunk`]: all of its block is then the piece's.
fn with<R>(pa: Pa, size: u64, kind: Kind, f: impl FnOnce(&Window<'_>) -> R) -> Option<R> {
    with_slot(pa, size, kind, Place::First, f)
}

/// [`with`], through this slot if it is about a page.
fn with_slot<R>(pa: Pa, size: u64, kind: Kind, place: Place, f: impl FnOnce(&Window<'_>) -> R) -> Option<R> {
    let offset = pa.get() % BLOCK_2M;
    if offset.checked_add(size)? > BLOCK_2M {
        return None;
    }
    // A page slot when that is enough.
    let in_page = pa.get() % PAGE_SIZE + size <= PAGE_SIZE;
    let place = if in_page { place } else { Place::Block };
    let slot = map::window_slot(cpu::index(), place)?;
    let unit = if in_page { PAGE_SIZE } else { BLOCK_2M };
    let memory = match kind {
        Kind::WriteBack => Memory::Normal,
        Kind::Tagged => Memory::Tagged,
        Kind::NonCacheable => Memory::NonCacheable,
    };
    slot.set(pa.align_down(unit), memory);
    // The slot was invalid, and invalid entries are in no TLB.
    tlb::publish_el2();
    let window = Window { va: slot.va().get() + pa.get() % unit, size, kind, life: PhantomData };
    let result = f(&window);
    slot.clear();
    tlb::flush_el2_page_local(Va::new(slot.va().get()));
    Some(result)
}

/// Has `write` write to `chunk`, and publishes that to guests. `None` if there is no window for it.
pub(crate) fn fill<R>(chunk: Chunk, write: impl FnOnce(&Window<'_>) -> R) -> Option<R> {
    let (start, size) = (chunk.memory.start(), chunk.memory.size());
    with(start, size, chunk.kind, |w| cache::fill(Va::new(w.va), size, chunk.kind, || write(w)))
}

/// The same for data alone: whatever tags the memory has, they stay, and nothing is checked, because the
/// window is not mapped Tagged.
pub(crate) fn fill_data<R>(chunk: Chunk, write: impl FnOnce(&Window<'_>) -> R) -> Option<R> {
    fill(Chunk { kind: data_kind(chunk.kind), ..chunk }, write)
}

/// How data is reached in memory of this kind. The same location Tagged and Untagged is no mismatch of
/// attributes (DDI 0487, B2.11).
const fn data_kind(kind: Kind) -> Kind {
    match kind {
        Kind::WriteBack | Kind::Tagged => Kind::WriteBack,
        Kind::NonCacheable => Kind::NonCacheable,
    }
}

/// The eight bytes at `pa`, a multiple of 8, in memory that guests have as `kind`; `None` if there is no
/// window for it.
pub(crate) fn read_u64(pa: Pa, kind: Kind) -> Option<u64> {
    if !pa.get().is_multiple_of(8) {
        return None;
    }
    read_with(pa, 8, kind, |w| {
        // SAFETY: the window is mapped, aligned, Normal memory; any eight bytes are a number.
        unsafe { core::ptr::read_volatile(w.va as *const u64) }
    })
}

/// Replaces the eight bytes at `pa`, a multiple of 8, by `new` if they are `old`, and returns what they
/// were; `None` if there is no window for it, or the memory is not cacheable: then it need not support
/// atomic accesses.
pub(crate) fn compare_exchange_u64(pa: Pa, kind: Kind, old: u64, new: u64) -> Option<u64> {
    if !pa.get().is_multiple_of(8) || kind == Kind::NonCacheable {
        return None;
    }
    read_with(pa, 8, kind, |w| {
        // SAFETY: the window is mapped writable, aligned, Normal memory; guests access it too, but no
        // Rust reference points there.
        let word = unsafe { AtomicU64::from_ptr(w.va as *mut u64) };
        // Whoever sees the new descriptor sees what was read to make it. Partner: the guest's own walks.
        match word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(found) | Err(found) => found,
        }
    })
}

/// Zeroes the tags of whole pages; their data stays. The guest can reach tags through its caches only, so
/// nothing is cleaned. `None` if there is no window for it.
pub(crate) fn zero_tags(chunk: Chunk) -> Option<()> {
    with(chunk.memory.start(), chunk.memory.size(), Kind::Tagged, |w| {
        // SAFETY: the window is writable and Tagged; no Rust reference points there, and memory has tags only
        // where all CPUs have MTE.
        unsafe { tags::zero_tags(w.va, w.size) }
    })
}

/// Reads memory of a guest that runs, within a page, as its CPUs see it; unchecked. `None` if there is no
/// window for it.
pub(crate) fn read(pa: Pa, kind: Kind, data: &mut [u8]) -> Option<()> {
    read_with(pa, data.len() as u64, kind, |w| w.read(data))
}

/// [`with`], for data of a guest that runs.
fn read_with<R>(pa: Pa, size: u64, kind: Kind, f: impl FnOnce(&Window<'_>) -> R) -> Option<R> {
    let kind = data_kind(kind);
    with(pa, size, kind, |w| cache::access(Va::new(w.va), size, kind, || f(w)))
}

/// Writes within a page of a guest, so that it sees that past the caches too; unchecked, and tags stay.
/// `None` if there is no window for it.
pub(crate) fn write(pa: Pa, kind: Kind, data: &[u8]) -> Option<()> {
    let memory = PaRange::new(pa, data.len() as u64)?;
    fill_data(Chunk { memory, kind }, |w| w.write(0, data)).map(drop)
}

/// The tags of pages that have some, of one block if it is more than a page. `None` if there is no window
/// for it.
pub(crate) fn load_tags(pages: Pa, to: &mut [PageTags]) -> Option<()> {
    let size = to.len() as u64 * PAGE_SIZE;
    // SAFETY: the window is as many pages and Tagged; memory has tags only where all CPUs have MTE.
    with(pages, size, Kind::Tagged, |w| unsafe { tags::load_pages(w.va, to) })
}

/// Stores the tags of pages that have some, of one block if it is more than a page. Guests reach tags
/// through their caches only, so nothing is cleaned. `None` if there is no window for it.
pub(crate) fn store_tags(pages: Pa, from: &[PageTags]) -> Option<()> {
    let size = from.len() as u64 * PAGE_SIZE;
    // SAFETY: as for `load_tags`.
    with(pages, size, Kind::Tagged, |w| unsafe { tags::store_pages(w.va, from) })
}

/// Copies the data of a page of a guest's write-back memory to another one, unchecked and without tags:
/// what the guest wrote, past the caches too, and so that it sees it past the caches. `None` if there is
/// no window for it.
pub(crate) fn copy_page(from: Pa, to: Pa) -> Option<()> {
    with_slot(from, PAGE_SIZE, Kind::WriteBack, Place::First, |from| {
        cache::access(Va::new(from.va), PAGE_SIZE, Kind::WriteBack, || {
            with_slot(to, PAGE_SIZE, Kind::WriteBack, Place::Second, |to| {
                cache::fill(Va::new(to.va), PAGE_SIZE, Kind::WriteBack, || {
                    let (from, to) = (from.va as *const u8, to.va as *mut u8);
                    // SAFETY: two windows of a page each, mapped as Normal memory, and no Rust reference
                    // points into them.
                    unsafe { copy::any_alignment(from, to, PAGE_SIZE as usize) };
                });
            })
        })
    })?
}

/// Does to the line at `pa`, in memory that guests have as `kind`, what one of them asks for; false if
/// there is no window for it.
pub(crate) fn maintain(pa: Pa, kind: Kind, line: Line) -> bool {
    with(pa, 1, kind, |w| cache::maintain(Va::new(w.va), kind, line)).is_some()
}

/// Cleans and invalidates `chunk`; false if there is no window for it.
pub(crate) fn clean_invalidate(chunk: Chunk) -> bool {
    let (start, size) = (chunk.memory.start(), chunk.memory.size());
    with(start, size, chunk.kind, |w| cache::clean_invalidate(Va::new(w.va), size, chunk.kind)).is_some()
}

/// Stores an instruction of the image, and lets all CPUs fetch it from now on.
pub(crate) fn patch(pa: Pa, instruction: u32) {
    let memory = PaRange::new(pa, size_of::<u32>() as u64);
    let chunk = memory.map(|memory| Chunk { memory, kind: Kind::WriteBack });
    let done = chunk.and_then(|chunk| fill(chunk, |w| w.write(0, &instruction.to_le_bytes())));
    assert_eq!(done, Some(true), "no window for the image");
    cache::publish_instructions();
}

/// Whether the first granule of the page at `page`, which is no running VM's, holds a tag. `None` if
/// there is no window for it.
pub(crate) fn probe_tags(page: Pa) -> Option<bool> {
    with(page, PAGE_SIZE, Kind::Tagged, |w| {
        // SAFETY: the window is writable and Tagged, and nobody else uses the page.
        unsafe { tags::probe(w.va) }
    })
}
