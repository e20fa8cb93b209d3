//! Allocation tags: EL2's own, with which it checks its heap, and zeroing memory with and without them.

use super::sysreg::{instruction, mrs, msr, operation};
use ::tags::copy::PageTags;
use core::marker::PhantomData;

/// SCTLR_EL2.ATA: EL2 may access allocation tags. Without it DC GZVA and STZG store data only.
const ATA: u64 = 1 << 43;
/// SCTLR_EL2.TCF = 1: a failed tag check at EL2 is a synchronous exception.
const TCF_SYNC: u64 = 1 << 40;
/// PSTATE.TCO: EL2's accesses are not checked. Set by each exception that is taken to EL2.
const TCO: u64 = 1 << 25;
/// Bytes that share an allocation tag.
pub(crate) const GRANULE: usize = 16;
/// Bytes whose tags are a word.
const WORD: u64 = 16 * GRANULE as u64;

/// `va` with logical tag `tag`.
pub(crate) const fn with_tag(va: u64, tag: u8) -> u64 {
    va | (tag as u64) << 56
}

/// The logical tag of `va`.
pub(crate) const fn tag_of(va: u64) -> u8 {
    (va >> 56 & 0xf) as u8
}

/// An address of EL2's own without what TCR_EL2.TBI ignores.
pub(crate) const fn without_tag(va: u64) -> u64 {
    va & !(0xff << 56)
}

/// From here on this CPU's EL2 is tag-checked, wherever PSTATE.TCO is clear and memory is mapped Tagged.
/// It must have FEAT_MTE2.
pub(crate) fn check_own_memory() {
    msr!("sctlr_el2", mrs!("sctlr_el2") | TCF_SYNC);
    instruction!("isb");
    checks_on();
}

/// Clears PSTATE.TCO. The CPU must have FEAT_MTE.
#[inline(always)]
pub(crate) fn checks_on() {
    msr!("S3_3_C4_C2_7", 0);
}

/// No tag checks while it lives, on this CPU.
pub(crate) struct Unchecked {
    before: u64,
    /// It is PSTATE's, so it does not go to another CPU.
    here: PhantomData<*const ()>,
}

impl Unchecked {
    /// Sets PSTATE.TCO. The CPU must have FEAT_MTE.
    pub(crate) fn begin() -> Self {
        let before = mrs!("S3_3_C4_C2_7");
        msr!("S3_3_C4_C2_7", TCO);
        Self { before, here: PhantomData }
    }
}

impl Drop for Unchecked {
    fn drop(&mut self) {
        msr!("S3_3_C4_C2_7", self.before);
    }
}

/// LDG: the allocation tag of the granule at `va`.
///
/// # Safety
/// `va` must be mapped, and Tagged for the tag to mean something.
pub(crate) unsafe fn load(va: u64) -> u8 {
    let tagged: u64;
    // SAFETY: reads a tag, by the caller's promise.
    unsafe {
        core::arch::asm!(".arch_extension memtag", "ldg {tagged}, [{va}]", va = in(reg) va,
            tagged = inout(reg) va => tagged, options(nostack, preserves_flags))
    };
    tag_of(tagged)
}

/// Gives `size` bytes from `va` on, whole granules, the tag `tag`.
///
/// # Safety
/// They must be mapped writable and Tagged, and nobody may use them by another tag.
pub(crate) unsafe fn store(va: u64, size: u64, tag: u8) {
    let end = with_tag(va.wrapping_add(size), tag);
    let mut at = with_tag(va, tag);
    let block = if size >= 1024 && va & 0xff == 0 { block() } else { u64::MAX };
    let all = 0x1111_1111_1111_1111_u64.wrapping_mul(u64::from(tag));
    while end - at >= block {
        // SAFETY: in range; the first block is aligned.
        unsafe { store_block(at, all) };
        at = at.wrapping_add(block);
    }
    if size & 16 != 0 {
        // SAFETY: in range by the caller's promise.
        unsafe {
            core::arch::asm!(".arch_extension memtag", "stg {0}, [{0}]", in(reg) at,
                options(nostack, preserves_flags))
        };
        at = at.wrapping_add(16);
    }
    while at < end {
        // SAFETY: in range: an even number of granules is left.
        unsafe {
            core::arch::asm!(".arch_extension memtag", "st2g {0}, [{0}]", in(reg) at,
                options(nostack, preserves_flags))
        };
        at = at.wrapping_add(32);
    }
}

/// Bytes whose tags LDGM and STGM move at a time (GMID_EL1.BS): 16 to 256.
#[inline(always)]
pub(crate) fn block() -> u64 {
    4u64.wrapping_shl(mrs!("S3_1_C0_C0_4") as u32 & 0xf)
}

/// STGM: the tags of the block at `va`; that of the granule at address `a` is in the nibble of `tags` that
/// `a` bits 7:4 name.
///
/// # Safety
/// The block must be mapped writable and Tagged.
#[inline(always)]
pub(crate) unsafe fn store_block(va: u64, tags: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!(".arch_extension memtag", "stgm {0}, [{1}]", in(reg) tags, in(reg) va,
            options(nostack, preserves_flags))
    };
}

/// Lets this CPU's EL2 access allocation tags, if it has them (FEAT_MTE2).
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
    let (block, end) = (block(), va.wrapping_add(size));
    let mut at = va;
    while at < end {
        // SAFETY: in range, writable and Tagged by the caller's promise.
        unsafe { store_block(at, 0) };
        at = at.wrapping_add(block);
    }
}

/// Loads the tags of pages.
///
/// # Safety
/// As many pages as `tags` has must be mapped Tagged from `va` on, on a CPU with FEAT_MTE2.
pub(crate) unsafe fn load_pages(va: u64, tags: &mut [PageTags]) {
    let (block, mut at) = (block(), va);
    if block == WORD {
        for word in tags.as_flattened_mut() {
            // SAFETY: in the pages, by the caller's promise.
            *word = unsafe { load_block(at) };
            at = at.wrapping_add(WORD);
        }
        return;
    }
    for word in tags.as_flattened_mut() {
        (*word, at) = (0..WORD / block).fold((0, at), |(tags, at), _| {
            // SAFETY: as above; each block has its tags in their own place of the word.
            (tags | unsafe { load_block(at) }, at.wrapping_add(block))
        });
    }
}

/// Stores the tags of pages.
///
/// # Safety
/// As many pages as `tags` has must be mapped writable and Tagged from `va` on, on a CPU with FEAT_MTE2.
pub(crate) unsafe fn store_pages(va: u64, tags: &[PageTags]) {
    let (block, mut at) = (block(), va);
    if block == WORD {
        for word in tags.as_flattened() {
            // SAFETY: in the pages, by the caller's promise.
            unsafe { store_block(at, *word) };
            at = at.wrapping_add(WORD);
        }
        return;
    }
    for word in tags.as_flattened() {
        for _ in 0..WORD / block {
            // SAFETY: as above; a block takes its tags from their own place of the word.
            unsafe { store_block(at, *word) };
            at = at.wrapping_add(block);
        }
    }
}

/// LDGM: the tags of the block at `va`, those of other granules zero; as [`store_block`] takes them.
///
/// # Safety
/// The block must be mapped Tagged.
#[inline(always)]
pub(crate) unsafe fn load_block(va: u64) -> u64 {
    let tags;
    // SAFETY: reads tags.
    unsafe {
        core::arch::asm!(".arch_extension memtag", "ldgm {0}, [{1}]", out(reg) tags, in(reg) va,
            options(nostack, preserves_flags))
    };
    tags
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
