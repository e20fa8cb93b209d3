//! A VM's memory as EL2 reads it for the VM: through windows, never a device.

use super::Vm;
use crate::mem::window;
use addr::{Canonical, Ipa, Pa};
use cmo::Kind;
use manifest::RegionKind;
use vmsa::walk::GuestMemory;

impl Vm {
    /// The physical address behind `ipa` and how EL2 reaches it; `None` if that is no memory of the VM's.
    pub(crate) fn locate(&self, ipa: Ipa<Canonical>) -> Option<(Pa, Kind)> {
        let (region, backing) =
            self.spec.regions.iter().zip(&self.backing).find(|(region, _)| region.ipa.contains(ipa))?;
        if matches!(region.kind, RegionKind::Device { .. }) {
            return None;
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
        window::read_u64(pa, kind)
    }
}
