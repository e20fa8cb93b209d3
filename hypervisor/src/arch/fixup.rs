//! Instructions of EL2 that may take a synchronous exception, and where EL2 goes on then.
//!
//! Such an instruction stands in inline assembly that names it with [`row!`]. The vectors find it in the
//! table, and the code at the row's landing sees the syndrome in x0. Everything else that EL2 itself
//! takes is a panic.
//!
//! The exception overwrites what the guest still needs of EL2's and its own registers: the code around
//! keeps it in [`Kept`]. The assembly must declare `clobber_abi("C")`, because the vectors' Rust ran
//! in between.

use super::sysreg::{mrs, msr};
use super::vectors::El2Frame;
use crate::panic;

/// One row of the table, as text for `asm!`: the first instruction, the one behind the last, the
/// landing; all numeric labels of the assembly around, such as `"2b"`.
macro_rules! row {
    ($first:literal, $behind:literal, $landing:literal) => {
        concat!(
            ".pushsection .fixups, \"a\"\n.balign 4\n.word ",
            $first,
            " - .\n.word ",
            $behind,
            " - .\n.word ",
            $landing,
            " - .\n.popsection"
        )
    };
}
pub(super) use row;

/// Distances from each word itself.
#[repr(C)]
struct Row {
    first: i32,
    behind: i32,
    landing: i32,
}

/// The registers that an exception at EL2 overwrites, while a guest is resident.
pub(super) struct Kept {
    elr: u64,
    spsr: u64,
    far: u64,
    /// The vectors' scratch register.
    tpidrro_el0: u64,
}

impl Kept {
    /// What they hold.
    pub(super) fn take() -> Self {
        Self {
            elr: mrs!("elr_el2"),
            spsr: mrs!("spsr_el2"),
            far: mrs!("far_el2"),
            tpidrro_el0: mrs!("tpidrro_el0"),
        }
    }

    /// Puts them back, once the landing was reached.
    pub(super) fn put_back(&self) {
        msr!("elr_el2", self.elr);
        msr!("spsr_el2", self.spsr);
        msr!("far_el2", self.far);
        msr!("tpidrro_el0", self.tpidrro_el0);
    }
}

/// Slot of the vectors: synchronous, from EL2 with its own stack pointer.
const SYNC_EL2H: u64 = 4;

/// Called by the vectors on the panic stack: returns the syndrome if EL2 goes on, at what ELR_EL2 is then.
pub(super) extern "C" fn resolve(frame: &El2Frame, vector: u64) -> u64 {
    if vector == SYNC_EL2H
        && let Some(landing) = find(mrs!("elr_el2"))
    {
        msr!("elr_el2", landing);
        return mrs!("esr_el2");
    }
    panic::el2_exception(frame, vector)
}

fn find(pc: u64) -> Option<u64> {
    unsafe extern "C" {
        static __fixups_start: Row;
        static __fixups_end: Row;
    }
    let (start, end) = (&raw const __fixups_start, &raw const __fixups_end);
    let rows = (end.addr() - start.addr()) / size_of::<Row>();
    // SAFETY: the linker script puts whole rows, and nothing else, between the two symbols; they are
    // read-only.
    let table = unsafe { core::slice::from_raw_parts(start, rows) };
    let at = |word: &i32| (core::ptr::from_ref(word).addr() as u64).wrapping_add_signed(i64::from(*word));
    table.iter().find(|row| (at(&row.first)..at(&row.behind)).contains(&pc)).map(|row| at(&row.landing))
}
