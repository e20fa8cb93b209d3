extern crate std;

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::vec::Vec;

const QUIET: Effect = Effect { transmit: None, irq: false };

fn on() -> Pl011 {
    let mut u = Pl011::new();
    assert_eq!(u.write(LCR_H, 0x70), QUIET);
    assert_eq!(u.write(CR, 0x301), QUIET);
    u
}

fn get(u: &mut Pl011, offset: u32) -> u32 {
    u.read(offset).0
}

fn put(u: &mut Pl011, offset: u32, value: u32) {
    let _ = u.write(offset, value);
}

fn feed(u: &mut Pl011, bytes: impl IntoIterator<Item = u8>) {
    for b in bytes {
        let _ = u.receive(b);
    }
}

#[test]
fn reset_values() {
    let expected = [
        (DR, 0),
        (RSR_ECR, 0),
        (FR, 0x97),
        (ILPR, 0),
        (IBRD, 0),
        (FBRD, 0),
        (LCR_H, 0),
        (CR, 0x300),
        (IFLS, 0x12),
        (IMSC, 0),
        (RIS, 0),
        (MIS, 0),
        (ICR, 0),
    ];
    let mut u = Pl011::default();
    for (offset, value) in expected {
        assert_eq!(u.read(offset), (value, QUIET), "{offset:#x}");
    }
    put(&mut u, IBRD, 13);
    put(&mut u, IMSC, 0x7FF);
    put(&mut u, DR, 0x41);
    u.reset();
    for (offset, value) in expected {
        assert_eq!(u.read(offset), (value, QUIET), "{offset:#x}");
    }
}

#[test]
fn identification() {
    let mut u = Pl011::new();
    let ids: Vec<u32> = (0xFE0..0x1000).step_by(4).map(|o| get(&mut u, o)).collect();
    assert_eq!(ids, [0x11, 0x10, 0x34, 0x00, 0x0D, 0xF0, 0x05, 0xB1]);
}

#[test]
fn reserved_offsets_are_raz_wi() {
    let named = [DR, RSR_ECR, FR, ILPR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, MIS, ICR];
    let mut u = Pl011::new();
    for offset in (0..0x1100).step_by(if cfg!(miri) { 17 } else { 1 }).filter(|o| !named.contains(o)) {
        if !(IDS..0x1000).contains(&offset) || offset % 4 != 0 {
            assert_eq!(u.write(offset, u32::MAX), QUIET, "{offset:#x}");
            assert_eq!(u.read(offset), (0, QUIET), "{offset:#x}");
        }
    }
    assert_eq!(get(&mut u, u32::MAX), 0);
    assert_eq!(get(&mut u, CR), 0x300);
}

#[test]
fn writable_bits() {
    let mut u = Pl011::new();
    for (offset, mask) in [
        (ILPR, 0xFF),
        (IBRD, 0xFFFF),
        (FBRD, 0x3F),
        (LCR_H, 0xFF),
        (CR, 0xFF87),
        (IFLS, 0x3F),
        (IMSC, 0x7FF),
        (FR, 0),
        (RIS, 0),
        (MIS, 0),
    ] {
        let before = get(&mut u, offset);
        put(&mut u, offset, u32::MAX);
        let expected = if mask == 0 { before } else { mask };
        if offset != FR {
            assert_eq!(get(&mut u, offset), expected, "{offset:#x}");
        }
        put(&mut u, offset, 0);
    }
}

#[test]
fn transmits_at_once_even_when_disabled() {
    let mut u = Pl011::new();
    assert_eq!(u.write(DR, 0x1_0041), Effect { transmit: Some(0x41), irq: false });
    assert_eq!(get(&mut u, FR) & (FR_TXFF | FR_BUSY | FR_TXFE), FR_TXFE);
    assert_eq!(get(&mut u, RIS), INT_TX);
}

#[test]
fn transmit_interrupt_follows_mask_and_clear() {
    let mut u = on();
    put(&mut u, IMSC, INT_TX);
    assert!(!u.irq(), "nothing was written yet");
    assert!(u.write(DR, 0x41).irq);
    assert!(!u.write(ICR, INT_TX).irq);
    assert!(u.write(DR, 0x42).irq);
    assert_eq!(get(&mut u, MIS), INT_TX);
    assert!(!u.write(IMSC, 0).irq);
    assert_eq!(get(&mut u, MIS), 0);
    assert!(u.write(IMSC, INT_TX).irq);
}

