//! What the boot needs before it has a heap: a UART to print refusals on.

use crate::tree::{Flawed, Place, Tree};
use crate::uart::{Console, Uart};

/// The console UART that the tree at the start of `dtb` names, its interrupt and clock left
/// unknown; `None` if there is none or if the tree is malformed.
///
/// Allocates nothing, needs about 10 KiB of stack, and reads bytes only, so that it can run with the
/// MMU off, where all memory is Device memory and unaligned accesses fault.
#[must_use]
pub fn uart(dtb: &[u8]) -> Option<Uart> {
    console(&Tree::open(dtb).ok()?).ok().flatten()
}

fn console(tree: &Tree<'_>) -> Result<Option<Uart>, Flawed> {
    let Some(chosen) = Place::root(tree).find("/chosen")? else { return Ok(None) };
    Console::find(&chosen)?.as_ref().map(Console::bare).transpose()
}
