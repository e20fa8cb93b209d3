//! Writing a flattened device tree from its first node to its last: Devicetree Specification 0.4,
//! chapter 5. It takes a tenth of the code and of the time that a tree of nodes in memory takes.

use alloc::vec::Vec;
use core::ops::Range;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// Bytes of the header and of an empty memory reservation block behind it.
const HEADER: u32 = 40;
const START: u32 = HEADER + 16;

/// A tree up to where it is written: nodes are begun, get their properties, then their children, and
/// are ended.
pub(crate) struct Writer {
    /// Header, reservation block, and the nodes so far.
    bytes: Vec<u8>,
    /// The names of properties, each with its offset in the block of strings.
    names: Vec<(&'static str, u32)>,
    /// Length of the block of strings.
    strings: u32,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.resize(usize::try_from(START).unwrap_or_default(), 0);
        Self { bytes, names: Vec::with_capacity(32), strings: 0 }
    }

    /// Begins a node called `name`, or `name@unit`.
    #[inline(never)]
    pub(crate) fn begin(&mut self, name: &str, unit: Option<u64>) {
        self.cell(BEGIN_NODE);
        self.bytes.extend_from_slice(name.as_bytes());
        if let Some(unit) = unit {
            self.bytes.push(b'@');
            hex(&mut self.bytes, unit);
        }
        self.bytes.push(0);
        self.align();
    }

    pub(crate) fn end(&mut self) {
        self.cell(END_NODE);
    }

    /// Sets a property; empty is one whose presence says it all.
    #[inline(never)]
    pub(crate) fn bytes(&mut self, name: &'static str, value: &[u8]) {
        self.property(name, value.len());
        self.bytes.extend_from_slice(value);
        self.align();
    }

    /// Sets a property to a string, or to several with NUL between them.
    #[inline(never)]
    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        self.property(name, value.len().saturating_add(1));
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.align();
    }

    /// Sets a property to numbers of one cell.
    #[inline(never)]
    pub(crate) fn cells(&mut self, name: &'static str, values: &[u32]) {
        self.property(name, size_of_val(values));
        for &value in values {
            self.cell(value);
        }
    }

    /// Sets a property to numbers of two cells.
    #[inline(never)]
    pub(crate) fn numbers(&mut self, name: &'static str, values: &[u64]) {
        self.property(name, size_of_val(values));
        for value in values {
            self.bytes.extend_from_slice(&value.to_be_bytes());
        }
    }

    /// Sets a property to as many bytes; says where they are in the tree.
    pub(crate) fn place<const N: usize>(&mut self, name: &'static str, value: [u8; N]) -> Range<usize> {
        self.property(name, N);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&value);
        self.align();
        start..start.saturating_add(N)
    }

    /// The whole tree.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.cell(END);
        let strings_at = length(&self.bytes);
        for (name, _) in &self.names {
            self.bytes.extend_from_slice(name.as_bytes());
            self.bytes.push(0);
        }
        // Section 5.2: magic, size, where the blocks are, versions 17 and 16, boot CPU, sizes of blocks.
        let structure = strings_at.saturating_sub(START);
        let total = length(&self.bytes);
        let header = [0xd00d_feed, total, START, strings_at, HEADER, 17, 16, 0, self.strings, structure];
        for (place, word) in self.bytes.chunks_exact_mut(4).zip(header) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        self.bytes
    }

    /// What stands before the value of a property.
    fn property(&mut self, name: &'static str, len: usize) {
        let known = self.names.iter().find(|(known, _)| *known == name).map(|&(_, offset)| offset);
        let offset = known.unwrap_or_else(|| {
            let offset = self.strings;
            self.names.push((name, offset));
            self.strings = offset.saturating_add(length(name.as_bytes())).saturating_add(1);
            offset
        });
        self.cell(PROPERTY);
        self.cell(u32::try_from(len).unwrap_or(u32::MAX));
        self.cell(offset);
    }

    #[inline(never)]
    fn cell(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn align(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// The length of what is at most as long as memory is, which ends a tree of a few pages long before.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Writes a number as unit addresses are: hexadecimal, without leading zeros.
pub(crate) fn hex(out: &mut Vec<u8>, number: u64) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let value = number >> (digit * 4) & 0xf;
        out.extend(b"0123456789abcdef".get(usize::try_from(value).unwrap_or_default()));
    }
}
