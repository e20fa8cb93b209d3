//! Memory that gets tags at the first tag access.

use super::outside::{Stats, demote, fresh, is_backed, lazy, region_stats, set_quota, stats};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::exception::{EC_DABT_EL1, FSC_EXTERNAL, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write64};
use crate::rt::mmu::{tagged, user};
use crate::rt::mte;
use crate::rt::timer::{self, PATIENCE};
use crate::rt::{cpu, mem};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};

/// The tag of the page's first granule, then of all the others, after each way to touch it.
type Touch = (&'static str, u64, fn(u64));

fn load_checked(va: u64) {
    mte::set_checks(1, 0);
    read64(va);
    mte::set_checks(0, 0);
}

fn store_checked(va: u64) {
    mte::set_checks(1, 0);
    write64(va, 0);
    mte::set_checks(0, 0);
}

macro_rules! checked {
    ($name:ident $text:literal) => {
        fn $name(va: u64) {
            mte::set_checks(1, 0);
            // SAFETY: stores zeroes to lazy memory, which holds no Rust object; no code here uses FP registers.
            unsafe {
                asm!(".arch_extension lse", ".arch_extension fp", "mov x4, xzr", $text, in("x3") va, out("x4") _, options(nostack))
            };
            mte::set_checks(0, 0);
        }
    };
}
checked!(load_pair "ldp x4, xzr, [x3]");
checked!(store_pair "stp xzr, xzr, [x3]");
checked!(atomic_add "ldadd x4, x4, [x3]");
checked!(compare_swap "cas x4, xzr, [x3]");
checked!(exclusive "ldxr x4, [x3]\nclrex");
checked!(load_fp "ldp q0, q1, [x3]");

#[rustfmt::skip]
const TOUCHES: [Touch; 17] = [
    ("LDG", 0, |va| { mte::ldg(va); }),
    ("LDGM", 0, |va| { mte::ldgm(va); }),
    ("STG", 7, |va| mte::stg(mte::with_tag(va, 7))),
    ("ST2G", 7, |va| mte::st2g(mte::with_tag(va, 7))),
    ("STZG", 7, |va| mte::stzg(mte::with_tag(va, 7))),
    ("STZ2G", 7, |va| mte::stz2g(mte::with_tag(va, 7))),
    ("STGP", 7, |va| mte::stgp(mte::with_tag(va, 7))),
    ("STGM", 7, |va| mte::stgm(va, 7)),
    ("DC GVA", 7, |va| mte::dc_gva(mte::with_tag(va, 7))),
    ("DC GZVA", 7, |va| mte::dc_gzva(mte::with_tag(va, 7))),
    ("a checked load", 0, load_checked),
    ("a checked store", 0, store_checked),
    ("LDP", 0, load_pair),
    ("STP", 0, store_pair),
    ("LDADD", 0, atomic_add),
    ("CAS", 0, compare_swap),
    ("DC ZVA", 0, |va| { mte::set_checks(1, 0); mte::dc_zva(va); mte::set_checks(0, 0); }),
];

/// A word far behind what the touch changes.
const KEPT: u64 = 2048;

/// Each tag access gives a page tags of zero, keeps its data, and then happens.
pub(super) fn first_access(machine: &Machine) -> Outcome {
    let (start, _) = fresh(machine)?;
    let unit = stats(machine)?.unit;
    let more: [Touch; 2] = [("LDXR", 0, exclusive), ("LDP of FP registers", 0, load_fp)];
    for (n, (what, tag, touch)) in (0..).zip(TOUCHES.into_iter().chain(more)) {
        let page = start + n * 4096;
        let before = stats(machine)?;
        write64(page + KEPT, !page);
        touch(tagged(page));
        check_eq!(mte::ldg(tagged(page)), tag, "tag after {what}");
        for granule in (page + 256..page + 4096).step_by(16) {
            check_eq!(mte::ldg(tagged(granule)), 0, "tag of {granule:#x} after {what}");
        }
        check_eq!(read64(page + KEPT), !page, "data after {what}");
        let after = stats(machine)?;
        let new = if n * 4096 % (unit * 4096) == 0 { unit } else { 0 };
        check_eq!(
            (after.used - before.used, after.promoted - before.promoted),
            (new, new),
            "pages by {what}"
        );
    }
    Ok(())
}

/// What checks no tag gives none.
pub(super) fn no_tag_access(machine: &Machine) -> Outcome {
    let (start, size) = fresh(machine)?;
    let va = tagged(start);
    // Unchecked: no checks, TCO, another window, tag check override by TCF.
    write64(va, 1);
    read64(va);
    mte::set_checks(1, 0);
    mte::set_tco(true);
    write64(va + 8, 2);
    read64(va + 8);
    mte::set_tco(false);
    write64(start + 16, 3);
    read64(start + 16);
    mte::set_checks(0, 0);
    mte::dc_zva(va + 64);
    // SAFETY: maintenance and translation change no data.
    unsafe {
        asm!("dc civac, {a}", "sys #3, c7, c14, #5, {a}", "sys #3, c7, c10, #3, {a}", "at s1e1r, {a}", "isb", a = in(reg) va, options(nostack))
    };
    check_eq!([read64(start), read64(start + 8), read64(start + 16)], [1, 2, 3], "what was stored");
    for page in (start..start + size).step_by(4096) {
        read64(page);
    }
    check_eq!(stats(machine)?.used, 0, "pages tagged");
    Ok(())
}

/// At the limit the region's policy decides; what is turned back can be used again.
pub(super) fn quota(machine: &Machine) -> Outcome {
    let (start, size) = fresh(machine)?;
    let before = stats(machine)?;
    let (quota, unit) = (before.quota * 4096, before.unit * 4096);
    if quota >= size {
        skip!("the quota covers all");
    }
    for at in (start..start + quota).step_by(unit as usize) {
        write64(at + 16, !at);
        mte::stg(mte::with_tag(tagged(at) + 16, at / unit % 15 + 1));
    }
    let beyond = tagged(start + quota);
    write64(beyond, 0x55);
    let fault = expect_fault(|| mte::stg(mte::with_tag(beyond, 4)));
    let fault = fault.map(|f| (f.ec(), f.fsc(), f.far));
    check_eq!(
        fault,
        Some((EC_DABT_EL1, FSC_EXTERNAL, mte::with_tag(beyond, 4))),
        "at the limit: EC, DFSC, FAR"
    );
    let full = stats(machine)?;
    check_eq!((full.used, full.refused - before.refused), (quota / 4096, 1), "used, refused");
    // The first unit makes room.
    check_eq!(demote(machine, start, unit)?, unit / 4096, "pages turned back");
    check_eq!(read64(start + 16), !start, "data of the unit that was turned back");
    check_eq!(stats(machine)?.demoted - full.demoted, unit / 4096, "demoted");
    mte::stg(mte::with_tag(beyond, 4));
    check_eq!((mte::ldg(beyond), read64(beyond)), (4, 0x55), "tag and data beyond");
    for at in (start + unit..start + quota).step_by(unit as usize) {
        check_eq!(mte::ldg(tagged(at) + 16), at / unit % 15 + 1, "tag at {at:#x}");
        check_eq!(read64(at + 16), !at, "data at {at:#x}");
    }
    check_eq!(demote(machine, start, size)?, quota / 4096, "pages turned back at last");
    check_eq!(mte::ldg(tagged(start) + 16), 0, "the tag that was dropped");
    check_eq!(read64(start + 16), !start, "data after all");
    Ok(())
}

/// A store that crosses from one unit to the next gives both tags.
pub(super) fn across_pages(machine: &Machine) -> Outcome {
    let (start, _) = fresh(machine)?;
    let unit = stats(machine)?.unit * 4096;
    let va = tagged(start + unit - 4);
    store_checked(va);
    load_checked(va);
    check_eq!(stats(machine)?.used, 2 * unit / 4096, "pages after an unaligned store");
    fresh(machine)?;
    mte::st2g(mte::with_tag(tagged(start + unit - 16), 6));
    check_eq!(stats(machine)?.used, 2 * unit / 4096, "pages after ST2G");
    check_eq!([mte::ldg(tagged(start + unit - 16)), mte::ldg(tagged(start + unit))], [6, 6], "its tags");
    Ok(())
}

/// An access that ends where its page does has nothing to do with the next one.
pub(super) fn end_of_page(machine: &Machine) -> Outcome {
    let (start, _) = fresh(machine)?;
    let unit = stats(machine)?.unit * 4096;
    let end = tagged(start + unit - 16);
    mte::stg(mte::with_tag(end, 6));
    check_eq!(stats(machine)?.used, unit / 4096, "pages after STG to a page's last granule");
    check_eq!(mte::ldg(end), 6, "its tag");
    Ok(())
}

/// Tags the last granule of every other one of 2 * `UNITS` units; how many of them fault.
fn tag_ends(start: u64) -> u64 {
    let unit = UNIT.load(Relaxed);
    let ends = (start..start + 2 * UNITS.load(Relaxed) * unit).step_by(2 * unit as usize);
    let faults = |at| expect_fault(|| mte::stg(mte::with_tag(tagged(at + unit - 16), 6))).is_some();
    ends.filter(|at| faults(*at)).count() as u64
}

fn other_ends(start: u64) -> u64 {
    ROUND.store(1, Release);
    tag_ends(start)
}

static UNIT: AtomicU64 = AtomicU64::new(0);
static UNITS: AtomicU64 = AtomicU64::new(0);

/// Two vCPUs tag the last granules of the same pages at once: whoever comes second finds a page tagged, and
/// is not taken for one that goes on to the next.
pub(super) fn end_of_page_by_two(machine: &Machine) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one vCPU") };
    let (_, size) = fresh(machine)?;
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    let Stats { unit, quota, .. } = stats(machine)?;
    let units = (quota.min(size / 8192) / unit).min(256);
    UNIT.store(unit * 4096, Relaxed);
    UNITS.store(units, Relaxed);
    for round in 0..4 {
        let (start, _) = fresh(machine)?;
        ROUND.store(0, Relaxed);
        cpu::submit(index, other_ends, start);
        check!(timer::wait(PATIENCE, || ROUND.load(Acquire) != 0), "the other vCPU does not begin");
        let faults = (tag_ends(start), cpu::collect(index));
        check_eq!(faults, (0, Some(0)), "faults in round {round}");
        check_eq!(stats(machine)?.used, units * unit, "pages tagged in round {round}");
    }
    // One that does go on, with no quota left.
    let (start, _) = fresh(machine)?;
    set_quota(machine, unit)?;
    let end = mte::with_tag(tagged(start + unit * 4096 - 16), 6);
    let faults = [mte::stg, mte::st2g].map(|store| expect_fault(|| store(end)).is_some());
    set_quota(machine, quota)?;
    check_eq!(faults, [false, true], "faults of STG and ST2G at a page's end");
    Ok(())
}

