//! The road of an exit for a vCPU with virtual EL2: as [`vcpu::run`](crate::vcpu::run), but what an
//! exit means depends on the context, and what L1 asked for goes to vEL2.

use super::{l2, lists, timers, vel2};
use crate::arch::gic;
use crate::arch::guest;
use crate::arch::syndrome::{self, Hardware};
use crate::arch::vectors::Vector;
use crate::cpu::Local;
use crate::exit;
use crate::exit::interrupt::MAINTENANCE;
use crate::vcpu::apply::{self, GuestFault, Resume, advance};
use crate::vcpu::run::{Pause, pause};
use crate::vcpu::{Vcpu, request};
use manifest::layout::{PTIMER_INTID, VTIMER_INTID};

/// Runs `vcpu`, which is resident and has virtual EL2, until the scheduler is needed.
#[inline(never)]
pub(crate) fn run(vcpu: &mut Vcpu, local: &mut Local) -> Pause {
    vcpu.shared.set_attentive(true);
    timers::update(vcpu, local);
    if core::mem::take(&mut vcpu.sync_due) {
        lists::sync(vcpu, local);
    }
    loop {
        if vcpu.shared.asked() != 0 {
            if vcpu.shared.asked() & !request::INTERRUPT != 0 {
                return Pause::Settle;
            }
            vcpu.shared.take_only(request::INTERRUPT);
            lists::sync(vcpu, local);
            continue;
        }
        local.stay.end();
        // SAFETY: the scheduler made this vCPU resident, with the vectors of this loop.
        let vector = unsafe { guest::enter_nested(&mut vcpu.regs) };
        local.stay.begin();
        if syndrome::deferred_serror() != 0 {
            exit::serror::deferred(vcpu);
        }
        match vector {
            Vector::Sync => {
                let esr = syndrome::esr();
                let exit = trap::decode(esr, &Hardware);
                let outcome = match vcpu.nested.as_ref().is_some_and(|n| n.in_l2) {
                    true => l2::dispatch(vcpu, local, exit, esr),
                    false => vel2::dispatch(vcpu, local, exit, esr),
                };
                match outcome {
                    Ok(Resume::Next) => advance(esr),
                    Ok(Resume::Here) => {}
                    // L2 may be woken for no reason: what it waits for is L1's.
                    Ok(Resume::Wait) if lists::are_l1s(vcpu) => advance(esr),
                    Ok(Resume::WaitHere) if lists::are_l1s(vcpu) => {}
                    Ok(other) => {
                        timers::update(vcpu, local);
                        if let Some(pause) = pause(vcpu, local, other, esr) {
                            return pause;
                        }
                    }
                    Err(fault) => fail(vcpu, local, fault, esr),
                }
            }
            Vector::Interrupt => {
                if interrupt(vcpu, local) {
                    return Pause::Reschedule;
                }
            }
            Vector::SError => exit::serror::taken(vcpu),
        }
    }
}

/// An interrupt took the vCPU off the CPU; true if the scheduler has to look.
fn interrupt(vcpu: &mut Vcpu, local: &mut Local) -> bool {
    vcpu.shared.exits.interrupts.bump();
    let Some(intid) = gic::acknowledge() else { return false };
    gic::drop_priority(intid);
    match intid {
        VTIMER_INTID | PTIMER_INTID => {
            timers::fired(vcpu, local, intid);
            false
        }
        MAINTENANCE => {
            lists::maintain(vcpu, local);
            gic::complete();
            gic::deactivate(intid);
            false
        }
        other => exit::interrupt::others(local, other),
    }
}

/// Whoever runs gets an exception: L2 at its EL1, vEL2 at its own level.
#[cold]
#[inline(never)]
fn fail(vcpu: &mut Vcpu, local: &mut Local, fault: GuestFault, esr: u64) {
    if l2::external_abort_is_l1s(vcpu, fault) {
        return super::take::sync(vcpu, local, l2::external_abort(fault, esr), Some(syndrome::far()));
    }
    apply::inject(vcpu, fault, esr);
    super::take::mend_spsr(vcpu);
}
