//! Stage 2 of a guest under the payload's EL2: what the guest reaches through tables of the payload's,
//! with which rights, and what the payload's EL2 learns of the rest.

use super::nested::{guest_code, need_el2};
use crate::harness::{Outcome, Stop, check, check_eq, skip, suite};
use crate::rt::el2::{self, El1, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write64};
use crate::rt::mmu::{self, SCTLR_OFF};
use crate::rt::sysreg;

mod endian;
mod exits;
mod maintenance;
mod own;
mod random;
mod shared;
pub(crate) mod tables;
mod tags;
mod translate;
use tables::{AREA, BLOCK_2M, NESTED, NO_EXEC, PAGE, READ, Stage2, WRITE, data};

use endian::big_endian_tables;
use exits::one_exit_each;
use maintenance::{maintenance, maintenance_external, maintenance_of_tables};
use own::{own_devices, own_read_only, own_untagged};
use random::{random_stage_1, random_stage_2};
use shared::{never_invalidated, recycled_beside, shared_by_two};
use tags::{end_of_page, one_leaf_two_meanings, tag_blind, tags};
use translate::{guest_tables, translate};

suite!(
    "shadow",
    true,
    [
        pages,
        absent,
        permissions,
        permission_taken_away,
        execute_never,
        blocks,
        one_exit_each,
        block_of_pages,
        same_vmid,
        many_stage_2s,
        stage_2_off,
        access_flag,
        too_large,
        wrong_blocks,
        granules,
        own_devices,
        own_read_only,
        own_untagged,
        guest_tables,
        maintenance,
        maintenance_of_tables,
        maintenance_external,
        translate,
        tags,
        end_of_page,
        tag_blind,
        one_leaf_two_meanings,
        shared_by_two,
        recycled_beside,
        never_invalidated,
        random_stage_1,
        random_stage_2,
        big_endian_tables,
    ]
);

/// Exception classes that arrive at EL2.
const EC_IABT: u64 = 0x20;
const EC_DABT: u64 = 0x24;
const EC_HVC: u64 = 0x16;

guest_code! {
    /// Loads x0 from x1.
    load64 "ldr x0, [x1]";
    /// Stores x0 to x1.
    store64 "str x0, [x1]";
    /// Stores a pair.
    store_pair "stp x0, x2, [x1]";
    /// Branches to x1.
    branch "br x1";
    /// Loads from x1 and so on, x3 times, x2 bytes apart.
    touch "2: ldr x0, [x1]\n add x1, x1, x2\n subs x3, x3, #1\n b.ne 2b";
}

/// HCR_EL2.VM.
const VM: u64 = 1;
/// HCR_EL2.FWB.
const FWB: u64 = 1 << 46;

/// EL1 of the guest: MMU off, vectors that call.
fn el1() -> El1 {
    unsafe extern "C" {
        static guest_vectors: u8;
    }
    El1 { sctlr: SCTLR_OFF, vbar: &raw const guest_vectors as u64, cpacr: 3 << 20, ..El1::default() }
}

/// EL1 of the guest with the payload's own map.
fn el1_with_map() -> El1 {
    let range = sysreg::field(mrs!("id_aa64mmfr0_el1"), 0).min(5);
    El1 {
        sctlr: mmu::SCTLR | mmu::SCTLR_ATA,
        tcr: mmu::TCR | range << 32,
        ttbr0: &raw const mmu::TABLE as u64,
        mair: mmu::MAIR_TAGGED,
        ..el1()
    }
}

/// Runs `code` with x0 and x1 under a stage 2; `bits`: of HCR_EL2.
fn run_as(el1: &El1, stage2: &Stage2, bits: u64, code: u64, x0: u64, x1: u64) -> (Exit, Guest) {
    let mut guest = Guest::new(code);
    (guest.x[0], guest.x[1]) = (x0, x1);
    let exit = at_el2(|| {
        stage2.install();
        with_guest(el1, bits, FWB & !bits, || el2::enter(&mut guest))
    });
    (exit, guest)
}

fn run(stage2: &Stage2, code: u64, x0: u64, x1: u64) -> (Exit, Guest) {
    run_as(&el1(), stage2, VM, code, x0, x1)
}

/// The guest loads at `ipa`.
fn loads(stage2: &Stage2, ipa: u64) -> Result<u64, Stop> {
    let (exit, guest) = run(stage2, load64(), 0, ipa);
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "load at {ipa:#x}: ESR {:#x}", guest.esr);
    Ok(guest.x[0])
}

/// The guest faults at `ipa` in the payload's stage 2: class, status, and whether it is a write.
fn faults(stage2: &Stage2, code: u64, ipa: u64, ec: u64, status: u64, write: bool) -> Outcome {
    let (exit, guest) = run(stage2, code, 7, ipa);
    is_fault(exit, &guest, ipa, ec, status, write)
}

