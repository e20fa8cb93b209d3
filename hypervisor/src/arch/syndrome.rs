//! Why the guest exited: the syndrome registers.

use super::sysreg::{instruction, mrs, msr};
use aarch64_cpu::registers::{
    ELR_EL1, ELR_EL2, ESR_EL1, ESR_EL2, FAR_EL1, FAR_EL2, HCR_EL2, HPFAR_EL2, SCTLR_EL1, SPSR_EL1, SPSR_EL2,
    VBAR_EL1,
};
use tock_registers::interfaces::{Readable, Writeable};

/// ESR_EL2.
#[inline(always)]
pub(crate) fn esr() -> u64 {
    ESR_EL2.get()
}

/// FAR_EL2.
#[inline(always)]
pub(crate) fn far() -> u64 {
    FAR_EL2.get()
}

/// Puts a fault's address back that a vCPU took earlier.
///
/// # Safety
/// The vCPU must be the resident one.
pub(crate) unsafe fn set_far(value: u64) {
    FAR_EL2.set(value);
}

/// HPFAR_EL2, read only for the classes that define it.
#[derive(Debug)]
pub(crate) struct Hardware;

impl trap::FaultRegisters for Hardware {
    #[inline(always)]
    fn far(&self) -> u64 {
        far()
    }

    #[inline(always)]
    fn hpfar(&self) -> u64 {
        HPFAR_EL2.get()
    }
}

/// Replaces HPFAR_EL2: the address of a fault is the VM's own from here on.
///
/// # Safety
/// The resident vCPU has exited with an abort, and is entered again only once that is handled.
pub(crate) unsafe fn set_hpfar(value: u64) {
    msr!("hpfar_el2", value);
}

/// Where the guest was (ELR_EL2).
#[inline(always)]
pub(crate) fn elr() -> u64 {
    ELR_EL2.get()
}

/// Where the guest goes on.
///
/// # Safety
/// The vCPU must be the resident one; only `vcpu::apply` moves its PC.
#[inline(always)]
pub(crate) unsafe fn set_elr(value: u64) {
    ELR_EL2.set(value);
}

/// The guest's PSTATE (SPSR_EL2).
#[inline(always)]
pub(crate) fn spsr() -> u64 {
    SPSR_EL2.get()
}

/// Sets the guest's PSTATE.
///
/// # Safety
/// `value` must name EL1 or EL0 in AArch64.
#[inline(always)]
pub(crate) unsafe fn set_spsr(value: u64) {
    SPSR_EL2.set(value);
}

/// The EL1 registers that an exception into EL1 writes and reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct El1Exception {
    /// ELR_EL1.
    pub(crate) elr: u64,
    /// SPSR_EL1.
    pub(crate) spsr: u64,
    /// ESR_EL1; interrupts have none.
    pub(crate) esr: Option<u64>,
    /// FAR_EL1, where the class defines it.
    pub(crate) far: Option<u64>,
}

/// ELR_EL1 and SPSR_EL1 of the resident vCPU.
pub(crate) fn el1_return() -> (u64, u64) {
    (ELR_EL1.get(), SPSR_EL1.get())
}

/// The stack pointer of the resident vCPU, which is at EL1: SPSR_EL2.M\[0\] says which.
pub(crate) fn stack_pointer() -> u64 {
    if spsr() & 1 == 1 { mrs!("sp_el1") } else { mrs!("sp_el0") }
}

/// Sets SPSR_EL1 of the resident vCPU.
///
/// # Safety
/// The vCPU must be the resident one.
pub(crate) unsafe fn set_el1_spsr(value: u64) {
    SPSR_EL1.set(value);
}

/// VBAR_EL1 and SCTLR_EL1 of the resident vCPU.
pub(crate) fn el1_vectors() -> (u64, u64) {
    (VBAR_EL1.get(), SCTLR_EL1.get())
}

/// Writes what the hardware would at an exception into EL1.
///
/// # Safety
/// The vCPU must be the resident one.
#[inline(always)]
pub(crate) unsafe fn set_el1_exception(e: &El1Exception) {
    ELR_EL1.set(e.elr);
    SPSR_EL1.set(e.spsr);
    if let Some(esr) = e.esr {
        ESR_EL1.set(esr);
    }
    if let Some(far) = e.far {
        FAR_EL1.set(far);
    }
}

/// The SError that ESB deferred at the exit (DISR_EL1); zero if there was none.
#[inline(always)]
pub(crate) fn deferred_serror() -> u64 {
    mrs!("S3_0_C12_C1_1")
}

/// Forgets the deferred SError.
pub(crate) fn clear_deferred_serror() {
    msr!("S3_0_C12_C1_1", 0);
    instruction!("isb");
}

/// Makes a virtual SError pending for the resident vCPU: VSESR_EL2, then HCR_EL2.VSE.
///
/// # Safety
/// The vCPU must be the resident one.
pub(crate) unsafe fn pend_virtual_serror(vsesr: u64) {
    msr!("S3_4_C5_C2_3", vsesr);
    HCR_EL2.set(HCR_EL2.get() | 1 << 8);
}
