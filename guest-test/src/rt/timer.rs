//! The generic timer: bounded waits, and the two timers of the level that the payload runs at.

use super::{cpu, el2};

/// A second, in the unit of [`wait`]: nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// Longest wait for what has to happen. On a busy host, or under two hypervisors, a CPU may get no time for
/// many seconds; only a test that fails waits so long.
pub(crate) const PATIENCE: u64 = 60 * SECOND;
/// INTID of the virtual timer: with VHE, the names of EL1's mean EL2's.
pub(crate) fn virtual_intid() -> u32 {
    if el2::is_here() { 28 } else { 27 }
}

/// INTID of the physical timer.
pub(crate) fn physical_intid() -> u32 {
    if el2::is_here() { 26 } else { 30 }
}

/// CTL: enable.
pub(crate) const ENABLE: u64 = 1;
/// CTL: mask the interrupt.
pub(crate) const MASK: u64 = 2;
/// CTL: the condition holds.
pub(crate) const STATUS: u64 = 4;

/// The virtual counter, after all before it.
pub(crate) fn now() -> u64 {
    // SAFETY: a barrier, so that the counter is not read early.
    unsafe { core::arch::asm!("isb", options(nostack)) };
    mrs!("cntvct_el0")
}

/// Ticks in `ns` nanoseconds, rounded up.
pub(crate) fn ticks(ns: u64) -> u64 {
    let frequency = mrs!("cntfrq_el0");
    (u128::from(ns) * u128::from(frequency)).div_ceil(1_000_000_000) as u64
}

/// Polls `condition` until it holds or `ns` nanoseconds went by; returns whether it held.
pub(crate) fn wait(ns: u64, mut condition: impl FnMut() -> bool) -> bool {
    let (start, patience) = (now(), ticks(ns));
    loop {
        if condition() {
            return true;
        }
        if now().wrapping_sub(start) > patience {
            return false;
        }
        cpu::relax();
    }
}

/// Lets `ns` nanoseconds go by.
pub(crate) fn delay(ns: u64) {
    wait(ns, || false);
}

/// Disables both timers of this CPU.
pub(crate) fn off() {
    msr!("cntv_ctl_el0", 0);
    msr!("cntp_ctl_el0", 0);
}
