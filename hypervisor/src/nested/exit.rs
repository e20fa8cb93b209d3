//! An exit of a vCPU with virtual EL2: what it means depends on the context, and what L1 asked for goes
//! to vEL2. What is as for any VM is left to the run loop.

use super::{l2, lists, take, timers, vel2};
use crate::arch::gic;
use crate::arch::syndrome::{self, Hardware};
use crate::arch::vectors::Vector;
use crate::cpu::Local;
use crate::exit::interrupt::{MAINTENANCE, others};
use crate::exit::{Outcome, serror};
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{self, GuestFault};
use crate::vcpu::run::{self, Pause};
use manifest::layout::{PTIMER_INTID, VTIMER_INTID};
use trap::SysregAccess;

/// How the run loop goes on.
pub(crate) enum After {
    /// The guest is entered again.
    Enter,
    /// The scheduler is needed.
    Pause(Pause),
    /// The exit is handled as for any VM, with the syndrome that is in the registers.
    AsAnyVm,
}

/// What a handler of this module comes to: `None` is [`After::AsAnyVm`].
pub(super) type Answer = Option<Outcome>;

/// Handles an exit by one of the vectors for such vCPUs.
#[cold]
#[inline(never)]
pub(crate) fn handle(vcpu: &mut Vcpu, local: &mut Local, vector: Vector) -> After {
    // Virtual EL2 is on the heap, as are shadows and what is known of them.
    local.check_tags("nested");
    match vector {
        Vector::NESTED_SYNC => synchronous(vcpu, local),
        Vector::NESTED_INTERRUPT => {
            if interrupt(vcpu, local) {
                After::Pause(Pause::Reschedule)
            } else {
                After::Enter
            }
        }
        _ => {
            serror::taken(vcpu);
            After::Enter
        }
    }
}

fn synchronous(vcpu: &mut Vcpu, local: &mut Local) -> After {
    let esr = syndrome::esr();
    let exit = trap::decode(esr, &Hardware);
    let answer = if vcpu.nested.as_ref().is_some_and(|n| n.in_l2) {
        l2::dispatch(vcpu, local, exit, esr)
    } else {
        vel2::dispatch(vcpu, local, exit, esr)
    };
    match answer {
        None => After::AsAnyVm,
        Some(Ok(resume)) => match run::pause(vcpu, local, resume, esr) {
            Some(pause) => After::Pause(pause),
            None => After::Enter,
        },
        Some(Err(fault)) => {
            fail(vcpu, local, fault, esr);
            After::Enter
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
        other => others(local, other),
    }
}

/// Whoever runs gets an exception: L2 at its EL1, vEL2 at its own level.
#[cold]
#[inline(never)]
pub(crate) fn fail(vcpu: &mut Vcpu, local: &Local, fault: GuestFault, esr: u64) {
    if l2::external_abort_is_l1s(vcpu, fault) {
        // A trap comes without an address.
        let trapped = matches!(fault, GuestFault::Maintenance(_));
        let far = if trapped { vcpu.regs.get(SysregAccess::new(esr).rt) } else { syndrome::far() };
        return take::sync(vcpu, local, l2::external_abort(fault, esr), Some(far));
    }
    apply::inject(vcpu, fault, esr);
    take::mend_spsr(vcpu);
}
