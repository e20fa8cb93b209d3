//! The rules for one VM: vCPUs, memory as a whole, and what is loaded where.

use super::{Files, region};
use crate::error::{Error, Named, Result, Span};
use crate::layout::{DTB_SIZE, EMULATED, EVENT_INTID, SPIS, UART_INTID};
use crate::{DeviceInterrupt, MAX_REGIONS, MAX_VCPUS, MAX_VECTOR, Placed, RegionKind, Sve, VmSpec};
use addr::{Ipa, IpaRange, PAGE_SIZE};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

/// Longest command line in bytes: arm64 Linux keeps 2048 with the NUL (`COMMAND_LINE_SIZE`).
const MAX_CMDLINE: usize = 2047;
const DEVICE_TREE: &str = "device tree";

pub(super) fn check(vm: &VmSpec, files: Files<'_>) -> Result<()> {
    if !(1..=MAX_VCPUS).contains(&vm.cpus.len()) {
        let message = format_args!("it has {} vCPUs, not 1 to {MAX_VCPUS}", vm.cpus.len());
        return Err(Error::vm(vm, "cpus", &message));
    }
    if vm.cmdline.len() > MAX_CMDLINE || vm.cmdline.bytes().any(|b| b.is_ascii_control()) {
        let message = format_args!("cmdline is longer than {MAX_CMDLINE} bytes or has control characters");
        return Err(Error::vm(vm, "cmdline", &message));
    }
    if let Some(pages) = vm.tag_quota
        && !pages.is_multiple_of(vm.lazy_unit.bytes() / PAGE_SIZE)
    {
        let message = format_args!(
            "its tag-quota is no multiple of its lazy-unit {}",
            crate::Named::name(vm.lazy_unit)
        );
        return Err(Error::vm(vm, "tag-quota", &message));
    }
    sve(vm)?;
    memory(vm, files)?;
    interrupts(vm)?;
    loaded(vm, files)
}

fn sve(vm: &VmSpec) -> Result<()> {
    match vm.sve_vl {
        Some(bits) if !(128..=MAX_VECTOR).contains(&bits) || !bits.is_multiple_of(128) => {
            let message =
                format_args!("its sve-vl is {bits}, not a multiple of 128 from 128 to {MAX_VECTOR}");
            Err(Error::vm(vm, "sve-vl", &message))
        }
        Some(_) if vm.sve != Sve::Yes => Err(Error::vm(vm, "sve-vl", &"it has an sve-vl, but no SVE")),
        Some(_) | None => Ok(()),
    }
}

fn memory(vm: &VmSpec, files: Files<'_>) -> Result<()> {
    if vm.regions.len() > MAX_REGIONS {
        let message = format_args!("it has {} regions, more than {MAX_REGIONS}", vm.regions.len());
        return Err(Error::vm(vm, "region", &message));
    }
    for (index, this) in vm.regions.iter().enumerate() {
        region::check(vm, this, files)?;
        let mut before = vm.regions.iter().take(index);
        if before.clone().any(|other| other.name == this.name) {
            return Err(Error::region(vm, this, "name", &"has the name of another region"));
        }
        if let Some(other) = before.find(|other| other.ipa.overlaps(&this.ipa)) {
            return Err(Error::region(vm, this, "ipa", &format_args!("overlaps {}", Named(other))));
        }
        if let Some((name, range)) = EMULATED.iter().find(|(_, range)| range.overlaps(&this.ipa)) {
            let place = Span(range.start().get(), range.end().get());
            return Err(Error::region(vm, this, "ipa", &format_args!("overlaps {name} ({place})")));
        }
    }
    let unsorted = |pair: &[crate::RegionSpec]| matches!(pair, [a, b] if a.ipa.start() > b.ipa.start());
    if vm.regions.windows(2).any(unsorted) {
        return Err(Error::vm(vm, "region", &"its regions are not sorted by address"));
    }
    Ok(())
}

