//! Calls into the machine's firmware: PSCI, by the conduit that the device tree names.

use core::sync::atomic::{AtomicU8, Ordering};
use fdt::Conduit;
use smccc::{Hvc, Smc, psci};

const NONE: u8 = 0;
const SMC: u8 = 1;
const HVC: u8 = 2;

/// Written once at start; read on any CPU, also by a panic. Relaxed: it orders nothing.
static CONDUIT: AtomicU8 = AtomicU8::new(NONE);

/// Names the conduit.
pub(crate) fn set_conduit(conduit: Option<Conduit>) {
    let value = match conduit {
        Some(Conduit::Smc) => SMC,
        Some(Conduit::Hvc) => HVC,
        None => NONE,
    };
    CONDUIT.store(value, Ordering::Relaxed);
}

/// Turns a CPU on at `entry` with `context` in x0.
pub(crate) fn cpu_on(affinity: u64, entry: u64, context: u64) -> Result<(), psci::error::Error> {
    match CONDUIT.load(Ordering::Relaxed) {
        SMC => psci::cpu_on::<Smc>(affinity, entry, context),
        HVC => psci::cpu_on::<Hvc>(affinity, entry, context),
        _ => Err(psci::error::Error::NotSupported),
    }
}

/// Turns the machine off, or stops this CPU if firmware doesn't.
pub(crate) fn power_off() -> ! {
    let _ = match CONDUIT.load(Ordering::Relaxed) {
        SMC => psci::system_off::<Smc>(),
        HVC => psci::system_off::<Hvc>(),
        _ => Ok(()),
    };
    crate::arch::cpu::halt()
}
