//! The workarounds that this machine's CPUs need: the only reader of MIDR_EL1 for that. Which CPU needs
//! which is `errata`'s table.

use super::sysreg::mrs;
use addr::Pa;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use errata::mitigation::history_branches;
use errata::{Midr, Workarounds};

/// The union over all CPUs that are up. Relaxed: a CPU adds its own while it is brought up, before any
/// guest runs.
static IN_USE: AtomicU32 = AtomicU32::new(0);

/// Branches that flush the history of branches: the most that a CPU needs. Read by the vectors, once
/// [`flush_history_at_exits`] made them.
pub(super) static HISTORY_BRANCHES: AtomicU8 = AtomicU8::new(0);

/// Adds what this CPU needs. Needs the MMU on.
pub(crate) fn join() {
    let midr = Midr::new(mrs!("midr_el1"));
    IN_USE.fetch_or(errata::workarounds(midr).bits(), Ordering::Relaxed);
    let csv2 = mrs!("id_aa64pfr0_el1") >> 56 & 0xf;
    let ecbhb = mrs!("id_aa64mmfr1_el1") >> 60;
    let branches = history_branches(midr, csv2 as u8, ecbhb as u8);
    HISTORY_BRANCHES.fetch_max(branches, Ordering::Relaxed);
}

/// Makes every guest exit flush the branch history, if a CPU needs it (Spectre-BHB): the first instruction
/// behind an exit becomes a branch to the loop, so that machines without such a CPU pay nothing. Returns
/// how many branches that takes. `replace` stores an instruction in the image, which is mapped read-only,
/// and lets all CPUs fetch it.
pub(crate) fn flush_history_at_exits(replace: impl FnOnce(Pa, u32)) -> u8 {
    unsafe extern "C" {
        static tagvisor_guest_exit: u32;
        static tagvisor_guest_exit_flushing: u32;
    }
    let branches = HISTORY_BRANCHES.load(Ordering::Relaxed);
    if branches != 0 {
        let (from, to) =
            ((&raw const tagvisor_guest_exit).addr(), (&raw const tagvisor_guest_exit_flushing).addr());
        // B, whose offset has 26 bits: the image is far smaller than 128 MiB.
        let branch = 0b101 << 26 | (to.wrapping_sub(from) >> 2) as u32 & 0x03ff_ffff;
        replace(Pa::new(from as u64), branch);
    }
    branches
}

/// What the CPUs need, all that are up together.
#[inline]
pub(crate) fn in_use() -> Workarounds {
    Workarounds::from_bits(IN_USE.load(Ordering::Relaxed))
}
