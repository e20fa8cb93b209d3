//! How many exits it takes the guest to reach memory for the first time.

use super::tables::{AREA, BLOCK_2M, NESTED, PAGE, READ, Stage2, data};
use super::{EC_HVC, FWB, VM, el1, touch};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::smccc::{exits, tagvisor};
use crate::suites::nested::need_el2;

/// A block is one exit, wherever it is touched first, and then no more; pages are one each.
pub(super) fn one_exit_each(_: &Machine) -> Outcome {
    need_el2!();
    if !tagvisor() {
        skip!("nobody below counts");
    }
    let stage2 = Stage2::new(0, 1);
    let mut guest = Guest::new(touch());
    let mut touching = |from: u64, step: u64, n: u64| {
        (guest.pc, guest.x[1], guest.x[2], guest.x[3]) = (touch(), from, step, n);
        let begin = exits();
        let exit = el2::enter(&mut guest);
        (exit, guest.ec(), exits() - begin)
    };
    let mut touched = |step: u64, n: u64| {
        stage2.forget();
        at_el2(|| {
            stage2.install();
            with_guest(&el1(), VM, FWB, || {
                // The guest's code, and where it is mapped.
                let code = (touching(touch() & !7, 8, 1), touching(touch() & !7, 8, 1));
                (code.1, touching(NESTED + step * (n - 1), step.wrapping_neg(), n), touching(NESTED, step, n))
            })
        })
    };
    // The guest's call, the return to it, and the question.
    const IDLE: u64 = 3;
    let mut counts = |step: u64, n: u64, exits: u64| {
        let call = |exits: u64| (Exit::Sync, EC_HVC, exits);
        let expected = (call(IDLE), call(IDLE + exits), call(IDLE));
        // An interrupt of the hypervisor's own in between is an exit, too: then once more.
        let mut counted = touched(step, n);
        for _ in 0..4 {
            if counted == expected {
                break;
            }
            counted = touched(step, n);
        }
        check_eq!(counted, expected, "{n} touches, {step:#x} apart: idle, first, again");
        Ok(())
    };
    stage2.block(NESTED, AREA, READ);
    counts(PAGE, BLOCK_2M / PAGE, 1)?;
    for n in 0..8 {
        stage2.page(NESTED + n * PAGE, data(n), READ);
    }
    counts(PAGE, 8, 8)?;
    stage2.blocks(8);
    counts(BLOCK_2M, 8, 8)
}
