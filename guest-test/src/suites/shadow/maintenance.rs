//! A guest's DC IVAC, which needs write permission at each stage: whom its fault is told, and what becomes
//! of it where nobody forbids it. QEMU performs no maintenance and so has no such faults; a hypervisor
//! below that traps it decides all the same.

use super::super::nested::{guest_code, need_el2};
use super::own::is_external;
use super::tables::{BLOCK_2M, NESTED, PAGE, READ, Stage2, WRITE, data};
use super::{EC_DABT, EC_HVC, PERMISSION, TRANSLATION, VM, el1_with_map, run, run_as};
use crate::harness::{Outcome, Stop, check, check_eq, skip};
use crate::rt::el2::{Exit, Guest};
use crate::rt::exception::expect_fault;
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write64};
use crate::rt::mmu::WINDOW;

guest_code! {
    /// Invalidates the line at x1.
    invalidate "dc ivac, x1";
    /// Stores x0 to x1, invalidates the line, loads x0 again.
    store_invalidate "str x0, [x1]; dc ivac, x1; mov x0, #0; ldr x0, [x1]";
    /// Cleans and invalidates the line at x1.
    clean "dc civac, x1";
}

/// S1PTW, CM, WnR of a data abort.
const S1PTW: u64 = 1 << 7;
const CM: u64 = 1 << 8;
const WNR: u64 = 1 << 6;

fn need_traps() -> Result<(), Stop> {
    // SAFETY: nothing is mapped there.
    let dc_ivac = || unsafe {
        core::arch::asm!("dc ivac, {a}", a = in(reg) 7 * WINDOW, options(nostack, preserves_flags))
    };
    if expect_fault(dc_ivac).is_none() {
        skip!("maintenance is not translated here");
    }
    Ok(())
}

/// EL2 takes a stage-2 fault of maintenance.
fn is_fault(exit: Exit, guest: &Guest, va: u64, status: u64, what: &str) -> Outcome {
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_DABT), "{what}: ESR {:#x}", guest.esr);
    check_eq!(guest.esr & 0x1ff, CM | WNR | status, "{what}: CM, WnR, S1PTW and status");
    check_eq!(guest.far, va, "{what}: FAR_EL2");
    Ok(())
}

fn is_done(exit: Exit, guest: &Guest, what: &str) -> Outcome {
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "{what}: ESR {:#x}", guest.esr);
    Ok(())
}

/// The payload forbids stores, or has nothing there, whatever the machine has: the payload's fault. Only
/// the machine forbids them: done, and the payload hears nothing of it.
pub(super) fn maintenance(machine: &Machine) -> Outcome {
    need_el2!();
    need_traps()?;
    let stage2 = Stage2::new(0, 1);
    let at = |n: u64| NESTED + n * PAGE;
    stage2.page(at(0), data(0), READ | WRITE);
    stage2.page(at(1), data(1), READ);
    stage2.page(at(2), data(2), WRITE);
    let rom = machine.regions().find(|r| r.read_only);
    if let Some(rom) = rom {
        stage2.page(at(3), rom.start, READ | WRITE);
        stage2.page(at(4), rom.start, READ);
    }
    stage2.forget();
    for offset in [0, 5] {
        let (exit, guest) = run(&stage2, invalidate(), 0, at(0) + offset);
        is_done(exit, &guest, "writable")?;
        let (exit, guest) = run(&stage2, invalidate(), 0, at(1) + offset);
        is_fault(exit, &guest, at(1) + offset, PERMISSION | 3, "read-only")?;
        let (exit, guest) = run(&stage2, invalidate(), 0, at(2) + offset);
        is_done(exit, &guest, "write-only")?;
        let (exit, guest) = run(&stage2, invalidate(), 0, at(9) + offset);
        is_fault(exit, &guest, at(9) + offset, TRANSLATION | 3, "unmapped")?;
        check_eq!(guest.hpfar, at(9) >> 12 << 4, "HPFAR_EL2");
        if let Some(rom) = rom {
            let before = read64(rom.start);
            let (exit, guest) = run(&stage2, invalidate(), 0, at(3) + offset);
            is_done(exit, &guest, "only the machine has it read-only")?;
            let (exit, guest) = run(&stage2, invalidate(), 0, at(4) + offset);
            is_fault(exit, &guest, at(4) + offset, PERMISSION | 3, "both have it read-only")?;
            check_eq!(read64(rom.start), before, "what is there");
        }
    }
    // Nothing else needs the permission, trapped or not.
    let (exit, guest) = run(&stage2, clean(), 0, at(1));
    is_done(exit, &guest, "DC CIVAC, read-only")?;
    // A store is not lost.
    write64(data(0), 0);
    let (exit, guest) = run(&stage2, store_invalidate(), 4711, at(0));
    is_done(exit, &guest, "store and DC IVAC")?;
    check_eq!((guest.x[0], read64(data(0))), (4711, 4711), "what was stored");
    // Where the machine has nothing, and a device of its own: stepped over.
    stage2.page(at(5), machine.absent() & !(PAGE - 1), READ | WRITE);
    stage2.page(at(6), machine.gic[0].0, READ | WRITE);
    stage2.forget();
    for n in [5, 6] {
        let (exit, guest) = run(&stage2, invalidate(), 0, at(n));
        is_done(exit, &guest, "nothing, or a device")?;
    }
    Ok(())
}

