//! What a tag access does where tags may not be stored: the region's `on-tag-access`.

use super::stop_for_fault;
use crate::arch::syndrome;
use crate::arch::translate::{self, For};
use crate::exit::{Outcome, abort};
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use addr::Va;
use manifest::OnTagAccess;

/// A tag access to NoTagAccess memory; `write`: to a tag.
pub(crate) fn tag_access(vcpu: &Vcpu, va: Va, access: &str, write: bool) -> Outcome {
    let vm = vcpu.vm;
    // HPFAR_EL2 is not valid for this fault, and stage 1 has allowed the access already.
    let ipa = match translate::guest_ipa(va, For::exited(write)) {
        Ok(ipa) => ipa,
        Err(why) => return abort::without_address(vcpu, va, why),
    };
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
