//! `cargo xtask fetch-guests`: Debian's arm64 kernels, busybox and U-Boot, from its signed packages,
//! into the cache:
//!
//! | file | from |
//! |---|---|
//! | `linux-stable/Image` | the newest kernel of trixie |
//! | `linux-backports/Image` | the newest kernel of trixie-backports |
//! | `busybox/busybox` | busybox-static |
//! | `u-boot/u-boot.bin` | u-boot-qemu, for `virt` |
//!
//! Each directory has a `VERSION`. QEMU comes with its libraries, see [`emulator`].

use super::emulator;
use crate::{paths, process, qemu};
use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// What can be fetched.
#[derive(Clone, Copy)]
enum Piece {
    Stable,
    Backports,
    Busybox,
    UBoot,
}

impl Piece {
    const ALL: [Piece; 4] = [Piece::Stable, Piece::Backports, Piece::Busybox, Piece::UBoot];

    const fn directory(self) -> &'static str {
        match self {
            Piece::Stable => "linux-stable",
            Piece::Backports => "linux-backports",
            Piece::Busybox => "busybox",
            Piece::UBoot => "u-boot",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Piece::Stable | Piece::Backports => "Image",
            Piece::Busybox => "busybox",
            Piece::UBoot => "u-boot.bin",
        }
    }

    const fn suite(self) -> &'static str {
        match self {
            Piece::Backports => "trixie-backports",
            Piece::Stable | Piece::Busybox | Piece::UBoot => "trixie",
        }
    }

    /// The package that brings it, perhaps by its dependencies.
    const fn package(self) -> &'static str {
        match self {
            Piece::Stable | Piece::Backports => "linux-image-arm64",
            Piece::Busybox => "busybox-static",
            Piece::UBoot => "u-boot-qemu",
        }
    }

    /// Whether the package of this name has the file.
    fn is_in(self, package: &str) -> bool {
        match self {
            Piece::Stable | Piece::Backports => {
                let versioned = |prefix| {
                    let version: Option<&str> = package.strip_prefix(prefix);
                    version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
                };
                // Where there is a linux-binary, the linux-image of that version is empty.
                versioned("linux-binary-") || versioned("linux-image-")
            }
            Piece::Busybox | Piece::UBoot => package == self.package(),
        }
    }

    /// Finds the file in the unpacked package.
    fn find(self, root: &Path) -> Result<PathBuf> {
        match self {
            Piece::Stable | Piece::Backports => find_kernel(&root.join("boot"))
                .or_else(|| find_kernel(&root.join("usr/lib/modules")))
                .context("the package has no kernel"),
            Piece::Busybox => Ok(root.join("usr/bin/busybox")),
            Piece::UBoot => Ok(root.join("usr/lib/u-boot/qemu_arm64/u-boot.bin")),
        }
    }
}

pub fn command() -> Result<bool> {
    for piece in Piece::ALL {
        fetch(piece)?;
        let version = fs::read_to_string(home()?.join(piece.directory()).join("VERSION"))?;
        println!("{}/{}: {}", piece.directory(), piece.file(), version.trim());
    }
    println!("{}: {}", emulator::PROGRAM, emulator::fetch()?);
    Ok(true)
}

/// A fetched file by its name in the cache; it is fetched if it is not there yet.
pub fn file(name: &str) -> Result<PathBuf> {
    // Two tests may want the same file at the same time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let path = home()?.join(name);
    if !path.exists() {
        let wanted = |piece: &Piece| format!("{}/{}", piece.directory(), piece.file()) == name;
        let Some(piece) = Piece::ALL.into_iter().find(wanted) else {
            bail!("this tool does not fetch {name}");
        };
        fetch(piece)?;
    }
    Ok(path)
}

/// Where the pieces are.
pub fn home() -> Result<PathBuf> {
    Ok(paths::cache()?.join("guests"))
}

/// Brings the newest version of a piece into the cache, unless it is there.
fn fetch(piece: Piece) -> Result<()> {
    let (package, version) = newest(piece)?;
    into_cache(piece.directory(), &format!("{package} {version}"), |work, fresh| {
        unpack(piece, &format!("{package}={version}"), work, fresh)
    })
}

