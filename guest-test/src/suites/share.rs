//! Memory that two VMs see: the first region of `share=NAME,...` is used here, `side=` 0 or 1 says
//! which of the two this is. Both run this suite at the same time.

use crate::harness::{Outcome, Stop, check, check_eq, skip, suite};
use crate::rt::machine::Machine;
use crate::rt::mem::{self, read64, write64};
use crate::rt::timer::{self, PATIENCE};

suite!("share", false, [every_page, hand_over]);

const ROUNDS: u64 = 100;

/// Start and size of the region, and the side.
fn shared(machine: &Machine) -> Result<(u64, u64, u64), Stop> {
    let region = machine.option("share").and_then(|names| machine.region_called(names.split(',').next()?));
    let Some(region) = region else { skip!("no share=") };
    Ok((region.start, region.size, machine.number("side").unwrap_or(0)))
}

/// The first words: what side 0 and side 1 have done so far.
fn announce(start: u64, side: u64, step: u64) {
    mem::barrier();
    write64(start + 64 * side, step);
}

fn await_other(start: u64, side: u64, step: u64) -> Outcome {
    let word = start + 64 * (1 - side);
    let came = timer::wait(PATIENCE, || read64(word) >= step);
    check!(came, "side {} is at step {}, not {step}", 1 - side, read64(word));
    mem::barrier();
    Ok(())
}

/// Each page but the first carries a word of each side.
fn every_page(machine: &Machine) -> Outcome {
    let (start, size, side) = shared(machine)?;
    let pages = || (start + 4096..start + size).step_by(4096);
    // Both may see the region at different addresses.
    let word = |page: u64, side: u64| (page - start) ^ side;
    for page in pages() {
        write64(page + 2048 * side, word(page, side));
    }
    announce(start, side, 1);
    await_other(start, side, 1)?;
    for page in pages() {
        check_eq!(read64(page + 2048 * (1 - side)), word(page, 1 - side), "the other's word at {page:#x}");
    }
    announce(start, side, 2);
    await_other(start, side, 2)
}

/// A word that grows by one on each side in turn.
fn hand_over(machine: &Machine) -> Outcome {
    let (start, _, side) = shared(machine)?;
    let word = start + 256;
    for round in 0..ROUNDS {
        let before = 2 * round + side;
        let step = 10 + round;
        if side == 1 {
            await_other(start, side, step)?;
        }
        check_eq!(read64(word), before, "the word in round {round}");
        write64(word, before + 1);
        announce(start, side, step);
        if side == 0 {
            await_other(start, side, step)?;
        }
    }
    Ok(())
}
