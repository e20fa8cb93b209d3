//! Where translation tables live: a static pool for EL2's own, a budget of heap pages for each VM's
//! stage 2.
//!
//! UNSAFETY: tables are read and written through their physical address, which is their virtual
//! address at EL2.

use crate::arch::cache;
use addr::{PAGE_SIZE, Pa, PaRange, Va};
use alloc::alloc::{Layout, alloc, alloc_zeroed};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use nested::shadow;
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

/// The stage-2 tables of one VM: all set aside when it is built, so that no VM can take another's, and
/// nothing is allocated on a guest's way.
#[derive(Debug)]
pub(crate) struct StageTwoTables {
    /// Tables that have not been used yet: areas of the heap, in pages.
    fresh: Vec<PaRange>,
    /// Tables that were given back: the first word of each is the address of the next.
    freed: Option<Pa>,
    used: usize,
    all: usize,
}

impl StageTwoTables {
    /// Sets `tables` tables of 4 KiB aside; `None` if the heap has not that much.
    pub(crate) fn new(tables: usize) -> Option<Self> {
        let mut fresh = Vec::new();
        let mut left = tables;
        // In powers of two, as the heap hands them out. The largest first, so the root finds its place.
        while let Some(order) = left.checked_ilog2() {
            let size = (PAGE_SIZE as usize) << order;
            let layout = Layout::from_size_align(size, size).ok()?;
            // SAFETY: the layout is not empty.
            let area = unsafe { alloc(layout) };
            if area.is_null() {
                // The machine's boot ends with a refusal: what was taken is not given back.
                return None;
            }
            fresh.push(PaRange::new(Pa::new(area.addr() as u64), size as u64)?);
            left -= 1 << order;
        }
        Some(Self { fresh, freed: None, used: 0, all: tables })
    }

    /// Bytes in use, and of all tables.
    pub(crate) const fn bytes(&self) -> (usize, usize) {
        (self.used << 12, self.all << 12)
    }

    /// The first `tables` unused ones that are aligned to their size.
    fn take_fresh(&mut self, tables: usize) -> Option<Pa> {
        let size = tables.checked_mul(PAGE_SIZE as usize)? as u64;
        let area = self.fresh.iter_mut().find(|a| a.size() >= size && a.start().is_aligned(size))?;
        let taken = area.start();
        *area = PaRange::new(taken.checked_add(size)?, area.size() - size)?;
        Some(taken)
    }
}

impl TableMemory for StageTwoTables {
    fn alloc(&mut self) -> Option<Pa> {
        let Some(table) = self.freed else { return self.alloc_root(1) };
        self.freed = Some(Pa::new(self.read(table))).filter(|next| next.get() != 0);
        self.used += 1;
        zero(table, 1);
        Some(table)
    }

    fn alloc_root(&mut self, tables: usize) -> Option<Pa> {
        let table = self.take_fresh(tables)?;
        self.used += tables;
        // Walks are cacheable; nothing more is needed than the barrier at publication.
        zero(table, tables);
        Some(table)
    }

    fn free(&mut self, table: Pa) {
        self.used -= 1;
        self.write(table, self.freed.map_or(0, Pa::get));
        self.freed = Some(table);
    }

    fn free_root(&mut self, root: Pa, tables: usize) {
        for table in 0..tables as u64 {
            self.free(Pa::new(root.get() + table * PAGE_SIZE));
        }
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

/// Tables that `nested::shadow` manages, in memory of the heap that was set aside for them.
pub(crate) struct ShadowTables;

impl ShadowTables {
    /// Zeroed memory for `tables` tables, aligned to `align` of them, for good; `None` if the heap has
    /// not that much.
    pub(crate) fn set_aside(tables: usize, align: usize) -> Option<Pa> {
        let size = tables.checked_mul(PAGE_SIZE as usize)?;
        let layout = Layout::from_size_align(size, align.checked_mul(PAGE_SIZE as usize)?).ok()?;
        // SAFETY: the layout is not empty, because no pool is.
        let area = unsafe { alloc_zeroed(layout) };
        (!area.is_null()).then(|| Pa::new(area.addr() as u64))
    }
}

impl shadow::TableMemory for ShadowTables {
    fn read(&self, entry: Pa) -> u64 {
        // SAFETY: `shadow` only names entries of the memory that was set aside; EL2 maps the heap at its
        // physical address.
        unsafe { core::ptr::read_volatile(entry.get() as *const u64) }
    }

    fn write(&mut self, entry: Pa, value: u64) {
        // SAFETY: as for `read`; nobody holds a reference into a table.
        let slot = unsafe { AtomicU64::from_ptr(entry.get() as *mut u64) };
        // Release: a walker that sees the entry sees the table that it names. Partner: the hardware.
        slot.store(value, Ordering::Release);
    }

    fn zero(&mut self, table: Pa) {
        zero(table, 1);
    }
}

/// Zeroes tables that are linked nowhere.
fn zero(table: Pa, tables: usize) {
    // SAFETY: tables of this pool, which EL2 maps at their physical address; nobody reads them yet.
    unsafe { core::ptr::write_bytes(table.get() as *mut u64, 0, tables * ENTRIES) };
}

/// Makes what this CPU wrote at `object` readable for a CPU whose MMU is off.
pub(crate) fn clean<T>(object: &T) {
    let va = Va::new(core::ptr::from_ref(object).addr() as u64);
    cache::publish_uncached(va, size_of::<T>() as u64);
}
