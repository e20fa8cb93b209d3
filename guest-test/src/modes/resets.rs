//! A VM that resets itself `count=` times. In each life it causes one report: a tag store to the next page
//! of the region `at=`, which has no tags. The region `share=` remembers which life it is, and with which
//! seeds the life before began: each has others.

use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::exception::expect_fault;
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write64};
use crate::rt::mmu::tagged;
use crate::rt::{mte, smccc};

/// Runs one life; the last one reports.
pub(crate) fn run(machine: &Machine) -> Outcome {
    let region = |key| machine.option(key).and_then(|name| machine.region_called(name));
    let (Some(life), Some(at)) = (region("share"), region("at")) else { skip!("no share= or at=") };
    let now = read64(life.start);
    check!(at.start + now * 4096 < at.start + at.size, "there is no page for life {now}");
    let fault = expect_fault(|| mte::stg(mte::with_tag(tagged(at.start) + now * 4096, 1)));
    check!(fault.is_some(), "no fault in life {now}");
    let mut words = 0;
    for bytes in machine.seeds.iter().flat_map(|seed| seed.as_chunks::<8>().0) {
        words += 1;
        let (word, before) = (u64::from_ne_bytes(*bytes), life.start + 8 * words);
        check!(
            now == 0 || read64(before) != word,
            "life {now} has word {words} of its seeds from the one before"
        );
        write64(before, word);
    }
    check_eq!(words, 5, "words of rng-seed and kaslr-seed");
    if now < machine.number("count").unwrap_or(0) {
        write64(life.start, now + 1);
        smccc::call(abi::psci::SYSTEM_RESET, 0, 0, 0);
        check!(false, "SYSTEM_RESET returned");
    }
    println!("# {now} resets");
    Ok(())
}
