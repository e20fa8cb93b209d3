//! A VM is stopped while a CPU is about to do what others asked of one of its vCPUs before: the build that lets
//! time pass there.

use super::heap::provoked;
use crate::paths;
use crate::trial::{Tally, Trial};
use anyhow::Result;

/// A VM that sleeps and wakes up all the time, in residence, and one that restarts it.
const MANIFEST: &str = "
[[vm]]
name = \"restarter\"
cpus = [1]
memory = \"8MiB\"
kernel = \"@payload\"
cmdline = \"mode=restart-loop vm=sleeper count=60 slow=1\"
control = [\"sleeper\"]

[[vm]]
name = \"sleeper\"
cpus = [0]
memory = \"8MiB\"
kernel = \"@payload\"
cmdline = \"mode=idle every=50\"
background = true
";

pub fn trials() -> Vec<Trial<'static>> {
    vec![Trial::new("boot::stop-while-settling", run)]
}

fn run() -> Result<Tally> {
    let manifest = paths::output()?.join("boot-stop-while-settling.toml");
    paths::replace(&manifest, MANIFEST.as_bytes())?;
    let run = provoked("boot::stop-while-settling", "max", &manifest, "pause@settle")?;
    let restarted = run.lines.iter().any(|line| line.contains("[restarter] ok 1 mode.restart-loop"));
    let last = run.lines.last().map_or("", String::as_str);
    if restarted && run.hung.is_none() && last.starts_with("tagvisor: result: pass") {
        return Ok(Tally::pass());
    }
    Ok(Tally::fail(format!("ends with {last:?}; log: {}", run.log.display())))
}
