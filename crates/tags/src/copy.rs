//! Copying tags and memory for control VMs: arguments, and how tags look in a buffer.
//!
//! Within the hypervisor the tags of a page are [`PageTags`], as LDGM and STGM take them. In a buffer
//! they are
//! - *bytes*: one for each granule, the tag in the low four bits ([`spread`], [`gather`]), as Linux' KVM
//!   has them (KVM_ARM_MTE_COPY_TAGS), or
//! - *packed* in groups of up to [`GROUP`] pages: a word that has a bit for each page with a tag other
//!   than 0, then 128 bytes for each of these, two tags a byte, the lower granule in the low four bits.
//!
//! A [`Record`] begins each page of a stream of data and tags.

use abi::hypercall::{COPY_FROM_GUEST, COPY_PACKED};
use addr::{Canonical, Ipa, IpaRange, PAGE_SIZE};

/// The tags of a page: that of granule *n* in bits 4 (*n* mod 16) and up of word *n* / 16.
pub type PageTags = [u64; 16];

/// Pages of a packed group.
pub const GROUP: usize = 64;
/// Bytes of a packed group's map.
pub const MAP_BYTES: u64 = 8;
/// Bytes of a page's packed tags.
pub const PACKED_BYTES: u64 = 128;
/// Bytes of a page's tags, one for each.
pub const SPREAD_BYTES: u64 = 256;
/// Longest range of one call, in bytes; as KVM's.
const LONGEST: u64 = i32::MAX as u64;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the caller's buffer to the guest.
    ToGuest,
    /// From the guest to the caller's buffer.
    FromGuest,
}

/// A copy of tags that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagCopy {
    /// The guest's memory: whole pages.
    pub range: IpaRange,
    /// Start of the caller's buffer.
    pub buffer: Ipa<Canonical>,
    /// Which way.
    pub direction: Direction,
    /// Whether the buffer is packed.
    pub packed: bool,
}

impl TagCopy {
    /// Checks the arguments of TAGS_COPY: `None` unless address and length are multiples of a page, the
    /// range is shorter than 2 GiB and does not wrap, nor does the buffer, only known flags are set, and
    /// what is reserved is 0.
    #[must_use]
    pub fn new(ipa: u64, length: u64, buffer: u64, flags: u64, reserved: [u64; 2]) -> Option<Self> {
        if flags & !(COPY_FROM_GUEST | COPY_PACKED) != 0 || reserved != [0; 2] || length > LONGEST {
            return None;
        }
        let range = IpaRange::new(Ipa::new(ipa), length).filter(|range| range.is_aligned(PAGE_SIZE))?;
        // The largest buffer: a byte for each granule is twice what packed pages take, and a packed
        // group's map fits into the difference.
        let buffer = IpaRange::new(Ipa::new(buffer), length / 16)?.start();
        Some(Self { range, buffer, direction: direction(flags), packed: flags & COPY_PACKED != 0 })
    }
}

/// A copy of data that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataCopy {
    /// Start in the guest: an IPA, or a virtual address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Start of the caller's buffer.
    pub buffer: u64,
    /// Which way.
    pub direction: Direction,
}

impl DataCopy {
    /// Checks the arguments of a copy of data: `None` if a range wraps or an unknown flag is set.
    #[must_use]
    pub fn new(start: u64, length: u64, buffer: u64, flags: u64) -> Option<Self> {
        let wraps = start.checked_add(length).is_none() || buffer.checked_add(length).is_none();
        if wraps || flags & !COPY_FROM_GUEST != 0 {
            return None;
        }
        Some(Self { start, length, buffer, direction: direction(flags) })
    }
}

/// What the flag for the direction says.
#[must_use]
pub const fn direction(flags: u64) -> Direction {
    if flags & COPY_FROM_GUEST == 0 { Direction::ToGuest } else { Direction::FromGuest }
}

/// The bytes of 16 tags, little-endian in two words.
#[inline(always)]
#[must_use]
pub const fn spread(tags: u64) -> [u64; 2] {
    [spread_half(tags & 0xffff_ffff), spread_half(tags >> 32)]
}

#[inline(always)]
const fn spread_half(tags: u64) -> u64 {
    let x = (tags | tags << 16) & 0x0000_ffff_0000_ffff;
    let x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f
}

/// The 16 tags in 16 bytes, whose upper four bits do not count.
#[inline(always)]
#[must_use]
pub const fn gather(bytes: [u64; 2]) -> u64 {
    let [low, high] = bytes;
    gather_half(low) | gather_half(high) << 32
}

#[inline(always)]
const fn gather_half(bytes: u64) -> u64 {
    let x = bytes & 0x0f0f_0f0f_0f0f_0f0f;
    let x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) & 0x0000_0000_ffff_ffff
}

/// Whether all tags of a page are 0.
#[inline(always)]
#[must_use]
pub fn is_zero(tags: &PageTags) -> bool {
    tags.iter().fold(0, |any, word| any | word) == 0
}

/// Where the tags of the page number `page` of a packed group are, in bytes from its start; `None` if they
/// are all 0, or there is no such page.
#[must_use]
pub const fn packed_offset(map: u64, page: usize) -> Option<u64> {
    if page >= GROUP || map >> page & 1 == 0 {
        return None;
    }
    let before = map & (1_u64 << page).wrapping_sub(1);
    Some(MAP_BYTES.saturating_add(PACKED_BYTES.saturating_mul(before.count_ones() as u64)))
}

/// Bytes of a packed group with this map.
#[must_use]
pub const fn packed_bytes(map: u64) -> u64 {
    MAP_BYTES.saturating_add(PACKED_BYTES.saturating_mul(map.count_ones() as u64))
}

/// What begins a page in a stream of data and tags: a word. The page's 4096 bytes follow, then, if it has
/// tags other than 0, its packed tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The page.
    pub ipa: Ipa<Canonical>,
    /// Whether tags follow its data.
    pub tags: bool,
}

impl Record {
    /// Bytes of the word.
    pub const HEADER: u64 = 8;
    /// Bytes of the longest record.
    pub const LONGEST: u64 = Self::HEADER + PAGE_SIZE + PACKED_BYTES;
    const TAGS: u64 = 1;

    /// As a word: the address, and bit 0 for tags.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.ipa.get() | if self.tags { Self::TAGS } else { 0 }
    }

    /// From a word; `None` if a bit is set that means nothing.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        if word & PAGE_SIZE.wrapping_sub(1) & !Self::TAGS != 0 {
            return None;
        }
        Some(Self { ipa: Ipa::new(word & !Self::TAGS), tags: word & Self::TAGS != 0 })
    }

    /// Bytes of the whole record.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        if self.tags { Self::LONGEST } else { Self::LONGEST - PACKED_BYTES }
    }
}

#[cfg(test)]
mod tests;
