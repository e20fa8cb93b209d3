//! L1's memory, as walks of its tables see it.

use crate::mem::window;
use crate::vm::Vm;
use ::nested::stage2;
use addr::{Canonical, Ipa};
use vmsa::walk::GuestMemory;

/// L1's memory, for walks of its tables.
pub(super) struct L1Memory<'a>(pub(super) &'a Vm);

impl stage2::Tables for L1Memory<'_> {
    fn read(&self, ipa: Ipa<Canonical>) -> Option<u64> {
        self.0.read_u64(ipa)
    }

    fn compare_exchange(&self, ipa: Ipa<Canonical>, old: u64, new: u64) -> Option<u64> {
        let (_, kind) = self.0.locate(ipa)?;
        // Lazy memory stays where it is while the map is locked.
        let map = self.0.map.lock();
        let pa = match map.leaf(ipa) {
            Some(leaf) if leaf.attr.write => leaf.pa,
            Some(_) => return None,
            None => map.lazy_memory(ipa)?,
        };
        window::compare_exchange_u64(pa, kind, old, new)
    }
}
