//! QEMU's device tree, changed: what a board's firmware might hand over.

use dtoolkit::fdt::Fdt;
use dtoolkit::memreserve::MemoryReservation;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, ToPropertyValue};

/// A change of the tree.
pub type Change = fn(&mut DeviceTree);

/// Applies a change to a tree, after naming the initial RAM disk in it.
pub fn changed(blob: &[u8], initrd: (u64, u64), change: Change) -> anyhow::Result<Vec<u8>> {
    let fdt = Fdt::new(blob).map_err(|error| anyhow::anyhow!("QEMU's device tree: {error}"))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    set(&mut tree, "/chosen", "linux,initrd-start", initrd.0);
    set(&mut tree, "/chosen", "linux,initrd-end", initrd.1);
    change(&mut tree);
    Ok(tree.to_dtb())
}

/// Sets a property; the node is made if it is a child of the root.
pub fn set(tree: &mut DeviceTree, path: &str, name: &str, value: impl ToPropertyValue) {
    if tree.find_node(path).is_none() {
        tree.root.add_child(DeviceTreeNode::new_unchecked(path.trim_start_matches('/')));
    }
    if let Some(node) = tree.find_node_mut(path) {
        node.remove_property(name);
        node.add_property(DeviceTreeProperty::new_unchecked(name, value));
    }
}

fn unset(tree: &mut DeviceTree, path: &str, name: &str) {
    if let Some(node) = tree.find_node_mut(path) {
        node.remove_property(name);
    }
}

/// Removes the child of the root whose name starts so.
fn remove(tree: &mut DeviceTree, prefix: &str) {
    let named = |node: &&DeviceTreeNode| node.name().starts_with(prefix);
    let name = tree.root.children().find(named).map(|node| node.name().to_owned());
    name.and_then(|name| tree.root.remove_child(&name));
}

/// Adds a node with a `reg` of one range.
fn add(tree: &mut DeviceTree, parent: &str, name: &str, reg: [u64; 2], device_type: Option<&str>) {
    let mut node = DeviceTreeNode::new_unchecked(name);
    let bytes: Vec<u8> = reg.iter().flat_map(|number| number.to_be_bytes()).collect();
    node.add_property(DeviceTreeProperty::new_unchecked("reg", bytes));
    if let Some(kind) = device_type {
        node.add_property(DeviceTreeProperty::new_unchecked("device_type", kind));
    }
    if let Some(parent) = tree.find_node_mut(parent) {
        parent.add_child(node);
    }
}

pub fn same(_: &mut DeviceTree) {}

pub fn no_memory(tree: &mut DeviceTree) {
    remove(tree, "memory@");
}

pub fn no_gic(tree: &mut DeviceTree) {
    remove(tree, "intc@");
}

pub fn no_timer(tree: &mut DeviceTree) {
    remove(tree, "timer");
}

pub fn no_cpus(tree: &mut DeviceTree) {
    remove(tree, "cpus");
}

pub fn no_psci(tree: &mut DeviceTree) {
    remove(tree, "psci");
}

pub fn odd_psci(tree: &mut DeviceTree) {
    set(tree, "/psci", "method", "pigeon");
}

pub fn no_stdout(tree: &mut DeviceTree) {
    unset(tree, "/chosen", "stdout-path");
}

pub fn wrong_stdout(tree: &mut DeviceTree) {
    set(tree, "/chosen", "stdout-path", "/nowhere");
}

/// The UART lies where there is nothing: the first access faults.
pub fn stdout_in_a_hole(tree: &mut DeviceTree) {
    set(tree, "/pl011@9000000", "reg", vec![0_u32, 0x0b00_0000, 0, 0x1000]);
}

/// A name that the Devicetree Specification does not allow, but trees of Linux have.
pub fn long_property(tree: &mut DeviceTree) {
    set(tree, "/chosen", "vendor,a-name-of-more-than-31-characters", 1_u32);
}

pub fn wrong_cells(tree: &mut DeviceTree) {
    set(tree, "/cpus", "#address-cells", 3_u32);
}

/// Not even the UART has an address.
pub fn wrong_root_cells(tree: &mut DeviceTree) {
    set(tree, "/", "#size-cells", 7_u32);
}

const GIC: &str = "/intc@8000000";

/// A redistributor region that ends before the second CPU's.
pub fn short_gicr(tree: &mut DeviceTree) {
    gicr(tree, 0x2_0000);
}

/// One that has not even room for the first.
pub fn tiny_gicr(tree: &mut DeviceTree) {
    gicr(tree, 0x1_0000);
}

fn gicr(tree: &mut DeviceTree, size: u32) {
    set(
        tree,
        GIC,
        "reg",
        [0_u32, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, size].map(u32::to_be_bytes).concat(),
    );
}

