//! What a tag access does where tags may not be stored: the region's `on-tag-access`.

use super::stop_for_fault;
use crate::arch::{syndrome, translate};
use crate::exit::Outcome;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use addr::Va;
use manifest::OnTagAccess;

/// A tag access to NoTagAccess memory.
pub(crate) fn tag_access(vcpu: &Vcpu, va: Va, access: &str) -> Outcome {
    let vm = vcpu.vm;
    // HPFAR_EL2 is not valid for this fault. If the guest's tables changed meanwhile, it retries.
    let Some(ipa) = translate::guest_ipa(va) else { return Ok(Resume::Here) };
    let region = vm.spec.regions.iter().find(|r| r.ipa.contains(ipa));
    let policy = region.map_or(OnTagAccess::Stop, |r| r.on_tag_access);
    if vm.may_report() {
        log::warn!(
            "{}/{}: {access} without tag storage: PC {:#x}, VA {va}, IPA {ipa}, region {}: {}",
            vm.spec.name,
            vcpu.id,
            syndrome::elr(),
            region.map_or("(none)", |r| &r.name),
            match policy {
                OnTagAccess::Stop => "stopped",
                OnTagAccess::Inject => "external abort",
                OnTagAccess::Report => "stopped, because nobody decides yet",
            }
        );
    }
    match policy {
        OnTagAccess::Inject => Err(GuestFault::ExternalDataAbort),
        OnTagAccess::Stop | OnTagAccess::Report => {
            stop_for_fault(vm);
            Ok(Resume::Leave)
        }
    }
}
