//! Exits from vEL2.

use super::exit::Answer;
use super::{Nested, at, sysreg, take, tlbi};
use crate::arch::nested::restrict_prediction;
use crate::arch::{syndrome, translate};
use crate::cpu::Local;
use crate::exit::Outcome;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use ::nested::controls::hcr;
use ::nested::page;
use ::nested::stage2::Registers;
use ::nested::tlbi::Host;
use trap::{Exit, SysReg, SysregAccess};
use vmsa::walk::Regime;

/// Hands an exit of vEL2, or of an EL0 of its own, to its handler. What is not about EL2 is handled
/// as for any VM.
pub(super) fn dispatch(vcpu: &mut Vcpu, local: &mut Local, exit: Exit, esr: u64) -> Answer {
    if let Exit::Eret(kind) = exit {
        vcpu.shared.exits.sysregs.bump();
        return Some(Ok(take::eret(vcpu, local, kind)));
    }
    if let Exit::Hvc { .. } = exit {
        return Some(hvc(vcpu, local, esr));
    }
    if let Exit::Sysreg(access) = exit
        && let Some(outcome) = sysreg::access(vcpu, local, access)
    {
        vcpu.shared.exits.sysregs.bump();
        return Some(outcome);
    }
    if let Exit::SystemInstruction(access) = exit {
        return instruction(vcpu, access);
    }
    None
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

const fn is_tlbi(reg: SysReg) -> bool {
    reg.op0() == 1 && matches!(reg.crn(), 8 | 9)
}

const fn is_at(reg: SysReg) -> bool {
    reg.op0() == 1 && reg.crn() == 7 && matches!(reg.crm(), 8 | 9)
}

impl Nested {
    /// Both regimes that AT may mean, and L1's stage 2, while vEL2 runs.
    fn translation(&self, host: Host) -> at::Context {
        let word = |slot| self.page.get(slot);
        let el2 = Regime { el2: !self.vhe, ..translate::regime() };
        let el1 = Regime {
            tcr: word(page::TCR_EL1),
            ttbr0: word(page::TTBR0_EL1),
            ttbr1: word(page::TTBR1_EL1),
            sctlr: word(page::SCTLR_EL1),
            mair: word(page::MAIR_EL1),
            pan: el2.pan,
            el2: false,
        };
        const EE: u64 = 1 << 25;
        let registers = Registers {
            vttbr: word(page::VTTBR_EL2),
            vtcr: word(page::VTCR_EL2),
            big_endian: el2.sctlr & EE != 0,
            fwb: self.hcr().has(hcr::FWB),
        };
        let stage2 = self.hcr().has(hcr::VM | hcr::DC).then_some(registers);
        at::Context { host, el1, el2, stage2, protected: self.hcr().has(hcr::PTW) }
    }
}

fn instruction(vcpu: &mut Vcpu, access: SysregAccess) -> Answer {
    const SPECRES: u32 = 40;
    if restricts_prediction(access.reg) && vcpu.ids.read(idreg::Reg::Isar1 as usize) >> SPECRES & 0xf != 0 {
        vcpu.shared.exits.sysregs.bump();
        restrict_prediction();
        return Some(Ok(Resume::Next));
    }
    let operand = vcpu.regs.get(access.rt);
    let (Some(nested), Some(mmu)) = (&vcpu.nested, &vcpu.vm.nested) else {
        return Some(Err(GuestFault::Undefined));
    };
    let hcr = nested.hcr();
    let host = Host { e2h: hcr.has(hcr::E2H), tge: hcr.has(hcr::TGE) };
    if is_tlbi(access.reg) {
        vcpu.shared.exits.sysregs.bump();
        let word = |slot| nested.page.get(slot);
        let vmid = mmu.guest_vmid(word(page::VTTBR_EL2), word(page::VTCR_EL2));
        let done = tlbi::execute(mmu, tlbi::Context { host, vmid }, access.reg, operand);
        return Some(if done { Ok(Resume::Next) } else { Err(GuestFault::Undefined) });
    }
    if is_at(access.reg) {
        vcpu.shared.exits.sysregs.bump();
        let par = at::execute(vcpu.vm, mmu, &nested.translation(host), access.reg, operand);
        let Some(par) = par else { return Some(Err(GuestFault::Undefined)) };
        // SAFETY: the resident vCPU executed AT.
        unsafe { translate::set_par(par) };
        return Some(Ok(Resume::Next));
    }
    None
}
