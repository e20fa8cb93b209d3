//! Writes the compiled manifest; [`dtb`](crate::dtb) documents the format and reads it.

use crate::dtb::COMPATIBLE;
use crate::{
    Control, DeviceInterrupt, DeviceMemory, MachineSpec, Named, Placed, RegionKind, RegionSpec, Taggable,
    VmSpec,
};
use addr::{Pa, PaRange};
use alloc::format;
use alloc::vec::Vec;
use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

/// The compiled manifest of a machine. Reading it back gives the same machine if that has no more
/// VMs, vCPUs and regions than the limits allow.
#[must_use]
pub fn write(machine: &MachineSpec) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    set(root, "compatible", COMPATIBLE);
    match &machine.taggable {
        Taggable::None => set(root, "taggable", "none"),
        Taggable::All => set(root, "taggable", "all"),
        Taggable::Ranges(ranges) => {
            set(root, "taggable", "ranges");
            set(root, "taggable-ranges", ranges_of(ranges));
        }
    }
    if !machine.tag_storage.is_empty() {
        set(root, "tag-storage", ranges_of(&machine.tag_storage));
    }
    for (index, spec) in machine.vms.iter().enumerate() {
        let mut node = DeviceTreeNode::new_unchecked(format!("vm@{index:x}"));
        vm(&mut node, spec);
        root.add_child(node);
    }
    tree.to_dtb()
}

fn vm(node: &mut DeviceTreeNode, vm: &VmSpec) {
    set(node, "name", vm.name.as_str());
    set(node, "cpus", cells(&vm.cpus));
    set(node, "cmdline", vm.cmdline.as_str());
    set(node, "priority", u32::from(vm.priority));
    set(node, "on-serror", vm.on_serror.name());
    placed(node, "kernel", "kernel-at", &vm.kernel.image);
    set(node, "entry", vm.kernel.entry.get());
    set(node, "dtb-at", vm.dtb.get());
    if let Some(initrd) = &vm.initrd {
        placed(node, "initrd", "initrd-at", initrd);
    }
    match &vm.control {
        Control::None => {}
        Control::All => set(node, "control-all", [0_u8; 0]),
        Control::Vms(vms) => set(node, "control", cells(vms)),
    }
    let flags = [
        (vm.mte, "mte"),
        (vm.autostart, "autostart"),
        (vm.background, "background"),
        (!vm.debug, "no-debug"),
    ];
    for (flag, name) in flags {
        if flag {
            set(node, name, [0_u8; 0]);
        }
    }
    set(node, "sve", vm.sve.name());
    if let Some(bits) = vm.sve_vl {
        set(node, "sve-vl", u32::from(bits));
    }
    if let Some(nested) = vm.nested {
        set(node, "nested", nested.name());
    }
    if let Some(pages) = vm.tag_quota {
        set(node, "tag-quota", pages);
    }
    if !vm.cpu.fields.is_empty() {
        let bytes = vm.cpu.fields.iter().flat_map(|f| [f.register, f.lsb, f.value]);
        set(node, "cpu-fields", bytes.collect::<Vec<u8>>());
        set(node, "cpu-names", vm.cpu.names.as_str());
    }
    set(node, "lazy-unit", vm.lazy_unit.name());
    for (index, spec) in vm.regions.iter().enumerate() {
        let mut child = DeviceTreeNode::new_unchecked(format!("region@{index:x}"));
        region(&mut child, spec);
        node.add_child(child);
    }
}

fn region(node: &mut DeviceTreeNode, region: &RegionSpec) {
    set(node, "name", region.name.as_str());
    set(node, "reg", cells64([region.ipa.start().get(), region.ipa.size()]));
    set(node, "kind", region.kind.name());
    match &region.kind {
        RegionKind::Ram => {}
        RegionKind::ReadOnly { cmo } => set(node, "cmo", cmo.name()),
        RegionKind::Shared { share } => set(node, "share", share.as_str()),
        RegionKind::Device { pa, memory_type, interrupts } => device(node, *pa, *memory_type, interrupts),
    }
    if let Some(file) = &region.file {
        set(node, "file", file.as_str());
    }
    set(node, "tags", region.tags.name());
    set(node, "on-tag-access", region.on_tag_access.name());
    set(node, "without-mte-perm", region.without_mte_perm.name());
}

fn device(node: &mut DeviceTreeNode, pa: Pa, memory_type: DeviceMemory, interrupts: &[DeviceInterrupt]) {
    set(node, "pa", pa.get());
    set(node, "memory-type", memory_type.name());
    let triple = |i: &DeviceInterrupt| [i.physical, i.guest, u32::from(i.edge)];
    set(node, "interrupts", interrupts.iter().flat_map(triple).collect::<Vec<u32>>());
}

fn placed(node: &mut DeviceTreeNode, file: &str, at: &str, value: &Placed) {
    set(node, file, value.file.as_str());
    set(node, at, value.at.get());
}

fn set(node: &mut DeviceTreeNode, name: &str, value: impl ToPropertyValue) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

fn cells(numbers: &[u16]) -> Vec<u32> {
    numbers.iter().map(|&n| n.into()).collect()
}

fn ranges_of(ranges: &[PaRange]) -> Vec<u8> {
    cells64(ranges.iter().flat_map(|r| [r.start().get(), r.size()]))
}

fn cells64(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    numbers.into_iter().flat_map(u64::to_be_bytes).collect()
}
