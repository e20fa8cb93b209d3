//! A VM resets itself while the interrupt of a device that it has is active, and takes that interrupt
//! again in its next life. The clock in the region `rtc` remembers which life it is.

use crate::harness::{Outcome, check, check_eq};
use crate::rt::machine::Machine;
use crate::rt::mem::{read32, write32};
use crate::rt::{gic, smccc};
use crate::suites::device as rtc;

/// Runs one life after another; the second one reports.
pub(crate) fn run(machine: &Machine) -> Outcome {
    let (base, intid) = rtc::clock(machine)?;
    // A level that is there already in the second life.
    let second = read32(base + rtc::IMSC) == 1;
    rtc::set_up(intid);
    write32(base + rtc::IMSC, 1);
    check!(rtc::matches_soon(base, intid), "no interrupt in life {}", 1 + u32::from(second));
    check_eq!(gic::acknowledge(), intid, "INTID");
    if !second {
        println!("# reset with an active interrupt");
        smccc::call(abi::psci::SYSTEM_RESET, 0, 0, 0);
        check!(false, "SYSTEM_RESET returned");
    }
    write32(base + rtc::IMSC, 0);
    write32(base + rtc::ICR, 1);
    gic::end(intid);
    Ok(())
}
