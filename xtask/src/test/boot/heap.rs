//! EL2 catches misuse of its own heap and stack: a build of the hypervisor that misuses it on purpose.

use super::{Run, TIMEOUT, machine};
use crate::qemu::{Firmware, Machine};
use crate::trial::{Tally, Trial};
use crate::{build, bundle, paths};
use anyhow::Result;
use std::path::Path;

/// What is done, what the machine has to say, and `taggable` of its manifest.
const CASES: [(&str, &str, &str); 5] = [
    ("overflow", "panic: heap: overflow, size class 64: the pointer has tag", "all"),
    ("use-after-free", "panic: heap: use after free, size class 64: the pointer has tag", "all"),
    ("double-free", "heap: a second free of", "all"),
    // A data abort of EL2's own, by a translation fault at level 3, told from another stack.
    ("stack-overflow", "panic on CPU 0: synchronous exception at EL2: ESR 0x0000000096000047", "all"),
    ("untagged", "nobody noticed", "none"),
];

pub fn trials() -> Vec<Trial<'static>> {
    let cpus = ["max", "neoverse-n2"];
    let all = cpus.into_iter().flat_map(|cpu| CASES.map(|case| (cpu, case)));
    all.map(|(cpu, (what, says, taggable))| {
        let name = format!("boot::tags-heap-{what}@{cpu}");
        Trial::new(name.clone(), move || run(&name, cpu, what, says, taggable))
    })
    .collect()
}

/// Boots the build that does `what` on two CPUs.
pub(super) fn provoked(name: &str, cpu: &str, manifest: &Path, what: &str) -> Result<Run> {
    let firmware = Firmware::Kernel {
        image: build::provoked()?,
        initrd: Some(bundle::write(manifest)?),
        append: format!("provoke={what}"),
    };
    machine::run(name, &Machine { cpu: cpu.into(), smp: 2, ..Machine::new(firmware) }, TIMEOUT)
}

fn run(name: &str, cpu: &str, what: &str, says: &str, taggable: &str) -> Result<Tally> {
    let text = format!(
        "[machine]\ntaggable = \"{taggable}\"\n[[vm]]\nname = \"vm\"\nkernel = \"@payload\"\n\
         cmdline = \"suite=smccc\"\nmemory = \"8MiB\"\n"
    );
    let manifest = paths::output()?.join(format!("boot-heap-{what}-{cpu}.toml"));
    paths::replace(&manifest, text.as_bytes())?;
    // Without tags nothing is caught: the same as an overflow, unnoticed.
    let done = if what == "untagged" { "overflow" } else { what };
    let run = provoked(name, cpu, &manifest, done)?;
    let said = run.lines.iter().any(|line| line.contains(says));
    let last = run.lines.last().map_or("", String::as_str);
    let ended = last.starts_with("tagvisor: result: fail") == (taggable == "all");
    if said && ended && run.hung.is_none() {
        return Ok(Tally::pass());
    }
    Ok(Tally::fail(format!("no line has {says:?}, or it ends wrongly: {last:?}; log: {}", run.log.display())))
}
