//! Zeroing memory, with and without its allocation tags.

use super::sysreg::{instruction, mrs, operation};

/// Size in bytes of the block that DC ZVA, DC GZVA clear; `None` if they are prohibited.
fn zero_block() -> Option<u64> {
    let dczid = mrs!("dczid_el0");
    (dczid & 0x10 == 0).then(|| 4u64.wrapping_shl(dczid as u32 & 0xf))
}

/// Zeroes `size` bytes at `va`.
///
/// # Safety
/// `va..va + size` must be mapped writable as Normal memory, be 4 KiB-aligned at both ends, and hold
/// nothing that Rust code relies on.
pub(crate) unsafe fn zero(va: u64, size: u64) {
    let end = va.wrapping_add(size);
    let mut at = va;
    if let Some(block) = zero_block() {
        while at < end {
            operation!("dc zva", at);
            at = at.wrapping_add(block);
        }
    } else {
        while at < end {
            // SAFETY: in range by the loop's condition, aligned, writable by the caller's promise.
            unsafe { core::ptr::write_volatile(at as *mut u64, 0) };
            at = at.wrapping_add(8);
        }
    }
    instruction!("dsb ish");
}

/// Zeroes `size` bytes at `va` and their allocation tags.
///
/// # Safety
/// As for [`zero`], and the mapping must be Tagged, on a CPU with FEAT_MTE2.
pub(crate) unsafe fn zero_with_tags(va: u64, size: u64) {
    let end = va.wrapping_add(size);
    let mut at = va;
    if let Some(block) = zero_block() {
        while at < end {
            // DC GZVA: the tag is bits 59:56 of the address, zero here.
            operation!("sys #3, c7, c4, #4", at);
            at = at.wrapping_add(block);
        }
    } else {
        while at < end {
            // STZG of a 16-byte granule, tag from the address: zero.
            // SAFETY: in range, aligned, writable and Tagged by the caller's promise.
            unsafe {
                core::arch::asm!(".arch_extension memtag", "stzg {0}, [{0}]", in(reg) at,
                    options(nostack, preserves_flags))
            };
            at = at.wrapping_add(16);
        }
    }
    instruction!("dsb ish");
}
