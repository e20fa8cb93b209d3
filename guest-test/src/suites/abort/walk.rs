//! Aborts on the CPU's own walk of stage 1: tables that are not there, or that hardware is to update
//! where nothing can be written. What a bus would answer: a synchronous external abort on a walk, with
//! the level of the table.

use super::abort_el0_branch;
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::exception::{EC_DABT_EL1, EC_IABT_EL0, EC_IABT_EL1, Fault, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::{barrier, scratch, try_execute, try_read64, try_write64, write64};
use crate::rt::{el0, mmu, mte, sysreg};
use core::arch::asm;

/// Index into the table of each level, and with them the address that the tests use.
const INDEX: [u64; 4] = [3, 5, 7, 9];
const VA: u64 = 0xffff_0000_0000_0120 | INDEX[0] << 39 | INDEX[1] << 30 | INDEX[2] << 21 | INDEX[3] << 12;
const TABLE: u64 = 0b11;
/// A page of Normal memory for EL1, with the access flag.
const PAGE: u64 = 0b11 | 3 << 8 | ACCESS_FLAG;
const ACCESS_FLAG: u64 = 1 << 10;
const TAGGED: u64 = 2 << 2;

/// Tables in the scratch pages 0 to 3, one for each level, that lead to `leaf`; the table of level
/// `moved.0` is at `moved.1` instead.
fn build(leaf: u64, moved: Option<(usize, u64)>) {
    let at = |level: usize| match moved {
        Some((at, table)) if at == level => table,
        _ => scratch(level),
    };
    for (level, index) in INDEX.iter().enumerate() {
        for word in 0..512 {
            write64(scratch(level) + 8 * word, 0);
        }
        let entry = if level < 3 { at(level + 1) | TABLE } else { leaf };
        write64(scratch(level) + 8 * index, entry);
    }
    barrier();
    mmu::set_upper(Some(at(0)));
}

fn on_walk(what: &str, fault: Option<Fault>, ec: u64, level: usize) -> Outcome {
    let Some(fault) = fault else {
        check!(false, "{what}: no abort");
        return Ok(());
    };
    check_eq!((fault.ec(), fault.fsc()), (ec, 0x14 + level as u64), "{what}: EC, fault status");
    check_eq!(fault.esr & (1 << 7), 0, "{what}: S1PTW");
    check_eq!(fault.far, VA, "{what}: FAR");
    Ok(())
}

/// A table of each level is missing, for every kind of access.
pub(super) fn absent_tables(machine: &Machine) -> Outcome {
    for level in 0..4 {
        build(scratch(4) | PAGE, Some((level, machine.absent())));
        let load = try_read64(VA).err();
        let store = try_write64(VA, 1).err();
        let fetch = try_execute(VA).err();
        // SAFETY: translation of an address changes PAR_EL1 only.
        let at = expect_fault(|| unsafe { asm!("at s1e1r, {}", in(reg) VA, options(nostack)) });
        let user = el0::run(abort_el0_branch, [VA, 0, 0, 0, 0, 0, 0, 0]);
        mmu::set_upper(None);
        on_walk("load", load, EC_DABT_EL1, level)?;
        check!(load.is_some_and(|f| !f.write()), "a load is reported as a store");
        on_walk("store", store, EC_DABT_EL1, level)?;
        check!(store.is_some_and(|f| f.write()), "a store is reported as a load");
        on_walk("fetch", fetch, EC_IABT_EL1, level)?;
        on_walk("AT", at, EC_DABT_EL1, level)?;
        check_eq!((user.ec(), user.esr & 0x3f, user.far), (EC_IABT_EL0, 0x14 + level as u64, VA), "at EL0");
    }
    // The same walk with all tables there.
    build(scratch(4) | PAGE, None);
    let good = try_write64(VA, 0x1234).and_then(|()| try_read64(VA));
    mmu::set_upper(None);
    check_eq!(good.ok(), Some(0x1234), "with all tables there");
    Ok(())
}

/// Tables in read-only memory: good enough, unless hardware is to set the access flag in them.
pub(super) fn read_only_tables(machine: &Machine) -> Outcome {
    let Some(region) = machine.region_called("tables") else { skip!("no read-only region with tables") };
    if sysreg::field(mrs!("id_aa64mmfr1_el1"), 0) == 0 {
        skip!("no hardware management of the access flag");
    }
    // The file has two leaves for the same page, with the access flag and without.
    build(0, Some((3, region.start)));
    let va = VA - (INDEX[3] << 12);
    let with_flag = try_read64(va);
    let without = try_read64(va + 0x1000);
    let stored = try_write64(va + 0x1000, 0);
    // SAFETY: translation of an address changes PAR_EL1 only.
    let at = expect_fault(|| unsafe { asm!("at s1e1r, {}", in(reg) va + 0x1000, options(nostack)) });
    let par = mrs!("par_el1");
    mmu::set_upper(None);
    check!(with_flag.is_ok(), "a leaf with the access flag: {with_flag:x?}");
    for (what, fault) in [("load", without.err()), ("store", stored.err())] {
        let seen = fault.map(|f| (f.ec(), f.fsc(), f.far));
        check_eq!(seen, Some((EC_DABT_EL1, 0x17, va + 0x1000)), "{what} without the access flag");
    }
    // AT may leave the flag alone (Arm, "Address translation instructions").
    match at {
        None => check_eq!(par & 1, 0, "PAR_EL1.F after AT"),
        Some(fault) => check_eq!((fault.ec(), fault.fsc()), (EC_DABT_EL1, 0x17), "AT"),
    }
    Ok(())
}

/// EL2 itself has to walk the guest's tables, which meanwhile are where the bus does not answer.
pub(super) fn tables_that_abort_el2(machine: &Machine) -> Outcome {
    let (Some(bare), Some(void)) = (machine.region_called("bare"), machine.region_called("void")) else {
        skip!("no region without tags, or none that aborts")
    };
    if mte::level() < 2 {
        skip!("no FEAT_MTE2");
    }
    build(bare.start | PAGE | TAGGED, None);
    let va = VA & !0xf;
    if expect_fault(|| mte::stg(va)).is_none() {
        mmu::set_upper(None);
        skip!("no FEAT_MTE_PERM");
    }
    let registers: [u64; 2] = [mrs!("tpidrro_el0"), mrs!("par_el1")];
    msr!("tpidrro_el0", 0x1357);
    let loaded = try_read64(VA);
    // Level 3 becomes the device; the TLB may still know the page.
    write64(scratch(2) + 8 * INDEX[2], void.start | TABLE);
    barrier();
    let fault = expect_fault(|| mte::stg(va));
    let kept: [u64; 2] = [mrs!("tpidrro_el0"), mrs!("par_el1")];
    msr!("tpidrro_el0", registers[0]);
    mmu::set_upper(None);
    check!(loaded.is_ok(), "a load from memory without tags: {loaded:x?}");
    let seen = fault.map(|f| (f.ec(), f.far));
    check_eq!(seen, Some((EC_DABT_EL1, va)), "EC and FAR of STG");
    // 0x10: a CPU whose AT uses the TLB finds the page, and the abort is that of the tag access.
    check!(fault.is_some_and(|f| matches!(f.fsc(), 0x10 | 0x17)), "DFSC of STG: {fault:x?}");
    check_eq!(kept, [0x1357, registers[1]], "TPIDRRO_EL0 and PAR_EL1");
    Ok(())
}
