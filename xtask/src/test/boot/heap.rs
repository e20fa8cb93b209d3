//! EL2 catches misuse of its own heap and stack, wherever it is not on one of its shortest paths: a build of
//! the hypervisor that misuses them on purpose.

use super::{Run, machine};
use crate::qemu::{Firmware, Machine};
use crate::trial::{Tally, Trial};
use crate::{build, bundle, paths};
use anyhow::Result;
use std::path::Path;

/// A misuse.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    cpus: &'static [&'static str],
    /// What is done, and where.
    provoke: &'static str,
    /// What the machine has to say.
    says: &'static str,
    /// `taggable` of its manifest.
    taggable: &'static str,
    /// The VM, which has to come by.
    vm: &'static str,
}

const OVERFLOW: &str = "panic: heap: overflow, size class 64: the pointer has tag";
const STACK: &str = "panic on CPU 0: synchronous exception at EL2: ESR 0x0000000096000047";
const FREED: &str = "panic: heap: use after free, size class 64: the pointer has tag";

const CASE: Case = Case {
    name: "",
    cpus: &["max", "neoverse-n2"],
    provoke: "",
    says: OVERFLOW,
    taggable: "all",
    vm: "cmdline = \"suite=smccc\"",
};

const CASES: [Case; 10] = [
    Case { name: "overflow", provoke: "overflow@boot", ..CASE },
    Case { name: "use-after-free", provoke: "use-after-free@boot", says: FREED, ..CASE },
    Case { name: "double-free", provoke: "double-free@boot", says: "heap: a second free of", ..CASE },
    // A data abort of EL2's own, by a translation fault at level 3, told from another stack.
    Case { name: "stack-overflow", provoke: "stack-overflow@boot", says: STACK, ..CASE },
    // Without tags nothing is caught.
    Case { name: "untagged", provoke: "overflow@boot", says: "nobody noticed", taggable: "none", ..CASE },
    Case { name: "secondary", provoke: "overflow@secondary", ..CASE },
    // Behind an exception from a guest, which turned the checks off.
    Case { name: "hypercall", provoke: "use-after-free@call", says: FREED, ..CASE },
    Case { name: "abort", provoke: "overflow@abort", vm: "cmdline = \"suite=abort\"", ..CASE },
    Case {
        name: "tag-fault",
        cpus: &["max"],
        provoke: "overflow@tag-fault",
        vm: "mte = true\ncmdline = \"suite=region regions=bare:none memory=1 inject=bare\"\n[[vm.region]]\n\
             name = \"bare\"\nipa = \"0x98000000\"\nsize = \"2MiB\"\ntags = \"none\"\non-tag-access = \"inject\"",
        ..CASE
    },
    Case {
        name: "nested",
        cpus: &["max"],
        provoke: "use-after-free@nested",
        says: FREED,
        vm: "nested = \"vhe\"\ncmdline = \"suite=nested\"",
        ..CASE
    },
];

pub fn trials() -> Vec<Trial<'static>> {
    let all = CASES.into_iter().flat_map(|case| case.cpus.iter().map(move |cpu| (cpu, case)));
    all.map(|(cpu, case)| {
        let name = format!("boot::tags-heap-{}@{cpu}", case.name);
        Trial::new(name.clone(), move || run(&name, cpu, &case))
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
    machine::run(name, &Machine { cpu: cpu.into(), smp: 2, ..Machine::new(firmware) }, machine::PATIENCE)
}

fn run(name: &str, cpu: &str, case: &Case) -> Result<Tally> {
    let text = format!(
        "[machine]\ntaggable = \"{}\"\n[[vm]]\nname = \"vm\"\nkernel = \"@payload\"\nmemory = \"8MiB\"\n{}\n",
        case.taggable, case.vm
    );
    let manifest = paths::output()?.join(format!("boot-heap-{}-{cpu}.toml", case.name));
    paths::replace(&manifest, text.as_bytes())?;
    let run = provoked(name, cpu, &manifest, case.provoke)?;
    let said = run.lines.iter().any(|line| line.contains(case.says));
    // Each of these exceptions of EL2's own says, by SPSR_EL2.A, whether EL2 would have taken an SError.
    let mut saved = run.lines.iter().filter_map(|line| line.split_once("SPSR 0x"));
    if let Some((line, spsr)) = saved.find(|(_, spsr)| spsr_masks_serrors(spsr)) {
        let log = run.log.display();
        return Ok(Tally::fail(format!("SErrors are masked at EL2: {line}SPSR 0x{spsr}; log: {log}")));
    }
    let last = run.lines.last().map_or("", String::as_str);
    let ended = last.starts_with("tagvisor: result: fail") == (case.taggable == "all");
    if said && ended && run.hung.is_none() {
        return Ok(Tally::pass());
    }
    let says = case.says;
    Ok(Tally::fail(format!("no line has {says:?}, or it ends wrongly: {last:?}; log: {}", run.log.display())))
}

fn spsr_masks_serrors(spsr: &str) -> bool {
    const A: u64 = 1 << 8;
    u64::from_str_radix(spsr.trim(), 16).map_or(true, |spsr| spsr & A != 0)
}
