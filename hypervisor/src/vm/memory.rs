//! A VM's memory as EL2 reads it for the VM: through windows, never a device.

use super::Vm;
use crate::mem::window;
use addr::{Canonical, Ipa, Pa};
use cmo::Kind;
use manifest::{RegionKind, Tags};
use vmsa::walk::GuestMemory;

impl Vm {
    /// The physical address behind `ipa` and how EL2 reaches it; `None` if that is no memory of the VM's.
    /// Lazy memory may move as soon as this returns, unless the caller has the map locked and asks it:
    /// [`GuestMap::lazy_memory`](super::map::GuestMap::lazy_memory).
    pub(crate) fn locate(&self, ipa: Ipa<Canonical>) -> Option<(Pa, Kind)> {
        let (region, backing) =
            self.spec.regions.iter().zip(&self.backing).find(|(region, _)| region.ipa.contains(ipa))?;
        if matches!(region.kind, RegionKind::Device { .. }) {
            return None;
        }
        if region.tags == Tags::Lazy
            && let Some(pa) = self.map.lock().lazy_memory(ipa)
        {
            return Some((pa, backing.kind));
        }
        let mut offset = ipa.offset_from(region.ipa.start())?;
        for piece in &backing.pieces {
            match offset.checked_sub(piece.size()) {
                None => return Some((piece.start().checked_add(offset)?, backing.kind)),
                Some(beyond) => offset = beyond,
            }
        }
        None
    }
}

impl GuestMemory for Vm {
    fn read_u64(&self, ipa: Ipa<Canonical>) -> Option<u64> {
        let (pa, kind) = self.locate(ipa)?;
        let lazy = self.spec.regions.iter().any(|r| r.tags == Tags::Lazy && r.ipa.contains(ipa));
        // It stays where it is while the map is locked.
        let map = lazy.then(|| self.map.lock());
        let moved = map.as_ref().and_then(|map| map.lazy_memory(ipa));
        window::read_u64(moved.unwrap_or(pa), kind)
    }
}
