//! What the machine itself has, or has not, behind an address that EL2's stage 2 hands on: as if EL2
//! had accessed it.

use super::super::nested::{guest_code, need_el2};
use super::tables::{NESTED, PAGE, READ, Stage2, WRITE};
use super::tags::tagged;
use super::{EC_HVC, VM, el1_with_map, load64, run, run_as, store64};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::el2::Exit;
use crate::rt::machine::Machine;
use crate::rt::sysreg::field;
use crate::rt::{mem, mmu, mte};

guest_code! {
    /// Loads 32 bits from x1.
    load32 "ldr w0, [x1]";
    /// Tags the granule at x1.
    tag_own "stg x1, [x1]";
}

/// What the guest's EL1 learnt by its own vector of a synchronous exception: an external abort.
pub(super) fn is_external(exit: Exit, guest: &crate::rt::el2::Guest, what: &str) -> Outcome {
    check_eq!(
        (exit, guest.ec(), guest.esr & 0xffff),
        (Exit::Sync, EC_HVC, 0x84),
        "{what}: ESR {:#x}",
        guest.esr
    );
    check_eq!((guest.x[11] >> 26, guest.x[11] & 0x3f), (0x25, 0x10), "{what}: ESR_EL1");
    Ok(())
}

/// A device of the machine that EL2 hands on, and a place where the machine has nothing.
pub(super) fn own_devices(machine: &Machine) -> Outcome {
    need_el2!();
    let (distributor, _) = machine.gic[0];
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, distributor, READ | WRITE);
    stage2.page(NESTED + PAGE, machine.absent() & !(PAGE - 1), READ | WRITE);
    stage2.forget();
    // GICD_TYPER.
    let (exit, guest) = run(&stage2, load32(), 0, NESTED + 4);
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "distributor: ESR {:#x}", guest.esr);
    check_eq!(guest.x[0], u64::from(mem::read32(mmu::device(distributor) + 4)), "GICD_TYPER");
    // Nothing there: an external abort, which is the guest's own.
    let (exit, guest) = run(&stage2, load64(), 0, NESTED + PAGE);
    is_external(exit, &guest, "absent")
}

/// EL2 allows stores, the machine does not: EL2 hears nothing of it.
pub(super) fn own_read_only(machine: &Machine) -> Outcome {
    need_el2!();
    let Some(region) = machine.regions().find(|r| r.read_only) else { skip!("no read-only region") };
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, region.start, READ | WRITE);
    stage2.forget();
    let before = mem::read64(region.start);
    let (exit, guest) = run(&stage2, load64(), 0, NESTED);
    check_eq!((exit, guest.ec(), guest.x[0]), (Exit::Sync, EC_HVC, before), "load: ESR {:#x}", guest.esr);
    let (exit, guest) = run(&stage2, store64(), !before, NESTED);
    is_external(exit, &guest, "store")?;
    check_eq!(mem::read64(region.start), before, "what was not stored");
    Ok(())
}

/// Memory of the machine without tags, and memory that gets them by the first tag that is stored.
pub(super) fn own_untagged(machine: &Machine) -> Outcome {
    need_el2!();
    if mte::level() < 2 {
        skip!("no memory tags");
    }
    const ATA: u64 = 1 << 56;
    let stage2 = Stage2::new(0, 1);
    let go = |code, va| run_as(&el1_with_map(), &stage2, VM | ATA, code, 0, va);
    let mut seen = 0;
    for region in machine.regions().filter(|r| r.tags == "none" && !r.read_only && !r.device) {
        seen += 1;
        stage2.page(NESTED, region.start, READ | WRITE);
        stage2.forget();
        let (exit, guest) = go(load64(), NESTED + 64);
        check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "unchecked load: ESR {:#x}", guest.esr);
        let (exit, guest) = go(tag_own(), tagged(NESTED + 64));
        // Its policy is an external abort; EL2 is not asked. Without FEAT_MTE_PERM such memory is non-cacheable,
        // and tags there are forgotten.
        let call = if field(mrs!("S3_0_C0_C4_2"), 0) != 0 { 0x84 } else { 0 };
        check_eq!((exit, guest.esr & 0xffff), (Exit::Sync, call), "tag store: ESR {:#x}", guest.esr);
    }
    if let Some(&(lazy, _)) = machine.memory().get(1) {
        seen += 1;
        stage2.page(NESTED, lazy + PAGE, READ | WRITE);
        stage2.forget();
        mem::write64(lazy + PAGE, 4321);
        let (exit, guest) = go(load64(), NESTED);
        check_eq!((exit, guest.ec(), guest.x[0]), (Exit::Sync, EC_HVC, 4321), "lazy: ESR {:#x}", guest.esr);
        let (exit, guest) = go(tag_own(), tagged(NESTED + 64));
        check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "tag store, lazy: ESR {:#x}", guest.esr);
        check_eq!(mte::ldg(lazy + PAGE + 64 + 2 * mmu::WINDOW), 5, "the tag");
        let (exit, guest) = go(load64(), NESTED);
        check_eq!(
            (exit, guest.ec(), guest.x[0]),
            (Exit::Sync, EC_HVC, 4321),
            "afterwards: ESR {:#x}",
            guest.esr
        );
    }
    if seen == 0 {
        skip!("no region without tags");
    }
    Ok(())
}
