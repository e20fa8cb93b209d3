//! Tags of a guest's memory: as far as EL2's stage 2 and HCR_EL2.ATA let it have them.

use super::super::nested::{guest_code, need_el2};
use super::tables::{NESTED, PAGE, READ, Stage2, WRITE, data};
use super::{EC_DABT, EC_HVC, FWB, PERMISSION, VM, el1_with_map, load64, run_as};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mmu::WINDOW;
use crate::rt::smccc::tagvisor;
use crate::rt::{mte, sysreg};

guest_code! {
    /// Tags the granule at x1.
    stg "stg x1, [x1]";
    /// Tags the granule at x1 and the next one.
    st2g "st2g x1, [x1]";
    /// Loads the tag of the granule at x1.
    ldg "ldg x0, [x1]";
}

/// A tagged address of the guest for `ipa`, with logical tag 5.
pub(super) fn tagged(ipa: u64) -> u64 {
    mte::with_tag(ipa + 2 * WINDOW, 5)
}

pub(super) fn tags(_: &Machine) -> Outcome {
    need_el2!();
    if mte::level() < 2 {
        skip!("no memory tags");
    }
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ | WRITE);
    // Normal write-back whose tags may not be accessed, without FWB.
    stage2.leaf_with(NESTED + PAGE, data(1) | READ | WRITE, 0b0100);
    stage2.forget();
    const ATA: u64 = 1 << 56;
    let go = |code, ipa| run_as(&el1_with_map(), &stage2, VM | ATA, code, 0, tagged(ipa));
    for (code, ipa) in [(stg(), NESTED), (ldg(), NESTED)] {
        let (exit, guest) = go(code, ipa);
        check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "backed: ESR {:#x}", guest.esr);
    }
    check_eq!(mte::ldg(data(0) + 2 * WINDOW), 5, "the tag that was stored");
    if sysreg::field(mrs!("s3_0_c0_c4_2"), 0) == 0 || !tagvisor() {
        skip!("no FEAT_MTE_PERM, or one whose syndromes are not those of the manual");
    }
    for (code, write) in [(stg(), true), (ldg(), false)] {
        let (exit, guest) = go(code, NESTED + PAGE);
        check_eq!((exit, guest.ec()), (Exit::Sync, EC_DABT), "no tags: ESR {:#x}", guest.esr);
        check_eq!(guest.esr >> 41 & 1, 1, "TagAccess, ESR {:#x}", guest.esr);
        check_eq!(guest.esr & 0x3f, PERMISSION | 3, "status");
        check_eq!(guest.esr >> 6 & 1 != 0, write, "WnR");
        check_eq!(guest.hpfar, (NESTED + PAGE) >> 12 << 4, "HPFAR_EL2");
    }
    // Unchecked, by the window without tags.
    let (exit, guest) = run_as(&el1_with_map(), &stage2, VM | ATA, load64(), 0, NESTED + PAGE);
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "unchecked: ESR {:#x}", guest.esr);
    Ok(())
}

