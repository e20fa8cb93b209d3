//! `cargo xtask check`: formatting, lints, and the rules of the architecture.

pub mod graph;
mod sources;

use crate::build::Binary;
use crate::process;
use crate::trial::{self, Tally, Trial};
use crate::{build, paths};
use anyhow::Result;
use std::process::Command;

pub fn command() -> Result<bool> {
    let total = trial::run(trials());
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(total.failed == 0)
}

pub fn trials() -> Vec<Trial<'static>> {
    let mut trials = vec![
        Trial::new("check::crates", || Ok(complaints(graph::Workspace::load()?.complaints()))),
        Trial::new("check::sources", || Ok(complaints(sources::complaints()?))),
        Trial::new("check::fmt", || succeeds(process::cargo().args(["fmt", "--all", "--check"]))),
        Trial::new("check::clippy-host", || {
            succeeds(process::cargo().args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]))
        }),
    ];
    for binary in build::Binary::ALL {
        trials.push(Trial::new(format!("check::clippy-{}", binary.package()), move || clippy(binary)));
    }
    trials.push(Trial::new("check::deny", deny));
    trials.push(Trial::new("check::shell", shell));
    trials
}

fn clippy(binary: Binary) -> Result<Tally> {
    let (package, target) = (binary.package(), binary.target());
    let arguments = ["clippy", "--quiet", "--package", package, "--target", target, "--", "-D", "warnings"];
    succeeds(process::cargo().args(arguments))
}

/// Licences, duplicates and sources of the dependencies, where the tool is installed.
fn deny() -> Result<Tally> {
    if Command::new("cargo-deny").arg("--version").output().is_err() {
        return Ok(Tally::skip("cargo-deny is not installed"));
    }
    succeeds(process::cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"]))
}

/// The syntax of the shell scripts, and more of them where shellcheck is installed.
fn shell() -> Result<Tally> {
    let root = paths::root();
    let scripts =
        ["run-qemu.sh", "scripts/toolchain.sh", "scripts/debian-apt.sh", "scripts/get-qemu.sh", ".ci/run"];
    let checker = match Command::new("shellcheck").arg("--version").output() {
        Ok(_) => vec!["shellcheck"],
        Err(_) => vec!["bash", "-n"],
    };
    let mut tally = Tally::pass();
    for script in scripts {
        let mut words = checker.iter();
        let mut command = Command::new(words.next().unwrap_or(&"bash"));
        let output = process::capture(command.args(words).arg(root.join(script)))?;
        if !output.status.success() {
            tally.add(Tally::fail(process::text(&output)));
        }
    }
    Ok(tally)
}

fn succeeds(command: &mut Command) -> Result<Tally> {
    process::quiet(command)?;
    Ok(Tally::pass())
}

fn complaints(complaints: Vec<String>) -> Tally {
    if complaints.is_empty() {
        return Tally::pass();
    }
    Tally { failed: 1, notes: complaints, ..Tally::default() }
}