/// Makes a directory of the cache anew, unless it holds what `label` says: `make` gets a directory to
/// work in, and one to fill.
pub fn into_cache(name: &str, label: &str, make: impl Fn(&Path, &Path) -> Result<()>) -> Result<()> {
    let place = home()?.join(name);
    let label_line = format!("{label}\n");
    if fs::read_to_string(place.join("VERSION")).is_ok_and(|recorded| recorded == label_line) {
        return Ok(());
    }
    let bar = ProgressBar::new_spinner().with_message(format!("fetching {label}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let work = home()?.join(format!(".{name}.{}", std::process::id()));
    let fresh = work.join("fresh");
    let result = fs::create_dir_all(&fresh).map_err(anyhow::Error::from).and_then(|()| {
        make(&work, &fresh)?;
        fs::write(fresh.join("VERSION"), label_line)?;
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        Ok(fs::rename(&fresh, &place)?)
    });
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    bar.finish_and_clear();
    result.with_context(|| format!("cannot fetch {label}"))
}

/// Name and version of the package that apt would install for the piece.
fn newest(piece: Piece) -> Result<(String, String)> {
    let mut apt = apt();
    apt.args([
        "apt-get",
        "--simulate",
        "--quiet",
        "--no-install-recommends",
        "--target-release",
        piece.suite(),
    ]);
    let plan = process::read(apt.args(["install", piece.package()]))?;
    // `Inst NAME (VERSION ORIGIN [ARCHITECTURE])`
    let mut found = plan.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
        piece.is_in(name).then_some((name.to_owned(), rest.split(' ').next()?.to_owned()))
    });
    found.next().with_context(|| format!("{} has no {}", piece.suite(), piece.package()))
}

/// Downloads and unpacks in `work`; the file goes to `fresh`.
fn unpack(piece: Piece, package: &str, work: &Path, fresh: &Path) -> Result<()> {
    let root = work.join("root");
    fs::create_dir_all(&root)?;
    process::quiet(apt().current_dir(work).args(["apt-get", "--quiet", "download", package]))?;
    let mut archives = work.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let archive = archives.find(is_archive).context("apt downloaded nothing")?;
    process::quiet(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&root))?;
    let content = fs::read(piece.find(&root)?)?;
    let content = match piece {
        Piece::Stable | Piece::Backports => kernel(content, work)?,
        Piece::Busybox | Piece::UBoot => content,
    };
    fs::write(fresh.join(piece.file()), content)?;
    Ok(())
}

/// The kernel of a package: `boot/vmlinuz-VERSION` or `usr/lib/modules/VERSION/vmlinuz`.
fn find_kernel(directory: &Path) -> Option<PathBuf> {
    directory.read_dir().ok()?.filter_map(Result::ok).find_map(|entry| {
        let path = entry.path();
        let inside = path.join("vmlinuz");
        let is_kernel = entry.file_name().to_string_lossy().starts_with("vmlinuz");
        if is_kernel { Some(path) } else { inside.exists().then_some(inside) }
    })
}

/// The flat Image of a kernel, which may be a gzip of it or an EFI program with a gzip of it inside.
fn kernel(file: Vec<u8>, work: &Path) -> Result<Vec<u8>> {
    let word = |at: usize| -> Result<usize> {
        let bytes = file.get(at..).and_then(|rest| rest.first_chunk()).context("the kernel is cut off")?;
        Ok(usize::try_from(u32::from_le_bytes(*bytes))?)
    };
    let image = if file.get(4..8) == Some(b"zimg") {
        let (start, size) = (word(8)?, word(12)?);
        gunzip(file.get(start..start + size).context("the kernel is cut off")?, work)?
    } else if file.starts_with(&[0x1f, 0x8b]) {
        gunzip(&file, work)?
    } else {
        file
    };
    ensure!(image.get(0x38..0x3c) == Some(b"ARM\x64"), "the kernel is no arm64 Image");
    Ok(image)
}

fn gunzip(data: &[u8], work: &Path) -> Result<Vec<u8>> {
    let packed = work.join("kernel.gz");
    fs::write(&packed, data)?;
    let output = process::capture(Command::new("gzip").args(["--decompress", "--stdout"]).arg(packed))?;
    // Status 2 is a warning, as for padding behind the end.
    ensure!(
        matches!(output.status.code(), Some(0 | 2)),
        "gzip failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// Apt on the distribution's packages for arm64.
pub fn apt() -> Command {
    let mut command = qemu::script("debian-apt.sh");
    command.arg("arm64");
    command
}
