//! One handler for each kind of exit. Handlers read and write the vCPU's registers and devices, and
//! return how the guest goes on; they touch neither its PC nor the hardware.

pub(crate) mod abort;
pub(crate) mod call;
pub(crate) mod control;
pub(crate) mod copy;
pub(crate) mod idregs;
pub(crate) mod interrupt;
pub(crate) mod maintenance;
pub(crate) mod mmio;
pub(crate) mod serror;
pub(crate) mod sysreg;
pub(crate) mod tags;

use crate::cpu::Local;
use crate::log;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use trap::{Exit, WaitKind};

/// What a handler decides.
pub(crate) type Outcome = Result<Resume, GuestFault>;

/// Hands an exit to its handler.
#[inline(always)]
pub(crate) fn dispatch(vcpu: &mut Vcpu, local: &mut Local, exit: Exit) -> Outcome {
    match exit {
        Exit::Hvc { imm } => call::hvc(vcpu, local, imm),
        Exit::Smc { imm } => call::smc(vcpu, local, imm),
        Exit::Sysreg(access) => sysreg::access(vcpu, local, access),
        Exit::DataAbort(abort) => abort::data(vcpu, local, abort),
        Exit::Wfx(wait) => {
            vcpu.shared.exits.waits.bump();
            Ok(match wait.kind {
                WaitKind::Interrupt => Resume::Wait,
                // A time-out may come early: the wait ends at once, after others had their turn.
                WaitKind::Event | WaitKind::InterruptTimeout | WaitKind::EventTimeout => Resume::Yield,
            })
        }
        Exit::Fp => fp(vcpu),
        Exit::InstructionAbort(abort) => abort::instruction(vcpu, local, abort),
        Exit::TagFault(fault) => abort::tag_fault(vcpu, local, &fault),
        Exit::SystemInstruction(access) => sysreg::instruction(vcpu, local, access),
        Exit::Sve => sve(vcpu),
        Exit::Sme { .. }
        | Exit::PAuth
        | Exit::Eret(_)
        | Exit::Bti
        | Exit::IllegalState
        | Exit::PcAlignment { .. }
        | Exit::SpAlignment
        | Exit::Debug(_)
        | Exit::MopsFault
        | Exit::Gcs
        | Exit::Ls64
        | Exit::Unknown { .. } => {
            // Hidden features: the instruction is undefined. Classes that never come from a trap of
            // ours get the same answer.
            vcpu.shared.exits.others.bump();
            Err(GuestFault::Undefined)
        }
        Exit::AArch32 { ec } => {
            vcpu.shared.exits.others.bump();
            if vcpu.vm.may_report() {
                log::warn!("{}: AArch32 state (class {ec:#x}), which no VM has: stopped", vcpu.vm.spec.name);
            }
            crate::vm::stop_for_fault(vcpu.vm);
            Ok(Resume::Leave)
        }
    }
}

/// The FP registers are another vCPU's, or the VM has none.
#[cold]
#[inline(never)]
fn fp(vcpu: &Vcpu) -> Outcome {
    vcpu.shared.exits.others.bump();
    if vcpu.ids.has_fp() { Ok(Resume::SwitchFp) } else { Err(GuestFault::Undefined) }
}

/// The first use of SVE, or SVE registers that are another vCPU's.
#[cold]
#[inline(never)]
fn sve(vcpu: &mut Vcpu) -> Outcome {
    vcpu.shared.exits.others.bump();
    if !vcpu.ids.has_sve() {
        return Err(GuestFault::Undefined);
    }
    vcpu.ask_for_sve();
    Ok(Resume::SwitchFp)
}
