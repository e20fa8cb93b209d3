//! `cargo xtask test [FILTER]`: everything that CI runs, in categories:
//!
//! | names | what |
//! |---|---|
//! | `check::*` | formatting, lints, architecture ([`check`](crate::check)) |
//! | `host::*` | unit, property and documentation tests of the host members |
//! | `fuzz::*` | the fuzz targets, half a minute each ([`fuzz`](crate::fuzz)) |
//! | `bare::*` | the payloads and kernels on the reference machine, without hypervisor |
//! | `payload::*`, `linux::*`, `pty::*` | the manifests under `manifests/test` |
//! | `boot::*` | odd and wrong machines: run on, or refused with a sentence |
//! | `uboot::*` | the image at other load addresses, through U-Boot |
//! | `bench::*` | the benchmark |

mod bare;
mod boot;
mod host;
pub mod machine;
mod manifests;
mod terminal;
mod uboot;

use crate::trial::{self, Trial};
use crate::{bench, check, fuzz};
use anyhow::Result;

#[derive(clap::Args)]
pub struct Arguments {
    /// Run only the tests with this in their name
    filter: Option<String>,
    /// Only print the names
    #[arg(long)]
    list: bool,
}

pub fn command(arguments: &Arguments) -> Result<bool> {
    let mut trials: Vec<Trial<'_>> = Vec::new();
    trials.extend(check::trials());
    trials.extend(host::trials()?);
    trials.extend(fuzz::trials()?);
    trials.extend(bare::trials());
    trials.extend(manifests::trials()?);
    trials.extend(boot::trials());
    trials.extend(uboot::trials());
    trials.extend(bench::trials());
    if let Some(filter) = &arguments.filter {
        trials.retain(|trial| trial.name.contains(filter));
    }
    if arguments.list {
        trials.iter().for_each(|trial| println!("{}", trial.name));
        return Ok(true);
    }
    if trials.is_empty() {
        anyhow::bail!("no test has {:?} in its name", arguments.filter.as_deref().unwrap_or_default());
    }
    let total = trial::run(trials);
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(total.failed == 0)
}
