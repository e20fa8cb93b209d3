//! Debian's QEMU for arm64, to run in a Linux guest: the program and all libraries that it loads, from
//! its signed packages, into the cache (`emulator/`, flat, with a `VERSION`).

use super::fetch::{apt, home, into_cache};
use crate::process;
use anyhow::{Context, Result};
use elf::{ElfBytes, abi::DT_NEEDED, endian::LittleEndian};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The program, and the package that it is in.
pub const PROGRAM: &str = "qemu-system-aarch64";
const PACKAGE: &str = "qemu-system-arm";
const DIRECTORY: &str = "emulator";

/// The program and its libraries by their names; fetched if they are not there yet.
pub fn files() -> Result<Vec<(String, Vec<u8>)>> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let place = home()?.join(DIRECTORY);
    if !place.join(PROGRAM).exists() {
        fetch()?;
    }
    let mut files = Vec::new();
    for entry in place.read_dir()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "VERSION" {
            files.push((name.clone(), fs::read(place.join(name))?));
        }
    }
    files.sort();
    Ok(files)
}

/// Brings the newest version into the cache, unless it is there; returns what it is.
pub fn fetch() -> Result<String> {
    let packages = closure()?;
    let of_program = packages.iter().find(|package| package.starts_with(&format!("{PACKAGE}=")));
    let label = of_program.context("trixie has no QEMU")?.replace('=', " ");
    into_cache(DIRECTORY, &label, |work, fresh| {
        process::quiet(apt().current_dir(work).args(["apt-get", "--quiet", "download"]).args(&packages))?;
        let root = work.join("root");
        for entry in work.read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                process::quiet(Command::new("dpkg-deb").arg("--extract").arg(path).arg(&root))?;
            }
        }
        gather(&root, fresh)
    })?;
    Ok(label)
}

/// All packages that apt would install for it, as `NAME=VERSION`.
fn closure() -> Result<Vec<String>> {
    let mut apt = apt();
    apt.args(["apt-get", "--simulate", "--quiet", "--no-install-recommends", "install", PACKAGE]);
    let plan = process::read(&mut apt)?;
    // `Inst NAME (VERSION ORIGIN [ARCHITECTURE])`
    let found = plan.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
        Some(format!("{name}={}", rest.split(' ').next()?))
    });
    Ok(found.collect())
}

/// Copies the program and the libraries that it needs, directly or not, from `root` to `fresh`.
fn gather(root: &Path, fresh: &Path) -> Result<()> {
    let mut libraries = BTreeMap::new();
    collect(&root.join("usr/lib"), &mut libraries)?;
    let mut wanted = vec![(PROGRAM.to_owned(), root.join("usr/bin").join(PROGRAM))];
    while let Some((name, path)) = wanted.pop() {
        let copy = fresh.join(&name);
        if copy.exists() {
            continue;
        }
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::write(&copy, &content)?;
        for name in needed(&content).with_context(|| format!("{name} is no program"))? {
            let path = libraries.get(&name).with_context(|| format!("no package has {name}"))?;
            wanted.push((name, path.clone()));
        }
    }
    Ok(())
}

fn collect(directory: &Path, libraries: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in directory.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), libraries)?;
        } else {
            libraries.entry(entry.file_name().to_string_lossy().into_owned()).or_insert(entry.path());
        }
    }
    Ok(())
}

/// The libraries that a program asks for.
fn needed(file: &[u8]) -> Result<Vec<String>> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    let dynamic = elf.dynamic()?.context("it loads no libraries")?;
    let names = elf.section_header_by_name(".dynstr")?.context("it has no .dynstr")?;
    let names = elf.section_data_as_strtab(&names)?;
    let entries = dynamic.iter().filter(|entry| entry.d_tag == DT_NEEDED);
    entries.map(|entry| Ok(names.get(usize::try_from(entry.d_val())?)?.to_owned())).collect()
}
