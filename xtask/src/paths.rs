//! Where everything lies.

use anyhow::{Context, Result};
use std::env;
use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// What is built: images, bundles, initial RAM disks.
pub fn output() -> Result<PathBuf> {
    directory(target().join("tagvisor"))
}

/// The log of a test.
pub fn log(name: &str) -> Result<PathBuf> {
    Ok(directory(target().join("logs"))?.join(format!("{}.log", name.replace("::", "-"))))
}

/// What is fetched: QEMU and the kernels of the distribution.
pub fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    directory(base.join("tagvisor"))
}

fn directory(path: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// Writes a file as a whole: whoever reads the old one keeps it.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let thread = std::thread::current().id();
    let fresh = path.with_added_extension(format!("{}.{thread:?}", std::process::id()));
    std::fs::write(&fresh, content)
        .and_then(|()| std::fs::rename(&fresh, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
