//! The tables of a VM's shadows: a fixed number of frames, taken from and given back to here.
//!
//! Tables are given back as whole subtrees without being looked at: what they point to is found when
//! they are taken again. So forgetting a gigabyte costs no more than forgetting a page.

use addr::{PAGE_SIZE, Pa};
use vmsa::descriptor::{Kind, Level, kind};

/// Memory of tables: below 2^48, never at address zero, zeroed before its first use.
pub trait TableMemory {
    /// The descriptor at `entry`.
    fn read(&self, entry: Pa) -> u64;
    /// Stores the descriptor at `entry` as one 64-bit store with release semantics.
    fn write(&mut self, entry: Pa, descriptor: u64);
    /// Zeroes the 4 KiB table at `table`, which no walker uses.
    fn zero(&mut self, table: Pa);
}

/// Entries of a table.
pub(super) const ENTRIES: u64 = 512;

/// Where entry `index` of a table is.
pub(super) const fn entry(table: Pa, index: u64) -> Pa {
    Pa::new(table.get().wrapping_add(index << 3))
}

/// Frames for tables.
#[derive(Debug)]
pub(super) struct Tables {
    /// The next frame that has never been used.
    fresh: Pa,
    end: Pa,
    /// Subtrees that were given back, by the level of their first table. Each first table holds the
    /// next one's address in its first entry, which is no valid descriptor.
    returned: [Option<Pa>; 4],
}

impl Tables {
    /// `count` frames from `base` on.
    pub(super) const fn new(base: Pa, count: usize) -> Self {
        let end = base.get().saturating_add((count as u64).saturating_mul(PAGE_SIZE));
        Self { fresh: base, end: Pa::new(end), returned: [None; 4] }
    }

    /// A zeroed table; `None` if there is none left.
    pub(super) fn take(&mut self, mem: &mut impl TableMemory) -> Option<Pa> {
        // Deepest first: tables of pages point to no others.
        for level in [Level::Three, Level::Two, Level::One] {
            let Some(list) = self.returned.get_mut(level as usize) else { continue };
            let Some(table) = *list else { continue };
            *list = Some(Pa::new(mem.read(table))).filter(|next| next.get() != 0);
            if let Some(below) = level.next() {
                // The first entry was followed when the table was given back.
                for index in 1..ENTRIES {
                    if let Kind::Table(next) = kind(mem.read(entry(table, index)), level) {
                        self.give(mem, next, below);
                    }
                }
            }
            mem.zero(table);
            return Some(table);
        }
        let table = self.fresh;
        if table.get() >= self.end.get() {
            return None;
        }
        self.fresh = table.checked_add(PAGE_SIZE)?;
        Some(table)
    }

    /// Takes back the table of `level` at `table` and all below. No TLB holds anything of it when
    /// [`take`](Self::take) is next called.
    pub(super) fn give(&mut self, mem: &mut impl TableMemory, table: Pa, level: Level) {
        if let Some(below) = level.next()
            && let Kind::Table(next) = kind(mem.read(table), level)
        {
            // Its pointer is about to be overwritten. At most two levels deep.
            self.give(mem, next, below);
        }
        let Some(list) = self.returned.get_mut(level as usize) else { return };
        mem.write(table, list.map_or(0, Pa::get));
        *list = Some(table);
    }
}
