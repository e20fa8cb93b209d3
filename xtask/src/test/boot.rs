//! What the hypervisor makes of odd and wrong machines: it runs, or it says in one sentence why not
//! and turns the machine off. Never a hang, never a fault.

mod archive;
mod cases;
mod heap;
mod identity;
mod stop;
mod stub;
mod tree;
mod untagged;

use super::machine::{self, Run};
use crate::build::{self, Binary};
use crate::qemu::{Firmware, Machine};
use crate::trial::{Tally, Trial};
use crate::{bundle, paths, process};
use anyhow::{Context, Result};
use cases::{CASES, TAGGED};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An address that suits 2 MiB and nothing larger, far from where QEMU's loader puts things.
const ODD: u64 = 0x5a60_0000;
/// Where the bundle and the device tree lie if QEMU's loader does not place them.
const BUNDLE: u64 = 0x5000_0000;
const TREE: u64 = 0x4f00_0000;
/// Where QEMU's loader leaves its device tree if it loads no kernel but starts from flash.
const QEMU_TREE: u64 = 0x4000_0000;

/// Time behind the verdict after which a CPU counts as halted.
const HALTED: Duration = Duration::from_secs(8);

/// How the image is entered, and with which device tree.
#[derive(Clone, Copy)]
enum Way {
    /// By QEMU's loader.
    Qemu,
    /// At EL2 with HCR_EL2.E2H set, PSTATE.SP clear and interrupts in service, at an odd address, with QEMU's
    /// device tree.
    E2h,
    /// At EL3.
    El3,
    /// At an odd address with this in x0.
    X0(u64),
    /// The same, with a device tree that was changed.
    Tree(tree::Change),
    /// The same, with one whose bytes were changed.
    Blob(fn(Vec<u8>) -> Vec<u8>),
}

/// The bundle.
#[derive(Clone, Copy)]
enum Bundle {
    /// None at all.
    Absent,
    /// One VM, as the lines of its manifest say.
    Vm(&'static str),
    /// A plain VM on a machine whose tag storage this is.
    TagStorage(&'static str, &'static str),
    /// The usual one, spoilt.
    Spoilt(fn(Vec<u8>) -> Result<Vec<u8>>),
}

/// What the machine must do.
#[derive(Clone, Copy)]
enum End {
    /// Run the VM.
    Pass,
    /// Say this, and turn itself off.
    Refuse(&'static str),
    /// Say this, and halt: nothing can turn it off.
    Halt(&'static str),
    /// Turn itself off; there is nothing to say it on.
    Silence,
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    cpu: &'static str,
    smp: u32,
    mem: &'static str,
    options: &'static str,
    qemu: &'static [&'static str],
    bundle: Bundle,
    way: Way,
    end: End,
}

pub fn trials() -> Vec<Trial<'static>> {
    let cases = CASES.iter().chain(untagged::CASES.as_flattened());
    let cases = cases.map(|case| Trial::new(format!("boot::{}", case.name), move || case.run()));
    cases.chain(heap::trials()).chain(identity::trials()).chain(stop::trials()).collect()
}

impl Case {
    fn run(&self) -> Result<Tally> {
        let rest = matches!(self.end, End::Halt(_)).then_some(HALTED);
        let run =
            machine::run_on(&format!("boot::{}", self.name), &self.machine()?, machine::PATIENCE, rest)?;
        let mut complaints = self.complaints(&run);
        if let Some(why) = run.hung.as_ref().filter(|_| !matches!(self.end, End::Halt(_))) {
            complaints.push(why.clone());
        }
        if complaints.is_empty() {
            return Ok(Tally::pass());
        }
        complaints.push(format!("log: {}", run.log.display()));
        complaints.extend(run.lines.iter().rev().take(8).rev().map(|line| format!("| {line}")));
        Ok(Tally::fail(complaints.join("\n")))
    }

    /// What is wrong with what was printed.
    fn complaints(&self, run: &Run) -> Vec<String> {
        let mut complaints = Vec::new();
        let last = run.lines.last().map_or("", String::as_str);
        let mut expect = |holds: bool, what: String| {
            if !holds {
                complaints.push(what);
            }
        };
        match self.end {
            End::Pass => expect(last.starts_with("tagvisor: result: pass"), format!("ends with {last:?}")),
            End::Refuse(says) | End::Halt(says) => {
                let said = |line: &String| line.starts_with("tagvisor: error: ") && line.contains(says);
                expect(run.lines.iter().any(said), format!("no error line has {says:?}"));
                expect(last == "tagvisor: result: fail boot refused", format!("ends with {last:?}"));
            }
            End::Silence => expect(run.lines.is_empty(), format!("says {last:?}")),
        }
        let panics = run.lines.iter().any(|line| line.contains("tagvisor: panic"));
        expect(!panics, "it panics".into());
        expect(
            matches!(self.end, End::Halt(_)) == run.hung.is_some(),
            "it ends by itself where it should halt, or the other way round".into(),
        );
        complaints
    }

