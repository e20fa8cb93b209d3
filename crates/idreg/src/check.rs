//! Proof that the table is in order, made once at start.

use core::fmt;

use crate::field::{Closed, Reg, Row};
use crate::table::rows;

/// What is wrong with the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// A row is not behind the one before it, or overlaps it.
    Order(Reg, &'static str),
    /// A field has no bits, or reaches beyond bit 63.
    Width(Reg, &'static str),
    /// A value does not fit its field.
    Value(Reg, &'static str),
    /// A field is hidden and no one says how it is closed.
    NotClosed(Reg, &'static str),
    /// A row gives no reason.
    NoReason(Reg, &'static str),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, reg, name) = match *self {
            Self::Order(r, n) => ("is out of order", r, n),
            Self::Width(r, n) => ("has an impossible width", r, n),
            Self::Value(r, n) => ("has a value that does not fit", r, n),
            Self::NotClosed(r, n) => ("is hidden but not closed", r, n),
            Self::NoReason(r, n) => ("has no reason", r, n),
        };
        write!(f, "ID register table: {reg:?}.{name} {what}")
    }
}

/// Checks order, uniqueness, widths, values, and that whatever is hidden says how it is closed.
///
/// # Errors
/// The first row that breaks a rule.
pub fn check_tables() -> Result<(), TableError> {
    check(rows())
}

/// [`check_tables`] for any rows.
pub(crate) fn check<'a>(rows: impl Iterator<Item = &'a Row>) -> Result<(), TableError> {
    let mut last: Option<(Reg, u32)> = None;
    for row in rows {
        let (reg, name) = (row.reg, row.name);
        let end = row.lsb.saturating_add(row.width);
        if row.width == 0 || end > 64 {
            return Err(TableError::Width(reg, name));
        }
        if last.is_some_and(|l| l > (reg, row.lsb)) {
            return Err(TableError::Order(reg, name));
        }
        last = Some((reg, end));
        let cap = match row.offer {
            crate::Offer::AtMost(v) | crate::Offer::WithMte(v) | crate::Offer::Value(v) => v,
            crate::Offer::Host | crate::Offer::Hidden => 0,
        };
        if row.absent > row.ones() || cap > row.ones() {
            return Err(TableError::Value(reg, name));
        }
        let reasoned = match row.closed {
            Closed::Nothing if row.offer.hides() => return Err(TableError::NotClosed(reg, name)),
            Closed::Nothing | Closed::Unreachable => true,
            Closed::Trap(by) | Closed::Undef(by) | Closed::Inert(by) | Closed::Open(by) => !by.is_empty(),
        };
        if !reasoned || row.why.is_empty() {
            return Err(TableError::NoReason(reg, name));
        }
    }
    Ok(())
}
