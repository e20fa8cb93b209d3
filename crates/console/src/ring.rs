//! A queue of bytes in a fixed place: what waits for a transmitter, or for a guest's receiver.

/// A first-in, first-out queue of at most `N` bytes, a power of two. The empty queue is all zero.
///
/// Whatever its fields hold, no call panics: a panic that interrupted a call may still empty it.
#[derive(Clone, Debug)]
pub struct Ring<const N: usize> {
    bytes: [u8; N],
    /// Index of the oldest byte.
    head: usize,
    len: usize,
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Ring<N> {
    /// The empty queue.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two()) };
        Self { bytes: [0; N], head: 0, len: 0 }
    }

    /// How many bytes wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many more bytes fit.
    #[must_use]
    pub const fn room(&self) -> usize {
        N.saturating_sub(self.len)
    }

    /// Adds a byte; false if there is no room.
    pub fn push(&mut self, byte: u8) -> bool {
        self.extend(&[byte]) == 1
    }

    /// Adds as many bytes as fit; returns how many.
    pub fn extend(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        let tail = self.head.wrapping_add(self.len) % N;
        // Up to the end of the array, and the rest from its start.
        let (upper, lower) = bytes.split_at(count.min(N - tail));
        for (slot, byte) in self.bytes.iter_mut().skip(tail).zip(upper) {
            *slot = *byte;
        }
        for (slot, byte) in self.bytes.iter_mut().zip(lower).take(count.saturating_sub(upper.len())) {
            *slot = *byte;
        }
        self.len = self.len.wrapping_add(count);
        count
    }

    /// Takes the oldest byte.
    pub fn pop(&mut self) -> Option<u8> {
        self.len = self.len.checked_sub(1)?;
        let byte = self.bytes.get(self.head % N).copied();
        self.head = self.head.wrapping_add(1) % N;
        byte
    }

    /// Forgets all bytes.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8),
        Extend(Vec<u8>),
        Pop(usize),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<u8>().prop_map(Step::Push),
            4 => prop::collection::vec(any::<u8>(), 0..24).prop_map(Step::Extend),
            6 => (0_usize..20).prop_map(Step::Pop),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn like_a_deque(steps in prop::collection::vec(step(), 0..if cfg!(miri) { 20 } else { 100 })) {
            let mut ring = Ring::<16>::new();
            let mut model = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push(byte) => {
                        let fits = model.len() < 16;
                        prop_assert_eq!(ring.push(byte), fits);
                        model.extend(fits.then_some(byte));
                    }
                    Step::Extend(bytes) => {
                        let count = bytes.len().min(16 - model.len());
                        prop_assert_eq!(ring.extend(&bytes), count);
                        model.extend(bytes.iter().take(count));
                    }
                    Step::Pop(count) => for _ in 0..count {
                        prop_assert_eq!(ring.pop(), model.pop_front());
                    },
                    Step::Clear => {
                        ring.clear();
                        model.clear();
                    }
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.is_empty(), model.is_empty());
                prop_assert_eq!(ring.room(), 16 - model.len());
            }
            while let Some(byte) = model.pop_front() {
                prop_assert_eq!(ring.pop(), Some(byte));
            }
            prop_assert_eq!(ring.pop(), None);
        }

        #[test]
        fn no_state_panics(head: usize, len: usize, bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let mut ring = Ring::<16> { bytes: [0; 16], head, len };
            let _ = ring.extend(&bytes);
            let _ = ring.push(1);
            let _ = ring.room();
            let _ = ring.pop();
        }
    }
}
