//! Timers that are not in the hardware: when they fire, and their registers as values.

/// CTL.ENABLE.
pub const ENABLE: u64 = 1;
/// CTL.IMASK.
pub const IMASK: u64 = 2;
/// CTL.ISTATUS.
pub const ISTATUS: u64 = 4;

/// CTL and CVAL of a timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// CTL, without ISTATUS.
    pub ctl: u64,
    /// CVAL.
    pub cval: u64,
}

impl Registers {
    /// Whether its interrupt is enabled.
    #[inline]
    #[must_use]
    pub const fn armed(self) -> bool {
        self.ctl & (ENABLE | IMASK) == ENABLE
    }

    /// Whether its line is high when its counter shows `count`.
    #[inline]
    #[must_use]
    pub const fn line(self, count: u64) -> bool {
        self.armed() && count >= self.cval
    }

    /// Counts until its line rises when its counter shows `count`: 0 if it is high.
    #[inline]
    #[must_use]
    pub const fn left(self, count: u64) -> Option<u64> {
        if self.armed() { Some(self.cval.saturating_sub(count)) } else { None }
    }

    /// CTL as it reads.
    #[must_use]
    pub const fn read_ctl(self, count: u64) -> u64 {
        let met = self.ctl & ENABLE != 0 && count >= self.cval;
        self.ctl & (ENABLE | IMASK) | if met { ISTATUS } else { 0 }
    }

    /// TVAL as it reads.
    #[must_use]
    pub const fn read_tval(self, count: u64) -> u64 {
        self.cval.wrapping_sub(count) & 0xffff_ffff
    }

    /// CVAL after a write of TVAL: a signed number of 32 bits.
    #[must_use]
    pub const fn cval_of(tval: u64, count: u64) -> u64 {
        count.wrapping_add(tval as u32 as i32 as i64 as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_deadlines() {
        let timer = Registers { ctl: ENABLE, cval: 100 };
        assert_eq!((timer.line(99), timer.line(100)), (false, true));
        assert_eq!((timer.left(90), timer.left(100), timer.left(101)), (Some(10), Some(0), Some(0)));
        let masked = Registers { ctl: ENABLE | IMASK, cval: 0 };
        assert_eq!(masked.left(0), None);
        assert_eq!((masked.line(1), masked.read_ctl(1)), (false, 7));
        assert_eq!(Registers { ctl: IMASK, cval: 0 }.read_ctl(1), IMASK);
    }

    #[test]
    fn tval_is_signed() {
        assert_eq!(Registers::cval_of(0xffff_ffff, 10), 9);
        assert_eq!(Registers::cval_of(5, 10), 15);
        assert_eq!(Registers { ctl: 0, cval: 9 }.read_tval(10), 0xffff_ffff);
    }
}
