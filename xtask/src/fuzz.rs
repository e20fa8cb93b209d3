//! `cargo xtask fuzz`: the targets of the `fuzz` member, each from its committed corpus.

use crate::trial::{Tally, Trial};
use crate::{paths, process};
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only these targets; all if none is named
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = SECONDS)]
    seconds: u32,
    /// Add inputs of new kinds to the corpus
    #[arg(long)]
    keep: bool,
}

/// How long CI runs each target.
const SECONDS: u32 = 30;

pub fn command(arguments: &Arguments) -> Result<bool> {
    let targets = if arguments.targets.is_empty() { targets()? } else { arguments.targets.clone() };
    build()?;
    for target in targets {
        process::run(&mut fuzz(&target, arguments.seconds, arguments.keep)?)?;
    }
    Ok(true)
}

/// One trial for each target.
pub fn trials() -> Result<Vec<Trial<'static>>> {
    let trial = |target: String| Trial::new(format!("fuzz::{target}"), move || run(&target));
    Ok(targets()?.into_iter().map(trial).collect())
}

fn run(target: &str) -> Result<Tally> {
    build()?;
    let output = process::capture(&mut fuzz(target, SECONDS, false)?)?;
    let text = process::text(&output);
    Ok(if output.status.success() { Tally::pass() } else { Tally::fail(text) })
}

/// The targets: the directories of the corpus.
fn targets() -> Result<Vec<String>> {
    let corpus = paths::root().join("fuzz/corpus");
    let entries = fs::read_dir(&corpus).with_context(|| format!("cannot read {}", corpus.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn build() -> Result<()> {
    process::quiet(process::cargo().args(["build", "--release", "--package", "fuzz"]))
}

fn fuzz(target: &str, seconds: u32, keep: bool) -> Result<Command> {
    let mut command = Command::new(paths::target().join("release").join("fuzz"));
    // An input that panics is written there.
    command.current_dir(paths::output()?);
    command.arg(target).arg(seconds.to_string()).arg(paths::root().join("fuzz/corpus").join(target));
    if keep {
        command.env("KEEP", "1");
    }
    Ok(command)
}
