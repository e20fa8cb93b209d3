//! The guest under its hypervisor's stage 2: faults with that stage's level, and tags.

use super::{EC_HVC, guest_code, guest_el1, need_el2};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::el2::{self, El1, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, scratch, write64};
use crate::rt::{mmu, mte, sysreg};

guest_code! {
    /// Loads x2 from x1.
    read_word "ldr x2, [x1]";
    /// Stores x2 to x1.
    write_word "str x2, [x1]";
    /// Gives the granule at x1 the tag in x1, and reads it back into x2.
    tag "stg x1, [x1]\n mov x2, x1\n ldg x2, [x1]";
    /// Fetches from x1.
    jump "br x1";
}

const VM: u64 = 1;
const PTW: u64 = 1 << 2;
const ATA: u64 = 1 << 56;
const EC_DATA: u64 = 0x24;
const EC_FETCH: u64 = 0x20;
/// ISS2.TagAccess.
const TAG_ACCESS: u64 = 1 << 41;
const TABLE: u64 = 3;
const BLOCK: u64 = 1;
const PAGE: u64 = 3;
const READ: u64 = 1 << 6;
const WRITE: u64 = 2 << 6;
/// AF, inner shareable.
const LEAF: u64 = 1 << 10 | 3 << 8;
/// MemAttr: Normal write-back; the same without tag access; Device-nGnRE.
const NORMAL: u64 = 0b1111 << 2;
const NO_TAGS: u64 = 0b0100 << 2;
const DEVICE: u64 = 0b0001 << 2;
/// Where the stage-2 tables are: levels 1, 2 and 3.
const TABLES: [usize; 3] = [16, 17, 18];
/// The nested address below which level 3 maps pages.
const PAGES: u64 = 0x8000_0000;

/// Stage 2: the payload's GiB as it is, devices, and at [`PAGES`] one page of RAM with these attributes.
fn tables(page: u64) {
    let [one, two, three] = TABLES.map(scratch);
    for n in 0..512 {
        [one, two, three].iter().for_each(|table| write64(table + 8 * n, 0));
    }
    write64(one, LEAF | READ | WRITE | DEVICE | BLOCK);
    write64(one + 8, 0x4000_0000 | LEAF | READ | WRITE | NORMAL | BLOCK);
    write64(one + 16, two | TABLE);
    write64(two, three | TABLE);
    write64(three, page);
}

/// L1's VTCR_EL2: 39 bits from level 1, 4 KiB granule, cacheable walks, and the physical size.
fn vtcr() -> u64 {
    let pa = (mrs!("id_aa64mmfr0_el1") & 0xf).min(5);
    1 << 31 | pa << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 25
}

/// Runs the guest once under stage 2.
fn under_stage2(el1: &El1, guest: &mut Guest, set: u64, clear: u64) -> Exit {
    at_el2(|| {
        let (vttbr, old) = (mrs!("vttbr_el2"), mrs!("vtcr_el2"));
        msr!("vtcr_el2", vtcr());
        msr!("vttbr_el2", scratch(TABLES[0]) | 7 << 48);
        // SAFETY: drops translations of guests.
        unsafe { core::arch::asm!("dsb ish", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack)) };
        let exit = with_guest(el1, VM | set, clear, || el2::enter(guest));
        msr!("vttbr_el2", vttbr);
        msr!("vtcr_el2", old);
        exit
    })
}

fn access(code: u64, address: u64, value: u64) -> (Exit, Guest) {
    let mut guest = Guest::new(code);
    (guest.x[1], guest.x[2]) = (address, value);
    let exit = under_stage2(&guest_el1(), &mut guest, 0, 0);
    (exit, guest)
}

pub(super) fn stage2_accesses(_: &Machine) -> Outcome {
    need_el2!();
    let page = scratch(19);
    tables(page | LEAF | READ | WRITE | NORMAL | PAGE);
    write64(page + 8, 0x1122_3344_5566_7788);
    let (exit, guest) = access(read_word(), PAGES + 8, 0);
    check_eq!((exit, guest.ec(), guest.x[2]), (Exit::Sync, EC_HVC, 0x1122_3344_5566_7788), "load");
    let (exit, guest) = access(write_word(), PAGES + 16, 0xabcd);
    check_eq!((exit, guest.ec(), read64(page + 16)), (Exit::Sync, EC_HVC, 0xabcd), "store");
    Ok(())
}

/// Faults have the level of L1's own table, FAR and HPFAR.
pub(super) fn stage2_faults(_: &Machine) -> Outcome {
    need_el2!();
    let page = scratch(19);
    tables(page | LEAF | READ | NORMAL | PAGE);
    write64(page, 5);
    for (name, code, address, ec, fsc, write) in [
        ("level 1", read_word(), 0xc000_0010, EC_DATA, 0x05, false),
        ("level 2", read_word(), PAGES + 0x20_0008, EC_DATA, 0x06, false),
        ("level 3", write_word(), PAGES + 0x1018, EC_DATA, 0x07, true),
        ("permission", write_word(), PAGES + 0x28, EC_DATA, 0x0f, true),
        ("fetch", jump(), PAGES + 0x3000, EC_FETCH, 0x07, false),
    ] {
        let (exit, guest) = access(code, address, 1);
        check_eq!((exit, guest.ec(), guest.esr & 0x3f), (Exit::Sync, ec, fsc), "{name}: EC, FSC");
        check_eq!(guest.far, address, "{name}: FAR_EL2");
        check_eq!(guest.esr >> 6 & 1, u64::from(write), "{name}: WnR");
        // HPFAR_EL2 is not defined for a permission fault, and right all the same.
        check_eq!(guest.hpfar & !0xf, address >> 12 << 4, "{name}: HPFAR_EL2");
    }
    check_eq!(read64(page), 5, "the page that may not be written");
    // Mapped now: the same access succeeds after the TLBI.
    tables(page | LEAF | READ | WRITE | NORMAL | PAGE);
    let (_, guest) = access(write_word(), PAGES, 6);
    check_eq!((guest.ec(), read64(page)), (EC_HVC, 6), "after L1 allowed it");
    Ok(())
}

