//! Sizes of cache lines, as CTR_EL0 tells them.

use addr::Va;

/// log2 of bytes in a word.
const WORD: u8 = 2;
/// log2 of the largest stride in use, 2 KiB: the largest that CTR_EL0.CWG can say. A stride below the
/// line size maintains lines more than once; it never leaves one out, nor the page.
const LARGEST: u8 = 11;

/// Size of a cache line: a power of two from 4 to 2048 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineSize(u8);

impl LineSize {
    /// The size of 2 to the power of `log2` bytes, or the nearest that there is.
    #[must_use]
    pub const fn from_log2(log2: u8) -> Self {
        Self(if log2 < WORD {
            WORD
        } else if log2 > LARGEST {
            LARGEST
        } else {
            log2
        })
    }

    /// log2 of the size.
    #[must_use]
    pub const fn log2(self) -> u8 {
        self.0
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        // At most 11 by construction.
        1_u64.wrapping_shl(self.0 as u32)
    }

    /// Calls `each` with the first address of every line that `size` bytes at `va` touch, lowest first.
    /// A range that would go on beyond the last address ends there.
    #[inline(always)]
    pub fn each(self, va: Va, size: u64, mut each: impl FnMut(Va)) {
        let Some(behind_first) = size.checked_sub(1) else { return };
        let mut line = va.align_down(self.bytes()).get();
        let last = Va::new(va.get().saturating_add(behind_first)).align_down(self.bytes()).get();
        loop {
            each(Va::new(line));
            if line == last {
                return;
            }
            // Below `last`: does not wrap.
            line = line.wrapping_add(self.bytes());
        }
    }
}

/// The strides by which maintenance by VA reaches every line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lines {
    /// For data.
    pub data: LineSize,
    /// For data and allocation tags at once.
    pub tags: LineSize,
}

impl Lines {
    /// From CTR_EL0: DminLine, bits 19:16, and TminLine, bits 37:32, each the log2 of a number of words
    /// (DDI 0487, CTR_EL0). TminLine is 0 where tags have no lines of their own.
    #[must_use]
    pub const fn from_ctr(ctr: u64) -> Self {
        let data = LineSize::from_log2((ctr >> 16 & 0xf) as u8 + WORD);
        let tags = match (ctr >> 32 & 0x3f) as u8 {
            0 => data,
            words => LineSize::from_log2(words + WORD).smaller(data),
        };
        Self { data, tags }
    }

    /// The strides that reach every line of two CPUs.
    #[must_use]
    pub const fn combine(self, other: Self) -> Self {
        Self { data: self.data.smaller(other.data), tags: self.tags.smaller(other.tags) }
    }
}

impl LineSize {
    const fn smaller(self, other: Self) -> Self {
        if other.0 < self.0 { other } else { self }
    }
}
