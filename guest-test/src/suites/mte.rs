//! Memory tagging: tags in memory, and checks that fail synchronously, asynchronously and both.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::exception::{EC_DABT_EL0, EC_DABT_EL1, EC_SVC, FSC_TAG_CHECK, Fault, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, scratch, write64};
use crate::rt::mmu::{MAIR_TAGGED, MAIR_UNTAGGED, set_mair, tagged, user};
use crate::rt::mte::*;
use crate::rt::timer::SECOND;
use crate::rt::{cpu, el0, mem, timer};
use core::arch::global_asm;
use core::sync::atomic::Ordering::Relaxed;

suite!(
    "mte",
    true,
    [
        fresh_tags_are_zero,
        all_memory_holds_tags,
        backed_regions,
        tag_each_granule,
        two_granules,
        zeroing_stores,
        blocks,
        dc_operations,
        irg_and_gcr,
        arithmetic,
        untagged_window,
        sync_load,
        sync_store,
        sync_matches,
        async_el1,
        asymmetric_el1,
        override_tco,
        tco_in_handler,
        sync_el0,
        async_el0,
        asymmetric_el0,
        tags_at_el0,
        tags_over_time,
        registers_over_time,
        on_every_cpu,
        off_tags_do_nothing,
        off_registers_undefined,
    ]
);

fn needs(wanted: u64) -> Outcome {
    match level() {
        have if have >= wanted => Ok(()),
        _ if wanted == 3 => skip!("no FEAT_MTE3"),
        _ => skip!("no FEAT_MTE2"),
    }
}

/// A granule of page `n` with allocation tag `tag` and content `value`.
fn granule(n: usize, tag: u64, value: u64) -> u64 {
    let va = with_tag(tagged(scratch(n)), tag);
    stg(va);
    write64(va, value);
    va
}

fn fresh_tags_are_zero(_: &Machine) -> Outcome {
    needs(2)?;
    for page in 0..mem::FRESH_PAGES {
        for offset in (0..4096).step_by(16) {
            let va = tagged(mem::fresh(page)) + offset;
            check_eq!(ldg(va), 0, "tag of fresh page {page} + {offset:#x}");
            check_eq!(read64(va), 0, "fresh page {page} + {offset:#x}");
        }
    }
    Ok(())
}

/// One granule in each 2 MiB of memory, except the payload's and the device tree's.
fn all_memory_holds_tags(machine: &Machine) -> Outcome {
    needs(2)?;
    let (first, end) = mem::image();
    for &(start, size) in &machine.memory[..machine.memory_count] {
        let granules = (start..start + size).step_by(2 << 20).map(|at| at + (2 << 20) - 4096);
        for at in granules.filter(|at| !(first..end).contains(at) && at.abs_diff(machine.tree) > 1 << 20) {
            let va = tagged(at);
            let old = ldg(va);
            stg(with_tag(va, old ^ 0xa));
            check_eq!(ldg(va), old ^ 0xa, "tag at {at:#x}");
            stg(with_tag(va, old));
        }
    }
    Ok(())
}

fn backed_regions(machine: &Machine) -> Outcome {
    needs(2)?;
    let mut found = false;
    for region in machine.regions().filter(|r| r.tags == "backed" && !r.read_only) {
        found = true;
        let va = tagged(region.start + region.size - 16);
        let old = ldg(va);
        stg(with_tag(va, old ^ 5));
        check_eq!(ldg(va), old ^ 5, "tag in region {}", region.name);
        stg(with_tag(va, old));
    }
    if !found {
        skip!("no such region");
    }
    Ok(())
}

fn tag_each_granule(_: &Machine) -> Outcome {
    needs(2)?;
    let base = tagged(scratch(0));
    for (n, at) in (base..base + 4096).step_by(16).enumerate() {
        stg(with_tag(at, n as u64 % 16));
    }
    for (n, at) in (base..base + 4096).step_by(16).enumerate() {
        check_eq!(ldg(at), n as u64 % 16, "tag of granule {n}");
        check_eq!(ldg(at + 8), n as u64 % 16, "tag inside granule {n}");
    }
    Ok(())
}

fn two_granules(_: &Machine) -> Outcome {
    needs(2)?;
    let base = granule(0, 1, 0x11);
    stg(with_tag(base + 32, 1));
    st2g(with_tag(base, 6));
    check_eq!((ldg(base), ldg(base + 16), ldg(base + 32)), (6, 6, 1), "tags after ST2G");
    check_eq!(read64(base), 0x11, "content after ST2G");
    Ok(())
}

