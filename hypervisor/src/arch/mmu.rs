//! EL2's own translation regime: off at entry, on before the first lock is taken.

use super::sysreg::instruction;
use aarch64_cpu::registers::{HCR_EL2, ID_AA64MMFR0_EL1, MAIR_EL2, SCTLR_EL2, TCR_EL2, TTBR0_EL2};
use tock_registers::interfaces::{Readable, Writeable};

/// SCTLR_EL2: RES1 bits (29, 28, 23, 22, 18, 16, 11, 5, 4), M, C, I, SA, WXN. EOS and EIS are among
/// the RES1 bits, so exceptions synchronise. Whole value: QEMU resets the register to zero.
pub(crate) const SCTLR: u64 = 0x30c5_0830 | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;

/// What the registers must hold for EL2's map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regime {
    /// TTBR0_EL2.
    pub(crate) ttbr0: u64,
    /// TCR_EL2.
    pub(crate) tcr: u64,
    /// MAIR_EL2.
    pub(crate) mair: u64,
}

/// Turns the MMU and the caches on.
///
/// # Safety
/// The tables must map the running code, its data and its stack where they are.
pub(crate) unsafe fn enable(regime: &Regime) {
    MAIR_EL2.set(regime.mair);
    TCR_EL2.set(regime.tcr);
    TTBR0_EL2.set(regime.ttbr0);
    instruction!("tlbi alle2");
    instruction!("dsb sy");
    instruction!("isb");
    SCTLR_EL2.set(SCTLR);
    instruction!("isb");
}

/// Whether EL2's MMU is on: before, no lock can be taken.
pub(crate) fn is_on() -> bool {
    SCTLR_EL2.get() & 1 == 1
}

/// The values in use, for secondary CPUs.
pub(crate) fn current() -> Regime {
    Regime { ttbr0: TTBR0_EL2.get(), tcr: TCR_EL2.get(), mair: MAIR_EL2.get() }
}

/// Bits of physical address of this CPU (ID_AA64MMFR0_EL1.PARange), at most 48.
pub(crate) fn pa_bits() -> u8 {
    idreg::address_bits(ID_AA64MMFR0_EL1.get() & 0xf)
}

/// HCR_EL2.E2H as it is now: an image entered on a CPU without E2H=0 cannot clear it.
pub(crate) fn e2h() -> bool {
    HCR_EL2.get() >> 34 & 1 == 1
}