/// Interrupts that the guest sees are SPIs of the vGIC that nothing else raises.
fn interrupts(vm: &VmSpec) -> Result<()> {
    let mut taken: Vec<(u32, String)> = Vec::from([
        (UART_INTID, "the UART".to_string()),
        (EVENT_INTID, "the events of control VMs".to_string()),
    ]);
    let mut physical: Vec<u32> = Vec::new();
    for region in &vm.regions {
        let RegionKind::Device { interrupts, .. } = &region.kind else { continue };
        for &DeviceInterrupt { physical: from, guest, .. } in interrupts {
            let refuse = |what: &dyn Display| Err(Error::region(vm, region, "interrupts", &what));
            if !(32..1020).contains(&from) {
                return refuse(&format_args!("has physical interrupt {from}, which is no SPI (32 to 1019)"));
            }
            let last = SPIS.saturating_add(31);
            if !(32..=last).contains(&guest) {
                return refuse(&format_args!("has guest interrupt {guest}, not 32 to {last}"));
            }
            if let Some((_, other)) = taken.iter().find(|(intid, _)| *intid == guest) {
                return refuse(&format_args!("has guest interrupt {guest}, which belongs to {other}"));
            }
            if physical.contains(&from) {
                return refuse(&format_args!("has physical interrupt {from}, which the VM has twice"));
            }
            taken.push((guest, Named(region).to_string()));
            physical.push(from);
        }
    }
    Ok(())
}

/// Kernel, initial RAM disk and device tree lie in RAM and clear of all other initial content.
fn loaded(vm: &VmSpec, files: Files<'_>) -> Result<()> {
    let kernel = placed(vm, "kernel", &vm.kernel.image, files)?;
    let entry = vm.kernel.entry;
    if !kernel.contains(entry) || !entry.is_aligned(4) {
        let place = Span(kernel.start().get(), kernel.end().get());
        let message = format_args!("its entry {entry} is no instruction of the kernel ({place})");
        return Err(Error::vm(vm, "kernel", &message));
    }
    let dtb = IpaRange::new(vm.dtb, DTB_SIZE).filter(|r| r.start().is_aligned(8)).ok_or_else(|| {
        Error::vm(vm, "", &format_args!("its device tree at {} is not aligned to 8 bytes or wraps", vm.dtb))
    })?;
    let mut all: Vec<(&'static str, IpaRange)> = Vec::from([("kernel", kernel), (DEVICE_TREE, dtb)]);
    if let Some(initrd) = &vm.initrd {
        all.push(("initrd", placed(vm, "initrd", initrd, files)?));
    }
    for (index, &(what, range)) in all.iter().enumerate() {
        let place = Span(range.start().get(), range.end().get());
        // No key says where the device tree goes.
        let key = if what == DEVICE_TREE { "" } else { what };
        let inside = |r: &&crate::RegionSpec| r.kind == RegionKind::Ram && r.ipa.contains_range(&range);
        let Some(region) = vm.regions.iter().find(inside) else {
            let message = format_args!("its {what} ({place}) lies in no region of kind \"ram\"");
            return Err(Error::vm(vm, key, &message));
        };
        let overlaps = |other: &dyn Display, at: &IpaRange| {
            let other = format_args!("{other} ({})", Span(at.start().get(), at.end().get()));
            Err(Error::vm(vm, key, &format_args!("its {what} ({place}) overlaps its {other}")))
        };
        if let Some((other, at)) = all.iter().take(index).find(|(_, at)| at.overlaps(&range)) {
            return overlaps(&other, at);
        }
        if let Some(file) = &region.file
            && let Some(at) = files(file).and_then(|size| IpaRange::new(region.ipa.start(), size))
            && at.overlaps(&range)
        {
            return overlaps(&format_args!("file \"{file}\""), &at);
        }
    }
    Ok(())
}

/// The range that a file of the bundle fills.
fn placed(vm: &VmSpec, key: &'static str, placed: &Placed, files: Files<'_>) -> Result<IpaRange> {
    let file = placed.file.as_str();
    let at: Ipa<_> = placed.at;
    let refuse = |what: &dyn Display| Error::vm(vm, key, &format_args!("its {key} \"{file}\" {what}"));
    let size = files(file).ok_or_else(|| refuse(&"is not in the bundle"))?;
    if size == 0 {
        return Err(refuse(&"is empty"));
    }
    IpaRange::new(at, size).ok_or_else(|| refuse(&format_args!("at {at} does not fit in the address space")))
}
