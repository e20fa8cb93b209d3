//! What the rows promise is elsewhere, is there.
#![cfg(not(miri))]

use std::string::{String, ToString};

use super::*;
use crate::name::{REGISTER_NAMES, fields, register_name};

/// A file of the repository.
fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Each field that says what closes it is tried from inside of a guest.
#[test]
fn closed_features_are_executed() {
    let suite = file("guest-test/src/suites/idregs/closed.rs");
    for row in rows().filter(|row| row.entry.reg != Reg::Ctr) {
        let tried = match row.closed {
            Closed::Trap(_) | Closed::Undef(_) | Closed::Inert(_) => true,
            Closed::Nothing | Closed::Unreachable | Closed::Open(_) => false,
        };
        let name = format!("{}.{}", register_name(row.entry.reg), row.name);
        let there = [",", " ", "\"", ":"].iter().any(|end| suite.contains(&format!("{name}{end}")));
        assert_eq!(there, tried, "{name} in the suite");
    }
}

/// The list of what is open, in `docs/testing.md`, is that of the table.
#[test]
fn open_features_are_listed() {
    let page = file("docs/testing.md");
    for (reg, name) in REGISTER_NAMES {
        let open = fields(reg).filter(|row| matches!(row.closed, Closed::Open(_)));
        let list = open.map(|row| row.name).collect::<Vec<_>>().join(", ");
        let line = page.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let expected = (!list.is_empty()).then(|| format!("| {name} | {list} |"));
        assert_eq!(line.map(ToString::to_string), expected);
    }
}