/// Without FEAT_MTE_PERM, all of it can be tagged at once, and a control VM is told so.
pub(super) fn like_backed(machine: &Machine) -> Outcome {
    if !is_backed(machine)? {
        skip!("the machine has FEAT_MTE_PERM");
    }
    let (start, size) = lazy(machine)?;
    for page in (start..start + size).step_by(4096) {
        let tag = page >> 12 & 0xf;
        mte::stg(mte::with_tag(tagged(page) + 32, tag));
        check_eq!(mte::ldg(tagged(page) + 32), tag, "tag at {page:#x}");
    }
    for region in 0..stats(machine)?.regions {
        let [ipa, pages, kind, taggable, ..] = region_stats(machine, region)?;
        let all = if kind == 1 { 0 } else { pages };
        check_eq!(taggable, all, "pages that can be tagged at {ipa:#x}");
    }
    check_eq!(stats(machine)?.used, 0, "pages that count against the quota");
    Ok(())
}

const PAGES: u64 = 256;
static ROUND: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

/// Tags the first granule of half of each page, in the order of `ROUND`'s value, and stores beside it.
fn tag_all(side: u64, start: u64) {
    for page in (start..start + PAGES * 4096).step_by(4096) {
        let granule = page + 2048 * side;
        write64(granule + 16, page ^ side);
        mte::stg(mte::with_tag(tagged(granule), 3 + side));
        write64(granule + 24, page ^ side);
    }
}

