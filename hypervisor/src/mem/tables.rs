//! Where translation tables live: a static pool for EL2's own, a budget of heap pages for each VM's
//! stage 2.
//!
//! UNSAFETY: tables are read and written through their physical address, which is their virtual
//! address at EL2.

use crate::arch::cache;
use addr::{PAGE_SIZE, Pa, Va};
use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use vmsa::memory::TableMemory;

/// Entries of a table.
const ENTRIES: usize = 512;
/// Tables in EL2's own pool: image, device tree, UART, GIC, pool, bundle, stacks and windows.
const OWN: usize = 48;

#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

/// EL2's tables, in .bss: usable before the MMU is on and before there is a heap.
pub(crate) struct OwnTables {
    tables: [Table; OWN],
    used: usize,
}

impl OwnTables {
    /// None used.
    pub(crate) const fn new() -> Self {
        Self { tables: [const { Table([0; ENTRIES]) }; OWN], used: 0 }
    }

    fn entry(&self, entry: Pa) -> Option<(usize, usize)> {
        let base = self.tables.as_ptr().addr() as u64;
        let offset = entry.get().checked_sub(base)?;
        Some(((offset / PAGE_SIZE) as usize, (offset % PAGE_SIZE / 8) as usize))
    }
}

impl TableMemory for OwnTables {
    fn alloc(&mut self) -> Option<Pa> {
        let table = self.tables.get(self.used)?;
        self.used += 1;
        Some(Pa::new(table.0.as_ptr().addr() as u64))
    }

    fn alloc_root(&mut self, tables: usize) -> Option<Pa> {
        (tables == 1).then(|| self.alloc()).flatten()
    }

    fn free(&mut self, _table: Pa) {
        // EL2's own map only grows.
    }

    fn free_root(&mut self, _root: Pa, _tables: usize) {}

    fn read(&self, entry: Pa) -> u64 {
        self.entry(entry).and_then(|(t, e)| self.tables.get(t)?.0.get(e).copied()).unwrap_or(0)
    }

    fn write(&mut self, entry: Pa, value: u64) {
        if let Some((t, e)) = self.entry(entry)
            && let Some(slot) = self.tables.get_mut(t).and_then(|t| t.0.get_mut(e))
        {
            // Volatile: the table walker reads it.
            // SAFETY: `slot` is a valid, exclusively borrowed word.
            unsafe { core::ptr::write_volatile(slot, value) };
        }
    }
}

/// The stage-2 tables of one VM: no more than its budget, so no VM can take another's.
pub(crate) struct StageTwoTables {
    owned: Vec<(Pa, Layout)>,
    budget: usize,
}

impl StageTwoTables {
    /// At most `budget` tables of 4 KiB.
    pub(crate) const fn new(budget: usize) -> Self {
        Self { owned: Vec::new(), budget }
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.owned.iter().map(|(_, l)| l.size()).sum()
    }
}

impl TableMemory for StageTwoTables {
    fn alloc(&mut self) -> Option<Pa> {
        self.alloc_root(1)
    }

    fn alloc_root(&mut self, tables: usize) -> Option<Pa> {
        let bytes = tables.checked_mul(PAGE_SIZE as usize)?;
        if self.bytes() + bytes > self.budget.checked_mul(PAGE_SIZE as usize)? {
            return None;
        }
        let layout = Layout::from_size_align(bytes, bytes).ok()?;
        // SAFETY: the layout is not empty.
        let table = unsafe { alloc_zeroed(layout) };
        if table.is_null() {
            return None;
        }
        let pa = Pa::new(table.addr() as u64);
        // Walks are cacheable; nothing more is needed than the barrier at publication.
        self.owned.push((pa, layout));
        Some(pa)
    }

    fn free(&mut self, table: Pa) {
        if let Some(i) = self.owned.iter().position(|(pa, _)| *pa == table) {
            let (pa, layout) = self.owned.swap_remove(i);
            // SAFETY: allocated above with this layout, and removed from the list.
            unsafe { dealloc(pa.get() as *mut u8, layout) };
        }
    }

    fn free_root(&mut self, root: Pa, _tables: usize) {
        self.free(root);
    }

    fn read(&self, entry: Pa) -> u64 {
        // SAFETY: vmsa only names entries inside tables that `alloc` returned; EL2 maps the heap at
        // its physical address.
        unsafe { core::ptr::read_volatile(entry.get() as *const u64) }
    }

    fn write(&mut self, entry: Pa, value: u64) {
        // SAFETY: as for `read`; nobody holds a reference into a table.
        let slot = unsafe { AtomicU64::from_ptr(entry.get() as *mut u64) };
        // Release: a walker that sees the entry sees the table that it names. Partner: the hardware.
        slot.store(value, Ordering::Release);
    }
}

/// Makes what this CPU wrote at `object` readable for a CPU whose MMU is off.
pub(crate) fn clean<T>(object: &T) {
    let va = Va::new(core::ptr::from_ref(object).addr() as u64);
    cache::publish_uncached(va, size_of::<T>() as u64);
}