/// The guest's own stage 1 comes first: its faults are its own, and those of its walk the payload's.
pub(super) fn maintenance_of_tables(_: &Machine) -> Outcome {
    need_el2!();
    need_traps()?;
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ | WRITE);
    stage2.forget();
    let go = |va| run_as(&el1_with_map(), &stage2, VM, invalidate(), 0, va);
    let (exit, guest) = go(NESTED + 16);
    is_done(exit, &guest, "through both stages")?;
    // Unmapped by the guest: x11 is its ESR_EL1, its vector calls.
    let (exit, guest) = go(7 * WINDOW);
    check_eq!((exit, guest.ec(), guest.esr & 0xffff), (Exit::Sync, EC_HVC, 0x84), "ESR {:#x}", guest.esr);
    check_eq!(guest.x[11] >> 26, 0x25, "class of ESR_EL1");
    check_eq!(guest.x[11] & 0x1fc, CM | WNR | TRANSLATION, "CM, WnR and status of ESR_EL1");
    // Its table for the upper half is where the payload's stage 2 has nothing.
    let table = NESTED + BLOCK_2M;
    let mut el1 = el1_with_map();
    // As the lower half: T1SZ and TG1 of 4 KiB, with EPD1 clear.
    el1.tcr = el1.tcr & !(1 << 23 | 0x3f << 16 | 3 << 30) | (el1.tcr & 0x3f) << 16 | 2 << 30;
    el1.ttbr1 = table;
    let upper = !0 << 39 | 0x123;
    let (exit, guest) = run_as(&el1, &stage2, VM, invalidate(), 0, upper);
    is_fault(exit, &guest, upper, S1PTW | TRANSLATION | 2, "a table that is not there")?;
    let page = guest.hpfar << 8;
    check!((table..table + 2 * PAGE).contains(&page), "HPFAR_EL2 is {:#x}", guest.hpfar);
    Ok(())
}

/// The machine gives an external abort: the guest's own, or the payload's with HCR_EL2.TEA.
pub(super) fn maintenance_external(machine: &Machine) -> Outcome {
    const TEA: u64 = 1 << 37;
    const EXTERNAL: u64 = 0x10;
    need_el2!();
    need_traps()?;
    let Some(name) = machine.option("strict") else { skip!("no region is strict") };
    let Some(strict) = machine.region_called(name) else { skip!("no region is called {name}") };
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, strict.start, READ | WRITE);
    stage2.forget();
    let (exit, guest) = run(&stage2, invalidate(), 0, NESTED + 7);
    is_external(exit, &guest, "DC IVAC")?;
    check_eq!(guest.x[11] & (CM | WNR), CM | WNR, "CM and WnR of ESR_EL1");
    let (exit, guest) = run_as(&super::el1(), &stage2, VM | TEA, invalidate(), 0, NESTED + 7);
    is_fault(exit, &guest, NESTED + 7, EXTERNAL, "with TEA")
}
