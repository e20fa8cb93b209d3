//! EL2's heap: a buddy allocator over a small area of the image and a part of a pool of RAM at first,
//! over the rest of the pool, with tags, once the machine is known.
//!
//! There, each allocation has an allocation tag, which the pointer to it carries, so that a use after
//! free, an overflow and a second free are caught: see `docs/mte.md`. What was freed has a tag that no
//! allocation has, [`FREE`]; what was never used has the tag that was there, whatever that is. An allocation
//! differs from both its neighbours. But what hardware reaches by its address (translation tables) is aligned
//! to pages and has tag 0, so its address is a physical one, and two of them beside each other are alike.
//!
//! UNSAFETY: a global allocator hands out raw memory by contract.

use crate::arch::entry::image;
use crate::arch::tags::{self, Unchecked};
use crate::lock::Mutex;
use addr::{PAGE_SIZE, PaRange};
use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// Tag of memory that was freed.
const FREE: u8 = 15;
/// Marks the size of a freed block in its second word, for the report of a later use.
const FREED: u64 = 0x6672_6565 << 32;
/// Start and end of the memory with tags: zero while there is none. Relaxed: written while the machine
/// is built, before any CPU can have a pointer there.
static POOL: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Free lists. Orders up to 2^31 bytes.
struct Lists {
    plain: Heap<32>,
    tagged: Heap<32>,
    /// Nothing is allocated with a tag at the moment.
    hasty: bool,
    /// State of the generator of tags (xorshift64): never IRG, which would use the guest's RGSR_EL1.
    random: u64,
}

struct Allocator(Mutex<Lists>);

#[global_allocator]
static HEAP: Allocator =
    Allocator(Mutex::new(Lists { plain: Heap::new(), tagged: Heap::new(), hasty: true, random: 0 }));

fn pool() -> core::ops::Range<u64> {
    let [start, end] = &POOL;
    start.load(Ordering::Relaxed)..end.load(Ordering::Relaxed)
}

/// The block that `layout`, of at most 1 GiB, takes: whole granules.
fn granules(layout: Layout) -> Option<Layout> {
    let size = layout.size().max(1).wrapping_add(tags::GRANULE - 1) & !(tags::GRANULE - 1);
    Layout::from_size_align(size, layout.align().max(tags::GRANULE)).ok()
}

impl Lists {
    /// Allocates with a tag of its own; `None` if there is no room. Out of the way of allocations without.
    #[inline(never)]
    fn alloc_tagged(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let layout = granules(layout)?;
        // The free lists lie in memory whose tags are not those of the lists' pointers.
        let unchecked = Unchecked::begin();
        let block = self.tagged.alloc(layout).ok()?.addr().get() as u64;
        let (pool, end) = (pool(), block + layout.size() as u64);
        // SAFETY: granules of the pool, which is mapped Tagged.
        let before = if block > pool.start { unsafe { tags::load(block - 16) } } else { FREE };
        // SAFETY: as above.
        let behind = if end < pool.end { unsafe { tags::load(end) } } else { FREE };
        let tag = if layout.align() < PAGE_SIZE as usize { self.tag(before, behind) } else { 0 };
        // SAFETY: the block was just allocated.
        unsafe { tags::store(block, layout.size() as u64, tag) };
        drop(unchecked);
        NonNull::new(tags::with_tag(block, tag) as *mut u8)
    }

    /// A random tag from 1 to 14 that is neither of these.
    fn tag(&mut self, before: u8, behind: u8) -> u8 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let mut tag = (self.random >> 32) as u8 % (FREE - 1) + 1;
        while tag == before || tag == behind {
            tag = tag % (FREE - 1) + 1;
        }
        tag
    }

    /// Takes a block back; false if it is not the one that was allocated.
    fn free_tagged(&mut self, pointer: u64, layout: Layout) -> bool {
        let (Some(layout), block) = (granules(layout), tags::without_tag(pointer)) else { return false };
        let unchecked = Unchecked::begin();
        // SAFETY: a granule of the pool, which is mapped Tagged.
        if unsafe { tags::load(block) } != tags::tag_of(pointer) {
            return false;
        }
        // SAFETY: the block is the caller's to give away, and has whole granules.
        unsafe { tags::store(block, layout.size() as u64, FREE) };
        // SAFETY: the second word of the block, of which the free lists use the first.
        unsafe { ((block + 8) as *mut u64).write_volatile(FREED | layout.size() as u64) };
        if let Some(block) = NonNull::new(block as *mut u8) {
            // SAFETY: `alloc_tagged` got it with this layout, as its tag shows.
            unsafe { self.tagged.dealloc(block, layout) };
        }
        drop(unchecked);
        true
    }
}

impl Allocator {
    #[inline(never)]
    fn free_tagged(&self, pointer: u64, layout: Layout) {
        let freed = self.0.lock().free_tagged(pointer, layout);
        assert!(freed, "heap: a second free of {pointer:#x}, size class {}", class(layout.size() as u64));
    }
}

