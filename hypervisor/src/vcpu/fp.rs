//! The FP and SVE registers of a vCPU while they are not in the hardware.
//!
//! They move when another vCPU uses FP. A vCPU begins with FP alone; its first SVE instruction traps, and
//! from then on, until it is reset, all of its SVE registers move. So who never uses SVE does not pay for
//! it.

use crate::arch::fp::{self, FpState, TFP, TZ};
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
    /// The registers are in the hardware.
    loaded: bool,
}

impl FpRegisters {
    /// All zero; with SVE registers of `sve_bits` unless that is 0.
    pub(super) fn new(sve_bits: u16) -> Self {
        let sve = (sve_bits != 0).then(|| SveState::new(sve_bits));
        Self { fp: FpState::new(), sve, uses_sve: false, asked_for_sve: false, loaded: false }
    }

    /// All zero.
    pub(super) fn reset(&mut self) {
        self.fp = FpState::new();
        self.uses_sve = false;
        self.asked_for_sve = false;
        self.loaded = false;
        if let Some(sve) = &mut self.sve {
            sve.reset();
        }
    }

    /// The vCPU takes the CPU: whether its registers are still there.
    pub(super) fn found(&mut self, loaded: bool) {
        self.loaded = loaded;
    }

    /// The vCPU's VM has SVE, and it used an instruction of it.
    pub(super) fn ask_for_sve(&mut self) {
        self.asked_for_sve = true;
    }

    /// What traps (CPTR_EL2): the registers are in the hardware, or are not.
    pub(super) fn traps(&self) -> u64 {
        match (self.loaded, self.uses_sve) {
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
        self.loaded = false;
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
        self.loaded = true;
    }

    /// ZCR_EL1 of the context that runs.
    pub(super) fn zcr(&self) -> u64 {
        self.sve.as_ref().map_or(0, |sve| sve.zcr(self.has_sve_loaded()))
    }

    /// Writes it. The vCPU must be resident.
    pub(super) fn set_zcr(&mut self, value: u64) {
        let loaded = self.has_sve_loaded();
        if let Some(sve) = &mut self.sve {
            sve.set_zcr(value, loaded);
        }
    }

    /// Another context of a vCPU with virtual EL2: its ZCR_EL1, and a LEN that bounds it. The vCPU must be
    /// resident. Returns the old ZCR_EL1.
    pub(super) fn swap_zcr(&mut self, value: u64, limit: impl FnOnce(u64) -> u64) -> u64 {
        let loaded = self.has_sve_loaded();
        let Some(sve) = &mut self.sve else { return 0 };
        if loaded {
            // A guest hypervisor's traps would be EL2's own.
            fp::open();
        }
        let old = sve.zcr(loaded);
        sve.set_zcr(value, loaded);
        sve.set_limit(limit(old), loaded);
        old
    }

    const fn has_sve_loaded(&self) -> bool {
        self.loaded && self.uses_sve
    }
}