fn is_fault(exit: Exit, guest: &Guest, ipa: u64, ec: u64, status: u64, write: bool) -> Outcome {
    check_eq!((exit, guest.ec()), (Exit::Sync, ec), "{ipa:#x}: ESR {:#x}", guest.esr);
    check_eq!(guest.esr & 0x3f, status, "{ipa:#x}: status");
    check_eq!(guest.esr >> 6 & 1 != 0, write, "{ipa:#x}: WnR, ESR {:#x}", guest.esr);
    check_eq!(guest.far, ipa, "FAR_EL2");
    // For a permission it is unknown.
    if status & 0x3c != PERMISSION {
        check_eq!(guest.hpfar, ipa >> 12 << 4, "HPFAR_EL2");
    }
    Ok(())
}

/// Statuses.
const TRANSLATION: u64 = 0x04;
const ACCESS_FLAG: u64 = 0x08;
const PERMISSION: u64 = 0x0c;
const ADDRESS_SIZE: u64 = 0x00;

fn pages(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    for n in 0..8 {
        stage2.page(NESTED + n * PAGE, data(7 - n), READ | WRITE);
        write64(data(n), 0x1111 * n + 3);
    }
    stage2.forget();
    for n in 0..8 {
        check_eq!(loads(&stage2, NESTED + n * PAGE)?, 0x1111 * (7 - n) + 3, "page {n}");
        let (exit, guest) = run(&stage2, store64(), n, NESTED + n * PAGE + 8);
        check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "store {n}");
        check_eq!(read64(data(7 - n) + 8), n, "what was stored");
    }
    Ok(())
}

fn absent(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ | WRITE);
    stage2.forget();
    // Level 3 beside a page, level 2 beside its table, level 1 beside that; and above the input size.
    for (ipa, level) in
        [(NESTED + PAGE + 0x120, 3), (NESTED + BLOCK_2M, 2), (NESTED + (3 << 30) + 8, 1), (1 << 39, 0)]
    {
        faults(&stage2, load64(), ipa, EC_DABT, TRANSLATION | level, false)?;
        faults(&stage2, store64(), ipa, EC_DABT, TRANSLATION | level, true)?;
        faults(&stage2, store_pair(), ipa, EC_DABT, TRANSLATION | level, true)?;
    }
    faults(&stage2, branch(), NESTED + PAGE, EC_IABT, TRANSLATION | 3, false)
}

fn permissions(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ);
    stage2.page(NESTED + PAGE, data(1), WRITE);
    stage2.forget();
    write64(data(0), 42);
    check_eq!(loads(&stage2, NESTED)?, 42, "load");
    faults(&stage2, store64(), NESTED, EC_DABT, PERMISSION | 3, true)?;
    check_eq!(read64(data(0)), 42, "what was not stored");
    faults(&stage2, load64(), NESTED + PAGE, EC_DABT, PERMISSION | 3, false)
}

fn permission_taken_away(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ | WRITE);
    stage2.forget();
    loads(&stage2, NESTED)?;
    stage2.page(NESTED, data(0), WRITE);
    stage2.forget_page(NESTED);
    faults(&stage2, load64(), NESTED, EC_DABT, PERMISSION | 3, false)?;
    stage2.page(NESTED, data(1), READ | WRITE);
    stage2.forget_page(NESTED);
    write64(data(1), 77);
    check_eq!(loads(&stage2, NESTED)?, 77, "after the page has moved");
    Ok(())
}

fn execute_never(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, load64() & !(PAGE - 1), READ);
    stage2.page(NESTED + PAGE, load64() & !(PAGE - 1), READ | NO_EXEC);
    stage2.forget();
    // The page holds the code itself, which loads from x1.
    let at = load64() % PAGE;
    let (exit, guest) = run(&stage2, NESTED + at, 0, NESTED + at);
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "execution: ESR {:#x}", guest.esr);
    faults(&stage2, branch(), NESTED + PAGE + at, EC_IABT, PERMISSION | 3, false)
}

fn blocks(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    stage2.block(NESTED, AREA, READ | WRITE);
    stage2.forget();
    for offset in [0, 8, 0x12_3458, BLOCK_2M - 8] {
        write64(AREA + offset, offset ^ 0x55);
        check_eq!(loads(&stage2, NESTED + offset)?, offset ^ 0x55, "{offset:#x}");
    }
    // One invalidation at any address in it, without a hint of the level, forgets all of it.
    stage2.block(NESTED, AREA, WRITE);
    stage2.forget_page(NESTED + 0x5000);
    for offset in [0, 0x12_3458, BLOCK_2M - 8] {
        faults(&stage2, load64(), NESTED + offset, EC_DABT, PERMISSION | 2, false)?;
    }
    Ok(())
}

/// A range of pages is forgotten at once, and what is beside it is not touched.
fn block_of_pages(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    for n in 0..16 {
        stage2.page(NESTED + n * PAGE, data(n), READ);
        write64(data(n), n);
    }
    stage2.forget();
    for n in 0..16 {
        check_eq!(loads(&stage2, NESTED + n * PAGE)?, n, "page {n}");
    }
    for n in 0..16 {
        stage2.page(NESTED + n * PAGE, data(n), WRITE);
    }
    // A hint of level 2 for what are pages.
    stage2.forget_hinted(NESTED, 0b0110);
    for n in 0..16 {
        faults(&stage2, load64(), NESTED + n * PAGE, EC_DABT, PERMISSION | 3, false)?;
    }
    Ok(())
}

