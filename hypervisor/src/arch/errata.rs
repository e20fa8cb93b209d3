//! The workarounds that this machine's CPUs need: the only reader of MIDR_EL1 for that. Which CPU needs
//! which is `errata`'s table.

use super::sysreg::mrs;
use core::sync::atomic::{AtomicU32, Ordering};
use errata::{Midr, Workarounds};

/// The union over all CPUs that are up. Relaxed: a CPU adds its own while it is brought up, before any
/// guest runs.
static IN_USE: AtomicU32 = AtomicU32::new(0);

/// Adds what this CPU needs. Needs the MMU on.
pub(crate) fn join() {
    let own = errata::workarounds(Midr::new(mrs!("midr_el1")));
    IN_USE.fetch_or(own.bits(), Ordering::Relaxed);
}

/// What the CPUs need, all that are up together.
#[inline]
pub(crate) fn in_use() -> Workarounds {
    Workarounds::from_bits(IN_USE.load(Ordering::Relaxed))
}
