//! A VM that resets itself `count=` times. In each life it causes one report: a tag store to the next page
//! of the region `at=`, which has no tags. The region `share=` remembers which life it is.

use crate::harness::{Outcome, check, skip};
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
    if now < machine.number("count").unwrap_or(0) {
        write64(life.start, now + 1);
        smccc::call(abi::psci::SYSTEM_RESET, 0, 0, 0);
        check!(false, "SYSTEM_RESET returned");
    }
    println!("# {now} resets");
    Ok(())
}
