//! Compiles a manifest in TOML into the bundle that the hypervisor boots.
//!
//! [`compile`] reads the manifest (`source`, `schema`), unpacks kernels (`kernel`), decides
//! where kernel, initial RAM disk and device tree of each VM go (`place`), has `manifest::check`
//! look at the result, and packs it (`archive`). `docs/manifest.md` documents each key.
#![forbid(unsafe_code)]

mod archive;
mod kernel;
mod place;
mod schema;
mod source;
mod warning;

use archive::Archive;
use kernel::{Form, Kernel};
use manifest::{KernelSpec, MANIFEST_FILE, MachineSpec, Placed, VmSpec};
use schema::VmEntry;
use source::{Source, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A compiled bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The cpio archive: `manifest.dtb` and the files that it names.
    pub archive: Vec<u8>,
    /// What `manifest.dtb` says.
    pub spec: MachineSpec,
    /// What is allowed but probably not meant: a sentence each.
    pub warnings: Vec<String>,
}

/// Why a manifest is refused: `file:line: ` and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The manifest.
    pub file: PathBuf,
    /// Line of the entry to blame, from 1; `None` is the whole file.
    pub line: Option<usize>,
    /// The sentence.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.line {
            Some(line) => write!(f, "{file}:{line}: {}", self.message),
            None => write!(f, "{file}: {}", self.message),
        }
    }
}

impl std::error::Error for Error {}

/// Finds files that a manifest names with a leading `@`: those that the build makes or fetches.
pub trait Resolver {
    /// The path of the file `name` (without the `@`), or why there is none.
    fn resolve(&self, name: &str) -> Result<PathBuf, String>;
}

impl<F: Fn(&str) -> Result<PathBuf, String>> Resolver for F {
    fn resolve(&self, name: &str) -> Result<PathBuf, String> {
        self(name)
    }
}

/// Compiles the manifest at `path`. The same input gives the same bytes.
pub fn compile(path: &Path, resolver: &impl Resolver) -> Result<Bundle, Error> {
    let source = Source::read(path)?;
    let root = source.parse()?;
    let root = source.root(&root);
    let entries = schema::machine(&root)?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut loader = Loader { base, resolver, files: Archive::new(), kernels: BTreeMap::new() };
    let mut vms = Vec::new();
    for entry in &entries.vms {
        vms.push(loader.vm(entry)?);
    }
    let spec =
        MachineSpec { taggable: entries.taggable.clone(), tag_storage: entries.tag_storage.clone(), vms };
    let files = loader.files;
    manifest::check(&spec, |name| files.size(name)).map_err(|e| schema::blame(&root, &e))?;
    let warnings = warning::all(&entries, &spec);
    Ok(Bundle { archive: files.pack(MANIFEST_FILE, &manifest::write(&spec)), spec, warnings })
}

/// Validates the manifest at `path` with all its files, and returns the warnings.
pub fn check(path: &Path, resolver: &impl Resolver) -> Result<Vec<String>, Error> {
    Ok(compile(path, resolver)?.warnings)
}

/// Turns entries into specifications and collects their files.
struct Loader<'a, R> {
    base: &'a Path,
    resolver: &'a R,
    files: Archive,
    /// Kernels unpacked so far: several VMs may run one, and inflating it takes a while.
    kernels: BTreeMap<PathBuf, Kernel>,
}

impl<R: Resolver> Loader<'_, R> {
    fn vm(&mut self, entry: &VmEntry<'_>) -> Result<VmSpec, Error> {
        let mut spec = entry.spec.clone();
        let mut ram = Vec::new();
        for (region, file) in spec.regions.iter_mut().zip(&entry.files) {
            let mut used = 0;
            if let Some(file) = file {
                let bytes = self.read(file)?;
                used = size(&bytes);
                region.file = Some(self.files.add(file.str()?, bytes));
            }
            if region.kind == manifest::RegionKind::Ram {
                ram.push(place::Ram { range: region.ipa, used });
            }
        }
        let initrd = entry.initrd.as_ref().map(|file| self.read(file)).transpose()?;
        let kernel = self.kernel(&entry.kernel)?;
        if let Some(offset) = &entry.kernel_offset
            && kernel.form != Form::Raw
        {
            return Err(offset.error("is for raw kernels only: this one says where it goes"));
        }
        let offset = entry.kernel_offset.as_ref().map(Value::number).transpose()?.unwrap_or(0);
        let places = place::place(&ram, &kernel, offset, initrd.as_deref().map(size))
            .map_err(|why| entry.kernel.error(why))?;

        let file = self.files.add(entry.kernel.str()?, kernel.bytes);
        spec.kernel = KernelSpec { image: Placed { file, at: places.kernel }, entry: places.entry };
        spec.dtb = places.dtb;
        if let (Some(value), Some(bytes), Some(at)) = (&entry.initrd, initrd, places.initrd) {
            spec.initrd = Some(Placed { file: self.files.add(value.str()?, bytes), at });
        }
        Ok(spec)
    }

    fn kernel(&mut self, value: &Value<'_>) -> Result<Kernel, Error> {
        let path = self.path(value)?;
        if let Some(kernel) = self.kernels.get(&path) {
            return Ok(kernel.clone());
        }
        let kernel = kernel::unpack(self.read(value)?).map_err(|why| value.error(why))?;
        self.kernels.insert(path, kernel.clone());
        Ok(kernel)
    }

    fn path(&self, value: &Value<'_>) -> Result<PathBuf, Error> {
        let name = value.str()?;
        match name.strip_prefix('@') {
            Some(name) => self.resolver.resolve(name).map_err(|why| value.error(why)),
            None => Ok(self.base.join(name)),
        }
    }

    fn read(&self, value: &Value<'_>) -> Result<Vec<u8>, Error> {
        let path = self.path(value)?;
        let bytes = std::fs::read(&path);
        let bytes = bytes.map_err(|why| value.error(format!("cannot be read: {}: {why}", path.display())))?;
        if bytes.is_empty() {
            return Err(value.error(format!("is empty: {}", path.display())));
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(value.error("is larger than 4 GiB, more than a bundle holds"));
        }
        Ok(bytes)
    }
}

fn size(bytes: &[u8]) -> u64 {
    // A `usize` has at most 64 bits on every host that has Rust's `std`.
    bytes.len() as u64
}

#[cfg(test)]
mod tests;
