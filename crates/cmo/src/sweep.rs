//! Maintenance by set and way, as a VM means it: clean and invalidate "all of the cache".
//!
//! A set or a way says nothing of whose data it holds, on which CPU. So one such instruction stands for all
//! of the VM's memory: every line is cleaned and invalidated by address, to the point of coherency, tags
//! too, on all CPUs. Guests are told of caches with one set and one way, so their loops are short.

use addr::{Canonical, Ipa, IpaRange, PAGE_SIZE, PaRange};

use crate::Kind;
use crate::preparation::{Chunk, chunk};

/// Bytes maintained in one step, with the VM's map locked: some 5,000 instructions with lines of 64 bytes.
const STEP: u64 = 64 << 10;
/// Leaves looked at in one step.
const LOOKS: usize = 32;

/// How far the sweep through a VM's memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    region: usize,
    offset: u64,
}

impl Sweep {
    /// What to clean and invalidate now, if anything, and how far the sweep is then; `None` at its end.
    ///
    /// `region`: the VM's regions, one after the other. `leaf`: the memory that stage 2 maps as one at an
    /// address, if it maps any, and how EL2 reaches it; non-cacheable memory has no lines.
    #[must_use]
    pub fn step(
        self,
        region: impl Fn(usize) -> Option<IpaRange>,
        leaf: impl Fn(Ipa<Canonical>) -> Option<(PaRange, Kind)>,
    ) -> Option<(Option<Chunk>, Self)> {
        let mut at = self;
        for _ in 0..LOOKS {
            let range = region(at.region)?;
            let left = range.size().saturating_sub(at.offset);
            let Some(ipa) = range.start().checked_add(at.offset).filter(|_| left != 0) else {
                at = Self { region: at.region.saturating_add(1), offset: 0 };
                continue;
            };
            let (found, size) = match leaf(ipa) {
                None => (None, PAGE_SIZE),
                Some((memory, kind)) => {
                    // Leaves are as large in both address spaces, and aligned.
                    let inside = ipa.get() & memory.size().wrapping_sub(1);
                    let cacheable =
                        chunk(&memory, inside, STEP.min(left)).filter(|_| kind != Kind::NonCacheable);
                    let size = cacheable.map_or(memory.size().wrapping_sub(inside), |memory| memory.size());
                    (cacheable.map(|memory| Chunk { memory, kind }), size)
                }
            };
            at.offset = at.offset.saturating_add(size.max(1));
            if found.is_some() {
                return Some((found, at));
            }
        }
        Some((None, at))
    }
}
