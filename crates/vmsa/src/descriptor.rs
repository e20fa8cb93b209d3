//! VMSAv8-64 descriptors of the 4 KiB granule, as far as both stages agree on them (D8.3).

use addr::Pa;

/// Bit 0: the descriptor is valid.
pub const VALID: u64 = 1;
/// Bit 1: a table at levels 0 to 2, a page at level 3.
pub const TABLE_OR_PAGE: u64 = 1 << 1;
/// Bit 10: the access flag.
pub const AF: u64 = 1 << 10;
/// Bits 47:12: the output address, or the next table.
pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// What a change may touch on a valid leaf without break-before-make (D8.16.1): access permissions
/// (7:6 in both stages), the access flag, and the bits left to software (58:55). Everything else is
/// memory type, shareability, size or output address. Execute-never (54:53) could change too, but for
/// Cortex-A715 (erratum 2645198: wrong ESR and FAR afterwards), and changes too rarely to ask which CPU.
pub const CHANGES_IN_PLACE: u64 = 0b11 << 6 | AF | 0b1111 << 55;

/// Shareability (9:8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shareability {
    /// Not shared. Device memory counts as outer shareable whatever this field says (D8.6.2).
    Non = 0b00,
    /// Outer shareable.
    Outer = 0b10,
    /// Inner shareable.
    Inner = 0b11,
}

impl Shareability {
    /// The field in its place.
    #[must_use]
    pub const fn bits(self) -> u64 {
        (self as u64) << 8
    }
}

/// A level of lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// 512 GiB per entry: tables only.
    Zero = 0,
    /// 1 GiB per entry.
    One = 1,
    /// 2 MiB per entry.
    Two = 2,
    /// 4 KiB per entry: pages only.
    Three = 3,
}

impl Level {
    /// Lowest address bit that indexes a table of this level.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Zero => 39,
            Self::One => 30,
            Self::Two => 21,
            Self::Three => 12,
        }
    }

    /// Bytes that one entry translates.
    #[must_use]
    pub const fn size(self) -> u64 {
        1 << self.shift()
    }

    /// The level that a table descriptor of this one points to.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Zero => Some(Self::One),
            Self::One => Some(Self::Two),
            Self::Two => Some(Self::Three),
            Self::Three => None,
        }
    }

    /// Whether an entry may be a block or page (level 0 has blocks only with FEAT_LPA2).
    #[must_use]
    pub const fn has_leaves(self) -> bool {
        !matches!(self, Self::Zero)
    }
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Invalid or reserved: an access faults.
    Invalid,
    /// A block or page.
    Leaf,
    /// The next table.
    Table(Pa),
}

/// What `descriptor` is at `level`.
#[must_use]
pub const fn kind(descriptor: u64, level: Level) -> Kind {
    let high = descriptor & TABLE_OR_PAGE != 0;
    match level {
        _ if descriptor & VALID == 0 => Kind::Invalid,
        Level::Three if high => Kind::Leaf,
        Level::Zero | Level::One | Level::Two if high => Kind::Table(Pa::new(descriptor & ADDRESS)),
        Level::One | Level::Two => Kind::Leaf,
        Level::Zero | Level::Three => Kind::Invalid,
    }
}

/// A leaf of `level` at `pa` (aligned to the level's size) with the given attribute bits.
#[must_use]
pub const fn leaf(pa: u64, attributes: u64, level: Level) -> u64 {
    let page = if matches!(level, Level::Three) { TABLE_OR_PAGE } else { 0 };
    pa & ADDRESS | attributes | page | VALID
}

/// A descriptor of the next table, without hierarchical attributes.
#[must_use]
pub const fn table_at(next: Pa) -> u64 {
    next.get() & ADDRESS | TABLE_OR_PAGE | VALID
}

/// Whether `old` must be made invalid and flushed from TLBs before `new` may take its place
/// (D8.16.1, without relying on FEAT_BBM).
#[must_use]
pub const fn needs_break(old: u64, new: u64) -> bool {
    old & VALID != 0 && new & VALID != 0 && (old ^ new) & !CHANGES_IN_PLACE != 0
}

/// The field `TCR_EL2.PS` or `VTCR_EL2.PS` for a machine with `pa_bits` of physical address, at
/// most 48 because larger ones need FEAT_LPA2; `None` if no `ID_AA64MMFR0_EL1.PARange` says that.
#[must_use]
pub const fn physical_size(pa_bits: u8) -> Option<u64> {
    match pa_bits {
        32 => Some(0),
        36 => Some(1),
        40 => Some(2),
        42 => Some(3),
        44 => Some(4),
        48 | 52 | 56 => Some(5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_encodings_are_invalid() {
        assert_eq!(kind(0b01, Level::Zero), Kind::Invalid);
        assert_eq!(kind(0b01, Level::Three), Kind::Invalid);
        for level in [Level::Zero, Level::One, Level::Two, Level::Three] {
            assert_eq!(kind(0, level), Kind::Invalid);
            assert_eq!(kind(!VALID, level), Kind::Invalid);
        }
        assert_eq!(kind(leaf(0x4000_0000, AF, Level::One), Level::One), Kind::Leaf);
        assert_eq!(kind(leaf(0x1000, AF, Level::Three), Level::Three), Kind::Leaf);
        assert_eq!(kind(table_at(Pa::new(0x5000)), Level::Zero), Kind::Table(Pa::new(0x5000)));
    }

    #[test]
    fn break_before_make_rules() {
        let old = leaf(0x1000, AF | 0b11 << 6 | 0b1111 << 2, Level::Three);
        // (what changes, whether the old leaf must be broken first)
        let cases = [
            (0, false),
            (1 << 7, false),     // write permission
            (1 << 54, true),     // execute-never
            (AF, false),         // access flag
            (1 << 55, false),    // software bit
            (0b1000 << 2, true), // memory type
            (0b01 << 8, true),   // shareability
            (1 << 12, true),     // output address
            (1 << 1, true),      // page and reserved, block and table
            (1 << 52, true),     // contiguous
        ];
        for (flip, expected) in cases {
            assert_eq!(needs_break(old, old ^ flip), expected, "flip {flip:#x}");
            assert!(!needs_break(0, old ^ flip), "invalid to valid");
            assert!(!needs_break(old, 0), "valid to invalid");
        }
    }
}
