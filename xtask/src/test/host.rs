//! Tests on the host: one trial for each default member of the workspace.

use crate::check::graph::Workspace;
use crate::process;
use crate::trial::{Tally, Trial};
use anyhow::{Result, ensure};

pub fn trials() -> Result<Vec<Trial<'static>>> {
    let members = Workspace::load()?.default_members();
    Ok(members.into_iter().map(|name| Trial::new(trial(&name), move || run(&name))).collect())
}

/// The trial of a package. What guests see of a crate has the name of its suite there, so that one filter
/// finds both.
fn trial(package: &str) -> String {
    match package {
        "idreg" => "host::idregs".into(),
        other => format!("host::{other}"),
    }
}

fn run(package: &str) -> Result<Tally> {
    let output = process::capture(process::cargo().args(["test", "--package", package]))?;
    let text = process::text(&output);
    let mut tally = Tally::default();
    for line in text.lines() {
        tally.add(counts(line).unwrap_or_default());
    }
    if !output.status.success() {
        ensure!(tally.failed > 0, "{text}");
        tally.notes.push(text);
    }
    Ok(tally)
}

/// Reads libtest's last line: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn counts(line: &str) -> Option<Tally> {
    let (_, result) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| -> Option<usize> {
        result.split("; ").find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Tally {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
        notes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_libtest() {
        let line = "test result: FAILED. 11 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        let tally = counts(line);
        assert_eq!(tally, Some(Tally { passed: 11, failed: 2, skipped: 1, notes: Vec::new() }));
    }
}
