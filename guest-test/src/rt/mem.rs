//! Loads and stores that the compiler cannot change, device registers, and pages to test on.
//!
//! The functions are safe because they refuse to write into the payload's own image: whatever else
//! an address is, no Rust object lives there, and an abort ends in the exception handler.

use super::exception::{Fault, expect_fault};
use super::mmu::WINDOW;
use core::arch::asm;
use core::cell::UnsafeCell;

/// Pages that tests may write, each in any window.
pub(crate) const SCRATCH_PAGES: usize = 32;
/// Pages that the payload never clears: what the machine gave.
pub(crate) const FRESH_PAGES: usize = 16;

#[repr(C, align(4096))]
struct Pages<const N: usize>(UnsafeCell<[[u8; 4096]; N]>);
// SAFETY: only raw loads and stores touch the contents; tests agree on who uses which page.
unsafe impl<const N: usize> Sync for Pages<N> {}

#[unsafe(link_section = ".scratch")]
static SCRATCH: Pages<SCRATCH_PAGES> = Pages(UnsafeCell::new([[0; 4096]; SCRATCH_PAGES]));
#[unsafe(link_section = ".fresh")]
static FRESH: Pages<FRESH_PAGES> = Pages(UnsafeCell::new([[0; 4096]; FRESH_PAGES]));

/// The address of a symbol, by ADRP: these are too far away for the code model's ADR.
macro_rules! address {
    ($symbol:path) => {{
        let address: u64;
        // SAFETY: only an address is computed.
        unsafe {
            asm!("adrp {0}, {1}", "add {0}, {0}, :lo12:{1}", out(reg) address, sym $symbol,
                options(pure, nomem, nostack))
        };
        address
    }};
}

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

/// First and last address + 1 of the payload with all its memory.
pub(crate) fn image() -> (u64, u64) {
    (address!(__image_start), address!(__image_end))
}

/// Physical address of scratch page `n`.
pub(crate) fn scratch(n: usize) -> u64 {
    assert!(n < SCRATCH_PAGES);
    address!(SCRATCH) + 4096 * n as u64
}

/// Physical address of fresh page `n`.
pub(crate) fn fresh(n: usize) -> u64 {
    assert!(n < FRESH_PAGES);
    address!(FRESH) + 4096 * n as u64
}

fn check_writable(va: u64) {
    let pa = (va & 0x00ff_ffff_ffff_ffff) % WINDOW;
    let (start, end) = image();
    let inside = |base: u64, pages: usize| pa >= base && pa < base + 4096 * pages as u64;
    let foreign = pa < start || pa >= end;
    assert!(
        foreign || inside(scratch(0), SCRATCH_PAGES) || inside(fresh(0), FRESH_PAGES),
        "a test writes to the payload's own {va:#x}"
    );
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $load:ident $store:ident $ty:ty, $ldr:literal, $str:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $load(va: u64) -> $ty {
            let value: u64;
            // SAFETY: a load changes no memory; a bad address ends in the exception handler.
            unsafe { asm!($ldr, v = out(reg) value, a = in(reg) va, options(nostack)) };
            value as $ty
        }

        /// The store of the same size.
        pub(crate) fn $store(va: u64, value: $ty) {
            check_writable(va);
            // SAFETY: checked above: no Rust object lives there.
            unsafe { asm!($str, v = in(reg) u64::from(value), a = in(reg) va, options(nostack)) };
        }
    )*};
}

accessors! {
    /// Loads a byte.
    read8 write8 u8, "ldrb {v:w}, [{a}]", "strb {v:w}, [{a}]";
    /// Loads 32 bits.
    read32 write32 u32, "ldr {v:w}, [{a}]", "str {v:w}, [{a}]";
    /// Loads 64 bits.
    read64 write64 u64, "ldr {v}, [{a}]", "str {v}, [{a}]";
}

/// Loads 64 bits from an address that may fault. The value is 0 if it does.
pub(crate) fn try_read64(va: u64) -> Result<u64, Fault> {
    let mut value = 0;
    let fault = expect_fault(|| {
        // SAFETY: a load changes no memory; the exception is expected.
        unsafe {
            asm!("mov {v}, xzr", "ldr {v}, [{a}]", v = out(reg) value, a = in(reg) va, options(nostack))
        };
    });
    fault.map_or(Ok(value), Err)
}

/// Stores 64 bits to an address that may fault.
pub(crate) fn try_write64(va: u64, value: u64) -> Result<(), Fault> {
    expect_fault(|| write64(va, value)).map_or(Ok(()), Err)
}

/// Branches to an address that is not executable or not there; a fetch that succeeds is for an
/// address that holds a `ret`.
pub(crate) fn try_execute(va: u64) -> Result<(), Fault> {
    let fault = expect_fault(|| {
        // SAFETY: either the fetch faults and the handler returns behind the branch, or the code
        // there returns at once.
        unsafe { asm!("blr {a}", a = in(reg) va, out("x30") _, options(nostack)) };
    });
    fault.map_or(Ok(()), Err)
}

/// Makes all memory accesses before visible to all CPUs before any after.
pub(crate) fn barrier() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", "isb", options(nostack)) };
}
