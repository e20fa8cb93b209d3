//! `cargo xtask miri`: the tests of the pure crates under Miri.

use crate::check::graph::Workspace;
use crate::{paths, process};
use anyhow::Result;
use std::process::Command;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only these crates; all pure ones if none is named
    crates: Vec<String>,
}

pub fn command(arguments: &Arguments) -> Result<bool> {
    let mut crates = arguments.crates.clone();
    if crates.is_empty() {
        crates = Workspace::load()?.pure_crates();
        // It runs on the host only, and reads and writes files, which Miri does not do.
        crates.retain(|name| name != "bundle");
    }
    if !process::capture(rustup().args(["run", "nightly", "cargo", "miri", "--version"]))?.status.success() {
        let nightly = ["toolchain", "install", "nightly", "--no-self-update", "--profile", "minimal"];
        process::run(rustup().args(nightly).args(["--component", "miri,rust-src"]))?;
    }
    let mut miri = rustup();
    miri.args(["run", "nightly", "cargo", "miri", "test", "--no-fail-fast"]);
    // Interpreted tests are slow: two cases of each property, and no check of aliases, which code without
    // unsafe has none to break.
    let flags = "-Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-disable-stacked-borrows";
    miri.env("PROPTEST_CASES", "2").env("MIRIFLAGS", flags);
    for name in crates {
        miri.args(["--package", &name]);
    }
    process::run(&mut miri)?;
    Ok(true)
}

/// Through rustup, because the toolchain that runs us is another one.
fn rustup() -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(paths::root());
    command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    command
}
