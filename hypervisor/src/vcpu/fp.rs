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
    /// The vCPU uses SVE: `sve` is what counts, and of `fp` only FPCR and FPSR.
    uses_sve: bool,
    /// It will, when its registers are loaded next.
    asked_for_sve: bool,
}

impl FpRegisters {
    /// All zero; with SVE registers of `sve_bits` unless that is 0.
    pub(super) fn new(sve_bits: u16) -> Self {
        let sve = (sve_bits != 0).then(|| SveState::new(sve_bits));
        Self { fp: FpState::new(), sve, uses_sve: false, asked_for_sve: false }
    }

    /// All zero.
    pub(super) fn reset(&mut self) {
        self.fp = FpState::new();
        self.uses_sve = false;
        self.asked_for_sve = false;
    }

    /// The vCPU's VM has SVE, and it used an instruction of it.
    pub(super) fn ask_for_sve(&mut self) {
        self.asked_for_sve = true;
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
        match self.sve.as_mut().filter(|_| self.uses_sve) {
            Some(sve) => sve.save(),
            None => self.fp.save_vectors(),
        }
        self.fp.save_control();
    }

    /// Writes the registers; if SVE was asked for, as SVE code finds them.
    ///
    /// # Safety
    /// The vCPU must be the one that is entered next.
    pub(super) unsafe fn load(&mut self) {
        if let (Some(sve), true, false) = (&mut self.sve, self.asked_for_sve, self.uses_sve) {
            sve.begin(self.fp.vectors());
            self.uses_sve = true;
        }
        match self.sve.as_ref().filter(|_| self.uses_sve) {
            // SAFETY: the caller's promise; the length is one that all of the VM's CPUs have.
            Some(sve) => unsafe { sve.load() },
            // SAFETY: the caller's promise.
            None => unsafe { self.fp.load_vectors() },
        }
        // SAFETY: as above.
        unsafe { self.fp.load_control() };
    }
}
