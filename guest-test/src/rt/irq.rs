//! Interrupts taken by exception: logged, silenced, ended; optionally one inside another.

use super::{cpu, exception::Frame, gic, timer};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32};

/// The first interrupt pends this INTID and unmasks IRQs in its handler; 0 is none.
pub(crate) static NEST: AtomicU32 = AtomicU32::new(0);
/// How many interrupts were taken before the first one ended.
pub(crate) static NESTED: AtomicU32 = AtomicU32::new(0);
/// EOImode 1 is on: interrupts need DIR after EOIR.
pub(crate) static SPLIT_EOI: AtomicBool = AtomicBool::new(false);
/// Interrupts end when the test says so.
pub(crate) static KEEP_ACTIVE: AtomicBool = AtomicBool::new(false);

/// Handles one interrupt.
pub(crate) fn handle(_frame: &mut Frame) {
    let intid = gic::acknowledge();
    if intid >= gic::SPECIAL {
        return;
    }
    let this = cpu::this();
    let n = this.irqs.load(Relaxed);
    if let Some(slot) = this.irq_log.get(n as usize) {
        slot.store(intid, Relaxed);
    }
    match intid {
        _ if intid == timer::virtual_intid() => msr!("cntv_ctl_el0", timer::ENABLE | timer::MASK),
        _ if intid == timer::physical_intid() => msr!("cntp_ctl_el0", timer::ENABLE | timer::MASK),
        _ => {}
    }
    this.irqs.store(n + 1, Relaxed);
    let nest = NEST.swap(0, Relaxed);
    if nest != 0 {
        gic::set_pending(nest);
        cpu::irq_on();
        timer::wait(timer::SECOND / 20, || this.irqs.load(Relaxed) > n + 1);
        cpu::irq_off();
        NESTED.store(this.irqs.load(Relaxed) - n - 1, Relaxed);
    }
    if !KEEP_ACTIVE.load(Relaxed) {
        gic::end(intid);
        if SPLIT_EOI.load(Relaxed) {
            gic::deactivate(intid);
        }
    }
}

/// Clears the log of CPU `index`.
pub(crate) fn clear(index: usize) {
    cpu::get(index).irqs.store(0, Relaxed);
}

/// Interrupts that CPU `index` took since then.
pub(crate) fn count(index: usize) -> u32 {
    cpu::get(index).irqs.load(Relaxed)
}

/// INTID of the `n`-th of them.
pub(crate) fn logged(index: usize, n: usize) -> u32 {
    cpu::get(index).irq_log[n].load(Relaxed)
}

/// Waits until CPU `index` took `n` interrupts.
pub(crate) fn wait(index: usize, n: u32) -> bool {
    timer::wait(timer::PATIENCE, || count(index) >= n)
}

/// Back to the plain handler, without interrupts.
pub(crate) fn reset() {
    cpu::irq_off();
    NEST.store(0, Relaxed);
    SPLIT_EOI.store(false, Relaxed);
    KEEP_ACTIVE.store(false, Relaxed);
    clear(cpu::index());
}
