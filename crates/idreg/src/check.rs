//! Proof that the table is in order.
//!
//! Made when it is built, so that a table which contradicts itself never becomes an image: [`check`]
//! over the entries, [`explained`] over the rows, whose names and reasons only the compiler sees.
//! [`check_tables`] makes the first proof again when the hypervisor starts, over the entries in
//! memory, which are all that ID registers are made of.

use core::fmt;

use crate::field::{Closed, Entry, How, Offer, Reg, Row, Rule};
use crate::guest::Features;
use crate::table::{ENTRIES, ROWS};

/// What is wrong with an entry: its register and lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// It is not behind the one before it, or overlaps it.
    Order(Reg, u8),
    /// The field has no bits, more than 8, or reaches beyond bit 63.
    Width(Reg, u8),
    /// A value does not fit its field.
    Value(Reg, u8),
    /// For some value of the machine, the limit that it gives fails its own check, exceeds the machine, or
    /// does not allow to do without the feature.
    Limit(Reg, u8),
    /// It may be hidden, and does not say how it is closed then.
    NotClosed(Reg, u8),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, reg, lsb) = match *self {
            Self::Order(r, b) => ("is out of order", r, b),
            Self::Width(r, b) => ("has an impossible width", r, b),
            Self::Value(r, b) => ("has a value that does not fit", r, b),
            Self::Limit(r, b) => ("does not allow its own limit", r, b),
            Self::NotClosed(r, b) => ("does not say how it is closed", r, b),
        };
        let reg = crate::register_at(reg as u8);
        write!(f, "the table of ID registers is wrong: register {reg}, bit {lsb}, {what}")
    }
}

/// The row of this name does not say why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unexplained(pub(crate) &'static str);

/// Checks order, uniqueness, widths, values and limits of the entries in the image, and that whatever
/// may be hidden says how it is closed.
///
/// # Errors
/// The first entry that breaks a rule.
pub fn check_tables() -> Result<(), TableError> {
    // Of each field the values 0, 5, 10, 15 of a machine: the proof for all of them is made when it builds.
    check(&ENTRIES, 5)
}

/// [`check_tables`] for any entries, and for every value of a machine that is a multiple of `step`.
///
/// # Errors
/// The first entry that breaks a rule.
pub const fn check(mut entries: &[Entry], step: u64) -> Result<(), TableError> {
    // Bits of the whole space, register after register; those below are taken.
    let mut free = 0;
    while let Some((entry, rest)) = entries.split_first() {
        let Entry { reg, field, offer, how } = *entry;
        let (lsb, width) = (field.lsb as u32, field.width as u32);
        if width == 0 || width > 8 || lsb + width > 64 {
            return Err(TableError::Width(reg, field.lsb));
        }
        let start = reg as u32 * 64 + lsb;
        if start < free {
            return Err(TableError::Order(reg, field.lsb));
        }
        free = start + width;
        let limit = match offer {
            Offer::AtMost(v) | Offer::WithMte(v) | Offer::WithSve(v) | Offer::Value(v) => v,
            Offer::Host | Offer::Hidden => 0,
        };
        if field.absent as u64 > field.ones() || limit as u64 > field.ones() {
            return Err(TableError::Value(reg, field.lsb));
        }
        if !limits_hold(entry, step) {
            return Err(TableError::Limit(reg, field.lsb));
        }
        if !matches!(offer, Offer::Value(_)) && matches!(how, How::Nothing) {
            return Err(TableError::NotClosed(reg, field.lsb));
        }
        entries = rest;
    }
    Ok(())
}

/// Whether an entry is right about what a machine may have, all or some: the limit is allowed, it is no more than
/// the machine has, and unless more is worse, or less has a sign, the field's absence is allowed, too.
const fn limits_hold(entry: &Entry, step: u64) -> bool {
    let features = Features { mte: true, sve: true, nested: None };
    let field = entry.field;
    if matches!(entry.offer, Offer::Value(_) | Offer::Hidden) {
        return true;
    }
    let may_be_absent = matches!(field.rule, Rule::LowerSafe | Rule::Exact);
    let mut host = 0;
    while host <= field.ones() {
        let limit = entry.offered(host, &features);
        let holds = entry.allows(limit, limit) && field.safe(limit, host) == limit;
        if !holds || may_be_absent && !entry.allows(field.absent as u64, limit) {
            return false;
        }
        host += step;
    }
    true
}

/// Checks that every row gives its reasons.
pub(crate) const fn explained(mut rows: &[Row]) -> Result<(), Unexplained> {
    while let Some((row, rest)) = rows.split_first() {
        let reasoned = match row.closed {
            Closed::Nothing | Closed::Unreachable => true,
            Closed::Trap(by) | Closed::Undef(by) | Closed::Inert(by) | Closed::Open(by) => !by.is_empty(),
            Closed::Partly(by, open) => !by.is_empty() && !open.is_empty(),
        };
        if !reasoned || row.why.is_empty() {
            return Err(Unexplained(row.name));
        }
        rows = rest;
    }
    Ok(())
}

/// Fails to build where `rows` are not [`explained`].
const fn must_be_explained(rows: &[Row]) {
    if let Err(Unexplained(name)) = explained(rows) {
        panic!("{}", name);
    }
}

const _: () = {
    let [a, b, c, d, e] = ROWS;
    must_be_explained(a);
    must_be_explained(b);
    must_be_explained(c);
    must_be_explained(d);
    must_be_explained(e);
    assert!(check(&ENTRIES, 1).is_ok());
};