/// Redistributors at twice the distance that they have.
pub fn gicr_stride(tree: &mut DeviceTree) {
    set(tree, GIC, "redistributor-stride", 0x4_0000_u64);
}

pub fn odd_stride(tree: &mut DeviceTree) {
    set(tree, GIC, "redistributor-stride", 0x2_1000_u64);
}

/// Another PPI for the virtual timer, the third in the list.
pub fn odd_timer(tree: &mut DeviceTree) {
    let ppis = [13_u32, 14, 4, 10].map(|ppi| [1, ppi, 4]).concat();
    set(tree, "/timer", "interrupts", ppis.iter().flat_map(|cell| cell.to_be_bytes()).collect::<Vec<u8>>());
}

pub fn odd_maintenance(tree: &mut DeviceTree) {
    set(tree, GIC, "interrupts", [1_u32, 8, 4].map(u32::to_be_bytes).concat());
}

pub fn two_cpus_alike(tree: &mut DeviceTree) {
    set(tree, "/cpus/cpu@1", "reg", 0_u32);
}

/// A CPU that PSCI does not know.
pub fn absent_cpu(tree: &mut DeviceTree) {
    add_cpu(tree, 0x77);
}

pub fn many_cpus(tree: &mut DeviceTree) {
    (2..80).for_each(|id| add_cpu(tree, id));
}

fn add_cpu(tree: &mut DeviceTree, id: u32) {
    let path = format!("cpu@{id:x}");
    let mut node = DeviceTreeNode::new_unchecked(path);
    node.add_property(DeviceTreeProperty::new_unchecked("reg", id));
    node.add_property(DeviceTreeProperty::new_unchecked("device_type", "cpu"));
    if let Some(cpus) = tree.find_node_mut("/cpus") {
        cpus.add_child(node);
    }
}

/// Nodes inside nodes, deeper than any board has them.
pub fn deep(tree: &mut DeviceTree) {
    nest(tree, 20);
}

/// Deep enough to overflow any stack that recursion could use.
pub fn very_deep(tree: &mut DeviceTree) {
    nest(tree, 4000);
}

fn nest(tree: &mut DeviceTree, depth: usize) {
    let mut node = DeviceTreeNode::new_unchecked("d");
    for _ in 1..depth {
        let mut above = DeviceTreeNode::new_unchecked("d");
        above.add_child(node);
        node = above;
    }
    // In front of all others, so that each search comes across it.
    let names: Vec<String> = tree.root.children().map(|child| child.name().to_owned()).collect();
    let others: Vec<_> = names.iter().filter_map(|name| tree.root.remove_child(name)).collect();
    tree.root.add_child(node);
    others.into_iter().for_each(|child| tree.root.add_child(child));
}

/// More RAM than there are addresses below EL2's own.
pub fn high_memory(tree: &mut DeviceTree) {
    add(tree, "/", "memory@ff0000000000", [0xff00_0000_0000, 1 << 30], Some("memory"));
}

pub fn wrapping_memory(tree: &mut DeviceTree) {
    add(tree, "/", "memory@ffffffffffff0000", [!0xffff, 1 << 30], Some("memory"));
}

pub fn scattered_memory(tree: &mut DeviceTree) {
    for i in 0..1100_u64 {
        let at = 0x10_0000_0000 + i * 0x2000;
        add(tree, "/", &format!("memory@{at:x}"), [at, 0x1000], Some("memory"));
    }
}

/// RAM in two nodes, the upper one first.
pub fn two_banks(tree: &mut DeviceTree) {
    remove(tree, "memory@");
    add(tree, "/", "memory@80000000", [0x8000_0000, 0x4000_0000], Some("memory"));
    add(tree, "/", "memory@40000000", [0x4000_0000, 0x4000_0000], Some("memory"));
}

/// RAM where there is none, as small as it can be and still hold a VM.
pub fn absent_bank(tree: &mut DeviceTree) {
    add(tree, "/", "memory@100000000", [0x1_0000_0000, 8 << 20], Some("memory"));
}

/// The same, called tag storage.
pub fn absent_tag_storage(tree: &mut DeviceTree) {
    absent_bank(tree);
    add(tree, "/", "tag-storage@100000000", [0x1_0000_0000, 8 << 20], None);
    set(tree, "/tag-storage@100000000", "compatible", "arm,mte-tag-storage");
}

/// Tag storage that is no RAM.
pub fn tag_storage_beside_ram(tree: &mut DeviceTree) {
    add(tree, "/", "tag-storage@4000000000", [0x40_0000_0000, 1 << 20], None);
    set(tree, "/tag-storage@4000000000", "compatible", "arm,mte-tag-storage");
}

