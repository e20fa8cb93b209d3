//! What a handler decided, applied: the only place that moves a guest's PC or injects an exception.

use super::Vcpu;
use crate::arch::syndrome::{self, El1Exception};
use trap::inject::{El1Context, Exception, PstateFeatures, enter_el1, step_over};
use trap::{Level, SysregAccess};

/// How the guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Behind the instruction, which the handler carried out.
    Next,
    /// At the saved PC: HVC, whose return address is the next instruction anyway, or a retry.
    Here,
    /// Behind the instruction, when an interrupt is pending: WFI.
    Wait,
    /// Behind the instruction, after others had their turn: WFE, a yield.
    Yield,
    /// At the saved PC, when an interrupt is pending: CPU_SUSPEND by HVC.
    WaitHere,
    /// At the saved PC, with its FP registers loaded.
    SwitchFp,
    /// Behind the instruction, after a sweep through the VM's memory.
    Sweep,
    /// No more: the vCPU is off, or its VM is stopping.
    Leave,
}

/// The guest is to blame: it gets an exception at EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestFault {
    /// Undefined instruction.
    Undefined,
    /// The trapped access as FEAT_IDST reports it: class 0x18 at EL1.
    Sysreg(SysregAccess),
    /// Synchronous external abort at a data access; the details are in ESR_EL2 and FAR_EL2.
    ExternalDataAbort,
    /// Synchronous external abort at an instruction fetch.
    ExternalInstructionAbort,
    /// Synchronous external abort on the guest's own walk, at this level of its stage 1, for the data
    /// access or fetch that ESR_EL2 describes.
    ExternalAbortOnWalk(Level),
    /// A data abort of cache maintenance that was trapped before its address was translated, with this
    /// fault status code; the address is in the register that ESR_EL2 names.
    Maintenance(u8),
}

/// ISS of a data abort: WnR.
const WNR: u64 = 1 << 6;
/// ISS of a data abort: CM.
const CM: u64 = 1 << 8;
/// ISS of a data or instruction abort: FAR_EL2 is not valid.
const FNV: u64 = 1 << 10;

const _: () = assert!(size_of::<Result<Resume, GuestFault>>() <= 16);

/// Moves the PC over the instruction of the exit.
#[inline(always)]
pub(crate) fn advance(esr: u64) {
    const IL: u64 = 1 << 25;
    let stepped = step_over(syndrome::elr(), syndrome::spsr(), esr & IL != 0);
    // SAFETY: the exited vCPU is resident.
    unsafe { syndrome::set_elr(stepped.pc) };
    // SAFETY: the same EL and state as before.
    unsafe { syndrome::set_spsr(stepped.pstate) };
}

/// Lets the guest take `fault` at EL1.
#[cold]
#[inline(never)]
pub(crate) fn inject(vcpu: &Vcpu, fault: GuestFault, esr: u64) {
    let (vbar, sctlr) = syndrome::el1_vectors();
    let source = El1Context {
        pc: syndrome::elr(),
        pstate: syndrome::spsr(),
        vbar,
        sctlr,
        features: PstateFeatures { pan: true, ssbs: true, mte: vcpu.ids.has_mte(), nmi: false },
    };
    let va = (esr & FNV == 0).then(syndrome::far);
    let exception = match fault {
        GuestFault::Undefined => Exception::Undefined,
        GuestFault::Sysreg(access) => Exception::Sysreg(access),
        GuestFault::ExternalDataAbort => {
            Exception::DataAbort { va, write: esr & WNR != 0, cm: esr & CM != 0, walk: None }
        }
        GuestFault::ExternalInstructionAbort => Exception::InstructionAbort { va, walk: None },
        GuestFault::ExternalAbortOnWalk(level) => Exception::on_walk(esr, syndrome::far(), level),
        GuestFault::Maintenance(status) => {
            Exception::Maintenance { va: vcpu.regs.get(SysregAccess::new(esr).rt), status }
        }
    };
    let entry = enter_el1(&source, exception);
    let registers = El1Exception { elr: entry.elr, spsr: entry.spsr, esr: Some(entry.esr), far: entry.far };
    // SAFETY: the exited vCPU is resident.
    unsafe { syndrome::set_el1_exception(&registers) };
    // SAFETY: as above.
    unsafe { syndrome::set_elr(entry.pc) };
    // SAFETY: `enter_el1` names EL1h.
    unsafe { syndrome::set_spsr(entry.pstate) };
}
