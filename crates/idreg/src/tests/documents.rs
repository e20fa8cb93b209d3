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
