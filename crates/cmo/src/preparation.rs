//! Getting a VM's memory ready for a start, in steps that are short compared to a time slice: zero all
//! that it owns, tags too, then copy in what it starts with, then let instructions be fetched.

use addr::{BLOCK_2M, Canonical, Ipa, IpaRange, PAGE_SIZE, PaRange};

use crate::Kind;

/// Bytes zeroed and cleaned in one step: some 32,000 instructions with lines of 64 bytes.
const ZERO_STEP: u64 = 256 << 10;
/// Bytes copied and cleaned in one step.
const COPY_STEP: u64 = 64 << 10;

/// What a VM's memory consists of, and what goes into it. The answers do not change while it is
/// prepared.
pub trait Contents {
    /// Region number `n`; `None` from the number of regions on.
    fn region(&self, n: usize) -> Option<Region<'_>>;

    /// What is copied as number `n`; `None` from the number of items on.
    fn item(&self, n: usize) -> Option<Item>;
}

/// A region of a VM's memory.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    /// Where the VM sees it.
    pub ipa: IpaRange,
    /// Physical memory behind it, in the order of its IPAs.
    pub pieces: &'a [PaRange],
    /// How EL2 reaches it.
    pub kind: Kind,
    /// Whether it is the VM's own, zeroed and filled at each start.
    pub owned: bool,
}

/// Bytes that are copied into a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where the first one goes.
    pub at: Ipa<Canonical>,
    /// How many.
    pub size: u64,
}

/// Physical memory that one window reaches, not empty: it lies in one page, or in a block of 2 MiB that
/// all belongs to the same piece of memory. So a window never maps what is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where.
    pub memory: PaRange,
    /// How EL2 reaches it.
    pub kind: Kind,
}

/// What one step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Zero the chunk, and its tags if it has some.
    Zero(Chunk),
    /// Copy bytes of an item to the chunk, as many as it holds.
    Copy {
        /// Number of the item.
        item: usize,
        /// First byte of the item that is copied.
        from: u64,
        /// Where it goes.
        to: Chunk,
    },
    /// An item does not lie in memory that the VM owns: nothing more can be done.
    Misplaced {
        /// Number of the item.
        item: usize,
    },
    /// [`publish_instructions`](crate::publish_instructions).
    PublishInstructions,
    /// All is done.
    Nothing,
}

/// How far the preparation of a VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preparation(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Zero { region: usize, piece: usize, offset: u64 },
    Copy { item: usize, offset: u64 },
    Done,
}

impl Preparation {
    /// At the beginning.
    #[must_use]
    pub const fn new() -> Self {
        Self(State::Zero { region: 0, piece: 0, offset: 0 })
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self.0, State::Done)
    }

    /// What to do now, and how far the preparation is then.
    #[must_use]
    pub fn step(self, contents: &impl Contents) -> (Work, Self) {
        let (work, state) = match self.0 {
            State::Zero { region, piece, offset } => zero(contents, region, piece, offset),
            State::Copy { item, offset } => copy(contents, item, offset),
            State::Done => (Work::Nothing, State::Done),
        };
        (work, Self(state))
    }
}

impl Default for Preparation {
    fn default() -> Self {
        Self::new()
    }
}

fn zero(contents: &impl Contents, mut region: usize, mut piece: usize, mut offset: u64) -> (Work, State) {
    while let Some(Region { pieces, kind, owned, .. }) = contents.region(region) {
        match pieces.get(piece).filter(|_| owned) {
            None => (region, piece, offset) = (region.saturating_add(1), 0, 0),
            Some(memory) => match chunk(memory, offset, ZERO_STEP) {
                None => (piece, offset) = (piece.saturating_add(1), 0),
                Some(memory) => {
                    let offset = offset.saturating_add(memory.size());
                    return (Work::Zero(Chunk { memory, kind }), State::Zero { region, piece, offset });
                }
            },
        }
    }
    copy(contents, 0, 0)
}

fn copy(contents: &impl Contents, mut item: usize, mut offset: u64) -> (Work, State) {
    while let Some(Item { at, size }) = contents.item(item) {
        let left = size.saturating_sub(offset);
        if left == 0 {
            (item, offset) = (item.saturating_add(1), 0);
            continue;
        }
        let place = at.checked_add(offset).and_then(|ipa| locate(contents, ipa, left.min(COPY_STEP)));
        return match place {
            Some(to) => {
                let after = offset.saturating_add(to.memory.size());
                (Work::Copy { item, from: offset, to }, State::Copy { item, offset: after })
            }
            None => (Work::Misplaced { item }, State::Copy { item, offset }),
        };
    }
    (Work::PublishInstructions, State::Done)
}

/// At most `most` bytes of physical memory behind `ipa`, which a region that the VM owns must contain.
fn locate(contents: &impl Contents, ipa: Ipa<Canonical>, most: u64) -> Option<Chunk> {
    let mut n = 0;
    let region = loop {
        let region = contents.region(n)?;
        if region.owned && region.ipa.contains(ipa) {
            break region;
        }
        n = n.checked_add(1)?;
    };
    let mut offset = ipa.offset_from(region.ipa.start())?;
    for piece in region.pieces {
        match offset.checked_sub(piece.size()) {
            None => return Some(Chunk { memory: chunk(piece, offset, most)?, kind: region.kind }),
            Some(beyond) => offset = beyond,
        }
    }
    None
}

/// The part of `memory` that begins `offset` bytes into it and is at most `most` bytes, within the unit
/// that a window maps; `None` at its end.
pub(crate) fn chunk(memory: &PaRange, offset: u64, most: u64) -> Option<PaRange> {
    let start = memory.start().checked_add(offset)?;
    let left = memory.size().checked_sub(offset)?;
    let block = PaRange::new(start.align_down(BLOCK_2M), BLOCK_2M);
    let unit = if block.is_some_and(|b| memory.contains_range(&b)) { BLOCK_2M } else { PAGE_SIZE };
    let in_unit = start.get() & unit.wrapping_sub(1);
    let size = left.min(most).min(unit.wrapping_sub(in_unit));
    if size == 0 { None } else { PaRange::new(start, size) }
}

/// All of `memory` in chunks, for what is zeroed or filled in one go while the machine boots.
pub fn chunks(memory: PaRange, kind: Kind) -> impl Iterator<Item = Chunk> {
    let mut offset = 0_u64;
    core::iter::from_fn(move || {
        let memory = chunk(&memory, offset, ZERO_STEP)?;
        offset = offset.saturating_add(memory.size());
        Some(Chunk { memory, kind })
    })
}
