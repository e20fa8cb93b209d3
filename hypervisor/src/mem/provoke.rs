//! Only in the build for tests (feature `provoke`): does wrong what the boot argument `provoke=WHAT` says.
//! Misuse of the heap or the stack EL2's tag checks or the guard page have to catch; a CPU that comes up
//! with less than it reported, and a table of ID registers out of order, the checks of these.
//!
//! UNSAFETY: wrong on purpose.

use crate::log;
use alloc::alloc::{Layout, alloc, dealloc};
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use idreg::{Entry, HostIds, Reg, TableError};

/// Secondary CPUs have lost a feature. Partner: `boot::GO`, which orders it.
static LESSER: AtomicBool = AtomicBool::new(false);
/// The table of ID registers is out of order. Only the boot CPU looks.
static SHUFFLED: AtomicBool = AtomicBool::new(false);

/// Takes `provoke=WHAT` out of the boot arguments.
pub(crate) fn take(bootargs: &mut String) -> Option<String> {
    let at = bootargs.find("provoke=")?;
    let what: String = bootargs.split_off(at);
    let what = what.trim_start_matches("provoke=");
    LESSER.store(what == "lesser-cpu", Ordering::Relaxed);
    SHUFFLED.store(what == "shuffled-tables", Ordering::Relaxed);
    Some(what.into())
}

/// What a secondary CPU has when it is about to run guests.
pub(crate) fn lessened(mut ids: HostIds) -> HostIds {
    if LESSER.load(Ordering::Relaxed) {
        // AES and PMULL.
        ids.limit(Reg::Isar0, 4, 0);
    }
    ids
}

/// The check of the tables at start.
pub(crate) fn check_tables() -> Result<(), TableError> {
    if !SHUFFLED.load(Ordering::Relaxed) {
        return idreg::check_tables();
    }
    let mut entries: Vec<Entry> = idreg::table::rows().map(|row| row.entry).collect();
    entries.swap(0, 1);
    idreg::check_entries(&entries, 5)
}

/// Needs more stack with each call.
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { deeper(depth.wrapping_add(1)).wrapping_add(frame.iter().sum()) }
}

/// Does it, with a block of the size class 64.
pub(crate) fn run(what: &str) {
    if what == "stack-overflow" {
        log::info!("provoking {what}");
        log::info!("nobody noticed: {}", deeper(0));
        return;
    }
    if what == "lesser-cpu" {
        return;
    }
    let Ok(layout) = Layout::from_size_align(48, 8) else { return };
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc(layout) };
    // SAFETY: as above; a neighbour, most likely.
    let other = unsafe { alloc(layout) };
    log::info!("provoking {what} of {block:p} beside {other:p}");
    match what {
        // SAFETY: none; one granule too far.
        "overflow" => unsafe { block.wrapping_add(48).write_volatile(1) },
        "use-after-free" => {
            // SAFETY: allocated above.
            unsafe { dealloc(block, layout) };
            // SAFETY: none; it is freed.
            unsafe { block.wrapping_add(32).write_volatile(1) };
        }
        "double-free" => {
            // SAFETY: allocated above.
            unsafe { dealloc(block, layout) };
            // SAFETY: none; it is freed.
            unsafe { dealloc(block, layout) };
        }
        _ => {}
    }
    log::info!("nobody noticed");
}
