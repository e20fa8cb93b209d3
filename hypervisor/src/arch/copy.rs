//! Copying between buffers that are aligned differently.
//!
//! The target is compiled with strict alignment, because some of EL2's code runs with the MMU off;
//! there the compiler's own `memcpy` goes byte by byte. Files in a bundle are aligned to 4 bytes only,
//! so this copies with unaligned pairs, which Normal memory allows (SCTLR_EL2.A = 0).

use core::arch::asm;

/// Copies `size` bytes.
///
/// # Safety
/// As for [`core::ptr::copy_nonoverlapping`]; both buffers must be mapped as Normal memory.
pub(crate) unsafe fn any_alignment(from: *const u8, to: *mut u8, size: usize) {
    let pairs = size / 16;
    if pairs != 0 {
        // SAFETY: copies the first `pairs * 16` bytes, inside both buffers.
        unsafe {
            asm!(
                "2: ldp {a}, {b}, [{from}], #16",
                "stp {a}, {b}, [{to}], #16",
                "subs {n}, {n}, #1",
                "b.ne 2b",
                from = inout(reg) from => _,
                to = inout(reg) to => _,
                n = inout(reg) pairs => _,
                a = out(reg) _,
                b = out(reg) _,
                options(nostack)
            )
        };
    }
    let done = pairs * 16;
    // SAFETY: the rest, inside both buffers.
    unsafe { core::ptr::copy_nonoverlapping(from.wrapping_add(done), to.wrapping_add(done), size - done) };
}

/// The bytes of `words`, in their order in memory.
pub(crate) fn bytes(words: &[u64]) -> &[u8] {
    // SAFETY: any word is eight bytes, and bytes have no alignment.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// The same, to be written.
pub(crate) fn bytes_mut(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: as above; any eight bytes are a word.
    unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}