    /// The machine, with all its files written.
    fn machine(&self) -> Result<Machine> {
        let hypervisor = build::image(Binary::Hypervisor)?;
        let initrd = self.bundle()?;
        let mut extra: Vec<String> = self.qemu.iter().map(|word| word.to_string()).collect();
        let mut firmware =
            Firmware::Kernel { image: hypervisor.clone(), initrd, append: self.options.into() };
        if !matches!(self.way, Way::Qemu) {
            extra.extend(loader(&hypervisor, ODD));
        }
        match self.way {
            Way::Qemu => {}
            Way::E2h => enter(&mut firmware, self.write("stub", &stub::stub(true, None, ODD))?),
            Way::X0(x0) => enter(&mut firmware, self.write("stub", &stub::stub(false, Some(x0), ODD))?),
            Way::El3 => {
                // Firmware in flash starts at the highest exception level.
                extra.extend(["-machine".into(), "secure=on".into()]);
                firmware = Firmware::Flash(self.write("stub", &stub::stub(false, Some(QEMU_TREE), ODD))?);
            }
            Way::Tree(_) | Way::Blob(_) => {
                let bundle = self.bundle()?.context("a changed tree names a bundle")?;
                let size = fs::metadata(&bundle)?.len();
                let dumped = self.dump(firmware.clone())?;
                let usual = if let Way::Tree(change) = self.way { change } else { tree::same };
                let mut blob = tree::changed(&dumped, (BUNDLE, BUNDLE + size), usual)?;
                if let Way::Blob(change) = self.way {
                    blob = change(blob);
                }
                extra.extend(loader(&bundle, BUNDLE));
                extra.extend(loader(&self.write("dtb", &blob)?, TREE));
                enter(&mut firmware, self.write("stub", &stub::stub(false, Some(TREE), ODD))?);
            }
        }
        Ok(Machine {
            cpu: self.cpu.into(),
            smp: self.smp,
            mem: self.memory().into(),
            extra,
            ..Machine::new(firmware)
        })
    }

    /// Changed trees speak of 2 GiB.
    fn memory(&self) -> &'static str {
        if matches!(self.way, Way::Qemu) { self.mem } else { "2G" }
    }

    /// QEMU's own device tree.
    fn dump(&self, firmware: Firmware) -> Result<Vec<u8>> {
        let path = self.path("dumped.dtb")?;
        let dump = format!("dumpdtb={}", path.display());
        let machine = Machine {
            smp: self.smp,
            mem: self.memory().into(),
            extra: vec!["-machine".into(), dump],
            ..Machine::new(firmware)
        };
        process::quiet(&mut machine.command()?)?;
        Ok(fs::read(path)?)
    }

    fn bundle(&self) -> Result<Option<PathBuf>> {
        let (storage, lines) = match self.bundle {
            Bundle::Absent => return Ok(None),
            Bundle::Vm(lines) => (String::new(), lines.to_owned()),
            Bundle::TagStorage(storage, memory) => {
                (format!("tag-storage = [{storage}]\n"), format!("cpus = [0]\nmemory = \"{memory}\""))
            }
            Bundle::Spoilt(_) => (String::new(), TAGGED.to_owned()),
        };
        // What is left of interrupts is met by tests of interrupts.
        let suite = if matches!(self.way, Way::E2h) { "gic,smp" } else { "smccc" };
        let text = format!(
            "[machine]\ntaggable = \"all\"\n{storage}[[vm]]\nname = \"vm\"\nkernel = \"@payload\"\n\
             cmdline = \"suite={suite}\"\n{lines}\n"
        );
        let bundle = bundle::write(&self.write("toml", text.as_bytes())?)?;
        if let Bundle::Spoilt(spoil) = self.bundle {
            paths::replace(&bundle, &spoil(fs::read(&bundle)?)?)?;
        }
        Ok(Some(bundle))
    }

    fn path(&self, extension: &str) -> Result<PathBuf> {
        Ok(paths::output()?.join(format!("boot-{}.{extension}", self.name)))
    }

    fn write(&self, extension: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path(extension)?;
        paths::replace(&path, content)?;
        Ok(path)
    }
}

/// Has QEMU's loader start `stub` instead of the hypervisor.
fn enter(firmware: &mut Firmware, stub: PathBuf) {
    if let Firmware::Kernel { image, .. } = firmware {
        *image = stub;
    }
}

/// Puts a file into memory as it is.
fn loader(file: &Path, address: u64) -> [String; 2] {
    ["-device".into(), format!("loader,file={},addr={address:#x},force-raw=on", file.display())]
}
