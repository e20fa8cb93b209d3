//! `cargo xtask build`: the bare-metal members of the workspace and their flat images.

use crate::{paths, process};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// A program that runs on no operating system of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binary {
    /// The EL2 image.
    Hypervisor,
    /// The payloads at EL1.
    GuestTest,
    /// The static Linux program.
    GuestUser,
    /// The virtual machine monitor for Linux.
    GuestVmm,
}

impl Binary {
    pub const ALL: [Binary; 4] = [Binary::Hypervisor, Binary::GuestTest, Binary::GuestUser, Binary::GuestVmm];

    pub const fn package(self) -> &'static str {
        match self {
            Binary::Hypervisor => "hypervisor",
            Binary::GuestTest => "guest-test",
            Binary::GuestUser => "guest-user",
            Binary::GuestVmm => "guest-vmm",
        }
    }

    pub const fn target(self) -> &'static str {
        match self {
            Binary::Hypervisor | Binary::GuestTest => "aarch64-unknown-none-softfloat",
            Binary::GuestUser => "aarch64-unknown-none",
            Binary::GuestVmm => "aarch64-unknown-linux-musl",
        }
    }

    /// Where cargo leaves the ELF file.
    pub fn elf(self) -> PathBuf {
        paths::target().join(self.target()).join("release").join(self.package())
    }
}

pub fn command() -> Result<bool> {
    for binary in Binary::ALL {
        let path = match binary {
            Binary::Hypervisor | Binary::GuestTest => image(binary)?,
            Binary::GuestUser | Binary::GuestVmm => elf(binary)?,
        };
        println!("{}", path.display());
    }
    Ok(true)
}

/// What this run of the tool has built: two tests must neither build at the same time nor replace
/// what the other reads.
static BUILT: Mutex<BTreeMap<(Binary, Form), PathBuf>> = Mutex::new(BTreeMap::new());

/// What a program is wanted as.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Elf,
    Flat,
    /// The hypervisor's flat image, with its feature `provoke`.
    Provoked,
}

/// Builds the ELF file.
pub fn elf(binary: Binary) -> Result<PathBuf> {
    once(binary, Form::Elf)
}

/// Builds the flat image: what is loaded, byte for byte.
pub fn image(binary: Binary) -> Result<PathBuf> {
    once(binary, Form::Flat)
}

/// Builds the hypervisor that misuses its heap when it is told to.
pub fn provoked() -> Result<PathBuf> {
    once(Binary::Hypervisor, Form::Provoked)
}

fn once(binary: Binary, form: Form) -> Result<PathBuf> {
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(path) = built.get(&(binary, form)) {
        return Ok(path.clone());
    }
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--package", binary.package(), "--target", binary.target()]);
    cargo.args(["--config", &format!("target.{}.rustflags = {:?}", binary.target(), remapped_paths()?)]);
    if form == Form::Provoked {
        cargo.args(["--features", "provoke", "--target-dir"]).arg(paths::target().join("provoke"));
    }
    process::run(&mut cargo)?;
    let path = match form {
        Form::Elf => binary.elf(),
        Form::Flat => {
            let name = match binary {
                Binary::Hypervisor => "Image",
                Binary::GuestTest | Binary::GuestUser | Binary::GuestVmm => binary.package(),
            };
            flatten(&binary.elf(), name)?
        }
        Form::Provoked => {
            let place = paths::target().join("provoke").join(binary.target());
            flatten(&place.join("release").join(binary.package()), "Image-provoke")?
        }
    };
    built.insert((binary, form), path.clone());
    Ok(path)
}

fn flatten(elf: &Path, name: &str) -> Result<PathBuf> {
    let image = paths::output()?.join(name);
    let objcopy = llvm_tool("llvm-objcopy")?;
    process::run(Command::new(objcopy).args(["-O", "binary"]).arg(elf).arg(&image))?;
    let home = cargo_home()?;
    let home = home.as_os_str().as_encoded_bytes();
    if std::fs::read(&image)?.windows(home.len()).any(|text| text == home) {
        bail!("{} names files of this machine: {}", image.display(), cargo_home()?.display());
    }
    Ok(image)
}

/// Flags that name source files alike on every machine: panics print these names, and equal sources shall
/// give equal images. Packages by name and version, the standard library as where its sources are absent.
/// (cargo's `trim-paths` does this, on nightly.)
fn remapped_paths() -> Result<Vec<String>> {
    let mut places = Vec::new();
    for registry in cargo_home()?.join("registry/src").read_dir().into_iter().flatten() {
        places.push((registry?.path(), String::new()));
    }
    let version = rustc(&["--version", "--verbose"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
    places.push((sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{commit}/")));
    let flag = |(from, to): &(PathBuf, String)| format!("--remap-path-prefix={}/={to}", from.display());
    Ok(places.iter().map(flag).collect())
}

fn cargo_home() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).context("neither CARGO_HOME nor HOME is set")
}

fn rustc(arguments: &[&str]) -> Result<String> {
    process::read(Command::new("rustc").current_dir(paths::root()).args(arguments))
}

/// A program of the toolchain's `llvm-tools` component.
fn llvm_tool(name: &str) -> Result<PathBuf> {
    let libdir = rustc(&["--print", "target-libdir"])?;
    let tool =
        PathBuf::from(libdir.trim()).parent().context("rustc has no target-libdir")?.join("bin").join(name);
    if !tool.exists() {
        bail!("{} is missing: rustup component add llvm-tools", tool.display());
    }
    Ok(tool)
}
