//! What the IPA space holds: memory, read-only and device regions, and nothing.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::exception::{EC_DABT_EL1, EC_IABT_EL1, FSC_EXTERNAL, Fault};
use crate::rt::machine::{Machine, Region};
use crate::rt::mem::{scratch, try_execute, try_read64, try_write64};
use crate::rt::mmu::{WINDOW, device, non_cacheable};
use crate::rt::smccc::tagvisor;

suite!(
    "stage2",
    true,
    [
        absent_read,
        absent_write,
        absent_fetch,
        absent_between,
        read_only_load,
        read_only_store,
        writable_regions,
        device_regions,
        memory_ends,
    ]
);

fn aborted<T>(result: Result<T, Fault>, what: &str) -> Result<Fault, crate::harness::Stop> {
    let Err(fault) = result else {
        return Err(crate::harness::Stop::Fail(crate::harness::Message::new(format_args!(
            "{what}: no abort"
        ))));
    };
    Ok(fault)
}

fn external(fault: Fault, va: u64, write: bool) -> Outcome {
    check_eq!(fault.ec(), EC_DABT_EL1, "EC at {va:#x}");
    check_eq!(fault.fsc(), FSC_EXTERNAL, "DFSC at {va:#x}");
    check_eq!(fault.esr >> 25 & 1, 1, "IL at {va:#x}");
    // FnV: FAR may be unknown for an external abort.
    check!(fault.esr & (1 << 10) != 0 || fault.far == va, "FAR {:#x} for {va:#x}", fault.far);
    check_eq!(fault.write(), write, "WnR at {va:#x}");
    Ok(())
}

fn absent_read(machine: &Machine) -> Outcome {
    for va in [machine.absent(), device(machine.absent()), non_cacheable(machine.absent() + 8)] {
        external(aborted(try_read64(va), "load")?, va, false)?;
    }
    Ok(())
}

fn absent_write(machine: &Machine) -> Outcome {
    for va in [machine.absent(), device(machine.absent()), non_cacheable(machine.absent() + 8)] {
        external(aborted(try_write64(va, 1), "store")?, va, true)?;
    }
    Ok(())
}

fn absent_fetch(machine: &Machine) -> Outcome {
    let va = machine.absent();
    let fault = aborted(try_execute(va), "fetch")?;
    check_eq!(fault.ec(), EC_IABT_EL1, "EC");
    check_eq!(fault.fsc(), FSC_EXTERNAL, "IFSC");
    check_eq!(fault.elr, va, "ELR");
    Ok(())
}

fn absent_between(machine: &Machine) -> Outcome {
    if !tagvisor() {
        skip!("this machine has other devices there");
    }
    // Just behind the emulated devices, and where the machine underneath has devices of its own.
    for ipa in [0u64, 0x0801_0000, 0x0900_1000, 0x0a00_0000, 0x0902_0000, 0x0c00_0000, 0x3fff_fff8] {
        if machine.regions().any(|r| ipa.wrapping_sub(r.start) < r.size) {
            continue;
        }
        external(aborted(try_read64(ipa), "load")?, ipa, false)?;
        external(aborted(try_write64(ipa, 0), "store")?, ipa, true)?;
    }
    Ok(())
}

fn read_only_load(machine: &Machine) -> Outcome {
    let mut found = false;
    for region in machine.regions().filter(|r| r.read_only) {
        found = true;
        for ipa in [region.start, region.start + region.size - 8] {
            check!(try_read64(ipa).is_ok(), "a load from read-only region {} aborts", region.name);
        }
    }
    if !found {
        skip!("no read-only region");
    }
    Ok(())
}

fn read_only_store(machine: &Machine) -> Outcome {
    let mut found = false;
    for region in machine.regions().filter(|r| r.read_only) {
        found = true;
        for ipa in [region.start, region.start + region.size - 8] {
            let before = try_read64(ipa).ok();
            external(aborted(try_write64(ipa, 0x5a5a), region.name)?, ipa, true)?;
            check_eq!(try_read64(ipa).ok(), before, "content of {}", region.name);
        }
    }
    if !found {
        skip!("no read-only region");
    }
    Ok(())
}

fn writable_regions(machine: &Machine) -> Outcome {
    let mut found = false;
    // What other VMs use at the same time is left as it is.
    let own = |r: &&Region| !r.read_only && !r.device && !machine.lists("share", r.name);
    for region in machine.regions().filter(own) {
        found = true;
        let ipa = region.start + region.size - 8;
        check!(try_read64(ipa).is_ok(), "a load from region {} aborts", region.name);
        check!(try_write64(ipa, 0x5a5a).is_ok(), "a store to region {} aborts", region.name);
        check_eq!(try_read64(ipa).ok(), Some(0x5a5a), "content of {}", region.name);
    }
    if !found {
        skip!("no such region");
    }
    Ok(())
}

fn device_regions(machine: &Machine) -> Outcome {
    let mut found = false;
    for region in machine.regions().filter(|r| r.device) {
        found = true;
        check!(try_read64(device(region.start)).is_ok(), "a load from device region {} aborts", region.name);
    }
    if !found {
        skip!("no device region");
    }
    Ok(())
}

fn memory_ends(machine: &Machine) -> Outcome {
    for &(start, size) in machine.memory().iter().filter(|m| m.0 + m.1 <= WINDOW) {
        let last = start + size - 8;
        check!(try_read64(start).is_ok() && try_read64(last).is_ok(), "memory {start:#x} is not all there");
        let old = try_read64(last).unwrap_or(0);
        check!(try_write64(last, !old).is_ok(), "a store to {last:#x} aborts");
        check_eq!(try_read64(last).ok(), Some(!old), "content of {last:#x}");
        check!(try_write64(last, old).is_ok(), "a store to {last:#x} aborts");
    }
    check!(try_read64(scratch(0)).is_ok(), "a load from the payload's own memory aborts");
    Ok(())
}
