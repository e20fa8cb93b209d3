//! `cargo xtask bundle`: a manifest and the files that it names, as the archive that the hypervisor
//! gets for its initial RAM disk.

use crate::{build, guests, paths};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// The manifest [default: manifests/default.toml]
    file: Option<PathBuf>,
    /// The same, as for `boot`
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    manifest: Option<PathBuf>,
    /// Where the bundle goes
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Only say whether the manifest and its files are right
    #[arg(long)]
    check: bool,
}

pub fn command(arguments: &Arguments) -> Result<bool> {
    let named = arguments.file.as_deref().or(arguments.manifest.as_deref());
    let named = named.unwrap_or(Path::new("manifests/default.toml"));
    let manifest = from_root(named);
    if arguments.check {
        compile(&manifest)?;
        println!("{}: ok", named.display());
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

fn compile(manifest: &Path) -> Result<Vec<u8>> {
    let resolver = |name: &str| resolve(name).map_err(|error| format!("{error:#}"));
    let bundle = ::bundle::compile(manifest, &resolver)?;
    for warning in &bundle.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(bundle.archive)
}

/// Finds a file that a manifest names with a leading `@`: this tool makes it (`@payload`,
/// `@guests/initrd.cpio`, `@guests/initrd-test.cpio`), or fetches it from the distribution
/// (`@guests/linux-stable/Image`, `@guests/linux-backports/Image`).
fn resolve(name: &str) -> Result<PathBuf> {
    match name {
        "payload" => build::image(build::Binary::GuestTest),
        "guests/initrd.cpio" => guests::initrd::write(guests::initrd::Kind::Shell),
        "guests/initrd-test.cpio" => guests::initrd::write(guests::initrd::Kind::Test),
        _ => match name.strip_prefix("guests/") {
            Some(fetched) => guests::fetch::file(fetched),
            None => bail!("is neither @payload nor one of @guests/"),
        },
    }
}
