//! Whether bytes are a flattened device tree, so that the parser can read all of it without a panic:
//! Devicetree Specification 0.4, chapter 5.
//!
//! The parser's own check would refuse names that the specification does not allow: of more than 31
//! characters, or with odd ones (sections 2.2.1 and 2.2.4). Boards' trees have such names, and Linux
//! reads them, so its unchecked constructor is used behind this check, which leaves only them out.

use super::Error;

const MAGIC: u32 = 0xd00d_feed;
/// The version whose header is known (section 5.2).
const VERSION: u32 = 17;
const HEADER: usize = 40;
/// Bytes of an entry of the reservation block (section 5.3).
const RESERVATION: usize = 16;
/// Longest name: names are read again and again.
const MAX_NAME: usize = 255;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Why it is none, and at which offset that shows.
type Check<T> = Result<T, Error>;

#[cold]
#[inline(never)]
fn malformed<T>(what: &'static str, offset: usize) -> Check<T> {
    Err(Error::Malformed { what, offset })
}

/// The tree, and where its blocks are.
struct Blob<'a> {
    data: &'a [u8],
    reservations: usize,
    structure: usize,
    strings: &'a [u8],
}

/// Checks a whole tree.
pub(super) fn check(data: &[u8]) -> Check<()> {
    let blob = Blob::open(data)?;
    blob.reservations()?;
    blob.nodes()
}

impl<'a> Blob<'a> {
    /// Section 5.2.
    fn open(data: &'a [u8]) -> Check<Self> {
        if data.len() < HEADER {
            return malformed("is too short", data.len());
        }
        let word = |n: usize| cell(data, n.saturating_mul(4)).unwrap_or_default();
        let place = |n: usize| usize::try_from(word(n)).unwrap_or(usize::MAX);
        if word(0) != MAGIC {
            return malformed("does not start with its magic number", 0);
        }
        if place(1) != data.len() {
            return malformed("ends before its totalsize", 4);
        }
        if !(word(6)..=word(5)).contains(&VERSION) {
            return malformed("is of a version other than 17", 20);
        }
        let (structure, strings, reservations) = (place(2), place(3), place(4));
        let structure_end = structure.saturating_add(place(9));
        let in_order = HEADER <= reservations && reservations <= structure && structure_end <= strings;
        if !in_order || !reservations.is_multiple_of(8) || !structure.is_multiple_of(4) {
            return malformed("has blocks out of order or alignment", 8);
        }
        match data.get(strings..strings.saturating_add(place(8))) {
            Some(strings) => Ok(Self { data, reservations, structure, strings }),
            None => malformed("has a strings block that is not inside", 12),
        }
    }

    /// The reservation block ends with an entry of zeros.
    fn reservations(&self) -> Check<()> {
        let block = self.data.get(self.reservations..self.structure).unwrap_or_default();
        let ends = |entry: &[u8]| entry.iter().all(|byte| *byte == 0);
        if block.chunks_exact(RESERVATION).any(ends) {
            Ok(())
        } else {
            malformed("has a reservation block without an end", self.reservations)
        }
    }

    /// Nodes nest, and the root is the only one at the top; properties come before nodes.
    fn nodes(&self) -> Check<()> {
        let mut at = self.structure;
        let mut depth = 0_usize;
        let mut properties = false;
        loop {
            let token = cell(self.data, at);
            let next = at.saturating_add(4);
            at = match token {
                Some(BEGIN_NODE) => {
                    let end = self.node_name(next, depth == 0)?;
                    (depth, properties) = (depth.saturating_add(1), true);
                    end
                }
                Some(PROPERTY) if properties => self.property(next)?,
                Some(END_NODE) if depth > 0 => {
                    (depth, properties) = (depth.saturating_sub(1), false);
                    if depth == 0 {
                        return self.end(next);
                    }
                    next
                }
                Some(NOP) if depth > 0 => next,
                _ => return malformed("has a token out of place", at),
            };
        }
    }

    fn end(&self, at: usize) -> Check<()> {
        if cell(self.data, at) == Some(END) { Ok(()) } else { malformed("goes on behind its root", at) }
    }

    /// Checks the name of a node, which starts at `at`; returns where what follows it starts.
    fn node_name(&self, at: usize, root: bool) -> Check<usize> {
        match name(self.data, at) {
            Some(name) if name.is_empty() == root => Ok(aligned(at, name.len().saturating_add(1))),
            _ => malformed("has a node with a bad name", at),
        }
    }

    /// Checks a property, whose length is at `at`; returns where what follows it starts.
    fn property(&self, at: usize) -> Check<usize> {
        let field = |at| cell(self.data, at).and_then(|n| usize::try_from(n).ok());
        let (Some(length), Some(offset)) = (field(at), field(at.saturating_add(4))) else {
            return malformed("ends inside a property", at);
        };
        if name(self.strings, offset).is_none_or(<[u8]>::is_empty) {
            return malformed("has a property with a bad name", at);
        }
        let value = at.saturating_add(8);
        if value.saturating_add(length) > self.data.len() {
            return malformed("ends inside a property", at);
        }
        Ok(aligned(value, length))
    }
}

/// The number at `at`.
fn cell(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|cell| u32::from_be_bytes(*cell))
}

/// The first multiple of four behind `length` bytes at `at`.
fn aligned(at: usize, length: usize) -> usize {
    at.saturating_add(length).checked_next_multiple_of(4).unwrap_or(usize::MAX)
}

/// The name that starts at `at`: printable, and without what separates names in a path.
fn name(data: &[u8], at: usize) -> Option<&[u8]> {
    let rest = data.get(at..)?;
    let printed = |byte: &u8| byte.is_ascii_graphic() && *byte != b'/';
    let length = rest.iter().take(MAX_NAME).take_while(|byte| printed(byte)).count();
    (rest.get(length) == Some(&0)).then(|| rest.get(..length)).flatten()
}
