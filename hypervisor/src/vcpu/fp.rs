//! The FP and SVE registers of a vCPU while they are not in the hardware.
//!
//! They move when another vCPU uses FP. A vCPU begins with FP alone; its first SVE instruction traps, and
//! from then on, until it is reset, all of its SVE registers move. So who never uses SVE does not pay for
//! it.

use crate::arch::fp::{FpState, TFP, TZ};
use crate::arch::sve::SveState;

/// The registers.
pub(super) struct FpRegisters {
    fp: FpState,
    /// Where the VM has SVE.
    sve: Option<SveState>,
    /// Whether the vCPU has used SVE: `sve` is what counts, and of `fp` only FPCR and FPSR.
    uses_sve: bool,
}

impl FpRegisters {
    /// All zero; with SVE registers of `sve_bits` unless that is 0.
    pub(super) fn new(sve_bits: u16) -> Self {
        let sve = (sve_bits != 0).then(|| SveState::new(sve_bits));
        Self { fp: FpState::new(), sve, uses_sve: false }
    }

    /// All zero.
    pub(super) fn reset(&mut self) {
        self.fp = FpState::new();
        self.uses_sve = false;
    }

    /// From now on the vCPU uses SVE. Its registers must not be in the hardware. False if it has none.
    pub(super) fn use_sve(&mut self) -> bool {
        if let (Some(sve), false) = (&mut self.sve, self.uses_sve) {
            sve.begin(self.fp.vectors());
            self.uses_sve = true;
        }
        self.uses_sve
    }

    /// What traps (CPTR_EL2) while the registers are in the hardware, or while they are not.
    pub(super) fn traps(&self, loaded: bool) -> u64 {
        match (loaded, self.uses_sve) {
            (false, _) => TFP | TZ,
            (true, false) => TZ,
            (true, true) => 0,
        }
    }

    /// Reads the registers, which are this vCPU's.
    pub(super) fn save(&mut self) {
        match &mut self.sve {
            Some(sve) if self.uses_sve => sve.save(),
            _ => self.fp.save_vectors(),
        }
        self.fp.save_control();
    }

    /// Writes the registers.
    ///
    /// # Safety
    /// The vCPU must be the one that is entered next.
    pub(super) unsafe fn load(&self) {
        match &self.sve {
            // SAFETY: the caller's promise; the length is one that all CPUs have.
            Some(sve) if self.uses_sve => unsafe { sve.load() },
            // SAFETY: the caller's promise.
            _ => unsafe { self.fp.load_vectors() },
        }
        // SAFETY: as above.
        unsafe { self.fp.load_control() };
    }
}
