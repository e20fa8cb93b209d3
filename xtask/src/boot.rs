//! `cargo xtask boot`: a bundle in QEMU, on the user's terminal.

use crate::build::{self, Binary};
use crate::bundle;
use crate::qemu::{Firmware, Machine};
use crate::uart::{Lines, Verdict};
use anyhow::{Context, Result};
use rustix::termios::{self, OptionalActions, Termios};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::Stdio;

#[derive(clap::Args)]
pub struct Arguments {
    /// What to run
    #[arg(long, value_name = "FILE", default_value = "manifests/default.toml")]
    pub manifest: PathBuf,
    /// CPU model: max has FEAT_MTE_PERM, neoverse-n2 has only MTE
    #[arg(long, default_value = "max", value_parser = ["max", "neoverse-n2"])]
    pub cpu: String,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub smp: u32,
    /// Memory
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    pub mem: String,
    /// Count instructions: time passes with them and repeats exactly
    #[arg(long)]
    pub icount: bool,
    /// Wait for a debugger on TCP port 1234
    #[arg(long)]
    pub gdb: bool,
    /// An option of the hypervisor; cmo-trap=on unless given
    #[arg(long = "opt", value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// Further arguments of QEMU
    #[arg(last = true, value_name = "QEMU ARGS")]
    pub extra: Vec<String>,
}

pub fn command(arguments: &Arguments) -> Result<bool> {
    let machine = machine(arguments)?;
    let terminal = Terminal::save();
    let mut qemu = machine.command()?.stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
    let output = qemu.stdout.take().context("QEMU has no output")?;
    let verdict = pass_through(output, io::stdout());
    let status = qemu.wait();
    drop(terminal);
    let status = status?;
    match verdict? {
        Some(verdict) => Ok(verdict.pass),
        None => {
            eprintln!("xtask: the machine ended without a result ({status})");
            Ok(false)
        }
    }
}

/// Builds everything that the arguments ask for.
fn machine(arguments: &Arguments) -> Result<Machine> {
    let image = build::image(Binary::Hypervisor)?;
    let initrd = Some(bundle::write(&bundle::from_root(&arguments.manifest))?);
    let mut options = arguments.options.clone();
    // QEMU performs no cache maintenance: without the trap nothing would decide about it.
    if !options.iter().any(|option| option.starts_with("cmo-trap=")) {
        options.push("cmo-trap=on".into());
    }
    let firmware = Firmware::Kernel { image, initrd, append: options.join(" ") };
    Ok(Machine {
        cpu: arguments.cpu.clone(),
        smp: arguments.smp,
        mem: arguments.mem.clone(),
        icount: arguments.icount,
        gdb: arguments.gdb,
        extra: arguments.extra.clone(),
        ..Machine::new(firmware)
    })
}

/// Copies the UART to the terminal, byte for byte and at once, and finds the verdict in it.
fn pass_through(mut output: impl Read, mut terminal: impl Write) -> Result<Option<Verdict>> {
    let mut lines = Lines::default();
    let mut verdict = None;
    let mut buffer = [0; 4096];
    loop {
        let count = output.read(&mut buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        terminal.write_all(bytes)?;
        terminal.flush()?;
        lines.feed(bytes, |line| verdict = Verdict::parse(line).or(verdict.take()));
    }
    lines.flush(|line| verdict = Verdict::parse(line).or(verdict.take()));
    Ok(verdict)
}

/// The terminal as it was: QEMU makes it raw, and cannot restore it when it is killed.
struct Terminal(Option<Termios>);

impl Terminal {
    fn save() -> Terminal {
        Terminal(termios::tcgetattr(io::stdin()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            // The terminal may be gone; there is nobody to tell then.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, saved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_result_counts_and_all_bytes_pass() {
        let log =
            b"[a] x\r\ntagvisor: result: pass\r\n[a] \xff\rtagvisor: result: fail 1 of 2 VMs".as_slice();
        let mut seen = Vec::new();
        let verdict = pass_through(log, &mut seen).unwrap();
        assert_eq!(verdict, Some(Verdict { pass: false, reason: "1 of 2 VMs".into() }));
        assert_eq!(seen, log);
        assert_eq!(pass_through(b"[a] tagvisor: result: pass\n".as_slice(), io::sink()).unwrap(), None);
    }
}
