//! This CPU: who it is, what it points to, how it waits.

use super::sysreg::instruction;
use aarch64_cpu::registers::{MPIDR_EL1, TPIDR_EL2};
use tock_registers::interfaces::{Readable, Writeable};

/// What the vectors and the panic path need to find without a stack: TPIDR_EL2 points here.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct PerCpu {
    /// Top of the stack that exceptions of EL2 itself use.
    pub(crate) panic_stack: u64,
    /// Index of the CPU in the device tree's order.
    pub(crate) index: usize,
}

/// Makes `cpu` this CPU's.
pub(crate) fn set_per_cpu(cpu: &'static PerCpu) {
    TPIDR_EL2.set(core::ptr::from_ref(cpu).addr() as u64);
}

/// Lets SErrors be taken at EL2, where HCR_EL2.AMO routes them: from here on one is a panic.
pub(crate) fn unmask_serrors() {
    instruction!("isb");
    instruction!("msr daifclr, #4");
}

/// This CPU's index, or 0 before it is known.
pub(crate) fn index() -> usize {
    let p = TPIDR_EL2.get() as *const PerCpu;
    // SAFETY: TPIDR_EL2 is zero or was set by `set_per_cpu` from a `&'static`.
    unsafe { p.as_ref() }.map_or(0, |cpu| cpu.index)
}

/// MPIDR_EL1's affinity fields, as PSCI and the device tree write them.
pub(crate) fn affinity() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}

/// Waits until an interrupt is pending; it stays pending, because interrupts are masked at EL2.
pub(crate) fn wait_for_interrupt() {
    instruction!("dsb sy");
    instruction!("wfi");
}

/// Waits for an event: [`send_event`] by another CPU, or nothing at all.
pub(crate) fn wait_for_event() {
    instruction!("wfe");
}

/// Wakes the CPUs that wait for an event; what was written before is visible to them.
pub(crate) fn send_event() {
    instruction!("dsb ish");
    instruction!("sev");
}

/// Stops this CPU for good.
pub(crate) fn halt() -> ! {
    loop {
        instruction!("wfi");
    }
}

/// A random number from FEAT_RNG, if the CPU has it and has entropy at the moment.
pub(crate) fn random(present: bool) -> Option<u64> {
    if !present {
        return None;
    }
    let (value, ok): (u64, u64);
    // SAFETY: reads RNDR (S3_3_C2_C4_0), which exists by the caller's word; NZCV.Z says "no entropy".
    unsafe {
        core::arch::asm!("mrs {0}, S3_3_C2_C4_0", "cset {1}, ne", out(reg) value, out(reg) ok,
            options(nostack))
    };
    (ok != 0).then_some(value)
}

/// The current frame pointer.
#[inline(always)]
pub(crate) fn frame_pointer() -> u64 {
    let fp: u64;
    // SAFETY: reads x29.
    unsafe { core::arch::asm!("mov {}, x29", out(reg) fp, options(nomem, nostack, preserves_flags)) };
    fp
}
