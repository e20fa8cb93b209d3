//! Exits from vEL2.

use super::{sysreg, take};
use crate::arch::nested::restrict_prediction;
use crate::arch::syndrome;
use crate::cpu::Local;
use crate::exit::{self, Outcome};
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use ::nested::controls::hcr;
use trap::{Exit, SysReg, SysregAccess};

/// Hands an exit of vEL2, or of an EL0 of its own, to its handler. What is not about EL2 is handled
/// as for any VM.
pub(super) fn dispatch(vcpu: &mut Vcpu, local: &mut Local, exit: Exit, esr: u64) -> Outcome {
    if let Exit::Eret(kind) = exit {
        vcpu.shared.exits.sysregs.bump();
        return Ok(take::eret(vcpu, local, kind));
    }
    if let Exit::Hvc { .. } = exit {
        return hvc(vcpu, local, esr);
    }
    if let Exit::Sysreg(access) = exit
        && let Some(outcome) = sysreg::access(vcpu, local, access)
    {
        vcpu.shared.exits.sysregs.bump();
        return outcome;
    }
    if let Exit::SystemInstruction(access) = exit {
        return instruction(vcpu, local, access);
    }
    exit::dispatch(vcpu, local, exit)
}

/// HVC at vEL2 is an exception of its own; calls to L0 are SMCs.
fn hvc(vcpu: &mut Vcpu, local: &Local, esr: u64) -> Outcome {
    vcpu.shared.exits.calls.bump();
    if vcpu.nested.as_ref().is_some_and(|n| n.hcr().has(hcr::HCD)) {
        // SAFETY: the exited vCPU is resident. An UNDEFINED instruction returns to itself.
        unsafe { syndrome::set_elr(syndrome::elr().wrapping_sub(4)) };
        return Err(GuestFault::Undefined);
    }
    take::sync(vcpu, local, esr, None);
    Ok(Resume::Here)
}

/// CFP, DVP and CPP RCTX, which trap at any virtual EL2.
const fn restricts_prediction(reg: SysReg) -> bool {
    reg.op0() == 1 && reg.op1() == 3 && reg.crn() == 7 && reg.crm() == 3 && matches!(reg.op2(), 4 | 5 | 7)
}

fn instruction(vcpu: &mut Vcpu, local: &mut Local, access: SysregAccess) -> Outcome {
    const SPECRES: u32 = 40;
    if restricts_prediction(access.reg) && vcpu.vm.ids.read(idreg::Reg::Isar1 as usize) >> SPECRES & 0xf != 0
    {
        vcpu.shared.exits.sysregs.bump();
        restrict_prediction();
        return Ok(Resume::Next);
    }
    if access.reg.op0() == 1 && matches!(access.reg.crn(), 8 | 9) {
        crate::arch::tlb::flush_all_vms();
        return Ok(Resume::Next);
    }
    exit::dispatch(vcpu, local, Exit::SystemInstruction(access))
}
