//! SVE registers (FEAT_SVE): Z, P, FFR and ZCR_EL1 of a vCPU that has used SVE, switched along with FP.
//!
//! The vector length that a VM sees at most is what ZCR_EL2.LEN says while its registers are in the
//! hardware. Everything here wants CPTR_EL2.TZ and TFP to be 0 ([`fp::open`](super::fp::open)).
//!
//! Source: Arm, "The Scalable Vector Extension"; ZCR_EL2.

use super::sysreg::{instruction, mrs, msr};
use alloc::boxed::Box;
use alloc::vec;
use core::arch::asm;

/// Z registers.
const VECTORS: usize = 32;
/// P registers and FFR.
const PREDICATES: usize = 17;
/// ZCR_EL2.LEN and ZCR_EL1.LEN: the longest vectors that there are.
const LONGEST: u64 = 0xf;

/// The registers of a vCPU, while they are not in the hardware.
#[derive(Debug)]
pub(crate) struct SveState {
    /// Bytes of a vector: a multiple of 16, at most 256.
    bytes: usize,
    /// Z0 to Z31, then P0 to P15 and FFR, of an eighth of the length each.
    registers: Box<[u128]>,
    zcr_el1: u64,
    /// What a hypervisor at virtual EL2 lets its guest have at most, as ZCR_EL2.LEN says it.
    limit: u64,
}

impl SveState {
    /// For vectors of `bits`, which must be a length that this machine's CPUs have.
    pub(crate) fn new(bits: u16) -> Self {
        let bytes = usize::from(bits) / 8;
        let size = VECTORS * bytes + PREDICATES * (bytes / 8);
        Self { bytes, registers: vec![0; size.div_ceil(16)].into(), zcr_el1: 0, limit: LONGEST }
    }

    /// As the first SVE instruction finds it: Z is what V was, all else zero.
    pub(crate) fn begin(&mut self, v: &[u128; VECTORS]) {
        self.registers.fill(0);
        for (z, v) in self.registers.chunks_mut(self.bytes / 16).zip(v) {
            if let Some(low) = z.first_mut() {
                *low = *v;
            }
        }
    }

    /// ZCR_EL1 at reset, and no limit.
    pub(crate) fn reset(&mut self) {
        self.zcr_el1 = 0;
        self.limit = LONGEST;
    }

    /// ZCR_EL2.LEN for vectors of the VM's length.
    const fn longest(&self) -> u64 {
        (self.bytes as u64 / 16).wrapping_sub(1)
    }

    /// ZCR_EL1. `loaded`: the hardware holds this vCPU's registers.
    pub(crate) fn zcr(&self, loaded: bool) -> u64 {
        if loaded { mrs!("S3_0_C1_C2_0") } else { self.zcr_el1 }
    }

    /// Gives ZCR_EL1 another value.
    pub(crate) fn set_zcr(&mut self, value: u64, loaded: bool) {
        self.zcr_el1 = value;
        if loaded {
            msr!("S3_0_C1_C2_0", value);
        }
    }

    /// Limits vectors to what this LEN says, on top of the VM's length.
    pub(crate) fn set_limit(&mut self, limit: u64, loaded: bool) {
        self.limit = limit;
        if loaded {
            set_longest(self.longest().min(limit));
        }
    }

    /// Address of the predicates in `registers`.
    fn predicates(base: *mut u128, bytes: usize) -> *mut u8 {
        base.cast::<u8>().wrapping_add(VECTORS * bytes)
    }

    /// Reads the registers. The hardware must hold this vCPU's.
    pub(crate) fn save(&mut self) {
        if self.limit < self.longest() {
            set_longest(self.longest());
        }
        let z = self.registers.as_mut_ptr();
        // SAFETY: ZCR_EL2 is what `load` made it, so a vector is as long as `new` took it to be, and the
        // stores fill 32 of these and 17 predicates.
        unsafe {
            asm!(
                ".arch_extension sve",
                ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "str z\\n, [{z}, #\\n, mul vl]",
                ".endr",
                ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                "str p\\n, [{p}, #\\n, mul vl]",
                ".endr",
                "rdffr p0.b",
                "str p0, [{p}, #16, mul vl]",
                z = in(reg) z,
                p = in(reg) Self::predicates(z, self.bytes),
                options(nostack, preserves_flags)
            )
        };
        // ZCR_EL1.
        self.zcr_el1 = mrs!("S3_0_C1_C2_0");
    }

    /// Writes the registers, and limits vectors to this VM's length. What lies beyond is zeroed, so that
    /// nothing of another VM with longer vectors ever shows again.
    ///
    /// # Safety
    /// The vCPU must be the one that is entered next, and the length one that this CPU has.
    pub(crate) unsafe fn load(&self) {
        set_longest(LONGEST);
        // SAFETY: zeroes registers that EL2's own code does not use.
        unsafe {
            asm!(
                ".arch_extension sve",
                ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "mov z\\n\\().b, #0",
                ".endr",
                ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                "pfalse p\\n\\().b",
                ".endr",
                "wrffr p0.b",
                options(nostack, nomem, preserves_flags)
            )
        };
        set_longest(self.longest());
        let z = self.registers.as_ptr().cast_mut();
        // SAFETY: vectors are as long as `new` took them to be: the loads read what `save` or `begin` stored.
        unsafe {
            asm!(
                ".arch_extension sve",
                "ldr p0, [{p}, #16, mul vl]",
                "wrffr p0.b",
                ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                "ldr p\\n, [{p}, #\\n, mul vl]",
                ".endr",
                ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "ldr z\\n, [{z}, #\\n, mul vl]",
                ".endr",
                z = in(reg) z,
                p = in(reg) Self::predicates(z, self.bytes),
                options(nostack, preserves_flags, readonly)
            )
        };
        if self.limit < self.longest() {
            set_longest(self.limit);
        }
        msr!("S3_0_C1_C2_0", self.zcr_el1);
    }
}

/// ZCR_EL2.LEN: vectors have at most 16 times `len` + 1 bytes, at EL2 too.
fn set_longest(len: u64) {
    msr!("S3_4_C1_C2_0", len);
    instruction!("isb");
}

/// The vector lengths that this CPU, which has SVE, offers: bit n for 128 times n + 1 bits.
pub(crate) fn lengths() -> u16 {
    super::fp::open();
    let mut lengths = 0;
    let mut ask = LONGEST + 1;
    while let Some(len) = ask.checked_sub(1) {
        set_longest(len);
        let bytes: u64;
        // SAFETY: reads the vector length.
        unsafe {
            asm!(".arch_extension sve", "rdvl {}, #1", out(reg) bytes,
                options(nostack, nomem, preserves_flags))
        };
        // The longest that is not longer than asked; the next to ask for is shorter.
        ask = (bytes / 16).saturating_sub(1);
        lengths |= 1u16.wrapping_shl(ask as u32);
    }
    lengths
}
