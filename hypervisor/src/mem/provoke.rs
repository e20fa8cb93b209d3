//! Only in the build for tests (feature `provoke`): misuses the heap or the stack as the boot argument
//! `provoke=WHAT@PLACE` says, which EL2's tag checks or the guard page have to catch. Places are `boot`,
//! `secondary` (a CPU that begins to serve), and where [`Local::check_tags`](crate::cpu::Local::check_tags) is called.
//! `shuffled-tables@check` puts the table of ID registers out of order, `lesser-cpu@go` takes a feature from
//! secondary CPUs after they reported it, `pause@settle` lets time pass between a vCPU's look at its requests and
//! what it does about them.
//!
//! UNSAFETY: wrong on purpose.

use crate::arch::timer;
use crate::lock::Mutex;
use crate::log;
use alloc::alloc::{Layout, alloc, dealloc};
use alloc::string::String;
use alloc::vec::Vec;
use idreg::{Entry, HostIds, Reg, TableError};

/// What is still to be done, as the boot argument says it. Taken last.
static ARMED: Mutex<Option<String>> = Mutex::new(None);

/// Takes `provoke=WHAT@PLACE` out of the boot arguments.
pub(crate) fn arm(bootargs: &mut String) {
    if let Some(at) = bootargs.find("provoke=") {
        let said: String = bootargs.split_off(at);
        *ARMED.lock() = Some(said.trim_start_matches("provoke=").into());
    }
}

/// Does what is to be done at `place`, once, with a block of the size class 64.
pub(crate) fn at(place: &str) {
    let armed = ARMED.lock().take_if(|said| said.split_once('@').is_some_and(|(_, at)| at == place));
    if let Some((what, _)) = armed.as_deref().and_then(|said| said.split_once('@')) {
        run(what);
    }
}

/// Lets 100 microseconds pass at `place`, each time, if `pause` is to be done there.
pub(crate) fn pause(place: &str) {
    if ARMED.lock().as_deref().and_then(|said| said.split_once('@')) == Some(("pause", place)) {
        let end = timer::now().saturating_add(timer::frequency() / 10_000);
        while timer::now() < end {
            core::hint::spin_loop();
        }
    }
}

/// Whether this is to be done.
fn is_armed(said: &str) -> bool {
    ARMED.lock().as_deref() == Some(said)
}

/// What a secondary CPU has when it is about to run guests.
pub(crate) fn lessened(mut ids: HostIds) -> HostIds {
    if is_armed("lesser-cpu@go") {
        // AES and PMULL.
        ids.limit(Reg::Isar0, 4, 0);
    }
    ids
}

/// The check of the tables at start.
pub(crate) fn check_tables() -> Result<(), TableError> {
    if !is_armed("shuffled-tables@check") {
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

fn run(what: &str) {
    if what == "stack-overflow" {
        log::info!("provoking {what}");
        log::info!("nobody noticed: {}", deeper(0));
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
