//! EL2's heap: a buddy allocator over a small static area at first, over a pool of RAM once the
//! machine's memory is known.
//!
//! UNSAFETY: a global allocator hands out raw memory by contract.

use addr::PaRange;
use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use spin::Mutex;

/// Bytes of the static area: enough to read the machine's device tree.
const EARLY: usize = 256 << 10;

#[repr(C, align(4096))]
struct Early([u8; EARLY]);

/// Lives in .bss; handed to the allocator once, by `init`.
static EARLY_AREA: Mutex<Early> = Mutex::new(Early([0; EARLY]));

/// Orders up to 2^31 bytes.
struct Allocator(Mutex<Heap<32>>);

#[global_allocator]
static HEAP: Allocator = Allocator(Mutex::new(Heap::new()));

// SAFETY: `Heap` returns blocks that are disjoint, live until dealloc and fit the layout; the lock
// serialises its bookkeeping. Sizes near usize::MAX, which would overflow its rounding, are refused.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > 1 << 30 {
            return core::ptr::null_mut();
        }
        self.0.lock().alloc(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller got `block` from `alloc` with this layout.
            unsafe { self.0.lock().dealloc(block, layout) };
        }
    }
}

/// Gives the static area to the allocator. Called once, after the MMU is on: locks need exclusives,
/// which need cacheable memory.
pub(crate) fn init() {
    let area = EARLY_AREA.lock();
    let start = area.0.as_ptr().addr();
    // SAFETY: the static area is used by nothing else: its lock is leaked right here.
    unsafe { HEAP.0.lock().add_to_heap(start, start.wrapping_add(EARLY)) };
    core::mem::forget(area);
}

/// Adds a pool of RAM that EL2's map covers and nothing else uses.
///
/// # Safety
/// `pool` must be mapped read-write at its own address, and belong to nobody else.
pub(crate) unsafe fn extend(pool: PaRange) {
    // SAFETY: the caller's promise.
    unsafe { HEAP.0.lock().add_to_heap(pool.start().get() as usize, pool.end().get() as usize) };
}

/// Bytes in use and in all.
pub(crate) fn usage() -> (usize, usize) {
    let heap = HEAP.0.lock();
    (heap.stats_alloc_actual(), heap.stats_total_bytes())
}
