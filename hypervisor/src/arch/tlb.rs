//! TLB maintenance. Each function is complete: barriers before, so that table writes are seen, and
//! behind, so that no old translation is used afterwards.

use super::errata;
use super::sysreg::{instruction, msr, operation};
use ::errata::Workarounds;
use addr::Va;

/// Invalidates on all CPUs and waits until that is done: twice, where a CPU's accesses by an old
/// translation may outlive the first wait.
fn broadcast(invalidate: impl Fn()) {
    invalidate();
    instruction!("dsb ish");
    if errata::in_use().contains(Workarounds::REPEAT_TLBI) {
        invalidate();
        instruction!("dsb ish");
    }
}

/// Forgets all translations of all VMIDs on all CPUs: before VMIDs are reused.
pub(crate) fn flush_all_vms() {
    instruction!("dsb ishst");
    broadcast(|| instruction!("tlbi alle1is"));
    instruction!("isb");
}

/// Forgets all stage-1 translations of the current VMID on this CPU: between two vCPUs of one VM,
/// which share the VMID but not the meaning of their ASIDs.
pub(crate) fn flush_local_stage1() {
    instruction!("tlbi vmalle1");
    instruction!("dsb nsh");
    instruction!("isb");
}

/// Forgets one page of EL2's own map on this CPU.
pub(crate) fn flush_el2_page_local(va: Va) {
    instruction!("dsb nshst");
    operation!("tlbi vae2", va.get() >> 12 & 0xfff_ffff_ffff);
    instruction!("dsb nsh");
    instruction!("isb");
}

/// Makes new entries of EL2's own map visible to the table walkers of all CPUs; for entries that were
/// invalid before, which no TLB holds.
pub(crate) fn publish_el2() {
    instruction!("dsb ishst");
    instruction!("isb");
}

/// Forgets all of EL2's own translations on all CPUs.
pub(crate) fn flush_el2() {
    instruction!("dsb ishst");
    broadcast(|| instruction!("tlbi alle2is"));
    instruction!("isb");
}

/// Makes `vttbr` the stage 2 of this CPU.
///
/// # Safety
/// `vttbr` and `vtcr` must describe the stage-2 tables of the VM that is entered next.
pub(crate) unsafe fn set_stage2(vttbr: u64, vtcr: u64) {
    msr!("vttbr_el2", vttbr);
    msr!("vtcr_el2", vtcr);
    instruction!("isb");
}