/// HCR_EL2.PTW: a guest whose tables its hypervisor maps as a device cannot walk them, and nobody else is told.
pub(super) fn protected_walks(_: &Machine) -> Outcome {
    need_el2!();
    let page = scratch(19);
    for n in 0..512 {
        write64(page + 8 * n, read64(&raw const mmu::TABLE as u64 + 8 * n));
    }
    let el1 = El1 { ttbr0: PAGES, ..tagging_el1() };
    let go = |memory: u64, set: u64| {
        tables(page | LEAF | READ | WRITE | memory | PAGE);
        let mut guest = Guest::new(super::counting());
        let exit = under_stage2(&el1, &mut guest, set, 0);
        (exit, guest)
    };
    for (name, memory, set) in [("normal", NORMAL, PTW), ("a device without PTW", DEVICE, 0)] {
        let (exit, guest) = go(memory, set);
        check_eq!((exit, guest.ec(), guest.x[0]), (Exit::Sync, EC_HVC, 1), "tables in {name}");
    }
    let (exit, guest) = go(DEVICE, PTW);
    check_eq!((exit, guest.ec(), guest.esr & 0x3f), (Exit::Sync, EC_FETCH, 0x0f), "in a device: EC, FSC");
    check!(guest.esr & 1 << 7 != 0, "S1PTW, ESR {:#x}", guest.esr);
    check_eq!(guest.hpfar & !0xf, PAGES >> 12 << 4, "HPFAR_EL2");
    Ok(())
}

/// EL1 with the payload's map, whose windows have tags.
fn tagging_el1() -> El1 {
    let pa = (mrs!("id_aa64mmfr0_el1") & 0xf).min(5);
    El1 {
        sctlr: mmu::SCTLR | mmu::SCTLR_ATA,
        tcr: mmu::TCR | pa << 32,
        mair: mmu::MAIR_TAGGED,
        ttbr0: &raw const mmu::TABLE as u64,
        ..guest_el1()
    }
}

fn guest_tag(address: u64, clear: u64) -> (Exit, Guest) {
    let mut guest = Guest::new(tag());
    guest.x[1] = mte::with_tag(mmu::tagged(address), 6);
    let exit = under_stage2(&tagging_el1(), &mut guest, 0, clear);
    (exit, guest)
}

/// The guest's tags are in memory; without HCR_EL2.ATA its tag stores do nothing.
pub(super) fn guest_tags(_: &Machine) -> Outcome {
    need_el2!();
    if mte::level() < 2 {
        skip!("no FEAT_MTE2");
    }
    let page = scratch(19);
    tables(page | LEAF | READ | WRITE | NORMAL | PAGE);
    let own = mmu::tagged(page);
    mte::stg(mte::with_tag(own, 1));
    let (exit, guest) = guest_tag(PAGES, 0);
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "STG and LDG: exit, ESR {:#x}", guest.esr);
    check_eq!((mte::tag_of(guest.x[2]), mte::ldg(own)), (6, 6), "the tag, as the guest and L1 read it");
    mte::stg(mte::with_tag(own, 1));
    let (_, guest) = guest_tag(PAGES, ATA);
    check_eq!((guest.ec(), mte::ldg(own)), (EC_HVC, 1), "without ATA");
    Ok(())
}

/// L1 forbids tag access in its own stage 2 (FEAT_MTE_PERM): the fault is L1's.
pub(super) fn no_tag_access(_: &Machine) -> Outcome {
    need_el2!();
    if mte::level() < 2 || sysreg::field(mrs!("S3_0_C0_C4_2"), 0) == 0 {
        skip!("no FEAT_MTE_PERM");
    }
    let page = scratch(19);
    tables(page | LEAF | READ | WRITE | NO_TAGS | PAGE);
    let own = mmu::tagged(page);
    mte::stg(mte::with_tag(own, 1));
    let (exit, guest) = guest_tag(PAGES, 0);
    check_eq!((exit, guest.ec(), guest.esr & 0x3f), (Exit::Sync, EC_DATA, 0x0f), "STG: EC, FSC");
    check!(guest.esr & TAG_ACCESS != 0, "ISS2.TagAccess, ESR {:#x}", guest.esr);
    check_eq!(mte::ldg(own), 1, "the tag");
    write64(page, 0x99);
    let mut reader = Guest::new(read_word());
    reader.x[1] = PAGES;
    under_stage2(&guest_el1(), &mut reader, 0, 0);
    check_eq!((reader.ec(), reader.x[2]), (EC_HVC, 0x99), "an ordinary load");
    Ok(())
}
