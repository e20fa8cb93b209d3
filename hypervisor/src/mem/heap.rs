//! EL2's heap: a buddy allocator over a small area of the image at first, over a pool of RAM once the
//! machine's memory is known.
//!
//! UNSAFETY: a global allocator hands out raw memory by contract.

use crate::arch::entry::image;
use addr::PaRange;
use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use spin::Mutex;

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

/// Gives the area behind .bss to the allocator: enough to read the machine's device tree. Called once,
/// after the MMU is on: locks need exclusives, which need cacheable memory.
pub(crate) fn init() {
    let (start, end) = (image::early_heap().get() as usize, image::end().get() as usize);
    // SAFETY: the linker script keeps the area for this, the map has it, and nothing else uses it.
    unsafe { HEAP.0.lock().add_to_heap(start, end) };
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
