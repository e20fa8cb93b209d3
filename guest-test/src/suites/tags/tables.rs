//! What EL2 asks of stage 1 when it handles a tag fault: PAR_EL1 stays the guest's, and tables that change
//! meanwhile are no trouble.

use super::faults::{bare, number};
use super::outside::{SELF, fault, fresh, region_stats};
use super::walks::{ACCESS_FLAG, INDEX, LEAF, VA, build, forget};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::exception::{EC_DABT_EL1, FSC_EXTERNAL, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::{self, write64};
use crate::rt::mmu::tagged;
use crate::rt::timer::{self, PATIENCE, ticks};
use crate::rt::{cpu, mte};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};

/// A fault that gives lazy memory tags, and one that injects.
pub(super) fn par_is_kept(machine: &Machine) -> Outcome {
    const MARK: u64 = 0x0000_0000_1234_5000;
    let bare = bare(machine)?;
    let (start, _) = fresh(machine)?;
    for (what, va) in [("lazy memory", start), ("memory without tags", bare.start)] {
        // SAFETY: nobody looks at PAR_EL1 but this test.
        unsafe { asm!("msr par_el1, {}", "isb", in(reg) MARK, options(nostack)) };
        let faults = expect_fault(|| mte::stg(tagged(va))).is_some();
        check_eq!(mrs!("par_el1"), MARK, "PAR_EL1 after a tag store to {what}");
        check_eq!(faults, va == bare.start, "fault in {what}");
    }
    Ok(())
}

static STOP: AtomicBool = AtomicBool::new(false);
static CHANGES: AtomicU64 = AtomicU64::new(0);
/// Where the leaf is, and what it is in turn.
static LEAF_AT: AtomicU64 = AtomicU64::new(0);
static LEAVES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Maps [`VA`] to two pages in turn, with a break between, and counts that.
fn change(_: u64) -> u64 {
    let at = LEAF_AT.load(Relaxed);
    while !STOP.load(Acquire) {
        for leaf in &LEAVES {
            for descriptor in [0, leaf.load(Relaxed)] {
                write64(at, descriptor);
                // SAFETY: TLB maintenance.
                unsafe {
                    asm!("dsb ish", "tlbi vaae1is, {}", "dsb ish", "isb", in(reg) VA << 16 >> 28, options(nostack))
                };
                for _ in 0..20 {
                    cpu::relax();
                }
            }
            CHANGES.fetch_add(1, Relaxed);
        }
    }
    0
}

/// A tag store by tables that another vCPU changes between memory that has tags and memory that has none:
/// it happens, or faults in the latter, or in stage 1; and each fault is told of the right page.
pub(super) fn tables_change_meanwhile(machine: &Machine) -> Outcome {
    const TRANSLATION: u64 = 0b000100;
    let bare = bare(machine)?;
    let region = number(machine, bare.start);
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one vCPU") };
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    let (tables, without) = (bare.start + 0x4_0000, bare.start + 0x5_0000);
    let (ram, size) = machine.memory()[0];
    let with = ram + size - 0x1_0000;
    let before = region_stats(machine, region)?;
    build(tables, with | LEAF | ACCESS_FLAG);
    LEAF_AT.store(tables + 3 * 4096 + 8 * INDEX[3], Relaxed);
    for (leaf, page) in LEAVES.iter().zip([with, without]) {
        leaf.store(page | LEAF | ACCESS_FLAG, Relaxed);
    }
    STOP.store(false, Relaxed);
    CHANGES.store(0, Relaxed);
    cpu::submit(index, change, 0);
    let begun = timer::wait(PATIENCE, || CHANGES.load(Relaxed) > 0);
    let (mut done, mut external, mut unmapped, mut other) = (0, 0, 0, None);
    // On a busy host the other vCPU may not come by for long.
    let begin = timer::now();
    for n in 0_u64.. {
        let enough = CHANGES.load(Relaxed) > 20 && external > 0 && done > 0;
        if enough || timer::now() - begin > ticks(PATIENCE) {
            break;
        }
        match expect_fault(|| mte::stg(VA + n % 256 * 16)) {
            None => done += 1,
            Some(f) if (f.ec(), f.fsc()) == (EC_DABT_EL1, FSC_EXTERNAL) => external += 1,
            Some(f) if f.ec() == EC_DABT_EL1 && f.fsc() & !0b11 == TRANSLATION => unmapped += 1,
            Some(f) => other = Some(f.esr),
        }
    }
    STOP.store(true, Release);
    let back = cpu::collect(index).is_some();
    let times = CHANGES.load(Relaxed);
    forget(tables);
    (with..with + 4096).step_by(16).for_each(|pa| mte::stg(tagged(pa)));
    mem::barrier();
    println!("# {done} stores, {external} external aborts, {unmapped} of stage 1; {times} changes");
    check!(other.is_none(), "another fault: {other:x?}");
    check!(begun && back && done > 0 && external > 0 && times > 1, "nothing of one kind");
    check_eq!(region_stats(machine, region)?[5] - before[5], external, "faults that were injected");
    check_eq!(fault(machine, SELF, 0)?.map(|f| f.ipa & !0xfff), Some(without), "page of the last one");
    Ok(())
}
