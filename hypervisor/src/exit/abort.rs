//! Stage-2 faults.

use super::{Outcome, mmio};
use crate::arch::syndrome;
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use crate::vm::map::Access;
use trap::{DataAbort, FaultKind, InstructionAbort, TagAccess, TagFault};

/// A data abort: an emulated device, or memory that is not there or not so accessible.
#[inline(always)]
pub(crate) fn data(vcpu: &mut Vcpu, local: &mut Local, abort: DataAbort) -> Outcome {
    vcpu.shared.exits.aborts.bump();
    if abort.isv()
        && let (FaultKind::Translation(_), Some(ipa)) = (abort.kind(), abort.ipa)
        && mmio::emulate(vcpu, local, &abort, ipa)
    {
        return Ok(Resume::Next);
    }
    unhandled(vcpu, abort)
}

/// No device answers: the guest gets what a bus would give it, an external abort, unless the map was
/// changing.
#[cold]
#[inline(never)]
fn unhandled(vcpu: &Vcpu, abort: DataAbort) -> Outcome {
    // A walk by the guest's own tables loads descriptors: hardware updates of them are not offered.
    let access = if abort.write() && !abort.s1ptw() { Access::Write } else { Access::Read };
    if let (FaultKind::Translation(_), Some(ipa)) = (abort.kind(), abort.ipa)
        && vcpu.vm.map.lock().allows(ipa, access)
    {
        return Ok(Resume::Here);
    }
    if abort.cm() {
        // Cache maintenance of absent or read-only memory: nothing of the guest's is in a cache.
        return Ok(Resume::Next);
    }
    log::debug!(
        "{}/{}: data abort at {:#x}: VA {}, IPA {:?}, {}, ESR {:#x}",
        vcpu.name().0,
        vcpu.id,
        syndrome::elr(),
        abort.va,
        abort.ipa,
        if abort.write() { "write" } else { "read" },
        abort.esr()
    );
    Err(GuestFault::ExternalDataAbort)
}

/// An instruction fetch from where there is nothing to execute.
#[cold]
#[inline(never)]
pub(crate) fn instruction(vcpu: &Vcpu, abort: InstructionAbort) -> Outcome {
    vcpu.shared.exits.aborts.bump();
    let access = if abort.s1ptw() { Access::Read } else { Access::Execute };
    if let (FaultKind::Translation(_), Some(ipa)) = (abort.kind(), abort.ipa)
        && vcpu.vm.map.lock().allows(ipa, access)
    {
        return Ok(Resume::Here);
    }
    log::debug!("{}/{}: instruction abort: VA {}", vcpu.name().0, vcpu.id, abort.va);
    Err(GuestFault::ExternalInstructionAbort)
}

/// A tag access where tags may not be stored: the region's policy decides.
#[cold]
#[inline(never)]
pub(crate) fn tag_fault(vcpu: &Vcpu, fault: &TagFault) -> Outcome {
    vcpu.shared.exits.aborts.bump();
    let access = match fault.access {
        TagAccess::ReadOrChecked => "tag read or checked access",
        TagAccess::Write => "tag write",
    };
    crate::vm::fault::tag_access(vcpu, fault.va, access)
}
