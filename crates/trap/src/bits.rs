//! Bits and fields of registers.

/// The `width` bits of `value` from bit `lsb` up.
#[inline(always)]
pub(crate) const fn field(value: u64, lsb: u32, width: u32) -> u64 {
    // `wrapping_*`: the callers' constants are in range, and no panic branch may be left behind.
    value.wrapping_shr(lsb) & 1u64.wrapping_shl(width).wrapping_sub(1)
}

/// Bit `n` of `value`.
#[inline(always)]
pub(crate) const fn bit(value: u64, n: u32) -> bool {
    field(value, n, 1) != 0
}
