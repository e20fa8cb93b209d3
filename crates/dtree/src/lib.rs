//! Flattened device trees, read where they lie (Devicetree Specification 0.4, chapter 5).
//!
//! [`Blob::open`] checks a tree once, as a whole; from then on a [`Node`] lists its [`Property`]s and
//! its children without allocation, recursion or a way to fail. Only bytes are read, so a tree may lie
//! anywhere, and memory may be Device memory. `fdt` and `manifest` say what trees mean.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod check;
mod node;

pub use node::{Children, Node, Properties, Property};

use core::fmt;

/// The first four bytes (section 5.2).
const MAGIC: u32 = 0xd00d_feed;
/// The version of the format (section 5.2).
const VERSION: u32 = 17;
/// Length of the header in bytes.
const HEADER: usize = 40;

/// Tokens of the structure block (section 5.4.1).
mod token {
    pub(crate) const BEGIN_NODE: u32 = 1;
    pub(crate) const END_NODE: u32 = 2;
    pub(crate) const PROP: u32 = 3;
    pub(crate) const NOP: u32 = 4;
    pub(crate) const END: u32 = 9;
}

/// Why bytes are no well-formed tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    what: &'static str,
    offset: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.what, self.offset)
    }
}

impl core::error::Error for Malformed {}

/// A checked tree.
#[derive(Clone, Copy)]
pub struct Blob<'a> {
    data: &'a [u8],
    /// The memory reservation block, from its start up to its terminator at least.
    reservations: &'a [u8],
    root: Node<'a>,
}

/// The length of the whole tree whose first bytes these are (8 suffice), or `None` if they do not
/// start a flattened device tree (section 5.2).
#[must_use]
pub fn total_size(header: &[u8]) -> Option<usize> {
    let mut header = header;
    let magic = word(&mut header)?;
    let size = word(&mut header)?;
    (magic == MAGIC).then(|| usize::try_from(size).ok()).flatten()
}

impl<'a> Blob<'a> {
    /// Checks the tree that `data` is, from the first byte to the last.
    ///
    /// # Errors
    /// What is malformed, and where.
    pub fn open(data: &'a [u8]) -> Result<Self, Malformed> {
        check::blob(data)
    }

    /// The bytes of the tree.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The root node.
    #[must_use]
    pub fn root(&self) -> Node<'a> {
        self.root
    }

    /// Address and size in bytes of each entry of the memory reservation block (section 5.3).
    pub fn reservations(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        reservations(self.reservations).take_while(|entry| *entry != (0, 0))
    }
}

fn reservations(block: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let number = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
    block.as_chunks::<16>().0.iter().filter_map(move |entry| {
        let (address, size) = entry.split_first_chunk()?;
        Some((number(address), number(size.first_chunk()?)))
    })
}

/// Takes a cell off the front.
#[inline]
fn word(rest: &mut &[u8]) -> Option<u32> {
    let (word, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u32::from_be_bytes(*word))
}

/// Takes `len` bytes off the front, and what fills up the last cell (section 5.4).
#[inline]
fn padded<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let behind = rest.get(len.checked_next_multiple_of(4)?..)?;
    let taken = rest.get(..len)?;
    *rest = behind;
    Some(taken)
}

/// Takes a node's name off the front, without its NUL.
#[inline]
fn name<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = rest.iter().position(|&byte| byte == 0)?;
    padded(rest, len.checked_add(1)?)?.get(..len)
}

/// Takes the rest of a property behind its token off the front: where its name is, and its value.
#[inline]
fn property<'a>(rest: &mut &'a [u8]) -> Option<(usize, &'a [u8])> {
    let len = word(rest)?;
    let name = word(rest)?;
    Some((usize::try_from(name).ok()?, padded(rest, usize::try_from(len).ok()?)?))
}

#[cfg(test)]
mod tests;
