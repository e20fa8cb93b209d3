//! Running other programs, with errors that name them.

use crate::paths;
use anyhow::{Context, Result, bail};
use std::env;
use std::process::{Command, Output, Stdio};

/// The cargo that runs us, in the repository.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root());
    command
}

/// Runs to the end; the program's output is the user's.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", name(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs to the end and returns the standard output; the standard error is the user's.
pub fn read(command: &mut Command) -> Result<String> {
    command.stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start {}", name(command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", describe(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", name(command)))
}

/// Runs to the end, catching what it prints, whatever its status.
pub fn capture(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", name(command)))
}

/// Runs to the end quietly: what it printed is part of the error if it fails.
pub fn quiet(command: &mut Command) -> Result<()> {
    let output = capture(command)?;
    if !output.status.success() {
        bail!("{} failed: {}\n{}", describe(command), output.status, text(&output));
    }
    Ok(())
}

/// Both streams of a finished program.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn describe(command: &Command) -> String {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    let program = name(command);
    let program = program.rsplit('/').next().unwrap_or_default();
    format!("`{program} {}`", arguments.join(" "))
}
