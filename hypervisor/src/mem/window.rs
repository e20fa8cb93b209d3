//! A CPU's windows into memory that EL2 has no standing map of: guest RAM.
//!
//! Each CPU has one page-sized and one block-sized slot of virtual addresses, mapped while a closure
//! runs and unmapped behind it. The memory type is that of the region's stage-2 leaf, so EL2 never
//! sees a location under another type than the guest does.
//!
//! UNSAFETY: hands out raw addresses for the closure's time only; there is no `&[u8]` into guest memory.

use crate::arch::{cpu, tlb};
use crate::mem::map;
use addr::{BLOCK_2M, PAGE_SIZE, Pa, Va};
use core::marker::PhantomData;
use vmsa::stage1::Memory;

/// Mapped guest memory: `size` bytes at `va`, for the closure that got it.
pub(crate) struct Window<'a> {
    va: u64,
    size: u64,
    life: PhantomData<&'a ()>,
}

impl Window<'_> {
    /// First virtual address.
    pub(crate) fn va(&self) -> u64 {
        self.va
    }

    /// Copies `data` to `offset` bytes into the window. Returns false, and copies nothing, if it
    /// does not fit.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> bool {
        let fits = offset.checked_add(data.len() as u64).is_some_and(|end| end <= self.size);
        if fits {
            let to = self.va.wrapping_add(offset) as *mut u8;
            // SAFETY: the destination is inside the window, mapped writable, and no Rust reference
            // points there; the source is a slice of EL2's own memory.
            unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
        }
        fits
    }
}

/// Maps the 2 MiB block (or what of it lies around `pa`) and runs `f` on the `size` bytes at `pa`,
/// which must not cross a 2 MiB boundary.
pub(crate) fn with<R>(pa: Pa, size: u64, memory: Memory, f: impl FnOnce(&Window<'_>) -> R) -> Option<R> {
    let offset = pa.get() % BLOCK_2M;
    if offset.checked_add(size)? > BLOCK_2M {
        return None;
    }
    // A page slot when that is enough: it maps no more than what is asked for.
    let in_page = pa.get() % PAGE_SIZE + size <= PAGE_SIZE;
    let slot = map::window_slot(cpu::index(), in_page)?;
    let unit = if in_page { PAGE_SIZE } else { BLOCK_2M };
    slot.set(pa.align_down(unit), memory);
    // The slot was invalid, and invalid entries are in no TLB.
    tlb::publish_el2();
    let window = Window { va: slot.va().get() + pa.get() % unit, size, life: PhantomData };
    let result = f(&window);
    slot.clear();
    tlb::flush_el2_page_local(Va::new(slot.va().get()));
    Some(result)
}