/// What EL2 has just allowed is not taken for what lies behind it, which it forbids still.
pub(super) fn end_of_page(_: &Machine) -> Outcome {
    need_el2!();
    if mte::level() < 2 {
        skip!("no memory tags");
    }
    if sysreg::field(mrs!("s3_0_c0_c4_2"), 0) == 0 || !tagvisor() {
        skip!("no FEAT_MTE_PERM, or one whose syndromes are not those of the manual");
    }
    const ATA: u64 = 1 << 56;
    const NO_TAGS: u64 = 0b0100;
    let stage2 = Stage2::new(0, 1);
    for n in 0..2 {
        stage2.leaf_with(NESTED + n * PAGE, data(n) | READ | WRITE, NO_TAGS);
    }
    stage2.forget();
    // Now it is in TLBs.
    let (exit, guest) = run_as(&el1_with_map(), &stage2, VM | ATA, load64(), 0, NESTED + PAGE - 16);
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "unchecked: ESR {:#x}", guest.esr);
    let go = |code| run_as(&el1_with_map(), &stage2, VM | ATA, code, 0, tagged(NESTED + PAGE - 16));
    stage2.page(NESTED, data(0), READ | WRITE);
    // As if another CPU had not invalidated yet: this may still fault, but for this page.
    let (exit, guest) = go(stg());
    if guest.ec() != EC_HVC {
        check_eq!((exit, guest.ec()), (Exit::Sync, EC_DABT), "STG: ESR {:#x}", guest.esr);
        check_eq!(guest.hpfar, NESTED >> 12 << 4, "HPFAR_EL2 of STG to a page's last granule");
    }
    stage2.forget_page(NESTED);
    let (exit, guest) = go(stg());
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "STG afterwards: ESR {:#x}", guest.esr);
    check_eq!(mte::ldg(data(0) + PAGE - 16 + 2 * WINDOW), 5, "the tag");
    // One that goes on is the next page's fault.
    let (exit, guest) = go(st2g());
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_DABT), "ST2G: ESR {:#x}", guest.esr);
    check_eq!(guest.hpfar, (NESTED + PAGE) >> 12 << 4, "HPFAR_EL2 of ST2G across pages");
    Ok(())
}

/// HCR_EL2.ATA clear: no fault, and the tag stays.
pub(super) fn tag_blind(_: &Machine) -> Outcome {
    need_el2!();
    if mte::level() < 2 {
        skip!("no memory tags");
    }
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ | WRITE);
    stage2.forget();
    mte::stg(mte::with_tag(data(0) + 2 * WINDOW, 9));
    let mut guest = Guest::new(stg());
    guest.x[1] = tagged(NESTED);
    let exit = at_el2(|| {
        stage2.install();
        with_guest(&el1_with_map(), VM, 1 << 56, || el2::enter(&mut guest))
    });
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "ESR {:#x}", guest.esr);
    check_eq!(mte::ldg(data(0) + 2 * WINDOW), 9, "the tag");
    Ok(())
}

/// Write-back without HCR_EL2.FWB, "as stage 1 says, without tags" with it: one leaf, and what EL2 has set
/// decides.
pub(super) fn one_leaf_two_meanings(_: &Machine) -> Outcome {
    need_el2!();
    if mte::level() < 2 || sysreg::field(mrs!("s3_0_c0_c4_2"), 0) == 0 || !tagvisor() {
        skip!("no FEAT_MTE_PERM, or one whose syndromes are not those of the manual");
    }
    if sysreg::field(mrs!("id_aa64mmfr2_el1"), 40) == 0 {
        skip!("no FEAT_S2FWB");
    }
    const ATA: u64 = 1 << 56;
    let stage2 = Stage2::new(0, 1);
    stage2.leaf_with(NESTED, data(0) | READ | WRITE, 0b1111);
    // With FWB the guest's code and tables have to be write-back, too.
    stage2.forget();
    mte::stg(mte::with_tag(data(0) + 2 * WINDOW, 3));
    for round in 0..3 {
        for (fwb, allowed) in [(0, true), (FWB, false)] {
            // TLBs may keep HCR_EL2.FWB.
            stage2.forget();
            let (exit, guest) = run_as(&el1_with_map(), &stage2, VM | ATA | fwb, stg(), 0, tagged(NESTED));
            let want = if allowed { EC_HVC } else { EC_DABT };
            check_eq!((exit, guest.ec()), (Exit::Sync, want), "{round}, FWB {fwb:#x}: ESR {:#x}", guest.esr);
            if !allowed {
                check_eq!(guest.esr >> 41 & 1, 1, "TagAccess, ESR {:#x}", guest.esr);
                check_eq!(guest.esr & 0x3f, PERMISSION | 3, "status");
            }
        }
    }
    check_eq!(mte::ldg(data(0) + 2 * WINDOW), 5, "the tag that was stored");
    Ok(())
}
