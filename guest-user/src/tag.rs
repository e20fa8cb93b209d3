//! The tag instructions, and plain accesses through addresses with tags. An access that faults is
//! one instruction, so that the handler can step over it.
//!
//! UNSAFETY: all of it accesses memory by address; callers pass memory that [`linux::map`] gave.

use core::arch::asm;

/// Bytes that share one tag.
pub(crate) const GRANULE: usize = 16;

/// The address with another tag.
pub(crate) const fn with_tag(address: usize, tag: u8) -> usize {
    (address & !(0xff << 56)) | (((tag & 15) as usize) << 56)
}

/// The tag of an address.
pub(crate) const fn of(address: usize) -> u8 {
    ((address >> 56) & 15) as u8
}

/// Sets the tag of a granule to that of its address (STG).
///
/// # Safety
/// The granule is mapped and not Rust's.
pub(crate) unsafe fn set(address: usize) {
    // SAFETY: the caller vouches for the granule.
    unsafe { asm!(".arch_extension memtag", "stg {0}, [{0}]", in(reg) address, options(nostack)) };
}

/// The tag of the granule at an address (LDG).
///
/// # Safety
/// The granule is mapped.
pub(crate) unsafe fn get(address: usize) -> u8 {
    let mut found = address;
    // SAFETY: the caller vouches for the granule.
    unsafe { asm!(".arch_extension memtag", "ldg {0}, [{0}]", inout(reg) found, options(nostack)) };
    of(found)
}

/// The address with a random tag (IRG).
pub(crate) fn random(address: usize) -> usize {
    let tagged;
    // SAFETY: no memory is accessed.
    unsafe {
        asm!(".arch_extension memtag", "irg {0}, {1}", out(reg) tagged, in(reg) address, options(nomem, nostack))
    };
    tagged
}

/// Stores a word.
///
/// # Safety
/// The word is mapped and not Rust's.
pub(crate) unsafe fn store(address: usize, value: usize) {
    // SAFETY: the caller vouches for the word.
    unsafe { asm!("str {1}, [{0}]", in(reg) address, in(reg) value, options(nostack)) };
}

/// Loads a word; `instead` if the load faults.
///
/// # Safety
/// The word is mapped.
pub(crate) unsafe fn load(address: usize, instead: usize) -> usize {
    let mut value = instead;
    // SAFETY: the caller vouches for the word.
    unsafe { asm!("ldr {1}, [{0}]", in(reg) address, inout(reg) value, options(nostack)) };
    value
}
