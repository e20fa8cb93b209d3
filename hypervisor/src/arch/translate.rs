//! Address translation by the hardware, under the resident guest's own stage 1.

use super::fixup::{self, Kept};
use super::sysreg::{instruction, mrs, msr};
use addr::{Canonical, Ipa, Va};
use core::arch::asm;
use trap::Level;
use vmsa::par;
use vmsa::walk::Regime;

/// For which access: the instruction that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// AT S1E1R: a read at EL1.
    El1Read,
    /// AT S1E1W: a write at EL1.
    El1Write,
    /// AT S1E0R: a read at EL0.
    El0Read,
    /// AT S1E0W: a write at EL0.
    El0Write,
}

impl For {
    /// An access of the exception level that exited.
    pub(crate) fn exited(write: bool) -> Self {
        match (mrs!("spsr_el2") & 0b1100 == 0, write) {
            (true, false) => Self::El0Read,
            (true, true) => Self::El0Write,
            (false, false) => Self::El1Read,
            (false, true) => Self::El1Write,
        }
    }
}

/// Why there is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// The guest's stage 1 faults, or stage 2 on behalf of its walk.
    Fault(par::Fault),
    /// The walk read a table where the bus answers with a synchronous external abort.
    ExternalAbort(Level),
}

/// One AT instruction, which may take a synchronous external abort at EL2 (Arm, "Address translation
/// instructions": those on the walk are taken, and not reported in PAR_EL1). Evaluates to its syndrome,
/// or 0.
macro_rules! at {
    ($name:literal, $va:expr) => {{
        let esr: u64;
        // SAFETY: translation changes PAR_EL1 only; an exception ends at the landing behind it, with the
        // registers clobbered that the vectors' Rust may use.
        unsafe {
            asm!(concat!("2: at ", $name, ", x1"), "3:", fixup::row!("2b", "3b", "3b"),
                inlateout("x0") 0_u64 => esr, in("x1") $va, clobber_abi("C"))
        };
        esr
    }};
}

/// Where the resident guest's stage 1 sends `va`. Its PAR_EL1 is kept, and so is everything that an
/// external abort of the walk overwrites.
///
/// # Errors
/// Without an address the guest has to take, or to run into again, what [`NoAddress`] says.
#[cold]
#[inline(never)]
pub(crate) fn guest_ipa(va: Va, access: For) -> Result<Ipa<Canonical>, NoAddress> {
    let par_el1 = mrs!("par_el1");
    let kept = Kept::take();
    let esr = match access {
        For::El1Read => at!("s1e1r", va.get()),
        For::El1Write => at!("s1e1w", va.get()),
        For::El0Read => at!("s1e0r", va.get()),
        For::El0Write => at!("s1e0w", va.get()),
    };
    if esr != 0 {
        kept.put_back();
    }
    instruction!("isb");
    let par = mrs!("par_el1");
    msr!("par_el1", par_el1);
    if esr != 0 {
        return Err(NoAddress::ExternalAbort(Level::from_low_bits(esr as u8)));
    }
    par::decode(par, va).map(|output| output.ipa).map_err(NoAddress::Fault)
}

/// Writes PAR_EL1: the answer to an AT that the resident guest executed.
///
/// # Safety
/// The vCPU must be the resident one.
pub(crate) unsafe fn set_par(value: u64) {
    msr!("par_el1", value);
}

/// The resident guest's stage 1, for a walk in software.
pub(crate) fn regime() -> Regime {
    Regime {
        tcr: mrs!("tcr_el1"),
        ttbr0: mrs!("ttbr0_el1"),
        ttbr1: mrs!("ttbr1_el1"),
        sctlr: mrs!("sctlr_el1"),
        mair: mrs!("mair_el1"),
        pan: mrs!("spsr_el2") & trap::inject::pstate::PAN != 0,
        el2: false,
    }
}