/// RAM that cannot be tagged, all of it.
pub fn no_mte(tree: &mut DeviceTree) {
    set(tree, "/memory@40000000", "arm,no-mte", [0u8; 0]);
}

/// Holes all over, 16 MiB of every 64 left.
pub fn reserved_holes(tree: &mut DeviceTree) {
    let upper = (0x6000_0000..0xc000_0000_u64).step_by(0x400_0000);
    reserve(tree, upper.map(|at| [at, 0x300_0000]));
}

/// The upper half by `/reserved-memory`, most of the lower half by the reservation block.
pub fn reserved_nearly_all(tree: &mut DeviceTree) {
    reserve(tree, [[0x8000_0000, 0x4000_0000]].into_iter());
    tree.memory_reservations.push(MemoryReservation::new(0x4100_0000, 0x3f00_0000));
}

/// More entries than the heap that comes with the image could hold.
pub fn reserved_scattered(tree: &mut DeviceTree) {
    let entries = (0..20_000).map(|i| MemoryReservation::new(0x10_0000_0000 + i * 0x2000, 0x1000));
    tree.memory_reservations.extend(entries);
}

fn reserve(tree: &mut DeviceTree, ranges: impl Iterator<Item = [u64; 2]>) {
    set(tree, "/reserved-memory", "#address-cells", 2_u32);
    set(tree, "/reserved-memory", "#size-cells", 2_u32);
    set(tree, "/reserved-memory", "ranges", [0_u8; 0]);
    for range @ [start, _] in ranges {
        add(tree, "/reserved-memory", &format!("firmware@{start:x}"), range, None);
    }
}

/// The initial RAM disk outside of all RAM, over the image, and back to front.
pub fn initrd_outside(tree: &mut DeviceTree) {
    initrd(tree, 0x20_0000_0000, 0x20_0010_0000);
}

pub fn initrd_over_image(tree: &mut DeviceTree) {
    initrd(tree, super::ODD, super::ODD + 0x1000);
}

pub fn initrd_reversed(tree: &mut DeviceTree) {
    initrd(tree, 0x5010_0000, 0x5000_0000);
}

pub fn half_an_initrd(tree: &mut DeviceTree) {
    unset(tree, "/chosen", "linux,initrd-end");
}

fn initrd(tree: &mut DeviceTree, start: u64, end: u64) {
    set(tree, "/chosen", "linux,initrd-start", start);
    set(tree, "/chosen", "linux,initrd-end", end);
}

/// The tree's second half is zero.
pub fn cut(mut blob: Vec<u8>) -> Vec<u8> {
    let half = blob.len() / 2;
    blob.iter_mut().skip(half).for_each(|byte| *byte = 0);
    blob
}

/// A header that names `value` at word `index`.
fn header(mut blob: Vec<u8>, index: usize, value: u32) -> Vec<u8> {
    blob.splice(index * 4..index * 4 + 4, value.to_be_bytes());
    blob
}

pub fn no_magic(blob: Vec<u8>) -> Vec<u8> {
    header(blob, 0, 0)
}

pub fn huge(blob: Vec<u8>) -> Vec<u8> {
    header(blob, 1, u32::MAX)
}

pub fn tiny(blob: Vec<u8>) -> Vec<u8> {
    header(blob, 1, 8)
}

pub fn structure_outside(blob: Vec<u8>) -> Vec<u8> {
    header(blob, 2, u32::MAX - 3)
}

/// Every token of the structure after the first few is noise.
pub fn noise(mut blob: Vec<u8>) -> Vec<u8> {
    let noise = (0..=255_u8).map(|n| n.wrapping_mul(113)).cycle();
    blob.iter_mut().skip(0x80).zip(noise).for_each(|(byte, noise)| *byte = noise);
    blob
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::Property;

    #[test]
    fn changes_change_what_they_name() {
        let mut tree = DeviceTree::new();
        tree.root.add_child(DeviceTreeNode::new_unchecked("memory@40000000"));
        two_banks(&mut tree);
        assert!(tree.find_node("/memory@80000000").is_some());
        reserved_nearly_all(&mut tree);
        assert!(tree.find_node("/reserved-memory/firmware@80000000").is_some());
        set(&mut tree, "/chosen", "stdout-path", "/a");
        wrong_stdout(&mut tree);
        let chosen = tree.find_node("/chosen").unwrap();
        assert_eq!(chosen.property("stdout-path").unwrap().value(), b"/nowhere\0");
        no_stdout(&mut tree);
        assert!(tree.find_node("/chosen").unwrap().property("stdout-path").is_none());
        no_memory(&mut tree);
        assert_eq!(tree.root.children().filter(|n| n.name().starts_with("memory@")).count(), 1);
    }
}
