//! FP and SIMD registers, switched lazily: the first use after a switch traps (CPTR_EL2.TFP). With SVE, V
//! is the low part of Z ([`sve`](super::sve)).
//!
//! EL2 is compiled without FP, so a guest's registers stay untouched through any number of exits.

use super::sysreg::{instruction, mrs, msr};
use core::arch::asm;

/// V0 to V31, FPCR and FPSR of a vCPU whose registers are not in the hardware.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct FpState {
    v: [u128; 32],
    fpcr: u64,
    fpsr: u64,
}

impl FpState {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Self { v: [0; 32], fpcr: 0, fpsr: 0 }
    }

    /// V0 to V31.
    pub(crate) fn vectors(&self) -> &[u128; 32] {
        &self.v
    }

    /// Reads V0 to V31.
    pub(crate) fn save_vectors(&mut self) {
        // SAFETY: stores 32 Q registers into `v`, which is exactly that long and exclusively borrowed.
        unsafe {
            asm!(
                ".arch_extension fp",
                ".arch_extension simd",
                "stp q0, q1, [{0}]",
                "stp q2, q3, [{0}, #32]",
                "stp q4, q5, [{0}, #64]",
                "stp q6, q7, [{0}, #96]",
                "stp q8, q9, [{0}, #128]",
                "stp q10, q11, [{0}, #160]",
                "stp q12, q13, [{0}, #192]",
                "stp q14, q15, [{0}, #224]",
                "stp q16, q17, [{0}, #256]",
                "stp q18, q19, [{0}, #288]",
                "stp q20, q21, [{0}, #320]",
                "stp q22, q23, [{0}, #352]",
                "stp q24, q25, [{0}, #384]",
                "stp q26, q27, [{0}, #416]",
                "stp q28, q29, [{0}, #448]",
                "stp q30, q31, [{0}, #480]",
                in(reg) self.v.as_mut_ptr(),
                options(nostack, preserves_flags)
            )
        };
    }

    /// Reads FPCR and FPSR.
    pub(crate) fn save_control(&mut self) {
        self.fpcr = mrs!("S3_3_C4_C4_0");
        self.fpsr = mrs!("S3_3_C4_C4_1");
    }

    /// Writes V0 to V31.
    ///
    /// # Safety
    /// The vCPU must be the one that is entered next.
    pub(crate) unsafe fn load_vectors(&self) {
        // SAFETY: loads 32 Q registers from `v`; EL2's own code uses none of them.
        unsafe {
            asm!(
                ".arch_extension fp",
                ".arch_extension simd",
                "ldp q0, q1, [{0}]",
                "ldp q2, q3, [{0}, #32]",
                "ldp q4, q5, [{0}, #64]",
                "ldp q6, q7, [{0}, #96]",
                "ldp q8, q9, [{0}, #128]",
                "ldp q10, q11, [{0}, #160]",
                "ldp q12, q13, [{0}, #192]",
                "ldp q14, q15, [{0}, #224]",
                "ldp q16, q17, [{0}, #256]",
                "ldp q18, q19, [{0}, #288]",
                "ldp q20, q21, [{0}, #320]",
                "ldp q22, q23, [{0}, #352]",
                "ldp q24, q25, [{0}, #384]",
                "ldp q26, q27, [{0}, #416]",
                "ldp q28, q29, [{0}, #448]",
                "ldp q30, q31, [{0}, #480]",
                in(reg) self.v.as_ptr(),
                options(nostack, preserves_flags, readonly)
            )
        };
    }

    /// Writes FPCR and FPSR.
    ///
    /// # Safety
    /// The vCPU must be the one that is entered next.
    pub(crate) unsafe fn load_control(&self) {
        msr!("S3_3_C4_C4_0", self.fpcr);
        msr!("S3_3_C4_C4_1", self.fpsr);
    }
}

/// CPTR_EL2.TFP: traps FP.
pub(crate) const TFP: u64 = 1 << 10;
/// CPTR_EL2.TZ: traps SVE. RES1 where there is none.
pub(crate) const TZ: u64 = 1 << 8;

/// Sets CPTR_EL2 for the vCPU that runs next: `base` closes what it does not have, `also` what is not
/// in the hardware.
pub(crate) fn set_cptr(base: u64, also: u64) {
    msr!("cptr_el2", base | also);
    // The registers may be switched right behind.
    instruction!("isb");
}

/// Lets EL2 use FP and SVE. Returns CPTR_EL2 as it was.
pub(crate) fn open() -> u64 {
    let before = mrs!("cptr_el2");
    set_cptr(before & !(TFP | TZ), 0);
    before
}
