//! What the boot needs before it has a heap: a UART to print refusals on.

use crate::tree::Tree;
use crate::uart::{self, Uart};

/// The console UART that the tree at the start of `dtb` names, its interrupt and clock left
/// unknown; `None` if there is none or if the tree is malformed.
///
/// Allocates nothing, needs about 10 KiB of stack, and reads bytes only, so that it can run with the
/// MMU off, where all memory is Device memory and unaligned accesses fault.
#[must_use]
pub fn uart(dtb: &[u8]) -> Option<Uart> {
    uart::find(&Tree::open(dtb).ok()?, None).ok().flatten()
}
