//! Stepping over an instruction, and tables that change meanwhile.

use super::form::{assemble, present};
use super::{Way, execute, is_translated, place::places, word_of};
use crate::harness::{Outcome, Stop, check, check_eq, skip};
use crate::rt::exception::{EC_DABT_EL0, EC_DABT_EL1, EC_IABT_EL1, Fault, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::{self, scratch};
use crate::rt::smccc::tagvisor;
use crate::rt::sysreg::field;
use crate::rt::timer::{self, PATIENCE};
use crate::rt::{cpu, mmu, mte};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A branch to DC IVAC sets PSTATE.BTYPE; executing it clears that, whoever carries it out. The flags
/// and the masks stay.
pub(super) fn flags_and_btype(machine: &Machine) -> Outcome {
    const BTYPE: u64 = 3 << 10;
    const NZCV_DAIF: u64 = 0xf << 28 | 0xf << 6;
    for place in places(machine).filter(|p| !p.strict) {
        let step = |va: u64| -> Option<Fault> {
            // SAFETY: maintenance, then an instruction that is always undefined and skipped.
            expect_fault(|| unsafe {
                asm!(
                    "mov {t}, #0x60000000", "msr nzcv, {t}", "adr x16, 2f", "br x16", "2: dc ivac, {a}", "udf #0",
                    a = in(reg) va, t = out(reg) _, out("x16") _, options(nostack)
                )
            })
        };
        let daif = mrs!("daif");
        let fault = step(place.va);
        check!(fault.is_some_and(|f| f.undefined()), "{}: {fault:x?}", place.name);
        let spsr = fault.map_or(0, |f| f.spsr);
        check_eq!(spsr & BTYPE, 0, "BTYPE behind DC IVAC in {}", place.name);
        check_eq!(spsr & NZCV_DAIF, 0x6000_0000 | daif, "flags and masks behind DC IVAC in {}", place.name);
    }
    Ok(())
}

/// Page of the table that replaces the payload's own.
const TABLE: usize = 24;
/// The gigabyte that appears and disappears.
const SLOT: u64 = 460;

static STOP: AtomicBool = AtomicBool::new(false);

/// Maps and unmaps the gigabyte, until told to stop.
fn toggle(descriptor: u64) -> u64 {
    let entry = scratch(TABLE) + SLOT * 8;
    let mut rounds = 0;
    while !STOP.load(Relaxed) {
        mem::write64(entry, if rounds % 2 == 0 { 0 } else { descriptor });
        // SAFETY: nothing of Rust's is in that gigabyte of addresses.
        unsafe { asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb", options(nostack)) };
        rounds += 1;
        cpu::relax();
    }
    rounds
}

fn use_table(table: u64) {
    // SAFETY: both tables map all of the payload alike.
    unsafe {
        asm!("dsb ishst", "msr ttbr0_el1, {0}", "isb", "tlbi vmalle1", "dsb nsh", "isb", in(reg) table, options(nostack))
    };
}

/// At least so many times, and until it has changed between a fault and none so often.
const ROUNDS: u64 = 3000;
const CHANGES: u64 = 6;

/// Runs `f` again and again while another vCPU maps and unmaps the gigabyte of `ipa` at the slot; `f` says
/// whether it faulted, and has to see both.
fn while_it_changes(machine: &Machine, ipa: u64, f: impl Fn() -> Result<bool, Stop>) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU") };
    for (at, descriptor) in (scratch(TABLE)..).step_by(8).zip(mmu::TABLE.0) {
        mem::write64(at, descriptor);
    }
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    STOP.store(false, Relaxed);
    let own = mrs!("ttbr0_el1");
    use_table(scratch(TABLE));
    cpu::submit(index, toggle, mmu::TABLE.0[(ipa >> 30) as usize]);
    let (mut tries, mut faults, mut changes, mut last) = (0_u64, 0, 0, Ok(false));
    timer::wait(PATIENCE, || {
        let faulted = f();
        tries += 1;
        faults += u64::from(matches!(faulted, Ok(true)));
        changes += u64::from(matches!((&faulted, &last), (Ok(now), Ok(before)) if now != before));
        last = faulted;
        last.is_err() || tries >= ROUNDS && changes >= CHANGES
    });
    STOP.store(true, Relaxed);
    let rounds = cpu::collect(index);
    use_table(own);
    println!("# {faults} of {tries} faults while it was mapped or unmapped {} times", rounds.unwrap_or(0));
    check!(cpu::stop(index, mpidr), "CPU_OFF");
    last?;
    check!(rounds.is_some_and(|rounds| rounds >= CHANGES), "the other CPU did it {rounds:?} times");
    check!(changes >= CHANGES, "only {changes} changes were seen");
    Ok(())
}

/// Where `ipa` appears and disappears.
const fn alias(ipa: u64) -> u64 {
    (SLOT << 30) + (ipa & 0x3fff_ffff)
}

/// Another vCPU unmaps the address again and again: each DC IVAC is done, or takes a translation fault
/// that is the guest's own. PAR_EL1 and all registers stay ([`execute`] compares them).
pub(super) fn mapping_changes_meanwhile(machine: &Machine) -> Outcome {
    let Some(place) = places(machine).find(|p| p.read_only && !p.strict) else {
        skip!("no read-only region");
    };
    if !is_translated(word_of("DC IVAC"))? {
        skip!("maintenance is not translated here");
    }
    let va = alias(place.ipa) + 5;
    while_it_changes(machine, place.ipa, || {
        let Some(fault) = execute(Way::El1, word_of("DC IVAC"), va)? else { return Ok(false) };
        check_eq!((fault.ec(), fault.fsc(), fault.far), (EC_DABT_EL1, 0b000101, va), "EC, DFSC, FAR");
        Ok(true)
    })
}

/// The same for the page that the instruction is on, which a hypervisor may have to read after a fault
/// of it: DC CVAP of nothing is stepped over, or its fetch faults.
pub(super) fn code_changes_meanwhile(machine: &Machine) -> Outcome {
    if !tagvisor() || field(mrs!("id_aa64isar1_el1"), 0) == 0 {
        skip!("no hypervisor, or no FEAT_DPB");
    }
    let (code, _) = assemble(Way::El1, word_of("DC CVAP"));
    let (code, absent) = (alias(code), machine.absent());
    while_it_changes(machine, scratch(0), || {
        // SAFETY: the code is the instruction with x0, and a return; after a fetch that fails the
        // handler returns for it.
        let fault = expect_fault(|| unsafe {
            asm!("blr {c}", c = in(reg) code, inout("x0") absent => _, out("x30") _, options(nostack))
        });
        let Some(fault) = fault else { return Ok(false) };
        check_eq!((fault.ec(), fault.fsc()), (EC_IABT_EL1, 0b000101), "EC and IFSC");
        Ok(true)
    })
}

/// Page tables that are not there: an external abort on the walk, with the level of the guest's table.
pub(super) fn absent_tables(machine: &Machine) -> Outcome {
    const UPPER: u64 = 0xffff_0000_0000_0123;
    if !tagvisor() || !is_translated(word_of("DC IVAC"))? {
        skip!("maintenance is not translated here");
    }
    let root = scratch(TABLE);
    for at in (root..root + 4096).step_by(8) {
        mem::write64(at, 0);
    }
    // The first entry: a table.
    mem::write64(root, machine.absent() | 0b11);
    for (root, level) in [(machine.absent(), 0), (root, 1)] {
        // QEMU's own faults of DC CVAP and CVADP are those of loads.
        for form in present().filter(|f| f.persistence == 0 && (!f.tags || mte::level() >= 2)) {
            for (way, ec) in [(Way::El1, EC_DABT_EL1), (Way::El0, EC_DABT_EL0)] {
                if way == Way::El0 && form.writes || !is_translated(form.word)? {
                    continue;
                }
                mmu::set_upper(Some(root));
                let fault = execute(way, form.word, UPPER);
                mmu::set_upper(None);
                // IL, CM, WnR, synchronous external abort on walk.
                let esr = ec << 26 | 1 << 25 | 1 << 8 | 1 << 6 | 0x14 | level;
                check_eq!(fault?.map(|f| (f.esr, f.far)), Some((esr, UPPER)), "{} {way:?}", form.name);
            }
        }
    }
    Ok(())
}