fn zeroing_stores(_: &Machine) -> Outcome {
    needs(2)?;
    let fill = |value| {
        let base = granule(0, 0, value);
        for offset in (8..64).step_by(8) {
            write64(base + offset, value);
        }
        stg(base + 16);
        stg(base + 32);
        base
    };
    let words = |base: u64| [0u64, 8, 16, 24, 32].map(|o| read64(base + o));
    let base = fill(7);
    stzg(with_tag(base, 9));
    check_eq!((ldg(base), ldg(base + 16)), (9, 0), "tags after STZG");
    check_eq!(words(base), [0, 0, 7, 7, 7], "content after STZG");
    let base = fill(7);
    stz2g(with_tag(base, 3));
    check_eq!((ldg(base), ldg(base + 16), ldg(base + 32)), (3, 3, 0), "tags after STZ2G");
    check_eq!(words(base), [0, 0, 0, 0, 7], "content after STZ2G");
    let base = fill(7);
    stgp(with_tag(base, 5));
    check_eq!((ldg(base), ldg(base + 16)), (5, 0), "tags after STGP");
    check_eq!(words(base), [0, 0, 7, 7, 7], "content after STGP");
    Ok(())
}

/// LDGM and STGM work on the block of GMID_EL1.BS.
fn blocks(_: &Machine) -> Outcome {
    needs(2)?;
    let gmid = mrs!("gmid_el1");
    check!((2..=6).contains(&gmid), "GMID_EL1 {gmid:#x}");
    let bytes = 4u64 << gmid;
    let granules = bytes / 16;
    let mask = if granules == 16 { u64::MAX } else { (1 << (4 * granules)) - 1 };
    let base = tagged(scratch(1));
    let tags = 0xfedc_ba98_7654_3210 & mask;
    stgm(base, tags);
    for n in 0..granules {
        check_eq!(ldg(base + 16 * n), n, "tag {n} after STGM");
    }
    check_eq!(ldgm(base), tags, "LDGM");
    // STZGM's block is that of DC ZVA, DCZID_EL0.BS.
    let zeroed = 4u64 << (mrs!("dczid_el0") & 0xf);
    write64(base, 0x77);
    write64(base + zeroed, 0x77);
    stzgm(base, 0xb);
    for at in (base..base + zeroed).step_by(16) {
        check_eq!((ldg(at), read64(at)), (0xb, 0), "tag and content after STZGM");
    }
    check_eq!(read64(base + zeroed), 0x77, "content behind the block");
    Ok(())
}

fn dc_operations(_: &Machine) -> Outcome {
    needs(2)?;
    let dczid = mrs!("dczid_el0");
    if dczid & (1 << 4) != 0 {
        skip!("DCZID_EL0.DZP forbids them");
    }
    let bytes = 4u64 << (dczid & 0xf);
    let base = tagged(scratch(2));
    let fill = || (0..4096).step_by(8).for_each(|o| write64(base + o, 0x99));
    fill();
    dc_gva(with_tag(base, 4));
    for at in (base..base + bytes).step_by(16) {
        check_eq!((ldg(at), read64(at)), (4, 0x99), "tag and content after DC GVA");
    }
    dc_gzva(with_tag(base, 12));
    for at in (base..base + bytes).step_by(16) {
        check_eq!((ldg(at), read64(at)), (12, 0), "tag and content after DC GZVA");
    }
    fill();
    dc_zva(with_tag(base, 12));
    check_eq!((ldg(base), read64(base)), (12, 0), "tag and content after DC ZVA");
    check_eq!(read64(base + bytes), 0x99, "content behind the block");
    Ok(())
}

fn irg_and_gcr(_: &Machine) -> Outcome {
    needs(2)?;
    let old = (mrs!("gcr_el1"), mrs!("rgsr_el1"));
    for only in 0..16 {
        msr!("gcr_el1", (1 << 16) | (0xffff & !(1 << only)));
        check_eq!(tag_of(irg(0x1000, 0)), only, "IRG with all tags but one excluded");
    }
    msr!("gcr_el1", (1 << 16) | 0x00ff);
    let mut seen = 0u32;
    for _ in 0..500 {
        seen |= 1 << tag_of(irg(0x1000, 0x0f00));
    }
    check_eq!(seen & 0x0fff, 0, "excluded tags out of IRG");
    check!(seen.count_ones() >= 2, "IRG gives one tag only: {seen:#x}");
    // RRND = 0: the sequence follows from RGSR_EL1 (Arm ARM, IRG).
    let sequence = || {
        msr!("gcr_el1", 0);
        msr!("rgsr_el1", 0x12_3400);
        [0; 8].map(|_: u64| tag_of(irg(0, 0)))
    };
    let (first, second) = (sequence(), sequence());
    msr!("gcr_el1", old.0);
    msr!("rgsr_el1", old.1);
    check_eq!(first, second, "two sequences of one seed");
    Ok(())
}

