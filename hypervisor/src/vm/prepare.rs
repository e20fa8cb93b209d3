//! Getting a VM's memory ready for a start: zero all of it, tags too, then copy in kernel, initrd,
//! device tree and region contents, and clean it to the point of coherency.
//!
//! It goes in steps that are short compared to a time slice, on vCPU 0's turn and in its priority, so
//! a large VM that starts delays nobody.

use super::Vm;
use crate::arch::{cache, tags};
use crate::bundle;
use crate::machine;
use crate::mem::window;
use crate::vcpu::{Activity, Vcpu};
use addr::{BLOCK_2M, Canonical, Ipa, PaRange};
use vmsa::stage1::Memory;

/// Bytes zeroed in one step: some 16,000 instructions with 64-byte lines.
const SCRUB_STEP: u64 = 256 << 10;
/// Bytes copied in one step.
const COPY_STEP: u64 = 64 << 10;

/// How far the preparation is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Preparation {
    /// Zeroing: region, piece of it, offset in the piece.
    Scrub(usize, usize, u64),
    /// Copying: item, offset in it.
    Copy(usize, u64),
    /// All done.
    Done,
}

impl Preparation {
    /// At the beginning.
    pub(crate) const fn new() -> Self {
        Self::Scrub(0, 0, 0)
    }
}

/// What is copied into a VM at its start.
struct Item<'a> {
    data: &'a [u8],
    at: Ipa<Canonical>,
}

impl Vm {
    /// The `n`-th thing to copy.
    fn item(&self, n: usize) -> Option<Item<'_>> {
        let spec = &self.spec;
        let file = |name: &str| bundle::file(name).unwrap_or(&[]);
        match n {
            0 => Some(Item { data: file(&spec.kernel.image.file), at: spec.kernel.image.at }),
            1 => Some(Item { data: &self.tree, at: spec.dtb }),
            2 => Some(match &spec.initrd {
                Some(initrd) => Item { data: file(&initrd.file), at: initrd.at },
                None => Item { data: &[], at: spec.dtb },
            }),
            _ => {
                let region = spec.regions.get(n - 3)?;
                let owned = self.backing.get(n - 3).is_some_and(|b| b.prepared_at_start);
                let data = region.file.as_deref().filter(|_| owned).map_or(&[][..], file);
                Some(Item { data, at: region.ipa.start() })
            }
        }
    }

    /// Copies `data` to `ipa` in this VM's memory; false if not all of it is memory of the VM.
    pub(crate) fn write_memory(&self, ipa: Ipa<Canonical>, data: &[u8]) -> bool {
        let mut ipa = ipa;
        let mut data = data;
        while !data.is_empty() {
            let Some(place) = self.locate(ipa) else { return false };
            let room = (BLOCK_2M - place.start().get() % BLOCK_2M).min(place.size());
            let (now, rest) = data.split_at(data.len().min(room as usize));
            let size = now.len() as u64;
            let done = window::with(place.start(), size, Memory::Normal, |w| {
                let done = w.write(0, now);
                cache::clean_invalidate(w.va(), size);
                done
            });
            let Some(next) = ipa.checked_add(size) else { return false };
            if done != Some(true) {
                return false;
            }
            (ipa, data) = (next, rest);
        }
        true
    }

    /// The physical memory from `ipa` to the end of its piece.
    fn locate(&self, ipa: Ipa<Canonical>) -> Option<PaRange> {
        let (region, backing) =
            self.spec.regions.iter().zip(&self.backing).find(|(r, _)| r.ipa.contains(ipa))?;
        let mut offset = ipa.offset_from(region.ipa.start())?;
        for piece in &backing.pieces {
            if offset < piece.size() {
                return PaRange::new(piece.start().checked_add(offset)?, piece.size() - offset);
            }
            offset -= piece.size();
        }
        None
    }

    /// Does one step; says where the next one goes on.
    fn step(&self, at: Preparation) -> Preparation {
        match at {
            Preparation::Scrub(region, piece, offset) => self.scrub_step(region, piece, offset),
            Preparation::Copy(item, offset) => self.copy_step(item, offset),
            Preparation::Done => Preparation::Done,
        }
    }

    fn scrub_step(&self, region: usize, piece: usize, offset: u64) -> Preparation {
        let Some(backing) = self.backing.get(region) else { return Preparation::Copy(0, 0) };
        let Some(memory) = backing.pieces.get(piece).filter(|_| backing.prepared_at_start) else {
            return Preparation::Scrub(region + 1, 0, 0);
        };
        let done = scrub_some(memory, offset, backing.tagged);
        if done >= memory.size() {
            Preparation::Scrub(region, piece + 1, 0)
        } else {
            Preparation::Scrub(region, piece, done)
        }
    }

    fn copy_step(&self, item: usize, offset: u64) -> Preparation {
        let Some(Item { data, at }) = self.item(item) else {
            cache::invalidate_instructions();
            return Preparation::Done;
        };
        let rest = data.get(offset as usize..).unwrap_or(&[]);
        let (now, later) = rest.split_at(rest.len().min(COPY_STEP as usize));
        // The manifest's check placed every item inside the VM's memory.
        let copied = at.checked_add(offset).is_some_and(|at| self.write_memory(at, now));
        assert!(copied || now.is_empty(), "an item of the bundle lies outside its VM");
        if later.is_empty() {
            Preparation::Copy(item + 1, 0)
        } else {
            Preparation::Copy(item, offset + now.len() as u64)
        }
    }
}

/// Zeroes a part of `memory` from `offset`; returns where it ended.
pub(crate) fn scrub_some(memory: &PaRange, offset: u64, tagged: bool) -> u64 {
    let Some(start) = memory.start().checked_add(offset) else { return memory.size() };
    let size = SCRUB_STEP.min(memory.size() - offset).min(BLOCK_2M - start.get() % BLOCK_2M);
    let kind = if tagged { Memory::Tagged } else { Memory::Normal };
    let mapped = window::with(start, size, kind, |w| {
        if tagged {
            // SAFETY: the window is writable, Tagged, page-aligned, and nothing else uses it: the
            // frames are a VM's that does not run.
            unsafe { tags::zero_with_tags(w.va(), size) };
            cache::clean_invalidate_tags(w.va(), size);
        } else {
            // SAFETY: as above.
            unsafe { tags::zero(w.va(), size) };
            cache::clean_invalidate(w.va(), size);
        }
    });
    assert!(mapped.is_some(), "no window for a VM's memory");
    offset + size
}

impl Vcpu {
    /// Does one step of its VM's preparation; after the last, the VM begins.
    pub(crate) fn prepare_step(&mut self) {
        let Activity::Preparing(at) = self.activity else { return };
        let next = self.vm.step(at);
        self.activity = Activity::Preparing(next);
        if let (Preparation::Done, Some(machine)) = (next, machine::get()) {
            self.begin(machine);
        }
    }
}
