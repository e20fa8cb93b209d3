//! Whether a manifest makes a machine: each rule that needs no knowledge of the board.
//!
//! The host applies it to what people wrote, the hypervisor to what it was handed.

mod region;
mod vm;

use crate::error::{Error, Named, Result, Span};
use crate::{
    Control, MAX_NAME, MAX_VMS, MachineSpec, OnTagAccess, RegionKind, RegionSpec, Taggable, Tags, VmSpec,
};
use addr::{PAGE_SIZE, Pa, PaRange};
use core::fmt::Display;

/// Highest address that a VM or the machine may use, plus 1: 48 bits, the most without FEAT_LPA2.
const ADDRESS_END: u64 = 1 << 48;

/// Tells the size of a file of the bundle.
type Files<'a> = &'a dyn Fn(&str) -> Option<u64>;

/// Checks all rules; `files` tells the size of a file of the bundle.
pub fn check(machine: &MachineSpec, files: impl Fn(&str) -> Option<u64>) -> core::result::Result<(), Error> {
    rules(machine, &files).map_err(|error| *error)
}

fn rules(machine: &MachineSpec, files: Files<'_>) -> Result<()> {
    let vms = machine.vms.as_slice();
    if vms.is_empty() {
        return Err(Error::machine("vm", &"the machine has no VM"));
    }
    if vms.len() > MAX_VMS {
        let message = format_args!("the machine has {} VMs, more than {MAX_VMS}", vms.len());
        return Err(Error::machine("vm", &message));
    }
    if let Taggable::Ranges(taggable) = &machine.taggable {
        ranges("taggable", taggable)?;
    }
    ranges("tag-storage", &machine.tag_storage)?;
    for (index, vm) in vms.iter().enumerate() {
        unique_name(vm, vms.get(..index).unwrap_or_default())?;
        vm::check(vm, files)?;
        not_tag_storage(vm, &machine.tag_storage)?;
        control(vms, index, vm)?;
    }
    pairs(vms)?;
    reporting(vms)
}

/// No device is tag storage.
fn not_tag_storage(vm: &VmSpec, tag_storage: &[PaRange]) -> Result<()> {
    for region in &vm.regions {
        let RegionKind::Device { pa, .. } = region.kind else { continue };
        let Some(memory) = PaRange::new(pa, region.ipa.size()) else { continue };
        if let Some(storage) = tag_storage.iter().find(|s| s.overlaps(&memory)) {
            let place = Span(storage.start().get(), storage.end().get());
            return Err(Error::region(vm, region, "pa", &format_args!("lies in tag storage ({place})")));
        }
    }
    Ok(())
}

/// Whether this is a name: 1 to [`MAX_NAME`] of `[a-z0-9_-]`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(valid)
}

fn ranges(key: &'static str, ranges: &[PaRange]) -> Result<()> {
    let named = |r: &PaRange| Span(r.start().get(), r.end().get());
    for (index, range) in ranges.iter().enumerate() {
        if range.size() == 0 || !range.is_aligned(PAGE_SIZE) {
            let message = format_args!("{key} range {} is empty or not aligned to 4 KiB", named(range));
            return Err(Error::machine(key, &message));
        }
        if let Some(other) = ranges.iter().take(index).find(|other| other.overlaps(range)) {
            let message = format_args!("{key} range {} overlaps {}", named(range), named(other));
            return Err(Error::machine(key, &message));
        }
    }
    Ok(())
}

fn unique_name(vm: &VmSpec, before: &[VmSpec]) -> Result<()> {
    if !is_name(&vm.name) {
        let message = format_args!("the name is not 1 to {MAX_NAME} characters of a-z, 0-9, _ and -");
        return Err(Error::vm(vm, "name", &message));
    }
    if before.iter().any(|other| other.name == vm.name) {
        return Err(Error::vm(vm, "name", &"another VM has the same name"));
    }
    Ok(())
}

