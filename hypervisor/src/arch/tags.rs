//! Zeroing memory, with and without its allocation tags.

use super::sysreg::{instruction, mrs, msr, operation};

/// SCTLR_EL2.ATA: EL2 may access allocation tags. Without it DC GZVA and STZG store data only.
const ATA: u64 = 1 << 43;

/// Lets this CPU's EL2 access allocation tags, if it has them (FEAT_MTE2). Nothing at EL2 is tag-checked:
/// SCTLR_EL2.TCF stays 0.
pub(crate) fn allow_access() {
    if mrs!("id_aa64pfr1_el1") >> 8 & 0xf >= 2 {
        msr!("sctlr_el2", mrs!("sctlr_el2") | ATA);
        instruction!("isb");
    }
}

/// Size in bytes of the block that DC ZVA, DC GZVA clear; `None` if they are prohibited, or larger than
/// the page that is the least to be zeroed.
fn zero_block() -> Option<u64> {
    let dczid = mrs!("dczid_el0");
    (dczid & 0x10 == 0 && dczid & 0xf <= 10).then(|| 4u64.wrapping_shl(dczid as u32 & 0xf))
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
            // A step must stay short without DC ZVA, too; Rust's own store of 64 bytes is a memcpy.
            // SAFETY: in range by the loop's condition, aligned, writable by the caller's promise.
            unsafe {
                core::arch::asm!("stp xzr, xzr, [{0}]", "stp xzr, xzr, [{0}, #16]", "stp xzr, xzr, [{0}, #32]",
                    "stp xzr, xzr, [{0}, #48]", in(reg) at, options(nostack, preserves_flags))
            };
            at = at.wrapping_add(64);
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
            // STZ2G of two 16-byte granules, tag from the address: zero.
            // SAFETY: in range, aligned, writable and Tagged by the caller's promise.
            unsafe {
                core::arch::asm!(".arch_extension memtag", "stz2g {0}, [{0}]", "stz2g {0}, [{0}, #32]",
                    in(reg) at, options(nostack, preserves_flags))
            };
            at = at.wrapping_add(64);
        }
    }
    instruction!("dsb ish");
}

/// Zeroes the allocation tags of `size` bytes at `va`; their data stays.
///
/// # Safety
/// `va..va + size` must be 4 KiB-aligned at both ends, mapped writable and Tagged, on a CPU with FEAT_MTE2.
pub(crate) unsafe fn zero_tags(va: u64, size: u64) {
    // GMID_EL1.BS: STGM stores the tags of 4 << BS bytes, which is at most 256.
    let block = 4u64.wrapping_shl(mrs!("S3_1_C0_C0_4") as u32 & 0xf);
    let end = va.wrapping_add(size);
    let mut at = va;
    while at < end {
        // SAFETY: in range, aligned, writable and Tagged by the caller's promise.
        unsafe {
            core::arch::asm!(".arch_extension memtag", "stgm xzr, [{0}]", in(reg) at, options(nostack, preserves_flags))
        };
        at = at.wrapping_add(block);
    }
}

/// Whether an allocation tag stored at `va` comes back; it is zero afterwards.
///
/// # Safety
/// `va` must be 16-byte-aligned, mapped writable and Tagged, and hold nothing that anyone relies on.
pub(crate) unsafe fn probe(va: u64) -> bool {
    const TAG: u64 = 0b0101 << 56;
    let read: u64;
    // SAFETY: stores and loads the tag of one granule, which the caller lets us have.
    unsafe {
        core::arch::asm!(".arch_extension memtag", "stg {tagged}, [{va}]", "ldg {read}, [{va}]", "stg {va}, [{va}]",
            tagged = in(reg) va | TAG, va = in(reg) va, read = inout(reg) va => read,
            options(nostack, preserves_flags))
    };
    read == va | TAG
}
