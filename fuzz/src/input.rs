//! Bytes as values, and random numbers.

/// What a target reads; zero when the bytes are used up.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn bit(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    pub(crate) fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, i| word | u64::from(self.byte()) << (8 * i))
    }

    /// One of `all`.
    pub(crate) fn choose<T: Copy>(&mut self, all: &[T], otherwise: T) -> T {
        let index = usize::from(self.byte()).checked_rem(all.len()).unwrap_or(0);
        all.get(index).copied().unwrap_or(otherwise)
    }
}

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`, or 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() as usize).checked_rem(limit).unwrap_or(0)
    }
}
