//! A block of lazy memory whose pages turn tagged one after the other, and back. How stage 2 maps it no guest
//! sees: with `ask=on` each step waits for a key, so that the console can tell how many tables there are.

use super::outside::{Stats, demote, fresh, stats};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write64};
use crate::rt::mmu::tagged;
use crate::rt::{mte, uart};

const BLOCK: u64 = 2 << 20;
const PAGE: u64 = 4096;

fn step(machine: &Machine, what: &str) {
    if machine.option("ask").is_some() {
        uart::ask(format_args!("{what}"));
    }
}

/// All of a block gets tags, and loses them, twice: the second time each unit faults as it did the first time,
/// has no tags left, and still its data.
pub(super) fn block_splits_and_joins(machine: &Machine) -> Outcome {
    let (start, _) = fresh(machine)?;
    let Stats { unit, quota, .. } = stats(machine)?;
    if quota < BLOCK / PAGE || !start.is_multiple_of(BLOCK) {
        skip!("a quota of {quota} pages, lazy memory at {start:#x}");
    }
    let units = || (start..start + BLOCK).step_by((unit * PAGE) as usize);
    let one = start + BLOCK / unit / PAGE / 3 * unit * PAGE;
    let words = |at| [at, at + unit * PAGE - 8];
    let used = |want: u64, when: &str| -> Outcome {
        check_eq!(stats(machine)?.used, want * unit, "pages with tags {when}");
        Ok(())
    };
    units().flat_map(words).for_each(|word| write64(word, !word));
    step(machine, "no page has tags");
    for round in 0..2 {
        let before = stats(machine)?;
        mte::stg(mte::with_tag(tagged(one), 7));
        used(1, "behind the first store")?;
        step(machine, "one page has tags");
        for at in units().filter(|at| *at != one) {
            check_eq!(mte::ldg(tagged(at)), 0, "tag at {at:#x} in round {round}");
            mte::stg(mte::with_tag(tagged(at), 7));
        }
        used(BLOCK / PAGE / unit, "behind all stores")?;
        step(machine, "all pages have tags");
        demote(machine, one, unit * PAGE)?;
        used(BLOCK / PAGE / unit - 1, "when one lost them")?;
        step(machine, "one page lost its tags");
        demote(machine, start, BLOCK)?;
        used(0, "when all lost them")?;
        step(machine, "all pages lost their tags");
        let after = stats(machine)?;
        let changes = (after.promoted - before.promoted, after.demoted - before.demoted);
        check_eq!(
            changes,
            (BLOCK / PAGE, BLOCK / PAGE),
            "pages that turned tagged, and back, in round {round}"
        );
        let lost = units().flat_map(words).find(|word| read64(*word) != !*word);
        check!(lost.is_none(), "round {round}: data at {lost:#x?}");
    }
    Ok(())
}
