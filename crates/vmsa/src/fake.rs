//! Table memory for tests: a map, with every use checked.

use std::collections::{BTreeMap, HashMap};
use std::vec::Vec;

use addr::Pa;

use crate::descriptor::{ADDRESS, needs_break};
use crate::memory::{Flush, InputAddress, TableMemory, Tlb};

/// Hands out tables and counts them.
#[derive(Default)]
pub(crate) struct Fake {
    words: HashMap<u64, u64>,
    /// First address and number of tables.
    pub(crate) allocated: BTreeMap<u64, usize>,
    roots: Vec<u64>,
    next: u64,
    /// Tables that may still be handed out.
    pub(crate) limit: Option<usize>,
    /// Stores over a valid descriptor of a linked table that needed break-before-make.
    pub(crate) broken_rules: usize,
}

impl Fake {
    fn take(&mut self, tables: usize) -> Option<Pa> {
        if let Some(limit) = &mut self.limit {
            *limit = limit.checked_sub(tables)?;
        }
        let size = tables as u64 * 4096;
        let at = (self.next.max(0x10_0000)).next_multiple_of(size);
        self.next = at + size;
        for word in 0..size / 8 {
            self.words.insert(at + word * 8, 0);
        }
        self.allocated.insert(at, tables);
        Some(Pa::new(at))
    }

    fn give(&mut self, at: Pa, tables: usize) {
        assert_eq!(self.allocated.remove(&at.get()), Some(tables), "freed twice, or never allocated");
        for word in 0..tables as u64 * 512 {
            self.words.remove(&(at.get() + word * 8));
        }
        if let Some(limit) = &mut self.limit {
            *limit += tables;
        }
    }

    /// Whether a walk from a root may read `entry`.
    fn is_linked(&self, entry: Pa) -> bool {
        let mut pending = self.roots.clone();
        while let Some(table) = pending.pop() {
            let Some(tables) = self.allocated.get(&table) else { continue };
            let size = *tables as u64 * 4096;
            if (table..table + size).contains(&entry.get()) {
                return true;
            }
            // No test maps pages at the addresses of tables.
            pending.extend((0..size / 8).filter_map(|i| {
                let descriptor = self.words[&(table + i * 8)];
                (descriptor & 3 == 3).then_some(descriptor & ADDRESS)
            }));
        }
        false
    }

    /// Tables in use.
    pub(crate) fn tables(&self) -> usize {
        self.allocated.values().sum()
    }

    /// A copy of all descriptors that are not zero.
    pub(crate) fn snapshot(&self) -> BTreeMap<u64, u64> {
        self.words.iter().filter(|(_, v)| **v != 0).map(|(k, v)| (*k, *v)).collect()
    }
}

impl TableMemory for Fake {
    fn alloc(&mut self) -> Option<Pa> {
        self.take(1)
    }
    fn alloc_root(&mut self, tables: usize) -> Option<Pa> {
        assert!(tables.is_power_of_two() && tables <= 16);
        let root = self.take(tables)?;
        self.roots.push(root.get());
        Some(root)
    }
    fn free(&mut self, table: Pa) {
        self.give(table, 1);
    }
    fn free_root(&mut self, root: Pa, tables: usize) {
        self.give(root, tables);
    }
    fn read(&self, entry: Pa) -> u64 {
        self.words[&entry.get()]
    }
    fn write(&mut self, entry: Pa, descriptor: u64) {
        let old = self.words.insert(entry.get(), descriptor).expect("outside of all tables");
        if needs_break(old, descriptor) && self.is_linked(entry) {
            self.broken_rules += 1;
        }
    }
}

/// Records flushes.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) flushes: Vec<Flush<u64>>,
    pub(crate) published: usize,
}

impl<A: InputAddress> Tlb<A> for Recorder {
    fn flush(&mut self, flush: Flush<A>) {
        let Flush { start, end, level } = flush;
        self.flushes.push(Flush { start: start.to_u64(), end: end.to_u64(), level });
    }
    fn publish(&mut self) {
        self.published += 1;
    }
}