fn other_half(start: u64) -> u64 {
    ROUND.store(1, Release);
    tag_all(1, start);
    0
}

/// Two vCPUs tag the same pages at the same time: each page turns tagged once, nothing is lost.
pub(super) fn two_vcpus(machine: &Machine) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one vCPU") };
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    for round in 0..4 {
        let (start, _) = fresh(machine)?;
        let before = stats(machine)?.promoted;
        ROUND.store(0, Relaxed);
        cpu::submit(index, other_half, start);
        check!(timer::wait(PATIENCE, || ROUND.load(Acquire) != 0), "the other vCPU does not begin");
        tag_all(0, start);
        check!(cpu::collect(index).is_some(), "the other vCPU does not come back");
        for page in (start..start + PAGES * 4096).step_by(4096) {
            for side in [0, 1] {
                let granule = page + 2048 * side;
                check_eq!(mte::ldg(tagged(granule)), 3 + side, "round {round}: tag of {granule:#x}");
                let data = [read64(granule + 16), read64(granule + 24)];
                check_eq!(data, [page ^ side; 2], "round {round}: data of {granule:#x}");
            }
        }
        let unit = stats(machine)?.unit;
        check_eq!(stats(machine)?.promoted - before, PAGES.next_multiple_of(unit), "pages in round {round}");
    }
    Ok(())
}