fn arithmetic(_: &Machine) -> Outcome {
    needs(2)?;
    let va = with_tag(0x1000, 0xe);
    msr!("gcr_el1", 0);
    check_eq!(addg_32_3(va), with_tag(0x1020, 1), "ADDG");
    check_eq!(subp(with_tag(0x2000, 3), with_tag(0x1ff0, 9)), 16, "SUBP");
    Ok(())
}

/// Through a mapping that is not Tagged tags are neither read nor written, and nothing is checked.
fn untagged_window(_: &Machine) -> Outcome {
    needs(2)?;
    let va = granule(0, 6, 1);
    let plain = scratch(0);
    check_eq!(ldg(plain), 0, "LDG through an Untagged mapping");
    stg(with_tag(plain, 3));
    check_eq!(ldg(va), 6, "tag after STG through an Untagged mapping");
    set_checks(1, 1);
    let fault = expect_fault(|| write64(with_tag(plain, 3), 2));
    set_checks(0, 0);
    check!(fault.is_none(), "a checked access through an Untagged mapping");
    Ok(())
}

fn tag_fault(fault: Option<Fault>, va: u64, write: bool) -> Outcome {
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

fn sync_load(_: &Machine) -> Outcome {
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

fn sync_store(_: &Machine) -> Outcome {
    needs(2)?;
    let va = granule(0, 5, 0x1111);
    set_tco(false);
    set_checks(1, 0);
    let fault = expect_fault(|| write64(with_tag(va, 6), 0x2222));
    set_checks(0, 0);
    check_eq!(read64(va), 0x1111, "content after a store that failed");
    tag_fault(fault, with_tag(va, 6), true)
}

fn sync_matches(_: &Machine) -> Outcome {
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
fn mismatches(mode: u64, load: bool, store: bool) -> (Option<Fault>, u64) {
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

fn async_el1(_: &Machine) -> Outcome {
    needs(2)?;
    for (load, store) in [(true, false), (false, true)] {
        let (fault, tfsr) = mismatches(2, load, store);
        check!(fault.is_none(), "an asynchronous fault is taken: {fault:x?}");
        check_eq!(tfsr, 1, "TFSR_EL1");
    }
    check_eq!(mismatches(2, false, false).1, 0, "TFSR_EL1 without accesses");
    Ok(())
}

fn asymmetric_el1(_: &Machine) -> Outcome {
    needs(3)?;
    let (fault, tfsr) = mismatches(3, true, false);
    check!(fault.is_some_and(|f| f.fsc() == FSC_TAG_CHECK && !f.write()), "the load: {fault:x?}");
    check_eq!(tfsr, 0, "TFSR_EL1 after the load");
    let (fault, tfsr) = mismatches(3, false, true);
    check!(fault.is_none(), "the store: {fault:x?}");
    check_eq!(tfsr, 1, "TFSR_EL1 after the store");
    Ok(())
}

fn override_tco(_: &Machine) -> Outcome {
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
fn tco_in_handler(machine: &Machine) -> Outcome {
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

fn at_el0(mode: u64, stub: unsafe extern "C" fn()) -> (el0::Left, u64) {
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

fn sync_el0(_: &Machine) -> Outcome {
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

fn async_el0(_: &Machine) -> Outcome {
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

fn asymmetric_el0(_: &Machine) -> Outcome {
    needs(3)?;
    let (left, tfsre0) = at_el0(3, mte_el0_load);
    check_eq!((left.ec(), left.esr & 0x3f, tfsre0), (EC_DABT_EL0, FSC_TAG_CHECK, 0), "the load");
    let (left, tfsre0) = at_el0(3, mte_el0_store);
    check_eq!((left.ec(), tfsre0), (EC_SVC, 1), "the store");
    Ok(())
}

fn tags_at_el0(_: &Machine) -> Outcome {
    needs(2)?;
    let (left, _) = at_el0(0, mte_el0_tags);
    check_eq!(left.ec(), EC_SVC, "EC");
    check_eq!(tag_of(left.x[1]), 5, "the tag that EL0 loaded");
    check_eq!(tag_of(left.x[2]), 4, "the tag that EL0 stored");
    check_eq!(ldg(tagged(scratch(0))), 4, "the tag that EL1 sees");
    Ok(())
}

fn tags_over_time(_: &Machine) -> Outcome {
    needs(2)?;
    let base = tagged(scratch(3));
    for (n, at) in (base..base + 4096).step_by(16).enumerate() {
        stg(with_tag(at, (n as u64 * 7 + 3) % 16));
    }
    for _ in 0..5 {
        timer::delay(SECOND / 50);
        crate::rt::smccc::call(abi::psci::VERSION, 0, 0, 0);
    }
    for (n, at) in (base..base + 4096).step_by(16).enumerate() {
        check_eq!(ldg(at), (n as u64 * 7 + 3) % 16, "tag of granule {n}");
    }
    Ok(())
}

fn registers_over_time(_: &Machine) -> Outcome {
    needs(2)?;
    let old = (mrs!("gcr_el1"), mrs!("rgsr_el1"));
    msr!("gcr_el1", 0x1_5a5a);
    msr!("rgsr_el1", 0x12_3405);
    msr!("tfsr_el1", 1);
    msr!("tfsre0_el1", 1);
    timer::delay(SECOND / 25);
    crate::rt::smccc::call(abi::psci::VERSION, 0, 0, 0);
    let found = [mrs!("gcr_el1"), mrs!("rgsr_el1"), mrs!("tfsr_el1"), mrs!("tfsre0_el1")];
    msr!("gcr_el1", old.0);
    msr!("rgsr_el1", old.1);
    msr!("tfsr_el1", 0);
    msr!("tfsre0_el1", 0);
    check_eq!(found, [0x1_5a5a, 0x12_3405, 1, 1], "GCR, RGSR, TFSR, TFSRE0");
    Ok(())
}

fn on_every_cpu(machine: &Machine) -> Outcome {
    needs(2)?;
    let job: fn(u64) -> u64 = |n| {
        let va = granule(8 + n as usize, n % 16, n);
        set_tco(false);
        set_checks(1, 0);
        let fault = expect_fault(|| {
            read64(va);
            read64(with_tag(va, (n + 1) % 16));
        });
        set_checks(0, 0);
        u64::from(ldg(va) == n % 16 && fault.is_some_and(|f| f.fsc() == FSC_TAG_CHECK))
    };
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
        check_eq!(cpu::run_on(index, job, index as u64), Some(1), "tags on CPU {index}");
        check_eq!(ldg(tagged(scratch(8 + index))), index as u64 % 16, "tag that CPU {index} stored");
    }
    Ok(())
}

/// Without MTE in the ID registers, tag instructions may be undefined (no MTE at all), but they
/// never reach tags.
fn off_tags_do_nothing(_: &Machine) -> Outcome {
    if level() >= 2 {
        skip!("FEAT_MTE2 is there");
    }
    write64(scratch(0), 0x1111);
    set_mair(MAIR_TAGGED);
    let mut tag = 0;
    let fault = expect_fault(|| {
        stg(with_tag(tagged(scratch(0)), 7));
        tag = ldg(tagged(scratch(0)));
        stzg(with_tag(tagged(scratch(1)), 7));
    });
    set_mair(MAIR_UNTAGGED);
    check!(fault.is_none_or(|f| f.undefined()), "ESR {:#x}", fault.map_or(0, |f| f.esr));
    check_eq!(tag, 0, "the tag that was stored");
    check_eq!(read64(scratch(0)), 0x1111, "content");
    Ok(())
}

fn off_registers_undefined(_: &Machine) -> Outcome {
    if level() >= 2 {
        skip!("FEAT_MTE2 is there");
    }
    for (name, result) in [
        ("GCR_EL1", probe!("gcr_el1")),
        ("RGSR_EL1", probe!("rgsr_el1")),
        ("TFSR_EL1", probe!("tfsr_el1")),
        ("TFSRE0_EL1", probe!("tfsre0_el1")),
        ("GMID_EL1", probe!("gmid_el1")),
    ] {
        match result {
            Ok(value) => check!(false, "{name} reads {value:#x}"),
            Err(fault) => check!(fault.undefined(), "{name} gives ESR {:#x}", fault.esr),
        }
    }
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
