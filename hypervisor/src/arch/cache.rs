//! Cache maintenance by VA, all of it: QEMU has no caches, boards do.
//!
//! What EL2 writes for a guest must reach the point of coherency, because the guest starts with its
//! MMU off and reads past the caches; what a secondary CPU reads before its MMU is on, too.

use super::sysreg::{instruction, mrs, operation};

/// Smallest data cache line of this machine, in bytes (CTR_EL0.DminLine).
fn line() -> u64 {
    4u64.wrapping_shl((mrs!("ctr_el0") >> 16) as u32 & 0xf)
}

/// Cleans and invalidates `size` bytes at `va` to the point of coherency.
pub(crate) fn clean_invalidate(va: u64, size: u64) {
    let line = line();
    let end = va.wrapping_add(size);
    let mut at = va & !line.wrapping_sub(1);
    while at < end {
        operation!("dc civac", at);
        at = at.wrapping_add(line);
    }
    instruction!("dsb sy");
}

/// Cleans and invalidates data and allocation tags; `va` must be mapped Tagged.
pub(crate) fn clean_invalidate_tags(va: u64, size: u64) {
    let line = line();
    let end = va.wrapping_add(size);
    let mut at = va & !line.wrapping_sub(1);
    while at < end {
        // DC CIGDVAC.
        operation!("sys #3, c7, c14, #5", at);
        at = at.wrapping_add(line);
    }
    instruction!("dsb sy");
}

/// Forgets all instructions in the caches of all CPUs: before a VM's first instruction.
pub(crate) fn invalidate_instructions() {
    instruction!("ic ialluis");
    instruction!("dsb ish");
    instruction!("isb");
}
