//! Bit masks of 32.

/// The mask with bit `n` (modulo 32) set; `<<` would bring an overflow check.
pub(crate) const fn bit(n: usize) -> u32 {
    1u32.wrapping_shl(n as u32)
}

/// The numbers of the bits that are set, lowest first.
pub(crate) fn ones(mut mask: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let n = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        Some(n)
    })
}

/// Moves bit n of the lower half to bit 2n + 1, where GICD_ICFGR says "edge".
pub(crate) const fn spread(half: u32) -> u32 {
    let mut x = half & 0xffff;
    x = (x | x.wrapping_shl(8)) & 0x00ff_00ff;
    x = (x | x.wrapping_shl(4)) & 0x0f0f_0f0f;
    x = (x | x.wrapping_shl(2)) & 0x3333_3333;
    x = (x | x.wrapping_shl(1)) & 0x5555_5555;
    x.wrapping_shl(1)
}

/// The inverse of [`spread`]; even bits are ignored.
pub(crate) const fn gather(value: u32) -> u32 {
    let mut x = value.wrapping_shr(1) & 0x5555_5555;
    x = (x | x.wrapping_shr(1)) & 0x3333_3333;
    x = (x | x.wrapping_shr(2)) & 0x0f0f_0f0f;
    x = (x | x.wrapping_shr(4)) & 0x00ff_00ff;
    (x | x.wrapping_shr(8)) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_and_gather() {
        assert_eq!(spread(0b101), 0b10_00_10);
        assert_eq!(spread(0xffff), 0xaaaa_aaaa);
        for x in (0..=0xffff).step_by(if cfg!(miri) { 97 } else { 1 }) {
            assert_eq!(gather(spread(x) | 0x5555_5555), x);
        }
    }

    #[test]
    fn ones_ascend() {
        assert!(ones(0x8000_0005).eq([0, 2, 31]));
        assert!(ones(0).next().is_none());
    }
}
