//! Maintenance by set and way, as a VM means it: clean and invalidate "all of the cache".
//!
//! A set or a way says nothing of whose data it holds, on which CPU. So one such instruction stands for all
//! of the VM's memory: every line is cleaned and invalidated by address, to the point of coherency, tags
//! too, on all CPUs. Guests are told of caches with one set and one way, so their loops are short.

use crate::Kind;
use crate::preparation::{Chunk, Contents, Region, chunk};

/// Bytes maintained in one step: some 32,000 instructions with lines of 64 bytes.
const STEP: u64 = 256 << 10;

/// How far the sweep through a VM's memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    region: usize,
    piece: usize,
    offset: u64,
}

impl Sweep {
    /// What to clean and invalidate now, and how far the sweep is then; `None` at its end. Memory that
    /// is mapped non-cacheable has no lines.
    #[must_use]
    pub fn step(self, contents: &impl Contents) -> Option<(Chunk, Self)> {
        let Self { mut region, mut piece, mut offset } = self;
        while let Some(Region { pieces, kind, .. }) = contents.region(region) {
            match pieces.get(piece).filter(|_| kind != Kind::NonCacheable) {
                None => (region, piece, offset) = (region.saturating_add(1), 0, 0),
                Some(memory) => match chunk(memory, offset, STEP) {
                    None => (piece, offset) = (piece.saturating_add(1), 0),
                    Some(memory) => {
                        let offset = offset.saturating_add(memory.size());
                        return Some((Chunk { memory, kind }, Self { region, piece, offset }));
                    }
                },
            }
        }
        None
    }
}
