//! What ID registers rest on is checked when the machine starts: the build that does it wrong on purpose.

use super::heap::provoked;
use crate::paths;
use crate::trial::{Tally, Trial};
use anyhow::Result;

/// Name, what is done, and what the machine has to say: pieces of lines, and the last line.
const CASES: [(&str, &str, &[&str], &str); 2] = [
    (
        "idregs-shuffled-tables",
        "shuffled-tables@check",
        &["error: the table of ID registers is wrong: register S3_0_C0_C4_0, bit 0, is out of order"],
        "tagvisor: result: fail boot refused",
    ),
    // CPU 1 is lost, and with it two VMs; the third runs to its end.
    (
        "idregs-lesser-cpu",
        "lesser-cpu@go",
        &[
            "warn: CPU 0x1 is not used: S3_0_C0_C6_0 bit 4 is 0x0, but VMs were offered 0x",
            "warn: lost cannot run: one of its CPUs is not used",
            "lost stopped: because of a fault",
            "warn: half cannot run: one of its CPUs is not used",
            "half stopped: because of a fault",
            "well stopped: SYSTEM_OFF",
        ],
        "tagvisor: result: fail lost: stopped by a fault",
    ),
];

pub fn trials() -> Vec<Trial<'static>> {
    CASES
        .into_iter()
        .map(|(case, what, says, last)| {
            let name = format!("boot::{case}");
            Trial::new(name.clone(), move || run(&name, case, what, says, last))
        })
        .collect()
}

fn run(name: &str, case: &str, what: &str, says: &[&str], last: &str) -> Result<Tally> {
    let vm = |name, cpus| {
        format!(
            "[[vm]]\nname = \"{name}\"\nkernel = \"@payload\"\ncmdline = \"suite=smccc\"\n\
             cpus = {cpus}\nmemory = \"8MiB\"\n"
        )
    };
    let text = [vm("lost", "[1]"), vm("half", "[0, 1]"), vm("well", "[0]")].concat();
    let manifest = paths::output()?.join(format!("boot-{case}.toml"));
    paths::replace(&manifest, text.as_bytes())?;
    let run = provoked(name, "max", &manifest, what)?;
    let unsaid = says.iter().find(|says| !run.lines.iter().any(|line| line.contains(**says)));
    let end = run.lines.last().map_or("", String::as_str);
    Ok(match (unsaid, &run.hung) {
        (Some(says), _) => Tally::fail(format!("no line has {says:?}; log: {}", run.log.display())),
        (None, None) if end == last => Tally::pass(),
        (None, _) => Tally::fail(format!("ends with {end:?}; log: {}", run.log.display())),
    })
}
