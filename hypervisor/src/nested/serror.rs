//! SErrors that L0 has for a VM while L2 runs. To L1 they are physical ones: with HCR_EL2.AMO vEL2 takes them
//! from L2 at once, without it they are L2's as soon as its PSTATE.A lets them in.
//!
//! In vEL2 one is pending in the hardware (HCR_EL2.VSE, VSESR_EL2), as for any VM. In L2 those are L1's if AMO
//! is set; so there one is in [`Nested::virtual_serror`], and its VSESR_EL2 with the rest of vEL2's registers.

use super::{Nested, take};
use crate::arch::{nested as hw, syndrome, traps};
use crate::cpu::Local;
use crate::vcpu::{Vcpu, request};
use ::nested::controls::hcr::VSE;
use ::nested::{exception, page};

/// L0 has an SError with this VSESR_EL2 for the vCPU, which has exited; false: it is to be pending in the hardware.
pub(crate) fn pend(vcpu: &mut Vcpu, vsesr: u64) -> bool {
    let Some(nested) = vcpu.nested.as_deref_mut().filter(|n| n.in_l2) else { return false };
    nested.virtual_serror = VSE;
    nested.el2.vsesr = vsesr;
    let waits = nested.hcr().takes_serrors();
    if waits {
        vcpu.vm.ask(vcpu.id, request::INTERRUPT, true);
    }
    waits
}

/// vEL2 takes from L2 what is pending for it. PC and PSTATE are final.
pub(super) fn deliver(vcpu: &mut Vcpu, local: &Local) {
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    if nested.virtual_serror == 0 || !nested.in_l2 || !nested.hcr().takes_serrors() {
        return;
    }
    nested.virtual_serror = 0;
    let esr = exception::serror_syndrome(nested.el2.vsesr);
    take::serror(vcpu, local, esr);
}

/// One is pending, and L2 is in the hardware, with its controls: whose it is there.
#[cold]
pub(super) fn enter_l2(vcpu: &Vcpu) {
    let Some(nested) = &vcpu.nested else { return };
    if nested.hcr().takes_serrors() {
        vcpu.vm.ask(vcpu.id, request::INTERRUPT, true);
    } else {
        // SAFETY: the vCPU is resident.
        unsafe { syndrome::pend_virtual_serror(nested.el2.vsesr) };
    }
}

impl Nested {
    /// One was pending, and L2 leaves the hardware: L2 may have taken it, and VSESR_EL2 is L1's again.
    #[cold]
    pub(super) fn leave_l2_with_serror(&mut self) {
        if self.hcr().takes_serrors() {
            return;
        }
        self.virtual_serror = traps::pending_virtual_serror();
        // SAFETY: the vCPU leaves L2 or the hardware next.
        unsafe { hw::set_vsesr(self.page.get(page::VSESR_EL2)) };
    }
}
