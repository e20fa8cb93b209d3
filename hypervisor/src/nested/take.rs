//! Exceptions into vEL2, and its exception returns.

use crate::arch::nested as hw;
use crate::arch::syndrome::{self, El1Exception};
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::Resume;
use ::nested::exception::{self, Kind};
use ::nested::pauth::{self, Key, Layout};
use trap::EretKind;
use trap::inject::{El1Context, PstateFeatures};

/// vEL2 takes a synchronous exception with this syndrome. PC and PSTATE are as the hardware has them:
/// the preferred return address is the caller's business.
pub(super) fn sync(vcpu: &mut Vcpu, local: &Local, esr: u64, far: Option<u64>) {
    take(vcpu, local, Kind::Sync, Some(esr), far);
}

/// vEL2 takes a synchronous exception of L2's stage 2: with HPFAR_EL2 as well.
pub(super) fn stage2(vcpu: &mut Vcpu, local: &Local, esr: u64, far: u64, hpfar: u64) {
    if let Some(nested) = &mut vcpu.nested {
        nested.regs.hpfar = hpfar;
    }
    take(vcpu, local, Kind::Sync, Some(esr), Some(far));
}

/// vEL2 takes an SError with this syndrome.
pub(super) fn serror(vcpu: &mut Vcpu, local: &Local, esr: u64) {
    take(vcpu, local, Kind::SError, Some(esr), None);
}

/// vEL2 takes an interrupt: an IRQ if it is of group 1, else an FIQ.
pub(super) fn interrupt(vcpu: &mut Vcpu, local: &Local, group1: bool) {
    take(vcpu, local, if group1 { Kind::Irq } else { Kind::Fiq }, None, None);
}

fn take(vcpu: &mut Vcpu, local: &Local, kind: Kind, esr: Option<u64>, far: Option<u64>) {
    let Some(nested) = &vcpu.nested else { return };
    let from_vel2 = !nested.in_l2;
    let pan = nested.hcr().hosts_el0();
    let (pc, pstate) = (syndrome::elr(), syndrome::spsr());
    if !from_vel2 {
        super::switch::to_vel2(vcpu, local);
    }
    let (vbar, sctlr) = syndrome::el1_vectors();
    let features = PstateFeatures { pan: true, ssbs: true, mte: vcpu.vm.spec.mte, nmi: false };
    let taken = exception::take(&El1Context { pc, pstate, vbar, sctlr, features }, kind, from_vel2, pan);
    // SAFETY: the exited vCPU is resident, and in vEL2 now.
    unsafe { syndrome::set_el1_exception(&El1Exception { elr: taken.elr, spsr: taken.spsr, esr, far }) };
    // SAFETY: as above.
    unsafe { syndrome::set_elr(taken.pc) };
    // SAFETY: `take` names EL1h.
    unsafe { syndrome::set_spsr(taken.pstate) };
}

/// After an exception that any VM's EL1 may take: vEL2 sees its own level in SPSR_EL2.
pub(super) fn mend_spsr(vcpu: &Vcpu) {
    if vcpu.nested.as_ref().is_some_and(|n| !n.in_l2) {
        let (_, spsr) = syndrome::el1_return();
        // SAFETY: the exited vCPU is resident.
        unsafe { syndrome::set_el1_spsr(exception::shown(spsr, true)) };
    }
}

/// Where an exception return of this kind leads, or the key whose code is wrong.
fn authenticated(vcpu: &Vcpu, kind: EretKind, elr: u64) -> Result<u64, Key> {
    let key = match kind {
        EretKind::Plain => return Ok(elr),
        EretKind::KeyA => Key::A,
        EretKind::KeyB => Key::B,
    };
    if hw::sctlr() & key.enable() == 0 {
        return Ok(elr);
    }
    let layout = Layout::new(hw::tcr(), vcpu.nested.as_ref().is_some_and(|n| n.vhe), elr);
    let original = layout.original(elr);
    let id = |register: idreg::Reg| vcpu.ids.read(register as usize);
    let Some(level) = pauth::level(id(idreg::Reg::Isar1), id(idreg::Reg::Isar2)) else { return Ok(original) };
    let code = hw::authentication_code(key, original, syndrome::stack_pointer());
    pauth::authenticate(layout, level, key, elr, code).map_err(|_| key)
}

/// vEL2 returns from an exception.
pub(super) fn eret(vcpu: &mut Vcpu, local: &Local, kind: EretKind) -> Resume {
    let Some(nested) = &vcpu.nested else { return Resume::Here };
    let hcr = nested.hcr();
    let (elr, spsr) = syndrome::el1_return();
    let target = match authenticated(vcpu, kind, elr) {
        Ok(target) => target,
        Err(key) => {
            sync(vcpu, local, key.syndrome(), None);
            return Resume::Here;
        }
    };
    let tge = hcr.has(::nested::controls::hcr::TGE);
    let to = exception::eret(spsr, syndrome::spsr(), tge, hcr.hosts_el0());
    if !to.stays {
        super::switch::to_l2(vcpu, local);
    }
    // SAFETY: the exited vCPU is resident.
    unsafe { syndrome::set_elr(target) };
    // SAFETY: `eret` names EL1 or EL0 in AArch64.
    unsafe { syndrome::set_spsr(to.pstate) };
    if !to.stays {
        // What L1 left pending may take L2 back at once.
        super::lists::entered(vcpu, local);
    }
    Resume::Here
}