// SAFETY: `Heap` returns blocks that are disjoint, live until dealloc and fit the layout; the lock
// serialises its bookkeeping. Sizes near usize::MAX, which would overflow its rounding, are refused. A
// tag in bits 59:56 of a pointer does not change what it points to (TCR_EL2.TBI).
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > 1 << 30 {
            return core::ptr::null_mut();
        }
        let mut lists = self.0.lock();
        let tagged = if lists.hasty { None } else { lists.alloc_tagged(layout) };
        tagged.or_else(|| lists.plain.alloc(layout).ok()).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let pointer = block.addr() as u64;
        if pool().contains(&tags::without_tag(pointer)) {
            self.free_tagged(pointer, layout);
        } else if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller got `block` from `alloc` with this layout.
            unsafe { self.0.lock().plain.dealloc(block, layout) };
        }
    }
}

/// Gives the area behind .bss to the allocator: enough to read the machine's device tree. Called once,
/// after the MMU is on: locks need exclusives, which need cacheable memory.
pub(crate) fn init() {
    let (start, end) = (image::early_heap().get() as usize, image::end().get() as usize);
    // SAFETY: the linker script keeps the area for this, the map has it, and nothing else uses it.
    unsafe { HEAP.0.lock().plain.add_to_heap(start, end) };
}

/// Adds a pool of RAM that EL2's map covers and nothing else uses.
///
/// # Safety
/// `pool` must be mapped read-write at its own address, and belong to nobody else.
pub(crate) unsafe fn extend(pool: PaRange) {
    // SAFETY: the caller's promise.
    unsafe { HEAP.0.lock().plain.add_to_heap(pool.start().get() as usize, end_of(pool)) };
}

/// Where what is used of a pool ends: a granule before its end, so that there is a free block of each
/// size from the start, and small blocks are not made of the largest, and merged to it again, each time.
const fn end_of(pool: PaRange) -> usize {
    pool.end().get() as usize - tags::GRANULE
}

/// Adds a pool of RAM with tags, from which all is allocated from now on while it lasts. Once.
///
/// # Safety
/// As for [`extend`]; `pool` must be mapped Tagged, and hold tags.
pub(crate) unsafe fn extend_with_tags(pool: PaRange, seed: u64) {
    let mut lists = HEAP.0.lock();
    lists.random = seed | 1;
    let (start, end) = (pool.start().get(), pool.end().get());
    // SAFETY: the caller's promise.
    unsafe { lists.tagged.add_to_heap(start as usize, end_of(pool)) };
    lists.hasty = false;
    let [first, last] = &POOL;
    last.store(end, Ordering::Relaxed);
    first.store(start, Ordering::Relaxed);
}

/// What `f` allocates while the machine is built gets no tags: many small pieces that do not stay, for
/// which the boot would have to wait.
pub(crate) fn hastily<R>(f: impl FnOnce() -> R) -> R {
    let before = core::mem::replace(&mut HEAP.0.lock().hasty, true);
    let result = f();
    HEAP.0.lock().hasty = before;
    result
}

/// Whether there is memory with tags.
pub(crate) fn is_tagged() -> bool {
    !pool().is_empty()
}

/// Bytes in use and in all.
pub(crate) fn usage() -> (usize, usize) {
    let lists = HEAP.0.lock();
    let (plain, tagged) = (&lists.plain, &lists.tagged);
    (
        plain.stats_alloc_actual() + tagged.stats_alloc_actual(),
        plain.stats_total_bytes() + tagged.stats_total_bytes(),
    )
}

/// What a tag check fault at EL2 was.
pub(crate) struct Misuse {
    /// In words.
    pub(crate) what: &'static str,
    /// Tag of the memory.
    pub(crate) tag: u8,
    /// Size class of the allocation: bytes, a power of two; 0 if it is not known any more.
    pub(crate) class: u64,
}

/// The power of two that the allocator takes for `size` bytes.
const fn class(size: u64) -> u64 {
    let size = if size < 16 { 16 } else { size };
    size.next_power_of_two()
}

/// Explains a tag check fault; `None` for an address outside of the heap. For panics only: takes no
/// lock, and tag checks must be off.
pub(crate) fn explain(pointer: u64) -> Option<Misuse> {
    let (pool, mine) = (pool(), tags::tag_of(pointer));
    let at = tags::without_tag(pointer) & !15;
    if !pool.contains(&at) {
        return None;
    }
    // SAFETY: for granules of the pool only.
    let load = |granule: u64| pool.contains(&granule).then(|| unsafe { tags::load(granule) });
    let tag = load(at)?;
    let freed = (4..31).find_map(|order| {
        let block = at & !((1u64 << order) - 1);
        if tag != FREE || load(block) != Some(FREE) {
            return None;
        }
        // SAFETY: a word of the pool, as `load` has shown.
        let mark = unsafe { ((block + 8) as *const u64).read_volatile() };
        let size = mark & 0xffff_ffff;
        (mark & !0xffff_ffff == FREED && class(size) == 1 << order && at < block + size).then_some(size)
    });
    if let Some(size) = freed {
        return Some(Misuse { what: "use after free", tag, class: class(size) });
    }
    // What has the pointer's tag ends before the granule, or begins behind it.
    let run = |step: u64| {
        let granules =
            (1..1 << 16).take_while(|n| load(at.wrapping_add(step.wrapping_mul(*n))) == Some(mine));
        granules.count() as u64 * 16
    };
    let (before, behind) = (run(16u64.wrapping_neg()), run(16));
    Some(match (before, behind) {
        (0, 0) => Misuse { what: "use of a wrong pointer", tag, class: 0 },
        (0, size) => Misuse { what: "access below an allocation", tag, class: class(size) },
        (size, _) => Misuse { what: "overflow", tag, class: class(size) },
    })
}
