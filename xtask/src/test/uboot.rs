//! The image at other addresses than QEMU's loader chooses: U-Boot at EL2 finds the boot script that
//! `cargo xtask image` wrote on a disk, and boots with `booti`. A Linux kernel booted the same way
//! tells a fault of the script from one of the hypervisor.

use super::machine::{self, Run};
use crate::build::{self, Binary};
use crate::guests::{fetch, initrd};
use crate::qemu::{Firmware, Machine};
use crate::trial::{Tally, Trial};
use crate::uart::Verdict;
use crate::{bundle, image, paths};
use anyhow::Result;
use std::path::Path;

/// An address that suits 2 MiB and nothing larger.
const ODD: u64 = 0x5a60_0000;

pub fn trials() -> Vec<Trial<'static>> {
    vec![
        Trial::new("bare::uboot-linux", || linux("bare::uboot-linux")),
        Trial::new("uboot::default", || hypervisor("uboot::default", None)),
        Trial::new("uboot::odd-address", || hypervisor("uboot::odd-address", Some(ODD))),
    ]
}

fn linux(name: &str) -> Result<Tally> {
    let kernel = fetch::file("linux-stable/Image")?;
    let run = boot(name, &kernel, &initrd::write(initrd::Kind::Test)?, Some(ODD))?;
    Ok(run.tally(run.missing(&["1..".into()])))
}

fn hypervisor(name: &str, address: Option<u64>) -> Result<Tally> {
    let bundle = bundle::write(&paths::root().join("manifests/default.toml"))?;
    let run = boot(name, &build::image(Binary::Hypervisor)?, &bundle, address)?;
    let complaint = match Verdict::of(&run.lines) {
        Some(verdict) if verdict.pass => None,
        Some(verdict) => Some(format!("the result is fail: {}", verdict.reason)),
        None => Some("no `tagvisor: result:` line".into()),
    };
    Ok(run.tally(complaint.into_iter().collect()))
}

/// U-Boot in flash, the files on a disk.
fn boot(name: &str, kernel: &Path, bundle: &Path, address: Option<u64>) -> Result<Run> {
    let directory = paths::output()?.join(name.replace("::", "-"));
    image::write(kernel, bundle, &directory, address)?;
    let drive = format!("file=fat:{},format=raw,if=none,id=disk,read-only=on", directory.display());
    let extra = ["-drive", &drive, "-device", "virtio-blk-device,drive=disk"].map(String::from).into();
    let firmware = Firmware::Flash(fetch::file("u-boot/u-boot.bin")?);
    machine::run(name, &Machine { smp: 4, extra, ..Machine::new(firmware) }, machine::PATIENCE)
}
