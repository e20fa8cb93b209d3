//! Stage-2 faults.

use super::{Outcome, maintenance, mmio};
use crate::arch::syndrome;
use crate::arch::translate::{self, NoAddress};
use crate::cpu::Local;
use crate::lock::Hot;
use crate::log;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use crate::vm::dirty;
use crate::vm::map::Access;
use addr::Va;
use core::fmt::Display;
use trap::{DataAbort, FaultKind, InstructionAbort, Level, TagFault};
use vmsa::walk::{self, Privilege};

/// A data abort: an emulated device, or memory that is not there or not so accessible. ISV is 0 on a
/// walk (Arm pseudocode, AArch64.FaultSyndrome), so that a guest's tables are never sought in a device.
#[inline(always)]
pub(crate) fn data(vcpu: &mut Vcpu, local: &mut Local, abort: DataAbort) -> Outcome {
    vcpu.shared.exits.aborts.bump();
    if abort.isv()
        && let (FaultKind::Translation(_), Some(ipa)) = (abort.kind(), abort.ipa)
        && mmio::emulate(vcpu, local, &abort, ipa)
    {
        return Ok(Resume::Next);
    }
    unhandled(vcpu, local, abort)
}

/// No device answers: the guest gets what a bus would give it, an external abort, unless the map was
/// changing, or the device answers later.
#[cold]
#[inline(never)]
fn unhandled(vcpu: &mut Vcpu, local: &Local, abort: DataAbort) -> Outcome {
    if core::mem::take(&mut vcpu.repeats) {
        return Ok(Resume::Here);
    }
    local.check_tags("abort");
    // If memory is there now, but may not be written, the next fault says so: the dirty log may have
    // protected it meanwhile.
    if let (FaultKind::Translation(_), Some(ipa)) = (abort.kind(), abort.ipa)
        && vcpu.vm.map.lock_hot().is_there(ipa, Access::Read)
    {
        return Ok(Resume::Here);
    }
    if let FaultKind::Permission(_) = abort.kind()
        && let Some(outcome) = dirty::store(vcpu, &abort)
    {
        return outcome;
    }
    if abort.s1ptw() {
        return Err(on_walk(vcpu, abort.va, walk::Access::Read));
    }
    if let Some(outcome) = maintenance::faulted(vcpu, &abort) {
        return outcome;
    }
    log::debug!(
        "{}/{}: data abort at {:#x}: VA {}, IPA {}, {}, ESR {:#x}",
        vcpu.name().0,
        vcpu.id,
        syndrome::elr(),
        abort.va,
        abort.ipa.as_ref().map_or(&"unknown" as &dyn Display, |ipa| ipa),
        if abort.write() { "write" } else { "read" },
        abort.esr()
    );
    Err(GuestFault::ExternalDataAbort)
}

/// An instruction fetch from where there is nothing to execute.
#[cold]
#[inline(never)]
pub(crate) fn instruction(vcpu: &Vcpu, local: &Local, abort: InstructionAbort) -> Outcome {
    local.check_tags("fetch");
    vcpu.shared.exits.aborts.bump();
    let access = if abort.s1ptw() { Access::Read } else { Access::Execute };
    if let (FaultKind::Translation(_), Some(ipa)) = (abort.kind(), abort.ipa)
        && vcpu.vm.map.lock_hot().is_there(ipa, access)
    {
        return Ok(Resume::Here);
    }
    if abort.s1ptw() {
        return Err(on_walk(vcpu, abort.va, walk::Access::Execute));
    }
    log::debug!("{}/{}: instruction abort: VA {}", vcpu.name().0, vcpu.id, abort.va);
    Err(GuestFault::ExternalInstructionAbort)
}

/// The guest's own walk reads a table that is not there, or hardware is to set the access flag or the
/// dirty state in a read-only one: what the guest would get of a bus, with the level of its own stage 1.
#[cold]
#[inline(never)]
fn on_walk(vcpu: &Vcpu, va: Va, access: walk::Access) -> GuestFault {
    let el0 = syndrome::spsr() & 0b1100 == 0;
    let privilege = if el0 { Privilege::El0 } else { Privilege::El1 };
    let level = walk::lookups(vcpu, &translate::regime(), va, privilege, access).level;
    log::debug!("{}/{}: abort on a walk for VA {va} at level {level}", vcpu.name().0, vcpu.id);
    GuestFault::ExternalAbortOnWalk(Level::from_low_bits(level))
}

/// The hardware found no address for `va`, which the guest just used: its tables changed meanwhile, and
/// it runs into that by itself; or they are where the bus does not answer.
#[cold]
pub(crate) fn without_address(vcpu: &Vcpu, va: Va, why: NoAddress) -> Outcome {
    match why {
        NoAddress::Fault(_) => Ok(Resume::Here),
        NoAddress::ExternalAbort(level) => {
            log::debug!("{}/{}: external abort on EL2's walk for VA {va}", vcpu.name().0, vcpu.id);
            Err(GuestFault::ExternalAbortOnWalk(level))
        }
    }
}

/// A tag access where tags may not be stored: the region's policy decides.
#[cold]
#[inline(never)]
pub(crate) fn tag_fault(vcpu: &mut Vcpu, local: &Local, fault: &TagFault) -> Outcome {
    // A CPU without FEAT_MTE has no such faults.
    local.check_tags_with_mte("tag-fault");
    vcpu.shared.exits.aborts.bump();
    crate::vm::fault::tag_access(vcpu, local, fault)
}
