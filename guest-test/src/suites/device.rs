//! A device of the machine that belongs to this VM: a PL031 real-time clock in the region `rtc`.

use crate::harness::{Message, Outcome, Stop, check, check_eq, skip, suite};
use crate::rt::machine::Machine;
use crate::rt::mem::{read32, write32};
use crate::rt::mmu::device;
use crate::rt::timer::PATIENCE;
use crate::rt::{cpu, gic, timer};

suite!("device", false, [clock_runs, match_interrupt, interrupt_again_and_again]);

/// Data register: seconds.
pub(crate) const DR: u64 = 0x00;
/// Match register.
pub(crate) const MR: u64 = 0x04;
/// Interrupt mask: 1 lets it through.
pub(crate) const IMSC: u64 = 0x10;
const RIS: u64 = 0x14;
/// Clears the interrupt.
pub(crate) const ICR: u64 = 0x1c;

/// The clock's registers and interrupt.
pub(crate) fn clock(machine: &Machine) -> Result<(u64, u32), Stop> {
    let Some(region) = machine.region_called("rtc") else { skip!("no region is called rtc") };
    let Some(intid) = region.interrupt else {
        return Err(Stop::Fail(Message::new(format_args!("the tree gives rtc no interrupt"))));
    };
    Ok((device(region.start), intid))
}

/// 2020-01-01, in seconds.
const RECENT: u32 = 1_577_836_800;

fn clock_runs(machine: &Machine) -> Outcome {
    let (base, _) = clock(machine)?;
    // ARM's PrimeCell ids: the device, not an emulation of it.
    check_eq!(read32(base + 0xfe0), 0x31, "PERIPHID0");
    let before = read32(base + DR);
    check!(before > RECENT, "the time is {before}");
    check!(timer::wait(PATIENCE, || read32(base + DR) != before), "the time stands still");
    Ok(())
}

/// Waits for the interrupt of a match: unless it is there already, at the next second, or the one after if
/// that went by before the match was set.
pub(crate) fn matches_soon(base: u64, intid: u32) -> bool {
    timer::wait(PATIENCE, || {
        let now = read32(base + DR);
        if read32(base + RIS) & 1 == 0 && !(now..=now + 1).contains(&read32(base + MR)) {
            write32(base + MR, now + 1);
        }
        mrs!("icc_hppir1_el1") == u64::from(intid)
    })
}

/// One match, and its interrupt.
fn one_match(base: u64, intid: u32) -> Outcome {
    write32(base + ICR, 1);
    write32(base + IMSC, 1);
    let came = matches_soon(base, intid);
    check!(came, "no interrupt; RIS {}, pending {}", read32(base + RIS), gic::pending(intid));
    check_eq!(gic::acknowledge(), intid, "INTID");
    check!(gic::active(intid), "it is not active after its acknowledge");
    check_eq!(read32(base + RIS) & 1, 1, "RIS");
    write32(base + ICR, 1);
    gic::end(intid);
    check!(gic::quiet(), "it fires again although it was cleared");
    Ok(())
}

/// Lets the interrupt reach this CPU.
pub(crate) fn set_up(intid: u32) {
    gic::route(intid, cpu::affinity());
    gic::set_edge(intid, false);
    gic::enable(intid);
}

fn match_interrupt(machine: &Machine) -> Outcome {
    let (base, intid) = clock(machine)?;
    set_up(intid);
    let outcome = one_match(base, intid);
    write32(base + IMSC, 0);
    outcome
}

/// A level that is not cleared fires once more after each end of interrupt.
fn interrupt_again_and_again(machine: &Machine) -> Outcome {
    let (base, intid) = clock(machine)?;
    set_up(intid);
    write32(base + IMSC, 1);
    let mut taken = 0;
    while taken < 5 && matches_soon(base, intid) {
        check_eq!(gic::acknowledge(), intid, "INTID");
        gic::end(intid);
        taken += 1;
    }
    write32(base + IMSC, 0);
    write32(base + ICR, 1);
    check_eq!(taken, 5, "interrupts of a level that stays");
    Ok(())
}
