//! SVE at virtual EL2: vector lengths.
//!
//! In vEL2, ZCR_EL1 of the hardware plays ZCR_EL2, bounded by the VM's own length in the real ZCR_EL2. In L2,
//! ZCR_EL1 is L2's, from the page, and what L1 has in ZCR_EL2 bounds it as well. The registers themselves
//! are not switched: to do so for its guests is L1's business. Both ZCRs are where the Z registers are, in
//! the hardware or not ([`Vcpu::swap_zcr`]).

use super::{Nested, take};
use crate::cpu::Local;
use crate::exit::Outcome;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use ::nested::controls::{self, FP_TRAP, SVE_TRAP};
use ::nested::page;
use trap::SysregAccess;

/// ZCR_ELx.LEN.
const LEN: u64 = 0xf;

/// L2 is about to run.
pub(super) fn to_l2(vcpu: &mut Vcpu) {
    let Some(nested) = vcpu.nested.as_deref().filter(|nested| nested.sve) else { return };
    let l2 = nested.page.get(page::ZCR_EL1) & LEN;
    let own = vcpu.swap_zcr(l2, |own| own & LEN);
    if let Some(nested) = &mut vcpu.nested {
        nested.zcr = own;
    }
}

/// vEL2 is about to run.
pub(super) fn to_vel2(vcpu: &mut Vcpu) {
    let Some(nested) = vcpu.nested.as_deref().filter(|nested| nested.sve) else { return };
    let own = nested.zcr;
    let l2 = vcpu.swap_zcr(own, |_| LEN);
    if let Some(nested) = &mut vcpu.nested {
        nested.page.set(page::ZCR_EL1, l2);
    }
}

/// vEL2 accesses ZCR_EL2.
pub(super) fn access(vcpu: &mut Vcpu, local: &Local, access: SysregAccess) -> Outcome {
    let Some(nested) = vcpu.nested.as_deref().filter(|nested| nested.sve) else {
        return Err(GuestFault::Undefined);
    };
    if controls::traps_sve(nested.own_cptr(), nested.vhe) {
        take::sync(vcpu, local, SVE_TRAP, None);
        return Ok(Resume::Here);
    }
    if access.read {
        let value = vcpu.zcr();
        vcpu.regs.set(access.rt, value);
    } else {
        let value = vcpu.regs.get(access.rt);
        vcpu.set_zcr(value & LEN);
    }
    Ok(Resume::Next)
}

impl Nested {
    /// The syndrome with which a trapped SVE instruction of L2's goes to L1, if L1 traps it. The hardware
    /// looks for SVE's trap first, which may be L0's alone.
    pub(super) fn sve_trap(&self) -> Option<u64> {
        if !self.sve {
            None
        } else if controls::traps_sve(self.cptr(), self.vhe) {
            Some(SVE_TRAP)
        } else if controls::traps_fp(self.cptr(), self.vhe) {
            Some(FP_TRAP)
        } else {
            None
        }
    }
}
