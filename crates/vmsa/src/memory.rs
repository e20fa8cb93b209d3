//! What a tree of tables asks of the machine: memory for the tables, and TLBs to invalidate.

use addr::{Canonical, Ipa, Nested, Pa, Range, Va};

use crate::descriptor::Level;

/// Where tables live: below 2^48, never at address zero. Only tables that came from it are read or
/// written.
pub trait TableMemory {
    /// One zeroed 4 KiB table.
    fn alloc(&mut self) -> Option<Pa>;
    /// `tables` zeroed and adjacent tables, aligned to their size; `tables` is a power of two of at
    /// most 16.
    fn alloc_root(&mut self, tables: usize) -> Option<Pa>;
    /// Takes back what [`alloc`](Self::alloc) gave; its content is arbitrary.
    fn free(&mut self, table: Pa);
    /// Takes back what [`alloc_root`](Self::alloc_root) gave; its content is arbitrary.
    fn free_root(&mut self, root: Pa, tables: usize);
    /// The descriptor at `entry`.
    fn read(&self, entry: Pa) -> u64;
    /// Stores the descriptor at `entry` as one 64-bit store with release semantics: a walker that
    /// sees it also sees everything written before. Cleans the cache where walkers need that.
    fn write(&mut self, entry: Pa, descriptor: u64);
}

/// An address that a tree translates.
pub trait InputAddress: Copy {
    /// The address with this value.
    fn from_u64(value: u64) -> Self;
    /// Its value.
    fn to_u64(self) -> u64;
    /// First address and length of `range`.
    fn split(range: Range<Self>) -> (u64, u64);
}

macro_rules! input_address {
    ($($address:ty),*) => {$(
        impl InputAddress for $address {
            fn from_u64(value: u64) -> Self {
                Self::new(value)
            }
            fn to_u64(self) -> u64 {
                self.get()
            }
            fn split(range: Range<Self>) -> (u64, u64) {
                (range.start().get(), range.size())
            }
        }
    )*};
}
input_address!(Va, Ipa<Canonical>, Ipa<Nested>);

/// Translations that changed: all of `start..end` must leave the TLBs, last-level entries and
/// cached table pointers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush<A> {
    /// First address, page-aligned.
    pub start: A,
    /// First address behind.
    pub end: A,
    /// Deepest level that changed: one invalidation by address for each [`Level::size`] suffices.
    pub level: Level,
}

/// The CPUs' TLBs.
pub trait Tlb<A> {
    /// Returns when no CPU uses the old translations any more.
    ///
    /// Stage 2: DSB ISHST; TLBI IPAS2E1IS for each leaf (or VMALLS12E1IS for a long range); DSB ISH;
    /// TLBI VMALLE1IS, because combined entries survive the first; DSB ISH; ISB; all with the VM's
    /// VMID in VTTBR_EL2. EL2's stage 1: DSB ISHST; TLBI VAE2IS; DSB ISH; ISB.
    fn flush(&mut self, flush: Flush<A>);
    /// Makes entries that were invalid before visible to walkers: DSB ISHST; ISB.
    fn publish(&mut self);
}

/// For tables that no CPU uses yet.
#[derive(Clone, Copy, Debug)]
pub struct Unused;

impl<A> Tlb<A> for Unused {
    fn flush(&mut self, _: Flush<A>) {}
    fn publish(&mut self) {}
}
