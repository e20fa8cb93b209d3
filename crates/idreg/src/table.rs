//! The table of ID register fields.
//!
//! Sorted by register and bit. A field that is not here is 0 for every guest: the architecture keeps
//! 0 for "not implemented" in all fields that it has yet to define, but those marked signed.
//!
//! [`ROWS`] is a constant of which a program holds what it uses. The hypervisor uses only
//! [`ENTRIES`], which the compiler derives from it: names and reasons are not part of its image.

mod ctr;
mod dfr;
mod isar;
mod mmfr;
mod pfr;

use crate::field::{Entry, Row};

// Why fields are open.
const COMPUTES: &str = "no control: it only computes, on registers that are switched";
const ACCESSES: &str = "no control: it accesses memory that stage 2 gives, as other instructions do";
const NO_FGT: &str = "all of it where there is no FEAT_FGT: it acts on what is the guest's own";
const HINT: &str = "no control: a hint";
const PSTATE: &str = "no control: a field of PSTATE, saved in SPSR_EL2";
const SCTLR: &str = "no control: a bit of SCTLR_EL1, which is the guest's own and switched";
const TCR: &str = "no control: a field of TCR_EL1, which is the guest's own and switched";
const OWN_TABLES: &str = "no control: a property of translation under the guest's own VMID";

/// The rows, in groups that follow each other in the space of ID registers.
pub const ROWS: [&[Row]; 5] = [pfr::ROWS, dfr::ROWS, isar::ROWS, mmfr::ROWS, ctr::ROWS];

/// All rows in order, for tests and tools of the host: who calls this links every name and reason.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.into_iter().flatten()
}

/// The entries of all rows in order.
pub(crate) static ENTRIES: [Entry; COUNT] = entries();

const COUNT: usize = {
    let [a, b, c, d, e] = ROWS;
    a.len() + b.len() + c.len() + d.len() + e.len()
};

#[expect(clippy::indexing_slicing, reason = "only the compiler runs it: beyond the end does not build")]
const fn entries() -> [Entry; COUNT] {
    let mut entries = [ROWS[0][0].entry; COUNT];
    let (mut group, mut row, mut to) = (0, 0, 0);
    while to < COUNT {
        if row == ROWS[group].len() {
            (group, row) = (group + 1, 0);
        } else {
            entries[to] = ROWS[group][row].entry;
            (row, to) = (row + 1, to + 1);
        }
    }
    entries
}

/// Writes rows as `name @ lsb rule offer closed, why;` below their register. The width is 4 and the
/// value of absence 0 (all ones for signed fields) unless `/ width` or `absent value` says otherwise.
macro_rules! field_rows {
    ($($reg:ident { $($name:ident @ $lsb:literal $(/ $width:literal)? $rule:ident
        $(absent $absent:literal)? : $offer:expr, $closed:expr, $why:literal;)* })*) => {
        pub(super) const ROWS: &[Row] = &[$($(Row {
            entry: Entry {
                reg: Reg::$reg,
                field: Field {
                    lsb: $lsb,
                    width: super::first!($($width,)? 4),
                    rule: Rule::$rule,
                    absent: super::first!($($absent,)? super::absent(Rule::$rule)),
                },
                offer: $offer,
                how: $closed.how(),
            },
            name: stringify!($name),
            closed: $closed,
            why: $why,
        },)*)*];
    };
}
use field_rows;

macro_rules! first {
    ($a:expr, $($rest:expr)?) => {
        $a
    };
    ($a:expr) => {
        $a
    };
}
use first;

const fn absent(rule: crate::Rule) -> u8 {
    match rule {
        crate::Rule::SignedLowerSafe => 0xf,
        crate::Rule::LowerSafe | crate::Rule::HigherSafe | crate::Rule::HigherOrZero | crate::Rule::Exact => {
            0
        }
    }
}
