//! Tag faults where there are never tags: region `bare`, which injects.

use super::outside::{self, SELF, call, fault, region_stats, set_quota, stats};
use crate::harness::{Outcome, Stop, check, check_eq, skip};
use crate::rt::cpu;
use crate::rt::exception::{EC_DABT_EL0, EC_DABT_EL1, FSC_EXTERNAL, Fault, expect_fault};
use crate::rt::machine::{Machine, Region};
use crate::rt::mem::{self, read64, write64};
use crate::rt::mmu::{tagged, user};
use crate::rt::mte;
use abi::hypercall::{
    ALL_REGIONS, Error, FAULT_DECIDE, FAULT_INFO, FaultDecision, FaultState, TAG_DEMOTE, TAG_QUOTA, TAG_STATS,
};
use core::arch::asm;
use core::sync::atomic::Ordering::Relaxed;

const TAG_READ: u64 = 1;
const TAG_WRITE: u64 = 2;
pub(super) const CHECKED_READ: u64 = 3;
pub(super) const CHECKED_WRITE: u64 = 4;

fn region<'a>(machine: &'a Machine, name: &str) -> Result<&'a Region, Stop> {
    match machine.region_called(name) {
        Some(region) => Ok(region),
        None => skip!("no region {name}"),
    }
}

/// The region that injects, on a machine where it can.
pub(super) fn bare(machine: &Machine) -> Result<&Region, Stop> {
    if machine.lists("untagged", "bare") {
        skip!("bare is non-cacheable here");
    }
    region(machine, "bare")
}

/// The number by which hypercalls know the region at `start`: of all memory, in the order of addresses.
pub(super) fn number(machine: &Machine, start: u64) -> u64 {
    let memory = machine.memory().iter().map(|m| m.0);
    memory.chain(machine.regions().map(|r| r.start)).filter(|at| *at < start).count() as u64
}

fn checked(f: impl FnOnce()) {
    mte::set_checks(1, 0);
    f();
    mte::set_checks(0, 0);
}

macro_rules! checked {
    ($name:ident $text:literal) => {
        fn $name(va: u64) {
            // SAFETY: the access faults; nothing is changed.
            checked(|| unsafe {
                asm!(".arch_extension lse", ".arch_extension fp", $text, in("x3") va, inout("x4") PATTERN => _, options(nostack))
            });
        }
    };
}
// Each store would change a word that is PATTERN.
checked!(load "ldr x4, [x3]");
checked!(store "str xzr, [x3]");
checked!(load_pair "ldp x4, xzr, [x3]");
checked!(add "ldadd x4, x4, [x3]");
checked!(compare_swap "cas x4, xzr, [x3]");
checked!(store_pair "fmov d0, xzr\n stp q0, q0, [x3]");

/// What is in a page before an access to it faults: what instructions could leave there is zeroes, a sum, or
/// a tag.
const PATTERN: u64 = 0x5a5a_1234_5a5a_4321;