/// Linux `pl011_start_tx`: fill until TXFF, unmask the interrupt, refill half a FIFO from each.
#[test]
fn linux_makes_progress_under_back_pressure() {
    let mut u = on();
    let _ = u.tx_ready(false);
    let text: Vec<u8> = (0..if cfg!(miri) { 60 } else { 200 }).collect();
    let mut rest = text.iter().copied();
    let mut out = Vec::new();
    while get(&mut u, FR) & FR_TXFF == 0 {
        assert_eq!(u.write(DR, u32::from(rest.next().unwrap())).transmit, None);
    }
    assert_eq!(get(&mut u, FR) & (FR_BUSY | FR_TXFE), FR_BUSY);
    assert!(!u.write(IMSC, INT_TX).irq, "the FIFO is above its level");
    for _ in 0..1000 {
        // The console takes 20 characters, then none.
        let mut effect = u.tx_ready(true);
        for _ in 0..20 {
            out.extend(effect.transmit);
            effect = u.tx_ready(true);
        }
        out.extend(effect.transmit);
        if u.tx_ready(false).irq {
            for _ in 0..16 {
                match rest.next() {
                    Some(b) => out.extend(u.write(DR, u32::from(b)).transmit),
                    None => put(&mut u, IMSC, 0),
                }
            }
        }
    }
    assert_eq!(out, text);
    assert_eq!(get(&mut u, FR) & FR_BUSY, 0);
}

#[test]
fn full_transmit_fifo_drops() {
    for (lcr, depth) in [(0x70, 32), (0x60, 1)] {
        let mut u = Pl011::new();
        put(&mut u, LCR_H, lcr);
        let _ = u.tx_ready(false);
        for b in 0..40 {
            assert_eq!(get(&mut u, FR) & FR_TXFF != 0, b >= depth);
            assert_eq!(u.write(DR, b).transmit, None);
        }
        let mut out = Vec::new();
        while let Some(b) = u.tx_ready(true).transmit {
            out.push(u32::from(b));
        }
        assert_eq!(out, (0..depth).collect::<Vec<_>>());
    }
}

#[test]
fn order_is_kept_when_a_write_meets_a_backlog() {
    let mut u = on();
    let _ = u.tx_ready(false);
    put(&mut u, DR, 1);
    put(&mut u, DR, 2);
    assert_eq!(u.tx_ready(true).transmit, Some(1));
    assert_eq!(u.write(DR, 3).transmit, Some(2));
    assert_eq!(u.tx_ready(true).transmit, Some(3));
    assert_eq!(u.tx_ready(true).transmit, None);
}

#[test]
fn transmit_levels() {
    for (ifls, level) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28), (5, 28), (6, 28), (7, 28)] {
        let mut u = on();
        put(&mut u, IFLS, ifls);
        put(&mut u, DR, 0);
        let _ = u.tx_ready(false);
        for queued in 1..=32_u32 {
            put(&mut u, DR, queued);
            assert_eq!(get(&mut u, RIS) & INT_TX != 0, queued <= level, "ifls {ifls}, {queued}");
        }
        for left in (0..32).rev() {
            assert!(u.tx_ready(true).transmit.is_some());
            assert_eq!(get(&mut u, RIS) & INT_TX != 0, left <= level, "ifls {ifls}, {left} left");
        }
    }
}

#[test]
fn receive_needs_the_receiver() {
    for cr in [0x300, 0x101, 0x001, 0x000] {
        let mut u = Pl011::new();
        put(&mut u, CR, cr);
        assert!(!u.can_receive());
        assert_eq!(u.receive(7), QUIET);
        assert_ne!(get(&mut u, FR) & FR_RXFE, 0);
    }
}

#[test]
fn holding_register_without_fifos() {
    let mut u = on();
    put(&mut u, LCR_H, 0x60);
    put(&mut u, IMSC, INT_RX);
    assert!(u.can_receive());
    assert!(u.receive(b'x').irq);
    assert!(!u.can_receive());
    assert_eq!(get(&mut u, RIS), INT_RX, "no timeout without FIFOs");
    assert_eq!(get(&mut u, FR) & (FR_RXFE | FR_RXFF), FR_RXFF);
    assert_eq!(u.read(DR), (u32::from(b'x'), QUIET));
    assert_eq!(get(&mut u, FR) & (FR_RXFE | FR_RXFF), FR_RXFE);
    assert_eq!(get(&mut u, DR), 0);
}

#[test]
fn receive_levels_and_timeout() {
    for (field, level) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28), (5, 28), (7, 28)] {
        let mut u = on();
        put(&mut u, IFLS, field << 3);
        put(&mut u, IMSC, INT_RT);
        for held in 1..=32_u8 {
            assert!(u.receive(held).irq, "the timeout tells of any character");
            assert_eq!(get(&mut u, RIS) & INT_RX != 0, held >= level);
        }
        for held in (0..32_u8).rev() {
            let (value, effect) = u.read(DR);
            assert_eq!(value, u32::from(32 - held));
            assert_eq!(effect.irq, held != 0);
            assert_eq!(get(&mut u, RIS) & INT_RX != 0, held >= level);
        }
    }
}

#[test]
fn cleared_receive_interrupts_come_back_with_the_next_character() {
    let mut u = on();
    put(&mut u, IMSC, INT_RX | INT_RT);
    feed(&mut u, 0..20);
    assert!(!u.write(ICR, INT_RX | INT_RT).irq);
    assert!(u.receive(20).irq);
}

