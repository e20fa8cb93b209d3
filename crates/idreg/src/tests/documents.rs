//! What the rows promise is elsewhere, is there.
#![cfg(not(miri))]

use std::string::{String, ToString};

use super::*;
use crate::name::{REGISTER_NAMES, fields, register_name};

/// A file of the repository.
fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Fields of which no instruction exists to try: AArch32 at EL1 cannot be entered from AArch64, and
/// without tag storage (`tags_are_not_kept`) no fault comes that the others could describe.
const WITHOUT_INSTRUCTION: [&str; 3] =
    ["ID_AA64PFR0_EL1.EL1", "ID_AA64PFR1_EL1.MTE_frac", "ID_AA64PFR2_EL1.MTEFAR"];

/// Each field that says what closes it is tried from inside of a guest: it has a row in the suite.
#[test]
fn closed_features_are_executed() {
    let suite = file("guest-test/src/suites/idregs/closed.rs");
    let (_, table) = suite.split_once("\nclosed! {\n").unwrap();
    let (table, _) = table.split_once("\n}\n").unwrap();
    let tried: Vec<&str> = table.lines().map(|line| line.trim_start().split('"').nth(1).unwrap()).collect();
    let mut untried = Vec::new();
    for row in rows().filter(|row| row.entry.reg != Reg::Ctr) {
        let name = format!("{}.{}", register_name(row.entry.reg), row.name);
        let there = tried.contains(&name.as_str());
        match row.closed {
            Closed::Trap(_) | Closed::Undef(_) | Closed::Inert(_) | Closed::Partly(..) => {
                if !there {
                    untried.push(name);
                }
            }
            Closed::Open(_) | Closed::Nothing => assert!(!there, "{name} is tried, and not closed"),
            Closed::Unreachable => {}
        }
    }
    assert_eq!(untried, WITHOUT_INSTRUCTION);
    let names: Vec<String> =
        rows().map(|row| format!("{}.{}", register_name(row.entry.reg), row.name)).collect();
    assert!(tried.iter().all(|name| names.iter().any(|n| n == name)), "a row of no field");
}

/// The lists of what is open and of what is open in part, in `docs/testing.md`, are those of the table.
#[test]
fn open_features_are_listed() {
    let page = file("docs/testing.md");
    for (reg, name) in REGISTER_NAMES {
        let open = fields(reg).filter(|row| matches!(row.closed, Closed::Open(_)));
        let list = open.map(|row| row.name).collect::<Vec<_>>().join(", ");
        let line = page.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let expected = (!list.is_empty()).then(|| format!("| {name} | {list} |"));
        assert_eq!(line.map(ToString::to_string), expected);
        for row in fields(reg) {
            let line = page.lines().find(|line| line.starts_with(&format!("| {name}.{} |", row.name)));
            let expected = if let Closed::Partly(by, open) = row.closed {
                Some(format!("| {name}.{} | {by} | {open} |", row.name))
            } else {
                None
            };
            assert_eq!(line.map(ToString::to_string), expected);
        }
    }
}

/// All Rust sources below a directory of the repository, in one.
fn sources(path: &str) -> String {
    let root = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    let (mut directories, mut text) = (std::vec![std::path::PathBuf::from(root)], String::new());
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

/// The tests that `docs/testing.md` names beside the cases of ID registers and of cache maintenance exist.
#[test]
fn cases_name_tests() {
    let page = file("docs/testing.md");
    let sources = ["crates", "guest-test/src", "xtask/src"].map(sources).concat();
    for chapter in ["## Cache maintenance, case by case", "## ID registers, case by case"] {
        let (_, rest) = page.split_once(chapter).unwrap();
        let table: Vec<&str> =
            rest.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|')).collect();
        assert!(table.len() > 15, "{chapter}");
        for row in table.iter().skip(2) {
            // The case, then where it is shown on the host and from inside of a guest.
            let shown: String = row.split('|').skip(2).collect();
            let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{row}");
            for name in named {
                let last = name.rsplit("::").next().unwrap();
                let last = last.rsplit('.').next().unwrap().trim_end_matches('*');
                let is_there =
                    ["fn ", "mod ", "\"", "const "].iter().any(|k| sources.contains(&format!("{k}{last}")));
                let machine = std::fs::exists(format!(
                    "{}/../../manifests/test/{last}.toml",
                    env!("CARGO_MANIFEST_DIR")
                ));
                assert!(is_there || machine.unwrap() || last == "linux-idregs-", "{name} of {row}");
            }
        }
    }
}
