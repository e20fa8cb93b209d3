//! Builds, bundles, boots and tests the hypervisor: `cargo xtask COMMAND`.
//!
//! One file for each command; [`qemu`] starts machines, [`uart`] and [`ktap`] understand what they
//! print, [`guests`] provides the Linux kernels and initial RAM disks, [`paths`] says where
//! everything lies.

mod bench;
mod boot;
mod build;
mod bundle;
mod check;
mod elf;
mod fuzz;
mod guests;
mod idregs;
mod image;
mod ktap;
mod miri;
mod paths;
mod process;
mod qemu;
mod test;
mod trial;
mod uart;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, bundles, boots and tests the hypervisor")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the hypervisor and the guests of this repository
    Build,
    /// Compile a manifest and the files that it names into a bundle
    Bundle(bundle::Arguments),
    /// Boot a bundle in QEMU; the status is that of the hypervisor's last line
    Boot(boot::Arguments),
    /// Run everything that CI runs, or what matches the filter
    Test(test::Arguments),
    /// Count the instructions of each benchmark and compare with the committed figures
    Bench(bench::Arguments),
    /// Check formatting, lints and the rules of the architecture
    Check,
    /// Run the tests of the pure crates under Miri (needs a nightly toolchain)
    Miri(miri::Arguments),
    /// Run the fuzz targets
    Fuzz(fuzz::Arguments),
    /// Write Image, bundle and a U-Boot boot script
    Image(image::Arguments),
    /// Print what a machine has and what its VMs see, as a table from the log of a boot
    Idregs(idregs::Arguments),
    /// Fetch the distribution's kernels, busybox, U-Boot and QEMU into the cache
    FetchGuests,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; false is a failure that has been reported already.
fn run(arguments: Arguments) -> Result<bool> {
    match arguments.command {
        Command::Build => build::command(),
        Command::Bundle(arguments) => bundle::command(&arguments),
        Command::Boot(arguments) => boot::command(&arguments),
        Command::Test(arguments) => test::command(&arguments),
        Command::Bench(arguments) => bench::command(&arguments),
        Command::Check => check::command(),
        Command::Miri(arguments) => miri::command(&arguments),
        Command::Fuzz(arguments) => fuzz::command(&arguments),
        Command::Image(arguments) => image::command(&arguments),
        Command::Idregs(arguments) => idregs::command(&arguments),
        Command::FetchGuests => guests::fetch::command(),
    }
}