#[test]
fn overrun() {
    let mut u = on();
    put(&mut u, IMSC, INT_OE);
    feed(&mut u, 0..32);
    assert!(!u.irq());
    assert!(u.receive(99).irq);
    assert_eq!(get(&mut u, RSR_ECR), 8);
    for expected in 0..32 {
        assert_eq!(get(&mut u, DR), expected, "what was kept is whole");
    }
    assert_eq!(get(&mut u, RSR_ECR), 8);
    feed(&mut u, [50, 51]);
    assert_eq!(get(&mut u, DR), 50 | 0x800, "the next kept character tells");
    assert_eq!(get(&mut u, DR), 51);
    assert_eq!(get(&mut u, RSR_ECR), 8);
    put(&mut u, RSR_ECR, 0xFF);
    assert_eq!(get(&mut u, RSR_ECR), 0);
    assert!(u.irq());
    assert!(!u.write(ICR, INT_OE).irq);
}

#[test]
fn changing_fen_flushes() {
    let mut u = on();
    let _ = u.tx_ready(false);
    put(&mut u, DR, 1);
    feed(&mut u, [1, 2]);
    put(&mut u, LCR_H, 0x30);
    assert_eq!(get(&mut u, FR) & (FR_RXFE | FR_TXFE), 0, "FEN did not change");
    put(&mut u, LCR_H, 0x60);
    assert_eq!(get(&mut u, FR) & (FR_RXFE | FR_TXFE | FR_BUSY), FR_RXFE | FR_TXFE);
    assert_eq!(get(&mut u, RIS) & (INT_RX | INT_RT), 0);
    feed(&mut u, [3, 4]);
    put(&mut u, LCR_H, 0x70);
    feed(&mut u, [5]);
    assert_eq!(get(&mut u, DR), 5, "the overrun before the flush is forgotten");
}

#[test]
fn loopback() {
    let mut u = on();
    put(&mut u, CR, 0x301 | CR_LBE);
    assert_eq!(get(&mut u, FR) & (FR_PEER | FR_RI), 0);
    put(&mut u, CR, 0x3F81 & !(1 << 11));
    assert_eq!(get(&mut u, FR) & (FR_PEER | FR_RI), 0b110 | FR_RI);
    assert_eq!(u.write(DR, 0x5A), QUIET);
    assert_eq!(get(&mut u, RIS), INT_TX | INT_RT);
    assert_eq!(get(&mut u, DR), 0x5A);
}

#[derive(Clone, Debug)]
enum Op {
    Read(u32),
    Write(u32, u32),
    Receive(u8),
    Ready(bool),
    Reset,
}

fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![8 => (0_u32..0x14).prop_map(|n| n * 4), 1 => 0_u32..0x1000, 1 => any::<u32>()]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => offset().prop_map(Op::Read),
        10 => (offset(), any::<u32>()).prop_map(|(o, v)| Op::Write(o, v)),
        5 => any::<u8>().prop_map(Op::Receive),
        3 => any::<bool>().prop_map(Op::Ready),
        1 => Just(Op::Reset),
    ]
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_invariants(ops in proptest::collection::vec(op(), 0..if cfg!(miri) { 20 } else { 400 })) {
        let mut u = Pl011::new();
        for op in ops {
            let effect = match op {
                Op::Read(o) => u.read(o).1,
                Op::Write(o, v) => u.write(o, v),
                Op::Receive(b) => u.receive(b),
                Op::Ready(r) => u.tx_ready(r),
                Op::Reset => { u.reset(); continue }
            };
            prop_assert_eq!(effect.irq, get(&mut u, MIS) != 0);
            let flags = get(&mut u, FR);
            prop_assert_eq!(flags & FR_BUSY != 0, flags & FR_TXFE == 0);
            prop_assert!(u.rx.len <= u.depth() && u.tx.len <= u.depth());
            prop_assert_eq!(get(&mut u, RIS) & !INT_BITS, 0);
        }
    }

    #[test]
    fn nothing_is_lost_or_reordered(
        chunks in proptest::collection::vec((any::<bool>(), 0_usize..40, 0_usize..40), 0..if cfg!(miri) { 20 } else { 60 }),
    ) {
        let mut u = on();
        let (mut next, mut sent, mut out) = (0_u8, VecDeque::new(), Vec::new());
        for (ready, writes, takes) in chunks {
            out.extend(u.tx_ready(ready).transmit);
            for _ in 0..writes {
                if get(&mut u, FR) & FR_TXFF == 0 {
                    next = next.wrapping_add(1);
                    sent.push_back(next);
                    out.extend(u.write(DR, u32::from(next)).transmit);
                }
            }
            for _ in 0..takes {
                out.extend(u.tx_ready(ready).transmit);
            }
        }
        while let Some(b) = u.tx_ready(true).transmit {
            out.push(b);
        }
        prop_assert_eq!(out, Vec::from(sent));
    }
}
