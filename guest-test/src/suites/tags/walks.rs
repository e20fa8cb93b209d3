//! What reads memory without tags and is no tag access, although stage 1 says Tagged: instruction fetches,
//! walks of stage 1, and translations by AT.

use super::faults::{bare, number};
use super::outside::region_stats;
use crate::harness::{Outcome, check, check_eq};
use crate::rt::exception::expect_fault;
use crate::rt::machine::Machine;
use crate::rt::mem::{barrier, read64, try_execute, try_read64, try_write64, write64};
use crate::rt::mmu::{set_upper, tagged};
use crate::rt::{mte, sysreg};
use core::arch::asm;

/// Index into the table of each level, and with them an address of the upper half.
pub(super) const INDEX: [u64; 4] = [2, 4, 6, 8];
pub(super) const VA: u64 =
    0xffff_0000_0000_0000 | INDEX[0] << 39 | INDEX[1] << 30 | INDEX[2] << 21 | INDEX[3] << 12;
const TABLE: u64 = 0b11;
/// A page of Normal Tagged memory that EL1 may write, or execute. The access flag is the walk's to set.
pub(super) const LEAF: u64 = 0b11 | 3 << 8 | 2 << 2;
const EXECUTABLE: u64 = LEAF | READ_ONLY | ACCESS_FLAG;
const READ_ONLY: u64 = 1 << 7;
pub(super) const ACCESS_FLAG: u64 = 1 << 10;
/// RET.
const RET: u64 = 0xd65f_03c0;

/// PAR_EL1.ATTR of Normal Tagged and Normal write-back memory, of stage 1 alone.
const ATTR_TAGGED: u64 = 0xf0;
const ATTR_PLAIN: u64 = 0xff;

/// PAR_EL1 after AT S1E1R.
fn translate(va: u64) -> u64 {
    // SAFETY: a translation changes PAR_EL1 only.
    unsafe { asm!("at s1e1r, {}", "isb", in(reg) va, options(nostack)) };
    mrs!("par_el1")
}

/// Tables of all levels in the pages from `tables` on, with `leaf`.
pub(super) fn build(tables: u64, leaf: u64) {
    for (level, index) in (0..).zip(INDEX) {
        let entry = if level < 3 { (tables + 4096 * (level + 1)) | TABLE } else { leaf };
        write64(tables + 4096 * level + 8 * index, entry);
    }
    barrier();
    set_upper(Some(tables));
}

/// Takes the tables away, and leaves zeroes.
pub(super) fn forget(tables: u64) {
    set_upper(None);
    for (level, index) in (0..).zip(INDEX) {
        write64(tables + 4096 * level + 8 * index, 0);
    }
}

/// Tables and code in the memory without tags, with all checks on.
pub(super) fn fetches_and_walks(machine: &Machine) -> Outcome {
    let bare = bare(machine)?.start;
    let region = number(machine, bare);
    let (tables, page) = (bare + 0x4_0000, bare + 0x5_0000);
    let before = region_stats(machine, region)?;
    write64(page, RET);
    barrier();
    mte::set_checks(1, 0);
    build(tables, page | EXECUTABLE);
    let fetched = try_execute(VA);
    let par = translate(VA);
    forget(tables);
    // Without the access flag: where hardware can, the walk stores too.
    let sets_flag = sysreg::field(mrs!("id_aa64mmfr1_el1"), 0) != 0;
    build(tables, page | LEAF | if sets_flag { 0 } else { ACCESS_FLAG });
    // The upper half has no tags in its addresses, so loads and stores there are not checked.
    let stored = try_write64(VA + 8, 0x1234).and_then(|()| try_read64(VA + 8));
    let leaf = read64(tables + 3 * 4096 + 8 * INDEX[3]);
    let silent = region_stats(machine, region);
    let fault = expect_fault(|| mte::stg(VA));
    forget(tables);
    mte::set_checks(0, 0);
    write64(page, 0);
    write64(page + 8, 0);
    check!(fetched.is_ok(), "a fetch aborts: {fetched:x?}");
    check_eq!(par & 1, 0, "PAR_EL1.F of {par:#x}");
    check_eq!((par >> 56, par & 0xff_ffff_f000), (ATTR_TAGGED, page), "ATTR and PA of AT S1E1R");
    check_eq!(stored.ok(), Some(0x1234), "a store and a load over tables without tags");
    check!(leaf & ACCESS_FLAG != 0, "the access flag is clear: {leaf:#x}");
    check_eq!(silent?, before, "TAG_STATS of bare");
    // The same page, by the same tables: not even tag accesses fault where the region allows them.
    check!(fault.is_some(), "STG does not fault");
    Ok(())
}

/// AT tells a guest about its stage 1; what stage 2 adds, NoTagAccess among it, it cannot ask for.
pub(super) fn translations(machine: &Machine) -> Outcome {
    let bare = bare(machine)?.start;
    for (va, attr) in [(tagged(bare), ATTR_TAGGED), (bare, ATTR_PLAIN)] {
        let par = translate(va);
        check_eq!(par & 1, 0, "PAR_EL1.F for {va:#x}");
        check_eq!((par >> 56, par & 0xff_ffff_f000), (attr, bare), "ATTR and PA for {va:#x}");
    }
    // SAFETY: undefined at EL1; the handler skips it.
    let both = expect_fault(|| unsafe { asm!("at s12e1r, {}", in(reg) tagged(bare), options(nostack)) });
    check!(both.is_some_and(|f| f.undefined()), "AT S12E1R: {both:x?}");
    Ok(())
}