/// What it is, what a control VM is told, and how it is done.
type Kind = (&'static str, u64, fn(u64));

#[rustfmt::skip]
const KINDS: [Kind; 18] = [
    ("STG", TAG_WRITE, mte::stg),
    ("STZG", TAG_WRITE, mte::stzg),
    ("STGP", TAG_WRITE, mte::stgp),
    ("STGM", TAG_WRITE, |va| mte::stgm(va, 1)),
    ("DC GVA", TAG_WRITE, mte::dc_gva),
    ("DC GZVA", TAG_WRITE, mte::dc_gzva),
    ("LDG", TAG_READ, |va| { mte::ldg(va); }),
    ("LDGM", TAG_READ, |va| { mte::ldgm(va); }),
    ("LDR", CHECKED_READ, load),
    ("STR", CHECKED_WRITE, store),
    ("LDP", CHECKED_READ, load_pair),
    ("LDADD", CHECKED_WRITE, add),
    ("CAS", CHECKED_WRITE, compare_swap),
    ("STP of FP registers", CHECKED_WRITE, store_pair),
    ("DC ZVA", CHECKED_WRITE, |va| checked(|| mte::dc_zva(va))),
    // The hypervisor looks at the instructions of 16 faults; what follows is told by the syndrome alone.
    ("ST2G", TAG_WRITE, mte::st2g),
    ("STZ2G", TAG_WRITE, mte::stz2g),
    ("STZGM", TAG_WRITE, |va| mte::stzgm(va, 1)),
];

/// The words of page `n`.
fn words(region: &Region, n: u64) -> impl Iterator<Item = u64> + use<> {
    let page = region.start + 4096 * n;
    (page..page + 4096).step_by(8)
}

/// Whether the page of each kind is as it was, but for what QEMU does; zeroes it.
fn no_partial_data(bare: &Region) -> Outcome {
    // DC GZVA zeroes as much as DC ZVA.
    let block = 4 << (mrs!("dczid_el0") & 0xf);
    for (n, (what, ..)) in (1..).zip(KINDS) {
        let changed = words(bare, n).filter(|at| read64(*at) != PATTERN).count() as u64;
        // QEMU 11.1 stores the data of STGP and DC GZVA, zeroes, before the fault.
        let wrong = match what {
            "STGP" => 2,
            "DC GZVA" => block / 8,
            _ => 0,
        };
        check!(changed == 0 || changed == wrong, "{what} changed {changed} words before its fault");
        words(bare, n).for_each(|at| write64(at, 0));
    }
    Ok(())
}

/// What the guest sees of each kind of access, and what a control VM does.
pub(super) fn kinds(machine: &Machine) -> Outcome {
    let bare = bare(machine)?;
    let region = number(machine, bare.start);
    let before = region_stats(machine, region)?;
    check_eq!(&before[..4], &[bare.start, bare.size / 4096, 1, 0], "TAG_STATS of bare");
    let first = fault(machine, SELF, 0)?.map_or(0, |i| i.count);
    for n in 1..=KINDS.len() as u64 {
        words(bare, n).for_each(|at| write64(at, PATTERN));
    }
    for (n, (what, access, touch)) in (1..).zip(KINDS) {
        let va = mte::with_tag(tagged(bare.start + 4096 * n), if access == TAG_WRITE { 5 } else { 0 });
        let Some(seen) = expect_fault(|| touch(va)) else {
            check!(false, "{what} does not fault");
            return Ok(());
        };
        check_eq!(
            (seen.ec(), seen.fsc(), seen.far),
            (EC_DABT_EL1, FSC_EXTERNAL, va),
            "EC, DFSC, FAR of {what}"
        );
        let Some(info) = fault(machine, SELF, 0)? else {
            check!(false, "FAULT_INFO knows nothing of {what}");
            return Ok(());
        };
        check_eq!(
            (info.pc, info.va, info.ipa),
            (seen.elr, va, bare.start + 4096 * n),
            "PC, VA, IPA of {what}"
        );
        check_eq!((info.region, info.access), (region, access), "region, access of {what}");
        let (past, inject) = (FaultState::Past as u64, FaultDecision::Inject as u64);
        check_eq!(
            (info.state, info.decision, info.count),
            (past, inject, first + n),
            "state, decision, count"
        );
        check!(
            info.esr >> 41 & 1 == 1 && info.esr >> 26 & 0x3f == 0x24,
            "ESR_EL2 of {what}: {:#x}",
            info.esr
        );
    }
    let after = region_stats(machine, region)?;
    let writes = KINDS.iter().filter(|k| k.1 == TAG_WRITE).count() as u64;
    let grown = [after[4] - before[4], after[5] - before[5], after[6] - before[6], after[7] - before[7]];
    check_eq!(grown, [0, KINDS.len() as u64, 0, writes], "stopped, injected, reported, tag writes");
    let mut all = [0; 4];
    for region in 0..stats(machine)?.regions {
        let counts = region_stats(machine, region)?;
        all.iter_mut().zip(&counts[4..]).for_each(|(sum, count)| *sum += count);
    }
    check_eq!(stats(machine)?.faults, all, "the same of the VM");
    no_partial_data(bare)
}

/// Accesses that read no tag.
pub(super) fn no_faults(machine: &Machine) -> Outcome {
    const TCMA0: u64 = 1 << 57;
    const TBI0: u64 = 1 << 37;
    const ATA: u64 = 1 << 43;
    let bare = bare(machine)?;
    let region = number(machine, bare.start);
    let before = region_stats(machine, region)?;
    let va = tagged(bare.start + bare.size / 2);
    let round = |what: &str| -> Outcome {
        let fault = expect_fault(|| write64(va, 0x77));
        check!(fault.is_none(), "a store {what} faults: {fault:x?}");
        check_eq!(read64(va), 0x77, "data {what}");
        Ok(())
    };
    round("without checks")?;
    mte::set_checks(1, 0);
    mte::set_tco(true);
    let outcome = round("with TCO");
    mte::set_tco(false);
    outcome?;
    let tcr = mrs!("tcr_el1");
    msr!("tcr_el1", tcr | TCMA0);
    let outcome = round("with TCMA0 and tag 0");
    msr!("tcr_el1", tcr);
    outcome?;
    // TBI and TCMA may be in TLBs.
    let forget = || {
        // SAFETY: TLB maintenance.
        unsafe { asm!("isb", "tlbi vmalle1", "dsb nsh", "isb", options(nostack)) };
    };
    msr!("tcr_el1", tcr & !TBI0);
    forget();
    let outcome = round("without TBI");
    msr!("tcr_el1", tcr);
    forget();
    outcome?;
    let sctlr = mrs!("sctlr_el1");
    msr!("sctlr_el1", sctlr & !ATA);
    let outcome = round("without SCTLR_EL1.ATA");
    mte::set_checks(0, 0);
    msr!("sctlr_el1", mrs!("sctlr_el1") | ATA);
    outcome?;
    let maintenance = expect_fault(|| {
        // SAFETY: maintenance and translation change no data: DC CIVAC, CIGDVAC, CGVAC, AT.
        unsafe {
            asm!("dc civac, {a}", "sys #3, c7, c14, #5, {a}", "sys #3, c7, c10, #3, {a}", "at s1e1w, {a}", "isb", a = in(reg) va, options(nostack))
        };
    });
    check!(maintenance.is_none(), "maintenance or translation faults: {maintenance:x?}");
    write64(va, 0);
    check_eq!(region_stats(machine, region)?, before, "TAG_STATS of bare");
    Ok(())
}

const TCO: u64 = 1 << 25;

/// PSTATE.TCO is set in the handler, and SPSR_EL1 has what was interrupted.
pub(super) fn tco_in_handler(machine: &Machine) -> Outcome {
    let bare = bare(machine)?;
    for tco in [false, true] {
        mte::set_tco(tco);
        // TCO overrides checks, not tag accesses.
        let seen = expect_fault(|| mte::stg(tagged(bare.start)));
        let kept = mte::tco();
        mte::set_tco(false);
        let spsr = seen.map(|f: Fault| f.spsr & TCO != 0);
        check_eq!((spsr, kept), (Some(tco), tco), "TCO in SPSR_EL1, and afterwards");
        check!(cpu::this().handler_tco.load(Relaxed), "TCO is 0 in the handler");
    }
    Ok(())
}

pub(super) fn at_el0(machine: &Machine) -> Outcome {
    let bare = bare(machine)?;
    let va = mte::with_tag(user(bare.start + 32), 2);
    let left = super::el0_tags(va);
    check_eq!((left.ec(), left.esr & 0x3f, left.far), (EC_DABT_EL0, FSC_EXTERNAL, va), "EC, DFSC, FAR");
    check!(left.spsr & 0xf == 0, "SPSR_EL1 {:#x}", left.spsr);
    let info = fault(machine, SELF, 0)?;
    check_eq!(info.map(|i| i.ipa), Some(bare.start + 32), "IPA");
    Ok(())
}

/// An unaligned access that begins in memory with tags and ends in memory without.
pub(super) fn across_regions(machine: &Machine) -> Outcome {
    let bare = bare(machine)?;
    let ram = machine.memory().iter().any(|(start, size)| start + size == bare.start);
    if !ram {
        skip!("no memory in front of bare");
    }
    let va = tagged(bare.start - 4);
    write64(bare.start - 8, 0x1111);
    for touch in [load, store] {
        let seen = expect_fault(|| touch(va));
        let seen = seen.map(|f| (f.ec(), f.fsc()));
        check_eq!(seen, Some((EC_DABT_EL1, FSC_EXTERNAL)), "EC, DFSC of an access across the border");
        let info = fault(machine, SELF, 0)?;
        let at = info.map(|i| (i.ipa & !0xfff, i.region));
        check_eq!(at, Some((bare.start, number(machine, bare.start))), "IPA, region");
    }
    check!(read64(bare.start - 8) == 0x1111 && read64(bare.start) == 0, "half of a store was made");
    // In front of the border there are tags.
    mte::stg(mte::with_tag(tagged(bare.start - 16), 8));
    check_eq!(mte::ldg(tagged(bare.start - 16)), 8, "tag in front of the border");
    mte::stg(tagged(bare.start - 16));
    Ok(())
}

/// Where nothing may be written, a tag store is a plain permission fault; a tag load is a tag fault.
pub(super) fn read_only(machine: &Machine) -> Outcome {
    bare(machine)?;
    let rom = region(machine, "rom")?;
    let injected = |machine| region_stats(machine, number(machine, rom.start)).map(|s| s[5]);
    let before = injected(machine)?;
    let external = |f: Option<Fault>| f.is_some_and(|f| (f.ec(), f.fsc()) == (EC_DABT_EL1, FSC_EXTERNAL));
    check!(external(expect_fault(|| mte::stg(tagged(rom.start)))), "STG to read-only memory");
    check_eq!(injected(machine)?, before, "tag faults after STG");
    let load = expect_fault(|| {
        mte::ldg(tagged(rom.start));
    });
    check!(external(load), "LDG from read-only memory");
    check_eq!(injected(machine)?, before + 1, "tag faults after LDG");
    Ok(())
}

/// A device has no tags to fault for: an alignment fault, or nothing.
pub(super) fn device(machine: &Machine) -> Outcome {
    let rtc = region(machine, "rtc")?;
    let at = number(machine, rtc.start);
    let before = region_stats(machine, at)?;
    let count = fault(machine, SELF, 0)?.map(|i| i.count);
    expect_fault(|| mte::stg(mte::with_tag(tagged(rtc.start + 0x100), 3)));
    mem::barrier();
    check_eq!(region_stats(machine, at)?, before, "TAG_STATS of the device");
    check_eq!(fault(machine, SELF, 0)?.map(|i| i.count), count, "faults");
    Ok(())
}

/// What hypercalls refuse.
pub(super) fn arguments(machine: &Machine) -> Outcome {
    let (start, size) = outside::lazy(machine)?;
    if outside::is_backed(machine)? {
        skip!("lazy memory is like backed here");
    }
    let unit = stats(machine)?.unit * 4096;
    let regions = stats(machine)?.regions;
    check_eq!(regions, (machine.memory().len() + machine.regions().count()) as u64, "number of regions");
    let (invalid, empty) = (Error::Invalid as i64, Error::Empty as i64);
    let quota = stats(machine)?.quota;
    let cases: [(u32, [u64; 3], i64); 20] = [
        (TAG_STATS, [99, ALL_REGIONS, 0], invalid),
        (TAG_STATS, [SELF, regions, 0], invalid),
        (TAG_STATS, [SELF, 1 << 32, 0], invalid),
        (TAG_DEMOTE, [99, start, unit], invalid),
        (TAG_DEMOTE, [SELF, start + 16, unit], invalid),
        (TAG_DEMOTE, [SELF, start, unit + 16], invalid),
        (TAG_DEMOTE, [SELF, start, size + unit], invalid),
        (TAG_DEMOTE, [SELF, start, u64::MAX], invalid),
        (TAG_DEMOTE, [SELF, machine.memory()[0].0, unit], invalid),
        (TAG_DEMOTE, [SELF, machine.absent(), unit], invalid),
        // More than the manifest allows, and parts of a unit.
        (TAG_QUOTA, [99, 0, 0], invalid),
        (TAG_QUOTA, [SELF, quota + unit / 4096, 0], invalid),
        (TAG_QUOTA, [SELF, u64::MAX, 0], invalid),
        (TAG_QUOTA, [SELF, 1 << 63, 0], invalid),
        (TAG_QUOTA, [SELF, 1, 0], if unit == 4096 { 0 } else { invalid }),
        (FAULT_INFO, [99, 0, 0], invalid),
        (FAULT_INFO, [SELF, 99, 0], invalid),
        (FAULT_DECIDE, [SELF, 0, 0], invalid),
        (FAULT_DECIDE, [SELF, 99, 1], invalid),
        (FAULT_DECIDE, [SELF, 0, 1], empty),
    ];
    for (id, args, error) in cases {
        check_eq!(call(machine, id, args)?[0] as i64, error, "call {id:#x} with {args:x?}");
    }
    let limited = if unit == 4096 { 1 } else { quota };
    check_eq!(stats(machine)?.quota, limited, "the quota after what was refused");
    check_eq!(set_quota(machine, 0)?, limited, "the quota before");
    check_eq!(set_quota(machine, quota)?, 0, "the quota before, again");
    check_eq!(stats(machine)?.quota, quota, "the quota at last");
    // This VM does not control itself.
    for id in [TAG_STATS, TAG_DEMOTE, TAG_QUOTA, FAULT_INFO, FAULT_DECIDE] {
        let denied = crate::rt::smccc::call(id, SELF, 0, 1)[0] as i64;
        check_eq!(denied, Error::Denied as i64, "call {id:#x} about itself");
    }
    Ok(())
}
