//! The reference machine: the same payloads and kernels directly on QEMU, without hypervisor. What
//! fails here is the fault of the payload.

use super::manifests::Key;
use super::{machine, terminal};
use crate::build::{self, Binary};
use crate::guests::{fetch, initrd};
use crate::qemu::{Firmware, Machine};
use crate::trial::{Tally, Trial};
use anyhow::Result;

pub fn trials() -> Vec<Trial<'static>> {
    let mut trials = Vec::new();
    for (cpu, smp) in [("max", 1), ("max", 4), ("neoverse-n2", 2)] {
        let name = format!("bare::guest-test@{cpu}.smp{smp}");
        trials.push(Trial::new(name.clone(), move || payload(&name, cpu, smp)));
    }
    for kernel in ["linux-stable", "linux-backports"] {
        let name = format!("bare::{kernel}");
        trials.push(Trial::new(name.clone(), move || linux(&name, kernel)));
    }
    trials.push(Trial::new("bare::linux-kvm", || kvm("bare::linux-kvm")));
    trials.push(Trial::new("bare::shell", || shell("bare::shell")));
    trials
}

/// A user types into the shell that the kernel ends in.
fn shell(name: &str) -> Result<Tally> {
    let image = fetch::file("linux-stable/Image")?;
    let initrd = Some(initrd::write(initrd::Kind::Shell)?);
    let firmware = Firmware::Kernel { image, initrd, append: "console=ttyAMA0 quiet".into() };
    let machine = Machine { virtualization: false, ..Machine::new(firmware) };
    let key = |wait: &str, send: &str| Key { wait: wait.into(), send: send.into() };
    // Ctrl-C must reach the guest, not end QEMU. The shell drops what is typed while it changes the
    // terminal's mode: wait for what only the running command says, when it has the terminal.
    let keys = [
        key("~ # ", "sh -c \"echo run''ning; exec sleep 1000\"\r"),
        key("running", "\u{3}"),
        key("~ # ", "mte-test; poweroff -f\r"),
    ];
    let run = terminal::run(name, &machine, &keys, machine::PATIENCE)?;
    Ok(run.tally(run.missing(&["ok 1 mte.fresh_tags_are_zero".into()])))
}

fn payload(name: &str, cpu: &str, smp: u32) -> Result<Tally> {
    let image = build::image(Binary::GuestTest)?;
    let firmware = Firmware::Kernel { image, initrd: None, append: String::new() };
    run(name, Machine { cpu: cpu.into(), smp, ..Machine::new(firmware) })
}

fn linux(name: &str, kernel: &str) -> Result<Tally> {
    let image = fetch::file(&format!("{kernel}/Image"))?;
    let initrd = Some(initrd::write(initrd::Kind::Test)?);
    let firmware = Firmware::Kernel { image, initrd, append: "console=ttyAMA0 panic=-1 quiet".into() };
    run(name, Machine::new(firmware))
}

/// The guests of KVM that `nested-linux` runs, where KVM has the machine to itself.
fn kvm(name: &str) -> Result<Tally> {
    let image = fetch::file("linux-backports/Image")?;
    let initrd = Some(initrd::write(initrd::Kind::Kvm)?);
    let firmware = Firmware::Kernel { image, initrd, append: "console=ttyAMA0 panic=-1 quiet".into() };
    let run = machine::run(name, &Machine::new(firmware), machine::PATIENCE)?;
    let guests = ["[one] ok 1 entry.", "[two] ok 1 entry.", "[mte] ok 1 mte."];
    Ok(run.tally(run.missing(&guests.map(String::from))))
}

fn run(name: &str, machine: Machine) -> Result<Tally> {
    let machine = Machine { virtualization: false, ..machine };
    let run = machine::run(name, &machine, machine::PATIENCE)?;
    let plan = |line: &String| line.starts_with("1..");
    let silent = if run.lines.iter().any(plan) { vec![] } else { vec!["there is no KTAP plan".into()] };
    Ok(run.tally(silent))
}
