//! The table of ID register fields.
//!
//! Sorted by register and bit. A field that is not here is 0 for every guest: the architecture keeps
//! 0 for "not implemented" in all fields that it has yet to define, but those marked signed.

mod dfr;
mod isar;
mod mmfr;
mod pfr;

use crate::field::Row;

/// The rows, in four groups that follow each other in the space of ID registers.
pub const ROWS: [&[Row]; 4] = [pfr::ROWS, dfr::ROWS, isar::ROWS, mmfr::ROWS];

/// All rows in order.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.into_iter().flatten()
}

/// Writes rows as `name @ lsb rule offer closed, why;` below their register. The width is 4 and the
/// value of absence 0 (all ones for signed fields) unless `/ width` or `absent value` says otherwise.
macro_rules! field_rows {
    ($($reg:ident { $($name:ident @ $lsb:literal $(/ $width:literal)? $rule:ident
        $(absent $absent:literal)? : $offer:expr, $closed:expr, $why:literal;)* })*) => {
        pub(super) const ROWS: &[Row] = &[$($(Row {
            reg: Reg::$reg,
            name: stringify!($name),
            lsb: $lsb,
            width: super::first!($($width,)? 4),
            rule: Rule::$rule,
            absent: super::first!($($absent,)? super::absent(Rule::$rule)),
            offer: $offer,
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

const fn absent(rule: crate::Rule) -> u64 {
    match rule {
        crate::Rule::SignedLowerSafe => 0xf,
        crate::Rule::LowerSafe | crate::Rule::HigherSafe | crate::Rule::HigherOrZero | crate::Rule::Exact => {
            0
        }
    }
}
