//! Exits from L2: what L1 asked for goes to vEL2, all else is as for any VM.

use super::abort::{self, Reply};
use super::exit::Answer;
use super::{Nested, lists, take};
use crate::arch::syndrome;
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use ::nested::controls::{self, MDCR_TDE, hcr};
use ::nested::route::Controls;
use ::nested::{fine, page};
use trap::{Exit, SysregAccess, WaitKind};

/// What an exit of L2's is.
enum Owner {
    /// L1 trapped it: the exception is vEL2's.
    L1,
    /// L0 handles it as for any VM.
    L0,
}

/// Hands an exit of L2 to its handler.
pub(super) fn dispatch(vcpu: &mut Vcpu, local: &mut Local, exit: Exit, esr: u64) -> Answer {
    let nested = vcpu.nested.as_ref()?;
    if let Owner::L1 = owner(nested, exit) {
        let esr = if let Exit::Sve = exit { nested.sve_trap().unwrap_or(esr) } else { esr };
        count(vcpu, exit);
        take::sync(vcpu, local, esr, far(exit));
        return Some(Ok(Resume::Here));
    }
    let reply = if let Exit::DataAbort(abort) = exit {
        abort::data(vcpu, abort)
    } else if let Exit::InstructionAbort(abort) = exit {
        abort::instruction(vcpu, abort)
    } else if let Exit::TagFault(fault) = exit {
        abort::tag(vcpu, &fault)
    } else {
        if matches!(exit, Exit::Sysreg(_)) {
            lists::lend(vcpu, local);
        }
        return None;
    };
    match reply {
        Reply::L0 => {
            lists::lend(vcpu, local);
            None
        }
        Reply::Done(outcome) => {
            vcpu.shared.exits.aborts.bump();
            Some(outcome)
        }
        Reply::L1 { esr, hpfar } => {
            vcpu.shared.exits.aborts.bump();
            take::stage2(vcpu, local, esr, syndrome::far(), hpfar);
            Some(Ok(Resume::Here))
        }
    }
}

fn owner(nested: &Nested, exit: Exit) -> Owner {
    let hcr = nested.hcr();
    let claimed = match exit {
        Exit::Hvc { .. } => true,
        Exit::Smc { .. } => hcr.has(hcr::TSC),
        Exit::Sysreg(access) | Exit::SystemInstruction(access) => nested.claims(access),
        Exit::Wfx(wait) => match wait.kind {
            WaitKind::Interrupt | WaitKind::InterruptTimeout => hcr.has(hcr::TWI),
            WaitKind::Event | WaitKind::EventTimeout => hcr.has(hcr::TWE),
        },
        Exit::Fp => controls::traps_fp(nested.cptr(), nested.vhe),
        Exit::PAuth => !hcr.has(hcr::API),
        Exit::Debug(_) => nested.regs.mdcr & MDCR_TDE != 0,
        Exit::Eret(_) => nested.traps_instruction(fine::ERET),
        Exit::Unknown { ec, .. } => ec == trap::class::SVC && nested.traps_instruction(fine::SVC),
        Exit::DataAbort(abort) => abort.kind().is_external() && hcr.has(hcr::TEA),
        Exit::InstructionAbort(abort) => abort.kind().is_external() && hcr.has(hcr::TEA),
        Exit::Sve => nested.sve_trap().is_some(),
        Exit::TagFault(_)
        | Exit::Sme { .. }
        | Exit::Bti
        | Exit::IllegalState
        | Exit::PcAlignment { .. }
        | Exit::SpAlignment
        | Exit::AArch32 { .. }
        | Exit::MopsFault
        | Exit::Gcs
        | Exit::Ls64 => false,
    };
    if claimed { Owner::L1 } else { Owner::L0 }
}

/// FAR_EL2, for the classes that define it.
fn far(exit: Exit) -> Option<u64> {
    matches!(exit, Exit::DataAbort(_) | Exit::InstructionAbort(_) | Exit::Debug(_)).then(syndrome::far)
}

fn count(vcpu: &Vcpu, exit: Exit) {
    let exits = &vcpu.shared.exits;
    if matches!(exit, Exit::Hvc { .. } | Exit::Smc { .. }) {
        exits.calls.bump();
    } else if matches!(exit, Exit::Sysreg(_) | Exit::SystemInstruction(_)) {
        exits.sysregs.bump();
    } else {
        exits.others.bump();
    }
}

impl Nested {
    /// Whether L1 has one of these bits of HFGITR_EL2.
    #[cold]
    #[inline(never)]
    fn traps_instruction(&self, bits: u64) -> bool {
        self.fine().instruction & bits != 0
    }

    /// Whether L1 traps this access of L2's.
    #[inline(never)]
    fn claims(&self, access: SysregAccess) -> bool {
        let controls = Controls {
            hcr: self.hcr(),
            mdcr: self.offered.mdcr(self.regs.mdcr),
            cptr: self.cptr(),
            cnthctl: self.cnthctl(),
            ich_hcr: self.page.get(page::ICH_HCR_EL2),
            hcrx: self.hcrx(),
            fine: self.fine(),
            mte: self.mte,
        };
        controls.claim(access)
    }
}

/// Whether an external abort that L0 has for L2 is L1's to hear of (HCR_EL2.TEA).
pub(super) fn external_abort_is_l1s(vcpu: &Vcpu, fault: GuestFault) -> bool {
    /// ESR_ELx.DFSC of a synchronous external abort.
    const EXTERNAL: u8 = 0x10;
    let external = matches!(
        fault,
        GuestFault::ExternalDataAbort
            | GuestFault::ExternalInstructionAbort
            | GuestFault::Maintenance(EXTERNAL)
    );
    external && vcpu.nested.as_ref().is_some_and(|n| n.in_l2 && n.hcr().has(hcr::TEA))
}

/// The syndrome of a stage-2 fault, or of a trap of cache maintenance, as that of an external abort at the
/// same access.
pub(super) fn external_abort(fault: GuestFault, esr: u64) -> u64 {
    /// WnR and CM.
    const KEPT: u64 = 1 << 6 | 1 << 8;
    const IL: u64 = 1 << 25;
    const SYNCHRONOUS_EXTERNAL: u64 = 0x10;
    let class = if fault == GuestFault::ExternalInstructionAbort {
        u64::from(trap::class::INSTRUCTION_ABORT) << 26
    } else {
        // Of trapped maintenance the syndrome is that of the trap.
        let kept = if fault == GuestFault::ExternalDataAbort { esr & KEPT } else { KEPT };
        u64::from(trap::class::DATA_ABORT) << 26 | kept
    };
    class | IL | SYNCHRONOUS_EXTERNAL
}
