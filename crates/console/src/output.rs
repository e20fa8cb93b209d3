//! The way out: what waits, and the transmitter behind it, which is far slower than output is made.

use crate::ring::Ring;

/// A UART's transmitter.
pub trait Transmitter {
    /// How many bytes it takes at least, without being asked again.
    fn room(&mut self) -> usize;
    /// Sends a byte for which [`room`](Self::room) said that there is room.
    fn send(&mut self, byte: u8);
    /// Sends a byte when there is room, but does not wait for ever.
    fn put(&mut self, byte: u8);
}

/// Bytes that one visit hands to the transmitter at most.
pub const BURST: usize = 64;

/// What a line of the hypervisor may need, and as much again for what VMs have under way. With less room
/// such a line is dropped.
pub const LINE: usize = 2 << 10;

/// The queue and the transmitter.
pub struct Output<'a, T, const N: usize> {
    /// Where bytes go.
    pub uart: &'a mut T,
    /// Where they wait.
    pub ring: &'a mut Ring<N>,
}

impl<T: Transmitter, const N: usize> Output<'_, T, N> {
    /// Adds bytes behind what waits. If there is no room for them, makes it: waits for the transmitter.
    pub fn put(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            rest = rest.get(self.ring.extend(rest)..).unwrap_or_default();
            if rest.is_empty() {
                return;
            }
            self.send_waiting(rest.len());
        }
    }

    /// Hands `count` bytes to the transmitter, and waits until it takes them.
    pub fn send_waiting(&mut self, count: usize) {
        for byte in core::iter::from_fn(|| self.ring.pop()).take(count) {
            self.uart.put(byte);
        }
    }

    /// Hands some bytes to the transmitter, as far as it takes them at once.
    pub fn drain(&mut self) {
        self.drain_at_most(BURST);
    }

    /// Whether a line of the hypervisor has room, which is made as far as the transmitter takes bytes at
    /// once. It does not wait: CPUs that want to print spin meanwhile, with their interrupts masked.
    pub fn has_room_for_line(&mut self) -> bool {
        self.drain_at_most(LINE.saturating_sub(self.ring.room()));
        self.ring.room() >= LINE
    }

    fn drain_at_most(&mut self, count: usize) {
        let mut left = count;
        while left > 0 && !self.ring.is_empty() {
            let room = self.uart.room().min(left);
            if room == 0 {
                return;
            }
            left = left.saturating_sub(room);
            for byte in core::iter::from_fn(|| self.ring.pop()).take(room) {
                self.uart.send(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    /// Takes `credit` bytes, and one more each time it is waited for.
    #[derive(Default)]
    struct Slow {
        sent: Vec<u8>,
        credit: usize,
        waits: usize,
    }

    impl Transmitter for Slow {
        fn room(&mut self) -> usize {
            self.credit.min(16)
        }

        fn send(&mut self, byte: u8) {
            self.credit = self.credit.checked_sub(1).unwrap();
            self.sent.push(byte);
        }

        fn put(&mut self, byte: u8) {
            if self.credit == 0 {
                (self.waits, self.credit) = (self.waits + 1, 1);
            }
            self.send(byte);
        }
    }

    const SIZE: usize = 4 << 10;

    fn full() -> Ring<SIZE> {
        let mut ring = Ring::new();
        ring.extend(&[b'x'; SIZE]);
        ring
    }

    #[test]
    fn a_full_queue_has_no_room_and_nobody_waits() {
        let (mut uart, mut ring) = (Slow::default(), full());
        let mut output = Output { uart: &mut uart, ring: &mut ring };
        assert!(!output.has_room_for_line());
        output.uart.credit = LINE - 1;
        assert!(!output.has_room_for_line());
        assert_eq!((output.uart.sent.len(), output.ring.room()), (LINE - 1, LINE - 1));
        output.uart.credit = 100;
        assert!(output.has_room_for_line());
        assert_eq!((uart.waits, uart.credit), (0, 99), "no more is sent than has to be");
    }

    #[test]
    fn a_fast_transmitter_loses_nothing() {
        let (mut uart, mut ring) = (Slow { credit: usize::MAX, ..Slow::default() }, full());
        let mut output = Output { uart: &mut uart, ring: &mut ring };
        for _ in 0..100 {
            assert!(output.has_room_for_line());
            output.put(&[b'y'; LINE]);
        }
        assert_eq!(uart.waits, 0);
        assert_eq!(uart.sent.len() + ring.len(), SIZE + 100 * LINE);
    }

    #[test]
    fn what_must_not_be_lost_waits_in_its_order() {
        let (mut uart, mut ring) = (Slow::default(), full());
        let mut output = Output { uart: &mut uart, ring: &mut ring };
        output.put(b"abc");
        output.send_waiting(SIZE);
        assert_eq!(uart.sent.len(), SIZE + 3);
        assert!(uart.sent.ends_with(b"xabc") && uart.waits == SIZE + 3);
    }

    #[test]
    fn a_visit_is_short() {
        let (mut uart, mut ring) = (Slow { credit: 1000, ..Slow::default() }, full());
        Output { uart: &mut uart, ring: &mut ring }.drain();
        assert_eq!(uart.sent.len(), BURST);
    }
}
