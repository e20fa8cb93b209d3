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
    compile_with(manifest, resolve)
}

fn compile_with(manifest: &Path, resolve: fn(&str) -> Result<PathBuf>) -> Result<Vec<u8>> {
    let resolver = |name: &str| resolve(name).map_err(|error| format!("{error:#}"));
    let bundle = ::bundle::compile(manifest, &resolver)?;
    for warning in &bundle.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(bundle.archive)
}

/// Finds a file that a manifest names with a leading `@`; besides those of [`made`], `@bundle/FILE`,
/// the bundle of another manifest, for this hypervisor as a guest.
fn resolve(name: &str) -> Result<PathBuf> {
    let Some(file) = name.strip_prefix("bundle/") else { return made(name) };
    let manifest = paths::root().join(file);
    // Only files that are made: no bundle comes to contain itself.
    let inner = compile_with(&manifest, made)?;
    let path = destination(&manifest)?.with_extension("inner");
    paths::replace(&path, &inner)?;
    Ok(path)
}

/// A file that this tool makes (`@payload`, `@hypervisor`, `@guests/initrd.cpio`,
/// `@guests/initrd-test.cpio`, `@guests/initrd-kvm.cpio`, `@guests/initrd-qemu.cpio`), or fetches from the distribution (`@guests/linux-stable/Image`,
/// `@guests/linux-backports/Image`).
fn made(name: &str) -> Result<PathBuf> {
    match name {
        "hypervisor" => build::image(build::Binary::Hypervisor),
        "payload" => build::image(build::Binary::GuestTest),
        "guests/initrd.cpio" => guests::initrd::write(guests::initrd::Kind::Shell),
        "guests/initrd-test.cpio" => guests::initrd::write(guests::initrd::Kind::Test),
        "guests/initrd-qemu.cpio" => guests::initrd::write(guests::initrd::Kind::Qemu),
        "guests/initrd-kvm.cpio" => guests::initrd::write(guests::initrd::Kind::Kvm),
        _ => match name.strip_prefix("guests/") {
            Some(fetched) => guests::fetch::file(fetched),
            None => bail!("is neither @payload nor @hypervisor, and not one of @guests/ or @bundle/"),
        },
    }
}
