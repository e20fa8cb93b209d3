//! The machine's free RAM, handed out to VMs while the machine is built: in two pools, one of memory
//! that has tag storage.
//!
//! A VM keeps its frames for life, stopped or not: what the manifest promises it is there when it
//! starts again, whatever other VMs do meanwhile. So nothing that one VM has is ever another's.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

extern crate alloc;

use addr::{BLOCK_2M, PAGE_SIZE, Pa, PaRange};
use alloc::vec::Vec;
use buddy_system_allocator::FrameAllocator;

/// Free RAM in frames of [`PAGE_SIZE`].
pub struct Frames {
    buddy: FrameAllocator<33>,
    free: u64,
}

impl Frames {
    /// All of `memory` that is not in `taken`.
    #[must_use]
    pub fn new(memory: &[PaRange], taken: &[PaRange]) -> Self {
        let mut frames = Self { buddy: FrameAllocator::new(), free: 0 };
        for range in memory {
            let mut from = range.start().get().next_multiple_of(PAGE_SIZE);
            let end = range.end().get() & !(PAGE_SIZE - 1);
            while from < end {
                // The first taken range that ends behind `from`, if it begins before `end`.
                let next = taken.iter().filter(|t| t.end().get() > from && t.start().get() < end);
                match next.min_by_key(|t| t.start()) {
                    Some(t) => {
                        frames.add(from, (t.start().get() & !(PAGE_SIZE - 1)).max(from));
                        from = t.end().get().next_multiple_of(PAGE_SIZE);
                    }
                    None => {
                        frames.add(from, end);
                        from = end;
                    }
                }
            }
        }
        frames
    }

    fn add(&mut self, start: u64, end: u64) {
        if start < end {
            self.buddy.add_frame((start / PAGE_SIZE) as usize, (end / PAGE_SIZE) as usize);
            self.free += end - start;
        }
    }

    /// Bytes that are free.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Takes `size` bytes in pieces that are as large as the buddies and the alignment of `ipa`
    /// allow, so that stage 2 can use blocks. `None`, and nothing taken, if there isn't that much.
    pub fn take(&mut self, ipa: u64, size: u64) -> Option<Vec<PaRange>> {
        let mut pieces: Vec<PaRange> = Vec::new();
        let mut done = 0;
        while done < size {
            let at = ipa.checked_add(done)?;
            let Some(piece) = self.take_piece(at, size - done) else {
                for p in pieces {
                    self.give_back(p);
                }
                return None;
            };
            done += piece.size();
            // Neighbours become one range.
            match pieces.last_mut() {
                Some(last) if last.end() == piece.start() => {
                    *last = PaRange::new(last.start(), last.size() + piece.size())?;
                }
                _ => pieces.push(piece),
            }
        }
        Some(pieces)
    }

    /// The largest power of two that fits `left`, is aligned at `ipa`, and is free.
    fn take_piece(&mut self, ipa: u64, left: u64) -> Option<PaRange> {
        let mut size = 1u64 << left.checked_ilog2()?.min(30);
        if ipa != 0 {
            size = size.min(1 << ipa.trailing_zeros().min(30));
        }
        while size >= PAGE_SIZE {
            if let Some(frame) = self.buddy.alloc((size / PAGE_SIZE) as usize) {
                self.free -= size;
                return PaRange::new(Pa::new(frame as u64 * PAGE_SIZE), size);
            }
            size /= 2;
        }
        None
    }

    fn give_back(&mut self, range: PaRange) {
        // Taken in power-of-two pieces, merged by `take`: given back page by page, which the buddies
        // join again.
        let mut at = range.start().get();
        while at < range.end().get() {
            self.buddy.dealloc((at / PAGE_SIZE) as usize, 1);
            at += PAGE_SIZE;
        }
        self.free += range.size();
    }

    /// Takes a pool for EL2 itself: 2 MiB-aligned, `size` a power of two of at least 2 MiB.
    pub fn take_pool(&mut self, size: u64) -> Option<PaRange> {
        let frame = self.buddy.alloc((size.max(BLOCK_2M) / PAGE_SIZE) as usize)?;
        self.free -= size;
        PaRange::new(Pa::new(frame as u64 * PAGE_SIZE), size)
    }
}

/// Free RAM with and without tag storage.
pub struct Pools {
    taggable: Frames,
    plain: Frames,
}

impl Pools {
    /// All of `memory` that is not in `taken`; what of it is in `taggable` has tag storage.
    #[must_use]
    pub fn new(memory: &[PaRange], taken: &[PaRange], taggable: &[PaRange]) -> Self {
        let with_tags: Vec<PaRange> =
            memory.iter().flat_map(|m| taggable.iter().filter_map(|r| intersection(m, r))).collect();
        let mut without: Vec<PaRange> = taken.into();
        without.extend(taggable);
        Self { taggable: Frames::new(&with_tags, taken), plain: Frames::new(memory, &without) }
    }

    /// Bytes that are free for memory that needs tags, or for memory that doesn't.
    #[must_use]
    pub fn free(&self, tags: bool) -> u64 {
        self.taggable.free() + if tags { 0 } else { self.plain.free() }
    }

    /// A page that needs tags, and stays free: to try whether it has them.
    pub fn taggable_page(&mut self) -> Option<Pa> {
        let page = self.taggable.take_piece(0, PAGE_SIZE)?;
        self.taggable.give_back(page);
        Some(page.start())
    }

    /// Takes `size` bytes for `ipa`. Memory that needs no tags comes from where there are none, while
    /// that lasts.
    pub fn take(&mut self, ipa: u64, size: u64, tags: bool) -> Option<Vec<PaRange>> {
        if tags {
            return self.taggable.take(ipa, size);
        }
        self.plain.take(ipa, size).or_else(|| self.taggable.take(ipa, size))
    }
}

fn intersection(a: &PaRange, b: &PaRange) -> Option<PaRange> {
    let start = a.start().max(b.start());
    let size = a.end().min(b.end()).offset_from(start)?;
    PaRange::new(start, size)
}

#[cfg(test)]
mod tests;
