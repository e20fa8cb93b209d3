//! The lazy memory of a VM that is being built, and the frames set aside for it.

use super::{Means, attributes, can_be_tagged, check_tags, pieces};
use crate::mem::window;
use crate::vm::Backing;
use crate::vm::lazy::{LazyMemory, size};
use addr::Pa;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use frames::Pools;
use manifest::{Taggable, Tags, VmSpec};
use tags::lazy::Ledger;
use vmsa::attr::S2Memory;

/// The VM's lazy memory: none unless it has MTE and NoTagAccess exists.
pub(super) fn memory(
    spec: &VmSpec,
    backing: &[Backing],
    taggable: &Taggable,
    means: &Means<'_>,
    frames: &mut Pools,
) -> Result<LazyMemory, String> {
    let lazy = || {
        let used = spec.mte && means.stage2.mte_perm;
        spec.regions.iter().zip(backing).filter(move |(region, _)| used && region.tags == Tags::Lazy)
    };
    let in_place = |backing: &Backing| backing.pieces.iter().all(|piece| can_be_tagged(piece, taggable));
    for (region, backing) in lazy().filter(|(_, backing)| in_place(backing)) {
        check_tags(region, &backing.pieces, taggable)?;
    }
    let without: u64 = lazy().filter(|(_, b)| !in_place(b)).map(|(region, _)| region.ipa.size()).sum();
    let bytes_of_unit = spec.lazy_unit.bytes();
    let frames_needed = Ledger::reserve_needed(size(spec.lazy_unit), spec.tag_quota, without);
    let bytes = u64::from(frames_needed) * bytes_of_unit;
    let reserve = frames.take(0, bytes, true).ok_or_else(|| {
        format!(
            "its tag quota needs {} KiB of taggable RAM, of which the machine has {} KiB left",
            bytes >> 10,
            frames.free(true) >> 10
        )
    })?;
    let mut units = Vec::with_capacity(frames_needed as usize);
    for piece in &reserve {
        if !piece.is_aligned(bytes_of_unit) {
            return Err("taggable RAM is too fragmented for its lazy-unit".into());
        }
        if window::probe_tags(piece.start()) != Some(true) {
            return Err(format!("memory at {} is called taggable, but holds no tag", piece.start()));
        }
        units.extend((piece.start().get()..piece.end().get()).step_by(bytes_of_unit as usize).map(Pa::new));
    }
    let mut memory = LazyMemory::new(spec.lazy_unit, spec.tag_quota, units);
    for (region, backing) in lazy() {
        let attr = attributes(region, S2Memory::WriteBackNoTag);
        if !memory.add(region.ipa, in_place(backing), attr, pieces(region, backing)) {
            return Err(format!("region {} is not made of units of lazy-unit", region.name));
        }
    }
    Ok(memory)
}