fn control(vms: &[VmSpec], index: usize, vm: &VmSpec) -> Result<()> {
    let Control::Vms(controlled) = &vm.control else { return Ok(()) };
    for (place, &other) in controlled.iter().enumerate() {
        let refuse = |what: &dyn Display| {
            Err(Error::vm(
                vm,
                "control",
                &format_args!("it controls VM {other}, {what} (there are {})", vms.len()),
            ))
        };
        if usize::from(other) >= vms.len() {
            return refuse(&"which does not exist");
        }
        if usize::from(other) == index {
            return refuse(&"which is itself");
        }
        if controlled.iter().take(place).any(|&earlier| earlier == other) {
            return refuse(&"twice");
        }
    }
    Ok(())
}

/// `on-tag-access = "report"` needs someone to report to.
fn reporting(vms: &[VmSpec]) -> Result<()> {
    for (index, vm) in vms.iter().enumerate() {
        let controls = |(other, spec): (usize, &VmSpec)| match &spec.control {
            Control::None => false,
            Control::All => other != index,
            Control::Vms(list) => list.iter().any(|&i| usize::from(i) == index),
        };
        let mut reports = vm.regions.iter().filter(|r| r.on_tag_access == OnTagAccess::Report);
        if let Some(region) = reports.next()
            && !vms.iter().enumerate().any(controls)
        {
            let what = "has on-tag-access \"report\", but no VM controls this one";
            return Err(Error::region(vm, region, "on-tag-access", &what));
        }
    }
    Ok(())
}

/// Each region with its VM, in order.
fn regions(vms: &[VmSpec]) -> impl Iterator<Item = (&VmSpec, &RegionSpec)> {
    vms.iter().flat_map(|vm| vm.regions.iter().map(move |region| (vm, region)))
}

/// Rules between any two regions of the machine. At most [`MAX_VMS`] times
/// [`MAX_REGIONS`](crate::MAX_REGIONS) of them exist, which bounds the half million comparisons.
fn pairs(vms: &[VmSpec]) -> Result<()> {
    for (index, (vm, region)) in regions(vms).enumerate() {
        for (other_vm, other) in regions(vms).take(index) {
            shares(vm, region, other_vm, other)?;
            devices(vm, region, other_vm, other)?;
        }
    }
    Ok(())
}

/// Two views of one share agree about what it is.
fn shares(vm: &VmSpec, region: &RegionSpec, other_vm: &VmSpec, other: &RegionSpec) -> Result<()> {
    let (RegionKind::Shared { share }, RegionKind::Shared { share: other_share }) =
        (&region.kind, &other.kind)
    else {
        return Ok(());
    };
    if share != other_share {
        return Ok(());
    }
    let tagged = |r: &RegionSpec| r.tags != Tags::None;
    let differs = if region.ipa.size() != other.ipa.size() {
        "size"
    } else if tagged(region) != tagged(other) {
        "tags"
    } else if region.file.is_some() && other.file.is_some() && region.file != other.file {
        "file"
    } else {
        return Ok(());
    };
    let what = format_args!(
        "and vm \"{}\" {} have the share \"{share}\" in common, but another {differs}",
        other_vm.name,
        Named(other)
    );
    Err(Error::region(vm, region, differs, &what))
}

/// Two devices have neither memory nor interrupts in common.
fn devices(vm: &VmSpec, region: &RegionSpec, other_vm: &VmSpec, other: &RegionSpec) -> Result<()> {
    let (
        RegionKind::Device { pa, interrupts, .. },
        RegionKind::Device { pa: other_pa, interrupts: others, .. },
    ) = (&region.kind, &other.kind)
    else {
        return Ok(());
    };
    let with = format_args!("vm \"{}\" {}", other_vm.name, Named(other));
    let range = |pa: Pa, of: &RegionSpec| PaRange::new(pa, of.ipa.size());
    if let (Some(a), Some(b)) = (range(*pa, region), range(*other_pa, other))
        && a.overlaps(&b)
    {
        let what = format_args!("has physical memory in common with {with}");
        return Err(Error::region(vm, region, "pa", &what));
    }
    let common = |i: &&crate::DeviceInterrupt| others.iter().any(|o| o.physical == i.physical);
    match interrupts.iter().find(common) {
        Some(i) => {
            let what = format_args!("has physical interrupt {} in common with {with}", i.physical);
            Err(Error::region(vm, region, "interrupts", &what))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
