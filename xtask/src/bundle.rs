//! `cargo xtask bundle`: a manifest and the files that it names, as the archive that the hypervisor
//! gets for its initial RAM disk.

use crate::{build, guests, paths};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// The manifest
    #[arg(long, default_value = "manifests/default.toml")]
    manifest: PathBuf,
    /// Where the bundle goes
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Only say whether the manifest and its files are right
    #[arg(long)]
    check: bool,
}

pub fn command(arguments: &Arguments) -> Result<bool> {
    let manifest = from_root(&arguments.manifest);
    if arguments.check {
        compile(&manifest)?;
        println!("{}: ok", arguments.manifest.display());
        return Ok(true);
    }
    let path = match &arguments.output {
        Some(path) => path.clone(),
        None => destination(&manifest)?,
    };
    write_to(&manifest, &path)?;
    println!("{}", path.display());
    Ok(true)
}

/// Compiles a manifest into its bundle in the output directory.
pub fn write(manifest: &Path) -> Result<PathBuf> {
    let path = destination(manifest)?;
    write_to(manifest, &path)?;
    Ok(path)
}

/// A path as the user typed it, or in the repository when it is not there.
pub fn from_root(path: &Path) -> PathBuf {
    if path.exists() { path.into() } else { paths::root().join(path) }
}

fn destination(manifest: &Path) -> Result<PathBuf> {
    let stem = manifest.file_stem().context("the manifest has no name")?;
    Ok(paths::output()?.join(stem).with_extension("bundle"))
}

fn write_to(manifest: &Path, path: &Path) -> Result<()> {
    paths::replace(path, &compile(manifest)?)
}

fn compile(_manifest: &Path) -> Result<Vec<u8>> {
    let _ = resolve;
    bail!("the bundle compiler is not there yet")
}

/// Finds a file that a manifest names: `build:NAME` is made by this tool, `cache:NAME` is fetched
/// from the distribution, all else is relative to the manifest.
fn resolve(manifest: &Path, name: &str) -> Result<PathBuf> {
    if let Some(made) = name.strip_prefix("build:") {
        return match made {
            "guest-test" => build::image(build::Binary::GuestTest),
            "guest-user" => build::elf(build::Binary::GuestUser),
            "initrd.cpio" => guests::initrd::write(guests::initrd::Kind::Shell),
            "initrd-test.cpio" => guests::initrd::write(guests::initrd::Kind::Test),
            _ => bail!("this tool does not build {made}"),
        };
    }
    if let Some(fetched) = name.strip_prefix("cache:") {
        return guests::fetch::file(fetched);
    }
    Ok(manifest.parent().unwrap_or(Path::new(".")).join(name))
}
