//! The road of an exit: enter the guest, learn why it came back, decide, apply, enter again.

use super::apply::{GuestFault, Resume, advance, inject};
use super::{Activity, Vcpu, request};
use crate::arch::guest;
use crate::arch::syndrome::{self, Hardware};
use crate::arch::vectors::Vector;
use crate::cpu::Local;
use crate::exit;
use crate::lock::Hot;
use crate::nested::{self, exit::After};
use cmo::Sweep;

/// Why a vCPU gave the CPU back to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Someone else may be due: the slice is over, or another vCPU was kicked.
    Reschedule,
    /// It gives way to its equals.
    Yield,
    /// It used FP while another vCPU's registers are in the hardware.
    SwitchFp,
    /// It waits, is off, or was told to stop: look at its activity and requests.
    Settle,
}

/// Runs `vcpu`, which is resident, until the scheduler is needed.
#[inline(never)]
pub(crate) fn run(vcpu: &mut Vcpu, local: &mut Local) -> Pause {
    vcpu.shared.set_attentive(true);
    if core::mem::take(&mut vcpu.sync_due) {
        take_pending_abort(vcpu, local);
        heed_interrupts(vcpu, local);
    }
    loop {
        // The hazard test on the way in: one load.
        if vcpu.shared.asked() != 0 && !heed_requests(vcpu, local) {
            return Pause::Settle;
        }
        local.stay.end();
        // SAFETY: the scheduler made this vCPU resident.
        let mut vector = unsafe { guest::enter(&mut vcpu.regs) };
        local.stay.begin();
        if syndrome::deferred_serror() != 0 {
            exit::serror::deferred(vcpu);
        }
        loop {
            match vector {
                Vector::SYNC => {
                    let esr = syndrome::esr();
                    let exit = trap::decode(esr, &Hardware);
                    match exit::dispatch(vcpu, local, exit) {
                        Ok(Resume::Next) => advance(esr),
                        Ok(Resume::Here) => {}
                        Ok(other) => {
                            if let Some(pause) = pause(vcpu, local, other, esr) {
                                return pause;
                            }
                        }
                        Err(fault) => fail(vcpu, local, fault, esr),
                    }
                }
                Vector::INTERRUPT => {
                    if exit::interrupt::handle(vcpu, local) {
                        return Pause::Reschedule;
                    }
                }
                Vector::SERROR => exit::serror::taken(vcpu),
                // With virtual EL2.
                other => match nested::exit::handle(vcpu, local, other) {
                    After::Enter => {}
                    After::Pause(pause) => return pause,
                    After::AsAnyVm => {
                        vector = Vector::SYNC;
                        continue;
                    }
                },
            }
            break;
        }
    }
}

/// Virtual interrupts may have changed: the list registers are brought in line.
#[inline]
fn heed_interrupts(vcpu: &mut Vcpu, local: &mut Local) {
    if vcpu.nested.is_some() {
        return nested::lists::sync(vcpu, local);
    }
    vcpu.sync_interrupts(local);
}

/// How often a vCPU looks for new requests before the scheduler does: other vCPUs of its VM, which send it
/// interrupts without end, must not keep its CPU from everybody else.
const LOOKS: usize = 4;

/// Does what others asked of the vCPU while it runs; false if the scheduler has to.
#[inline]
fn heed_requests(vcpu: &mut Vcpu, local: &mut Local) -> bool {
    for _ in 0..LOOKS {
        if vcpu.shared.asked() & !request::INTERRUPT != 0 {
            return false;
        }
        vcpu.shared.take_only(request::INTERRUPT);
        heed_interrupts(vcpu, local);
        // Whoever asked while something was asked already sent no kick: look again.
        if vcpu.shared.asked() == 0 {
            return true;
        }
    }
    false
}

/// The rarer ways to go on.
pub(crate) fn pause(vcpu: &mut Vcpu, local: &mut Local, resume: Resume, esr: u64) -> Option<Pause> {
    match resume {
        Resume::Next => {
            advance(esr);
            None
        }
        Resume::Here => None,
        Resume::Wait | Resume::WaitHere => {
            if resume == Resume::Wait {
                advance(esr);
            }
            if vcpu.nested.is_some() && !nested::may_wait(vcpu, local) {
                return None;
            }
            // What the guest did in its list registers decides whether something still waits there.
            vcpu.sync_interrupts(local);
            if vcpu.vm.vgic.lock_hot().has_pending(vcpu.id) {
                return None;
            }
            vcpu.activity = Activity::Waiting;
            Some(Pause::Settle)
        }
        Resume::Yield => {
            advance(esr);
            Some(Pause::Yield)
        }
        Resume::Sweep => {
            advance(esr);
            vcpu.activity = Activity::Sweeping(Sweep::default());
            Some(Pause::Settle)
        }
        Resume::SwitchFp => Some(Pause::SwitchFp),
        Resume::Leave => Some(Pause::Settle),
    }
}

/// The abort that a control VM decided on, as if the access had just happened.
fn take_pending_abort(vcpu: &mut Vcpu, local: &Local) {
    if let Some(abort) = vcpu.pending_abort.take() {
        // SAFETY: the scheduler made this vCPU resident.
        unsafe { syndrome::set_far(abort.far) };
        fail(vcpu, local, GuestFault::ExternalDataAbort, abort.esr);
    }
}

/// The guest gets an exception.
#[cold]
#[inline(never)]
fn fail(vcpu: &mut Vcpu, local: &Local, fault: GuestFault, esr: u64) {
    if vcpu.nested.is_some() {
        return nested::exit::fail(vcpu, local, fault, esr);
    }
    inject(vcpu, fault, esr);
}
