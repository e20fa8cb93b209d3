//! Cacheable memory of a device in a VM with MTE: the memory of QEMU's `ivshmem-plain` behind its BAR 2 in
//! the region `bar`, write-back and without tags; `config` is its page of PCI configuration space. The
//! manifest says where the BAR has to be, and nobody before this suite has put it there.

use crate::harness::{Message, Outcome, Stop, check, check_eq, skip, suite};
use crate::rt::exception::{EC_DABT_EL1, EC_IABT_EL1, FSC_EXTERNAL, expect_fault};
use crate::rt::machine::{Machine, Region};
use crate::rt::mem::{barrier, read32, read64, write32, write64};
use crate::rt::mmu::{device, tagged};
use crate::rt::mte;
use core::arch::asm;

suite!("bar", false, [memory, code, tag_accesses]);

/// Physical address of region `bar`, which PCI addresses equal.
const ADDRESS: u32 = 0x1000_0000;
/// PCI configuration: vendor and device, command, BAR 2 (64 bits).
const ID: u64 = 0x00;
const COMMAND: u64 = 0x04;
const BAR2: u64 = 0x18;
/// Inter-VM shared memory.
const IVSHMEM: u32 = 0x1110_1af4;
/// The device answers in memory space.
const MEMORY_SPACE: u32 = 1 << 1;

/// The region, with the device's memory in it.
fn bar(machine: &Machine) -> Result<&Region, Stop> {
    let (Some(config), Some(bar)) = (machine.region_called("config"), machine.region_called("bar")) else {
        skip!("no regions config and bar");
    };
    let config = device(config.start);
    let found = read32(config + ID);
    if found != IVSHMEM {
        return Err(Stop::Fail(Message::new(format_args!("the device is {found:#x}"))));
    }
    write32(config + BAR2, ADDRESS);
    write32(config + BAR2 + 4, 0);
    write32(config + COMMAND, MEMORY_SPACE);
    barrier();
    Ok(bar)
}

/// It is memory: Normal, so unaligned accesses and atomics work; maintenance loses nothing.
fn memory(machine: &Machine) -> Outcome {
    let bar = bar(machine)?;
    for at in (bar.start..bar.start + bar.size).step_by(4096) {
        write64(at, !at);
        write64(at + 4088, at);
    }
    for at in (bar.start..bar.start + bar.size).step_by(4096) {
        // SAFETY: maintenance of the line changes no data.
        unsafe { asm!("dc civac, {}", "dsb sy", in(reg) at, options(nostack)) };
        check_eq!((read64(at), read64(at + 4088)), (!at, at), "content at {at:#x}");
    }
    let old: u64;
    // SAFETY: the region holds no Rust object.
    unsafe {
        asm!(".arch_extension lse", "ldadd {one}, {old}, [{a}]", one = in(reg) 1_u64, old = out(reg) old,
            a = in(reg) bar.start, options(nostack))
    };
    check_eq!((old, read64(bar.start)), (!bar.start, !bar.start + 1), "LDADD");
    let unaligned = expect_fault(|| write64(bar.start + 4093, 0x0102_0304_0506_0708));
    check!(unaligned.is_none(), "an unaligned store across pages: {unaligned:x?}");
    check_eq!(read64(bar.start + 4093), 0x0102_0304_0506_0708, "what it stored");
    Ok(())
}

/// Nothing is executed there: the hypervisor does not read a device's memory, which it would have to for
/// a fault that only the instruction explains.
fn code(machine: &Machine) -> Outcome {
    const RET: u32 = 0xd65f_03c0;
    let bar = bar(machine)?;
    write32(bar.start, RET);
    // SAFETY: maintenance of the line changes no data; the code there returns at once.
    let fault = expect_fault(|| unsafe {
        asm!("dc cvau, {a}", "dsb ish", "ic ivau, {a}", "dsb ish", "isb", "blr {a}", a = in(reg) bar.start,
            out("x30") _, options(nostack))
    });
    let seen = fault.map(|f| (f.ec(), f.fsc(), f.far));
    check_eq!(seen, Some((EC_IABT_EL1, FSC_EXTERNAL, bar.start)), "EC, IFSC and FAR");
    Ok(())
}

/// What it is and how it is done.
type Access = (&'static str, fn(u64));

/// Tags are refused, and nothing else is.
fn tag_accesses(machine: &Machine) -> Outcome {
    let bar = bar(machine)?;
    if mte::level() < 2 {
        skip!("no FEAT_MTE2");
    }
    let va = tagged(bar.start + bar.size / 2);
    write64(va, 0x1234);
    let accesses: [Access; 4] = [
        ("STG", |va| mte::stg(mte::with_tag(va, 5))),
        ("LDG", |va| {
            mte::ldg(va);
        }),
        ("a checked load", |va| {
            mte::set_checks(1, 0);
            read64(va);
            mte::set_checks(0, 0);
        }),
        ("a checked store", |va| {
            mte::set_checks(1, 0);
            write64(va, 0);
            mte::set_checks(0, 0);
        }),
    ];
    mte::set_tco(false);
    for (what, access) in accesses {
        let seen = expect_fault(|| access(va)).map(|f| (f.ec(), f.fsc()));
        check_eq!(seen, Some((EC_DABT_EL1, FSC_EXTERNAL)), "EC and DFSC of {what}");
        check_eq!(read64(va), 0x1234, "content after {what}");
    }
    Ok(())
}
