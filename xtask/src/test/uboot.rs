//! The image at other addresses than QEMU's loader chooses: U-Boot at EL2 finds the boot script that
//! `cargo xtask image` wrote on a disk, and boots with `booti`.

use super::machine;
use crate::guests::fetch;
use crate::qemu::{Firmware, Machine};
use crate::trial::{Tally, Trial};
use crate::uart::Verdict;
use crate::{image, paths};
use anyhow::Result;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(120);

pub fn trials() -> Vec<Trial<'static>> {
    // Where U-Boot's own default puts a kernel, and an address that only suits 2 MiB.
    let addresses = [None, Some(0x5a60_0000)];
    let trial = |address: Option<u64>| {
        let name = address.map_or("uboot::default".into(), |address| format!("uboot::{address:#x}"));
        Trial::new(name.clone(), move || run(&name, address))
    };
    addresses.into_iter().map(trial).collect()
}

fn run(name: &str, address: Option<u64>) -> Result<Tally> {
    let directory = paths::output()?.join(name.replace("::", "-"));
    image::write(&paths::root().join("manifests/default.toml"), &directory, address)?;
    let mut machine = Machine::new(Firmware::Flash(fetch::file("u-boot/u-boot.bin")?));
    machine.smp = 4;
    let drive = format!("file=fat:{},format=raw,if=none,id=disk,read-only=on", directory.display());
    machine.extra = ["-drive", &drive, "-device", "virtio-blk-device,drive=disk"].map(String::from).into();
    let run = machine::run(name, &machine, TIMEOUT)?;
    let complaint = match Verdict::of(&run.lines) {
        Some(verdict) if verdict.pass => None,
        Some(verdict) => Some(format!("the result is fail: {}", verdict.reason)),
        None => Some("no `tagvisor: result:` line".into()),
    };
    Ok(run.tally(complaint.into_iter().collect()))
}