fn same_vmid(_: &Machine) -> Outcome {
    need_el2!();
    let (a, b) = (Stage2::new(0, 5), Stage2::new(1, 5));
    for (stage2, n) in [(&a, 0), (&b, 1)] {
        stage2.page(NESTED, data(n), READ);
        write64(data(n), 100 + n);
    }
    a.forget();
    check_eq!((loads(&a, NESTED)?, loads(&b, NESTED)?), (100, 101), "two tables");
    // One VMID: what is forgotten under it is forgotten of both.
    for stage2 in [&a, &b] {
        stage2.page(NESTED, 0, 0);
    }
    a.forget_page(NESTED);
    for stage2 in [&a, &b] {
        faults(stage2, load64(), NESTED, EC_DABT, TRANSLATION | 3, false)?;
    }
    Ok(())
}

fn many_stage_2s(_: &Machine) -> Outcome {
    need_el2!();
    let all = [0, 1, 2, 3, 4, 5, 6].map(|n| Stage2::new(n, 10 + n));
    for (n, stage2) in (0..).zip(&all) {
        stage2.page(NESTED, data(n), READ | WRITE);
        stage2.forget();
        write64(data(n), 0xabc0 + n);
    }
    // More than there are shadows, in changing order.
    for round in 0..40_usize {
        let n = round * round % all.len();
        check_eq!(loads(&all[n], NESTED)?, 0xabc0 + n as u64, "round {round}");
    }
    Ok(())
}

fn stage_2_off(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    // The same address with and without stage 2.
    stage2.block(NESTED, AREA, READ);
    stage2.alias(AREA, AREA + BLOCK_2M);
    stage2.forget();
    write64(AREA + 64, 1);
    write64(AREA + BLOCK_2M + 64, 2);
    for _ in 0..3 {
        check_eq!(loads(&stage2, AREA + 64)?, 2, "stage 2 on");
        let (exit, guest) = run_as(&el1(), &stage2, 0, load64(), 0, AREA + 64);
        check_eq!((exit, guest.ec(), guest.x[0]), (Exit::Sync, EC_HVC, 1), "stage 2 off");
    }
    Ok(())
}

fn access_flag(_: &Machine) -> Outcome {
    need_el2!();
    const AF: u64 = 1 << 10;
    let mut stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ | WRITE);
    let at = stage2.leaf(NESTED);
    write64(at, read64(at) & !AF);
    stage2.forget();
    faults(&stage2, load64(), NESTED, EC_DABT, ACCESS_FLAG | 3, false)?;
    check_eq!(read64(at) & AF, 0, "the flag without HA");
    if sysreg::field(mrs!("id_aa64mmfr1_el1"), 0) == 0 {
        skip!("no hardware update of access flags");
    }
    stage2.vtcr |= 1 << 21;
    loads(&stage2, NESTED)?;
    check_eq!(read64(at) & AF, AF, "the flag with HA");
    Ok(())
}

fn too_large(_: &Machine) -> Outcome {
    need_el2!();
    let mut stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, 1 << 36, READ);
    stage2.vtcr = stage2.vtcr & !(0b111 << 16) | 1 << 16;
    stage2.forget();
    faults(&stage2, load64(), NESTED, EC_DABT, ADDRESS_SIZE | 3, false)?;
    stage2.vttbr |= 1 << 36;
    let (exit, guest) = run(&stage2, load64(), 0, NESTED);
    // Already the fetch.
    check_eq!((exit, guest.ec(), guest.esr & 0x3f), (Exit::Sync, EC_IABT, ADDRESS_SIZE), "root");
    Ok(())
}

fn wrong_blocks(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ);
    // Bit 1 clear at level 3 is reserved.
    let at = stage2.leaf(NESTED);
    write64(at, read64(at) & !0b10);
    stage2.forget();
    faults(&stage2, load64(), NESTED, EC_DABT, TRANSLATION | 3, false)
}

fn granules(_: &Machine) -> Outcome {
    need_el2!();
    let mmfr0 = mrs!("id_aa64mmfr0_el1");
    let offered = |at_2, at_1, none| match sysreg::field(mmfr0, at_2) {
        0 => sysreg::field(mmfr0, at_1) != none,
        field => field > 1,
    };
    for (tg0, shift, there) in [(2, 14, offered(32, 20, 0)), (1, 16, offered(36, 24, 15))] {
        if !there {
            continue;
        }
        let (stage2, pa) = Stage2::with_granule(tg0, shift);
        write64(pa + 0x2468, 0x600d + tg0);
        stage2.forget();
        check_eq!(loads(&stage2, NESTED + 0x2468)?, 0x600d + tg0, "granule of {} KiB", 1u64 << (shift - 10));
        let beside = NESTED + (1 << shift) + 8;
        faults(&stage2, load64(), beside, EC_DABT, TRANSLATION | 3, false)?;
    }
    Ok(())
}
