//! QEMU's `virt` machine: one place that knows its command line.

use crate::{paths, process};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// A machine to start.
#[derive(Clone, Debug)]
pub struct Machine {
    /// QEMU's CPU model.
    pub cpu: String,
    /// Number of CPUs.
    pub smp: u32,
    /// Memory, in QEMU's notation.
    pub mem: String,
    /// Count instructions exactly: one nanosecond each, one CPU at a time.
    pub icount: bool,
    /// Wait for a debugger on TCP port 1234.
    pub gdb: bool,
    /// Whether the machine has EL2.
    pub virtualization: bool,
    /// What runs first.
    pub firmware: Firmware,
    /// Further arguments.
    pub extra: Vec<String>,
}

/// What the machine starts with.
#[derive(Clone, Debug)]
pub enum Firmware {
    /// QEMU itself loads a kernel as the boot protocol of arm64 Linux says.
    Kernel { image: PathBuf, initrd: Option<PathBuf>, append: String },
    /// A firmware image in flash finds the rest.
    Flash(PathBuf),
}

impl Machine {
    /// The usual machine for a kernel.
    pub fn new(firmware: Firmware) -> Machine {
        Machine {
            cpu: "max".into(),
            smp: 2,
            mem: "2G".into(),
            icount: false,
            gdb: false,
            virtualization: true,
            firmware,
            extra: Vec::new(),
        }
    }

    /// The command line; the UART is on standard input and output, as raw bytes and with no keys of
    /// QEMU's own, and the machine ends when its starter does.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(program()?);
        let virtualization = if self.virtualization { "on" } else { "off" };
        command
            .args(["-machine", &format!("virt,gic-version=3,mte=on,virtualization={virtualization}")])
            .args(["-cpu", &self.cpu, "-smp", &self.smp.to_string(), "-m", &self.mem])
            .args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"])
            .args(["-chardev", "stdio,id=uart,signal=off,mux=off", "-serial", "chardev:uart"])
            .args(["-run-with", "exit-with-parent=on"]);
        if self.icount {
            command.args(["-icount", "shift=0,sleep=off", "-accel", "tcg,one-insn-per-tb=on"]);
        }
        if self.gdb {
            command.args(["-s", "-S"]);
        }
        match &self.firmware {
            Firmware::Kernel { image, initrd, append } => {
                command.arg("-kernel").arg(image);
                if let Some(initrd) = initrd {
                    command.arg("-initrd").arg(initrd);
                }
                if !append.is_empty() {
                    command.args(["-append", append]);
                }
            }
            Firmware::Flash(image) => {
                command.arg("-bios").arg(image);
            }
        }
        command.args(&self.extra);
        Ok(command)
    }
}

/// A QEMU that is recent enough; the script fetches one if need be.
pub fn program() -> Result<PathBuf> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(path) = found.as_ref() {
        return Ok(path.clone());
    }
    let path = process::read(&mut script("get-qemu.sh"))?;
    Ok(found.insert(PathBuf::from(path.trim())).clone())
}

/// A script of this repository.
pub fn script(name: &str) -> Command {
    let path: &Path = &paths::root().join("scripts").join(name);
    Command::new(path)
}
