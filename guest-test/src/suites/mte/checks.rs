//! Tag checks: synchronous, asynchronous, asymmetric, at EL1 and EL0.

use super::{granule, needs};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::exception::{EC_DABT_EL0, EC_DABT_EL1, EC_SVC, FSC_TAG_CHECK, Fault, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, scratch, write64};
use crate::rt::mmu::{tagged, user};
use crate::rt::mte::*;
use crate::rt::{cpu, el0, mem};
use core::arch::global_asm;
use core::sync::atomic::Ordering::Relaxed;

pub(super) fn tag_fault(fault: Option<Fault>, va: u64, write: bool) -> Outcome {
    let Some(fault) = fault else {
        check!(false, "no tag check fault at {va:#x}");
        return Ok(());
    };
    check_eq!((fault.ec(), fault.fsc()), (EC_DABT_EL1, FSC_TAG_CHECK), "EC and DFSC");
    check_eq!(fault.write(), write, "WnR");
    // FAR[63:60] is unknown for a tag check fault unless FEAT_MTE_TAGGED_FAR.
    check_eq!(fault.far << 4, va << 4, "FAR");
    Ok(())
}

pub(super) fn sync_load(_: &Machine) -> Outcome {
    needs(2)?;
    let va = with_tag(granule(0, 5, 0x1111), 4);
    set_tco(false);
    set_checks(1, 0);
    let fault = expect_fault(|| {
        read64(va);
    });
    set_checks(0, 0);
    tag_fault(fault, va, false)
}

pub(super) fn sync_store(_: &Machine) -> Outcome {
    needs(2)?;
    let va = granule(0, 5, 0x1111);
    set_tco(false);
    set_checks(1, 0);
    let fault = expect_fault(|| write64(with_tag(va, 6), 0x2222));
    set_checks(0, 0);
    check_eq!(read64(va), 0x1111, "content after a store that failed");
    tag_fault(fault, with_tag(va, 6), true)
}

pub(super) fn sync_matches(_: &Machine) -> Outcome {
    needs(2)?;
    set_tco(false);
    set_checks(1, 0);
    let fault = expect_fault(|| {
        for tag in 0..16 {
            let va = granule(0, tag, tag);
            read64(va);
            write64(va, 1);
        }
    });
    set_checks(0, 0);
    check!(fault.is_none(), "a matching access faults: {fault:x?}");
    Ok(())
}

/// One load and one store with the wrong tag under `mode`; the first fault, and TFSR_EL1.TF0.
pub(super) fn mismatches(mode: u64, load: bool, store: bool) -> (Option<Fault>, u64) {
    let va = with_tag(granule(0, 5, 0x1111), 4);
    set_tco(false);
    msr!("tfsr_el1", 0);
    set_checks(mode, 0);
    let fault = expect_fault(|| {
        if load {
            read64(va);
        }
        if store {
            write64(va, 0x2222);
        }
    });
    set_checks(0, 0);
    mem::barrier();
    let tfsr = mrs!("tfsr_el1");
    msr!("tfsr_el1", 0);
    (fault, tfsr)
}

pub(super) fn async_el1(_: &Machine) -> Outcome {
    needs(2)?;
    for (load, store) in [(true, false), (false, true)] {
        let (fault, tfsr) = mismatches(2, load, store);
        check!(fault.is_none(), "an asynchronous fault is taken: {fault:x?}");
        check_eq!(tfsr, 1, "TFSR_EL1");
    }
    check_eq!(mismatches(2, false, false).1, 0, "TFSR_EL1 without accesses");
    Ok(())
}

pub(super) fn asymmetric_el1(_: &Machine) -> Outcome {
    needs(3)?;
    let (fault, tfsr) = mismatches(3, true, false);
    check!(fault.is_some_and(|f| f.fsc() == FSC_TAG_CHECK && !f.write()), "the load: {fault:x?}");
    check_eq!(tfsr, 0, "TFSR_EL1 after the load");
    let (fault, tfsr) = mismatches(3, false, true);
    check!(fault.is_none(), "the store: {fault:x?}");
    check_eq!(tfsr, 1, "TFSR_EL1 after the store");
    Ok(())
}

pub(super) fn override_tco(_: &Machine) -> Outcome {
    needs(2)?;
    let va = with_tag(granule(0, 5, 0), 4);
    set_checks(1, 0);
    set_tco(true);
    let fault = expect_fault(|| write64(va, 3));
    set_tco(false);
    set_checks(0, 0);
    check!(fault.is_none(), "a fault although PSTATE.TCO is 1");
    Ok(())
}

