//! SErrors: one that a guest's accesses caused is that VM's affair, and no other's.

use crate::arch::syndrome;
use crate::vcpu::Vcpu;
use crate::vm::stop_for_fault;
use crate::{log, nested};
use manifest::OnSError;
use trap::SError;

/// The ESB at the exit deferred an SError.
#[cold]
#[inline(never)]
pub(crate) fn deferred(vcpu: &mut Vcpu) {
    let disr = syndrome::deferred_serror();
    syndrome::clear_deferred_serror();
    if let Some(error) = SError::from_disr(disr) {
        charge(vcpu, error, disr);
    }
}

/// The SError vector was taken from the guest.
#[cold]
#[inline(never)]
pub(crate) fn taken(vcpu: &mut Vcpu) {
    let esr = syndrome::esr();
    charge(vcpu, SError::from_esr(esr, true), esr);
}

fn charge(vcpu: &mut Vcpu, error: SError, raw: u64) {
    let vm = vcpu.vm;
    if vm.may_report() {
        log::warn!("{}/{}: SError, syndrome {raw:#x}", vm.spec.name, vcpu.id);
    }
    match vm.spec.on_serror {
        // What may have spread, or whose syndrome does not say, is not something to go on with.
        OnSError::Inject if error.is_contained() => {
            let vsesr = error.vsesr(false);
            if !nested::serror::pend(vcpu, vsesr) {
                // SAFETY: the exited vCPU is resident.
                unsafe { syndrome::pend_virtual_serror(vsesr) };
            }
        }
        OnSError::Inject | OnSError::Stop => stop_for_fault(vm),
    }
}
