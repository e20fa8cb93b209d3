//! Initial RAM disks for Linux guests: busybox, an init script, and for tests our program.

use super::{cpio::Archive, emulator, fetch};
use crate::build::{self, Binary};
use crate::paths;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

/// Which RAM disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Gives the user a shell.
    Shell,
    /// Runs the tests and powers off.
    Test,
    /// Runs the payload as guest of KVM, and powers off.
    Kvm,
    /// Runs a Linux guest with QEMU and KVM, and powers off.
    Qemu,
}

/// The commands that busybox answers to.
const COMMANDS: [&str; 32] = [
    "cat", "chmod", "cp", "cut", "date", "dd", "df", "dmesg", "echo", "env", "free", "grep", "head",
    "hexdump", "kill", "ls", "mkdir", "more", "mount", "mv", "nproc", "poweroff", "ps", "reboot", "rm",
    "sed", "sh", "sleep", "stty", "tail", "top", "uname",
];

const MOUNT: &str = "#!/bin/sh
export PATH=/bin HOME=/
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
";

const SHELL: &str = "
echo
echo \"Linux $(uname -r) with $(nproc) CPUs. Try: mte-test, cat /proc/cpuinfo, poweroff -f\"
setsid cttyhack sh
poweroff -f
";

// The kernel's own messages would land inside the lines of the report.
const TEST: &str = "
dmesg -n 1
echo \"# Linux $(uname -r), $(nproc) CPUs\"
mte-test
poweroff -f
";

// Two tests fail under KVM on any machine: it forgets an interrupt that comes while the distributor is
// off, and aborts that a VMM asks for are always those of loads.
const KVM: &str = "
dmesg -n 1
echo \"# Linux $(uname -r), $(nproc) CPUs\"
run() { guest-vmm --name \"$@\" /payload || echo \"not ok 1 guest-vmm $1\"; }
mte-test
run one --append \"suite=entry,timer,fp,sve,stage2 omit=absent_write\"
run two --cpus 2 --append \"suite=entry,psci,gic,smp,cmo omit=group_disabled\"
run mte --cpus 2 --mte --append \"suite=mte\"
poweroff -f
";

// What the guest prints is a stream of its own.
const QEMU: &str = "
dmesg -n 1
echo \"# Linux $(uname -r), $(nproc) CPUs\"
cr=$(printf '\\r')
qemu-system-aarch64 -accel kvm -machine virt,gic-version=host,mte=on -cpu host -smp 2 -m 256 \\
    -nodefaults -no-reboot -display none -chardev stdio,id=uart,signal=off -serial chardev:uart \\
    -kernel /linux -initrd /initrd-test.cpio -append \"console=ttyAMA0 panic=-1 quiet\" </dev/null 2>&1 |
    while read -r line; do echo \"[linux] ${line%$cr}\"; done
poweroff -f
";

/// Builds a RAM disk and returns where it is.
pub fn write(kind: Kind) -> Result<PathBuf> {
    let (name, script) = match kind {
        Kind::Shell => ("initrd.cpio", SHELL),
        Kind::Test => ("initrd-test.cpio", TEST),
        Kind::Kvm => ("initrd-kvm.cpio", KVM),
        Kind::Qemu => ("initrd-qemu.cpio", QEMU),
    };
    let busybox = fs::read(fetch::file("busybox/busybox")?)?;
    let program = fs::read(build::elf(Binary::GuestUser)?)?;
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "lib", "proc", "sys", "tmp"] {
        archive.directory(directory);
    }
    // The kernel opens the console before anything is mounted.
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);
    archive.program("init", format!("{MOUNT}{script}").as_bytes());
    archive.program("bin/busybox", &busybox);
    archive.program("bin/mte-test", &program);
    if kind == Kind::Kvm {
        archive.program("bin/guest-vmm", &fs::read(build::elf(Binary::GuestVmm)?)?);
        archive.program("payload", &fs::read(build::image(Binary::GuestTest)?)?);
    }
    if kind == Kind::Qemu {
        for (name, content) in emulator::files()? {
            let place = if name == emulator::PROGRAM { "bin" } else { "lib" };
            archive.program(&format!("{place}/{name}"), &content);
        }
        archive.program("linux", &fs::read(fetch::file("linux-stable/Image")?)?);
        archive.program("initrd-test.cpio", &fs::read(write(Kind::Test)?)?);
    }
    for command in COMMANDS.iter().chain(&["setsid", "cttyhack"]) {
        archive.link(&format!("bin/{command}"), "busybox");
    }
    let path = paths::output()?.join(name);
    paths::replace(&path, &archive.finish())?;
    Ok(path)
}