/// Exceptions set PSTATE.TCO, also those that a hypervisor emulates, and SPSR keeps the old value.
pub(super) fn tco_in_handler(machine: &Machine) -> Outcome {
    needs(2)?;
    let absent = machine.absent();
    for old in [false, true] {
        set_tco(old);
        let abort = expect_fault(|| {
            read64(absent);
        });
        let kept = tco();
        set_tco(false);
        check_eq!(kept, old, "TCO after an abort");
        check_eq!(abort.map(|f| f.spsr >> 25 & 1), Some(u64::from(old)), "SPSR_EL1.TCO of an abort");
        check_eq!(cpu::this().handler_tco.load(Relaxed), true, "TCO in the handler");
    }
    Ok(())
}

unsafe extern "C" {
    fn mte_el0_load();
    fn mte_el0_store();
    fn mte_el0_tags();
}

const NO_ARGS: [u64; 8] = [0; 8];

pub(super) fn at_el0(mode: u64, stub: unsafe extern "C" fn()) -> (el0::Left, u64) {
    granule(0, 5, 0x1111);
    let va = with_tag(user(scratch(0)), 4);
    msr!("tfsre0_el1", 0);
    set_checks(0, mode);
    let mut args = NO_ARGS;
    args[0] = va;
    let left = el0::run(stub, args);
    set_checks(0, 0);
    mem::barrier();
    let tfsre0 = mrs!("tfsre0_el1");
    msr!("tfsre0_el1", 0);
    (left, tfsre0)
}

pub(super) fn sync_el0(_: &Machine) -> Outcome {
    needs(2)?;
    for (stub, write) in [(mte_el0_load as unsafe extern "C" fn(), 0), (mte_el0_store, 1)] {
        let (left, tfsre0) = at_el0(1, stub);
        check_eq!((left.ec(), left.esr & 0x3f), (EC_DABT_EL0, FSC_TAG_CHECK), "EC and DFSC");
        check_eq!(left.esr >> 6 & 1, write, "WnR");
        check_eq!(left.far << 4, user(scratch(0)) << 4 | 4 << 60, "FAR");
        check_eq!(tfsre0, 0, "TFSRE0_EL1");
    }
    Ok(())
}

pub(super) fn async_el0(_: &Machine) -> Outcome {
    needs(2)?;
    for stub in [mte_el0_load as unsafe extern "C" fn(), mte_el0_store] {
        let (left, tfsre0) = at_el0(2, stub);
        check_eq!(left.ec(), EC_SVC, "EC");
        check_eq!(tfsre0, 1, "TFSRE0_EL1");
        let (left, tfsre0) = at_el0(0, stub);
        check_eq!((left.ec(), tfsre0), (EC_SVC, 0), "EC and TFSRE0_EL1 without checks");
    }
    Ok(())
}

pub(super) fn asymmetric_el0(_: &Machine) -> Outcome {
    needs(3)?;
    let (left, tfsre0) = at_el0(3, mte_el0_load);
    check_eq!((left.ec(), left.esr & 0x3f, tfsre0), (EC_DABT_EL0, FSC_TAG_CHECK, 0), "the load");
    let (left, tfsre0) = at_el0(3, mte_el0_store);
    check_eq!((left.ec(), tfsre0), (EC_SVC, 1), "the store");
    Ok(())
}

pub(super) fn tags_at_el0(_: &Machine) -> Outcome {
    needs(2)?;
    let (left, _) = at_el0(0, mte_el0_tags);
    check_eq!(left.ec(), EC_SVC, "EC");
    check_eq!(tag_of(left.x[1]), 5, "the tag that EL0 loaded");
    check_eq!(tag_of(left.x[2]), 4, "the tag that EL0 stored");
    check_eq!(ldg(tagged(scratch(0))), 4, "the tag that EL1 sees");
    Ok(())
}

global_asm!(
    r#"
    .arch_extension memtag
    .section .user, "ax"
    .globl  mte_el0_load
mte_el0_load:
    ldr     x1, [x0]
    svc     #0
    .globl  mte_el0_store
mte_el0_store:
    str     x1, [x0]
    svc     #0
    .globl  mte_el0_tags
mte_el0_tags:
    ldg     x1, [x0]
    stg     x0, [x0]
    ldg     x2, [x0]
    svc     #0
    .text
"#
);
