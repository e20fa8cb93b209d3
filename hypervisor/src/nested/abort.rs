//! Aborts of L2: stage 2 has no translation, or one that forbids the access.
//!
//! The shadow is filled, or L1 gets the fault that its own stage 2 would have given; and what L1 allows
//! but the VM itself has not is handled as if L1 had accessed it: an emulated device, the region's
//! policy, an external abort.
#![allow(dead_code, reason = "virtual EL2 is about to use it")]

use super::mmu::{self, Handled};
use crate::arch::syndrome;
use crate::arch::translate::{self, For};
use crate::cpu::Local;
use crate::exit::{Outcome, abort};
use crate::vcpu::Vcpu;
use crate::vcpu::apply::Resume;
use addr::{Ipa, Nested, Va};
use nested::fault::Attempt;
use nested::stage2::{Access, Fault, Privilege};
use trap::{DataAbort, FaultKind, InstructionAbort, TagAccess, TagFault};

/// What becomes of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// L0 has handled it: how L2 goes on.
    L0(Outcome),
    /// L1 takes it, with this ESR_EL2 and HPFAR_EL2. FAR_EL2 is the hardware's.
    L1 {
        /// ESR_EL2: the hardware's, with status and level of L1's own walk.
        esr: u64,
        /// HPFAR_EL2.
        hpfar: u64,
    },
}

/// ISS.ISV and what is valid with it.
const INSTRUCTION_SYNDROME: u64 = 0x7ff << 14;
/// ISS.DFSC, IFSC.
const STATUS: u64 = 0x3f;
/// ISS2.TagAccess.
const TAG_ACCESS: u64 = 1 << 41;

/// L1 takes `fault` for the address `ipa`, where the hardware said `esr`.
fn reflect(esr: u64, fault: Fault, ipa: Ipa<Nested>) -> Reply {
    let mut esr = esr & !STATUS | u64::from(fault.status_code());
    if fault.kind == nested::stage2::FaultKind::External {
        // Such an abort does not describe the instruction.
        esr &= !INSTRUCTION_SYNDROME;
    }
    Reply::L1 { esr, hpfar: ipa.get() >> 12 << 4 }
}

/// Whether stage 2 itself faulted, rather than the bus.
fn is_stage_2(kind: FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::Translation(_)
            | FaultKind::AccessFlag(_)
            | FaultKind::Permission(_)
            | FaultKind::AddressSize(_)
    )
}

/// L2's address behind `va`, which stage 1 of L2 has just translated.
fn address(vcpu: &Vcpu, va: Va, access: For) -> Result<Ipa<Nested>, Reply> {
    match translate::guest_ipa(va, access) {
        Ok(ipa) => Ok(Ipa::new(ipa.get())),
        Err(why) => Err(Reply::L0(abort::without_address(vcpu, va, why))),
    }
}

/// A data abort of L2, which is not about tags.
pub(crate) fn data(vcpu: &mut Vcpu, local: &mut Local, mut abort: DataAbort) -> Reply {
    let (Some(nested), Some(slot)) = (&vcpu.vm.nested, vcpu.l2()) else {
        return Reply::L0(abort::data(vcpu, local, abort));
    };
    if !is_stage_2(abort.kind()) {
        return Reply::L0(abort::data(vcpu, local, abort));
    }
    let permission = matches!(abort.kind(), FaultKind::Permission(_));
    // A walk reads tables, unless what it lacks is a permission: then it updates one. Cache maintenance
    // always reports a write, but needs more than to read only to invalidate.
    let indirect = abort.s1ptw() || abort.cm();
    let write = abort.write() && (permission || !indirect);
    let ipa = match abort.ipa {
        Some(ipa) => Ipa::new(ipa.get()),
        None => match address(vcpu, abort.va, For::exited(write && !abort.cm())) {
            Ok(ipa) => ipa,
            Err(reply) => return reply,
        },
    };
    let access = if write { Access::Write } else { Access::Read };
    match mmu::fault(vcpu.vm, nested, slot, ipa, Attempt { access, tag: false }) {
        Handled::Again => Reply::L0(Ok(Resume::Here)),
        Handled::L1(fault, ipa) => reflect(abort.esr(), fault, ipa),
        Handled::L1Tag(fault, ipa) => reflect(abort.esr() | TAG_ACCESS, fault, ipa),
        Handled::Own(own) | Handled::OwnTag(own) => {
            abort.ipa = Some(own);
            Reply::L0(abort::data(vcpu, local, abort))
        }
    }
}

/// An instruction abort of L2.
pub(crate) fn instruction(vcpu: &Vcpu, mut abort: InstructionAbort) -> Reply {
    let (Some(nested), Some(slot)) = (&vcpu.vm.nested, vcpu.l2()) else {
        return Reply::L0(abort::instruction(vcpu, abort));
    };
    if !is_stage_2(abort.kind()) {
        return Reply::L0(abort::instruction(vcpu, abort));
    }
    let ipa = match abort.ipa {
        Some(ipa) => Ipa::new(ipa.get()),
        // Stage 1 lets it be executed; whether it may be read too is not known, and not needed: PAR_EL1
        // has the address only if it may. Where it may not, execute-only memory is L2's own affair.
        None => match address(vcpu, abort.va, For::exited(false)) {
            Ok(ipa) => ipa,
            Err(reply) => return reply,
        },
    };
    let el0 = syndrome::spsr() & 0b1100 == 0;
    let access = match abort.s1ptw() {
        true => Access::Read,
        false => Access::Execute(if el0 { Privilege::El0 } else { Privilege::El1 }),
    };
    match mmu::fault(vcpu.vm, nested, slot, ipa, Attempt { access, tag: false }) {
        Handled::Again => Reply::L0(Ok(Resume::Here)),
        Handled::L1(fault, ipa) | Handled::L1Tag(fault, ipa) => reflect(abort.esr(), fault, ipa),
        Handled::Own(own) | Handled::OwnTag(own) => {
            abort.ipa = Some(own);
            Reply::L0(abort::instruction(vcpu, abort))
        }
    }
}

/// A tag access of L2 where a stage 2 forbids it.
pub(crate) fn tag(vcpu: &Vcpu, fault: &TagFault) -> Reply {
    let (Some(nested), Some(slot)) = (&vcpu.vm.nested, vcpu.l2()) else {
        return Reply::L0(abort::tag_fault(vcpu, fault));
    };
    let write = fault.access == TagAccess::Write;
    let ipa = match address(vcpu, fault.va, For::exited(write)) {
        Ok(ipa) => ipa,
        Err(reply) => return reply,
    };
    let access = if write { Access::Write } else { Access::Read };
    match mmu::fault(vcpu.vm, nested, slot, ipa, Attempt { access, tag: true }) {
        Handled::Again => Reply::L0(Ok(Resume::Here)),
        Handled::L1Tag(denied, ipa) => reflect(fault.esr() | TAG_ACCESS, denied, ipa),
        // A permission that L1 does not grant at all comes before tags.
        Handled::L1(denied, ipa) => reflect(fault.esr() & !TAG_ACCESS, denied, ipa),
        Handled::Own(_) | Handled::OwnTag(_) => Reply::L0(abort::tag_fault(vcpu, fault)),
    }
}
