//! SErrors: one that a guest's accesses caused is that VM's affair, and no other's unless it is uncontained. One
//! of EL2's own is taken at EL2: SErrors are masked there only from an exit to its ESB (`arch::guest::enter`).

use crate::arch::syndrome;
use crate::vcpu::Vcpu;
use crate::vm::stop_for_fault;
use crate::{log, machine, nested};
use manifest::OnSError;
use trap::{Consequence, SError};

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
    match error.consequence(vm.spec.on_serror == OnSError::Inject) {
        Consequence::Inject => {
            let vsesr = error.vsesr(false);
            if !nested::serror::pend(vcpu, vsesr) {
                // SAFETY: the exited vCPU is resident.
                unsafe { syndrome::pend_virtual_serror(vsesr) };
            }
        }
        Consequence::Stop => stop_for_fault(vm),
        Consequence::End => {
            machine::end(false, format_args!("{}: uncontained SError, syndrome {raw:#x}", vm.spec.name))
        }
    }
}