/// Counts up a word of each page, tags it, and invalidates its line, until told to stop; returns how often.
/// The invalidation of a guest cleans, too; with `cmo-trap=on` EL2 does it while stage 2 changes.
fn count_up(start: u64) -> u64 {
    let mut rounds = 0;
    while !STOP.load(Acquire) {
        rounds += 1;
        for page in (start..start + 16 * 4096).step_by(4096) {
            write64(page + 32, rounds);
            if rounds % 4 == 0 {
                mte::stg(mte::with_tag(tagged(page), 5));
            }
            // SAFETY: maintenance of the line that was just stored to.
            unsafe { core::arch::asm!("dc ivac, {0}", in(reg) page + 32, options(nostack)) };
            if read64(page + 32) != rounds {
                return u64::MAX;
            }
        }
    }
    rounds
}

/// Tags are taken away while another vCPU stores and tags.
pub(super) fn turned_back_while_running(machine: &Machine) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one vCPU") };
    let (start, size) = fresh(machine)?;
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    STOP.store(false, Relaxed);
    cpu::submit(index, count_up, start);
    // The other one may get its turn late: until tags that it stored were taken away more than once.
    let (mut demoted, mut calls, mut often) = (Ok(0), 0, 0);
    timer::wait(PATIENCE, || {
        demoted = demote(machine, start, size);
        calls += 1;
        often += u32::from(matches!(demoted, Ok(1..)));
        demoted.is_err() || calls >= 40 && often >= 4
    });
    STOP.store(true, Release);
    let rounds = cpu::collect(index);
    demoted?;
    check!(rounds.is_some_and(|n| n != u64::MAX), "a store was lost, or the vCPU: {rounds:?}");
    mem::barrier();
    for page in (start..start + 16 * 4096).step_by(4096) {
        check_eq!(Some(read64(page + 32)), rounds, "the count in {page:#x}");
    }
    check!(often >= 4, "only {often} of {calls} times there was something to take away");
    Ok(())
}

/// EL0 uses tags of lazy memory like EL1.
pub(super) fn at_el0(machine: &Machine) -> Outcome {
    let (start, _) = fresh(machine)?;
    let left = super::el0_tags(mte::with_tag(user(start + 4096), 6));
    check_eq!(left.ec(), crate::rt::exception::EC_SVC, "EC");
    check_eq!(mte::ldg(tagged(start + 4096)), 6, "the tag that EL0 stored");
    check_eq!(stats(machine)?.used, stats(machine)?.unit, "pages tagged");
    Ok(())
}
