//! A control VM that makes the hypercalls which another VM asks for, in memory that both share: so the
//! tests of a VM can look at it from outside.

use crate::harness::{Outcome, check, skip};
use crate::rt::machine::Machine;
use crate::rt::mem::{self, read64, write64};
use crate::rt::smccc::call_all;
use crate::rt::{cpu, timer};
use abi::hypercall::EVENT_NEXT;

/// Words of the shared page: number of the request, function id, three arguments.
pub(crate) const REQUEST: u64 = 0;
/// Number of the request that is answered; x0 to x15 follow.
pub(crate) const ANSWER: u64 = 512;
/// Registers of an answer.
pub(crate) const RESULTS: u64 = 16;
/// The function id that makes the proxy turn itself off.
pub(crate) const LEAVE: u64 = u64::MAX;

/// Serves for ever, or until told to leave.
pub(crate) fn run(machine: &Machine) -> Outcome {
    let region = machine.option("share").and_then(|name| machine.region_called(name));
    let Some(page) = region.map(|r| r.start) else { skip!("no share=") };
    check!(machine.control.is_some(), "this is no control VM");
    println!("# serving");
    let mut served = read64(page + ANSWER);
    loop {
        let number = read64(page + REQUEST);
        if number == served {
            cpu::relax();
            timer::delay(10_000);
            continue;
        }
        mem::barrier();
        let mut before = [0; 31];
        for (n, x) in before.iter_mut().take(4).enumerate() {
            *x = read64(page + REQUEST + 8 * (1 + n as u64));
        }
        if before[0] == LEAVE {
            return Ok(());
        }
        let mut after = [0; 31];
        call_all(&before, &mut after);
        for (n, x) in (0..RESULTS).zip(after) {
            write64(page + ANSWER + 8 * (1 + n), x);
        }
        mem::barrier();
        served = number;
        write64(page + ANSWER, served);
    }
}

const _: () = assert!(EVENT_NEXT != LEAVE as u32);
