//! Memory for EL2's heap: a part of it while the machine is read, the rest, with tags if there are some, when
//! it is known.

use crate::arch::{cpu, tags, timer};
use crate::mem::{heap, map, window};
use crate::vm::build::{Means, can_be_tagged};
use addr::{BLOCK_2M, PAGE_SIZE, Pa, PaRange};
use alloc::string::String;
use frames::Frames;
use manifest::Taggable;
use vmsa::stage1::{Memory, Perm};

/// A pool of RAM for EL2's heap: a 64th of what there is, 4 to 64 MiB. A part of it is for what is
/// allocated until [`complete`].
pub(super) fn give(frames: &mut Frames) -> Result<PaRange, String> {
    let size = (frames.free() / 64).clamp(4 << 20, 64 << 20).next_power_of_two().max(BLOCK_2M);
    let pool = frames.take_pool(size).ok_or("there is not enough RAM for the hypervisor itself")?;
    let (first, _) = halves(pool)?;
    map::add(first, Perm::ReadWrite, Memory::Normal)?;
    // SAFETY: just mapped and taken out of the frames.
    unsafe { heap::extend(first) };
    Ok(pool)
}

/// What the heap has at once, and what it gets when the machine is known.
fn halves(pool: PaRange) -> Result<(PaRange, PaRange), String> {
    let first = (pool.size() / 4).max(BLOCK_2M);
    let rest = pool.start().checked_add(first).and_then(|at| PaRange::new(at, pool.size() - first));
    Ok((PaRange::new(pool.start(), first).ok_or("the heap wraps")?, rest.ok_or("the heap wraps")?))
}

/// Gives the heap the rest of its pool: with tags, and checked, if all CPUs have FEAT_MTE2 and the memory
/// holds tags.
pub(super) fn complete(pool: PaRange, means: &Means<'_>, taggable: &Taggable) -> Result<(), String> {
    let (_, rest) = halves(pool)?;
    let ends = [rest.start(), Pa::new(rest.end().get() - PAGE_SIZE)];
    let tagged = means.mte
        && can_be_tagged(&rest, taggable)
        && ends.iter().all(|page| window::probe_tags(*page) == Some(true));
    if tagged {
        map::add(rest, Perm::ReadWrite, Memory::Tagged)?;
        let seed = cpu::random(means.rng).unwrap_or_else(timer::now);
        // SAFETY: just mapped, Tagged, and taken out of the frames; a probe found tags.
        unsafe { heap::extend_with_tags(rest, seed) };
        tags::check_own_memory();
    } else {
        map::add(rest, Perm::ReadWrite, Memory::Normal)?;
        // SAFETY: just mapped and taken out of the frames.
        unsafe { heap::extend(rest) };
    }
    Ok(())
}
