//! Memory tagging: tags in memory, and checks that fail synchronously, asynchronously and both.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::exception::{FSC_TAG_CHECK, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, scratch, write64};
use crate::rt::mmu::tagged;
use crate::rt::mte::*;
use crate::rt::timer::SECOND;
use crate::rt::{cpu, mem, timer};

mod checks;
mod hidden;

use checks::{
    asymmetric_el0, asymmetric_el1, async_el0, async_el1, override_tco, sync_el0, sync_load, sync_matches,
    sync_store, tags_at_el0, tco_in_handler,
};
use hidden::{off_registers_undefined, off_tags_do_nothing};

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
    for &(start, size) in machine.memory() {
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
