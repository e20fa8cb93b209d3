//! TLB maintenance. Each function is complete: barriers before, so that table writes are seen, and
//! behind, so that no old translation is used afterwards.

use super::errata;
use super::sysreg::{instruction, mrs, msr, operation};
use ::errata::Workarounds;
use addr::{Canonical, Ipa, Va};
use nested::tlbi::{Pages, Stage1};

/// VTTBR_EL2.BADDR.
const BADDR: u64 = 0x0000_ffff_ffff_fffe;
/// Invalidations by address at most; beyond that, all of the VM's translations are forgotten.
const MOST_BY_ADDRESS: u64 = 16;

/// Translations of a guest that must go: of all IPAs from `start` to `end`, one invalidation for each
/// `step` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stale<S = Canonical> {
    /// First IPA, page-aligned.
    pub(crate) start: Ipa<S>,
    /// First IPA behind.
    pub(crate) end: Ipa<S>,
    /// Bytes that the smallest stale entry translates.
    pub(crate) step: u64,
}

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

/// Whether the stage 2 with this root (VTTBR_EL2 without VMID) is this CPU's.
pub(crate) fn is_resident(root: u64) -> bool {
    (mrs!("vttbr_el2") ^ root) & BADDR == 0
}

/// Forgets stale translations of the VM whose stage 2 is this CPU's, on all CPUs.
pub(crate) fn flush_resident_guest<S>(stale: Stale<S>) {
    let Stale { start, end, step } = stale;
    let (start, end) = (start.get(), end.get());
    instruction!("dsb ishst");
    if end.wrapping_sub(start).wrapping_div(step.max(1)) > MOST_BY_ADDRESS {
        broadcast(|| instruction!("tlbi vmalls12e1is"));
    } else {
        broadcast(|| {
            let mut at = start;
            while at < end {
                // TLBI IPAS2E1IS: IPA[47:12] in the low bits, no hint of the level.
                operation!("tlbi ipas2e1is", at >> 12);
                at = at.saturating_add(step);
            }
        });
        // Combined entries of both stages are not found by IPA (D8.17).
        broadcast(|| instruction!("tlbi vmalle1is"));
    }
    instruction!("isb");
}

/// Forgets stale translations of another VM, whose whole VTTBR_EL2 is `vttbr`, on all CPUs. The caller
/// makes sure that the VMID stays that VM's.
pub(crate) fn flush_other_guest<S>(vttbr: u64, stale: Stale<S>) {
    with_vttbr(vttbr, || flush_resident_guest(stale));
}

/// Forgets all translations of the guest whose whole VTTBR_EL2 is `vttbr`, on all CPUs. The caller makes
/// sure that the VMID stays that guest's.
pub(crate) fn flush_all_of(vttbr: u64) {
    with_vttbr(vttbr, || {
        instruction!("dsb ishst");
        broadcast(|| instruction!("tlbi vmalls12e1is"));
    });
}

/// The same for some translations of its stage 1.
pub(crate) fn flush_stage1_of(vttbr: u64, what: Stage1) {
    with_vttbr(vttbr, || {
        instruction!("dsb ishst");
        broadcast(|| match what {
            Stage1::Asid(asid) => operation!("tlbi aside1is", u64::from(asid) << 48),
            Stage1::Pages(Pages { first, count, stride, asid }) if count <= MOST_BY_ADDRESS => {
                for page in 0..count {
                    // VA[55:12] in the low bits, no hint of the level.
                    let page = first.wrapping_add(page.wrapping_mul(stride)) & 0x0fff_ffff_ffff;
                    match asid {
                        Some(asid) => operation!("tlbi vae1is", page | u64::from(asid) << 48),
                        None => operation!("tlbi vaae1is", page),
                    }
                }
            }
            Stage1::All | Stage1::Pages(_) => instruction!("tlbi vmalle1is"),
        });
    });
}

/// Runs `invalidate` with another guest's VTTBR_EL2 in place.
fn with_vttbr(vttbr: u64, invalidate: impl FnOnce()) {
    let own = mrs!("vttbr_el2");
    // EL2 does not translate by it, and no guest is entered before it is restored.
    msr!("vttbr_el2", vttbr);
    instruction!("isb");
    invalidate();
    msr!("vttbr_el2", own);
    instruction!("isb");
}

/// Makes entries of a guest's map that were invalid before visible to the table walkers of all CPUs.
pub(crate) fn publish_guest() {
    instruction!("dsb ishst");
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
