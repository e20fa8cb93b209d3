//! `dtoolkit` writes trees, and reads them as an independent oracle.

use super::*;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::memreserve::MemoryReservation;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _};
use proptest::collection::vec;
use proptest::prelude::*;
use std::format;
use std::string::{String, ToString as _};
use std::vec::Vec;

const QEMU: &[u8] = include_bytes!("../../fdt/tests/data/qemu-virt-11.1.dtb");

/// All that is in a tree, as text.
fn ours(node: &Node<'_>, depth: usize, out: &mut String) {
    *out += &format!("{depth} {}\n", node.name());
    for property in node.properties() {
        *out += &format!("{depth} {} = {:?}\n", property.name(), property.value);
        assert!(node.property(property.name()).is_some());
    }
    for child in node.children() {
        assert_eq!(node.child(child.name()).map(|found| found.name()), Some(child.name()));
        ours(&child, depth + 1, out);
    }
}

fn theirs(node: &FdtNode<'_>, depth: usize, out: &mut String) {
    *out += &format!("{depth} {}\n", node.name());
    for property in node.properties() {
        *out += &format!("{depth} {} = {:?}\n", property.name(), property.value_as::<&[u8]>().unwrap());
    }
    for child in node.children() {
        theirs(&child, depth + 1, out);
    }
}

/// What we accept, the oracle accepts, and both read the same.
fn compare(data: &[u8]) -> Result<(), String> {
    let blob = Blob::open(data).map_err(|error| error.to_string())?;
    let oracle = Fdt::new(data).unwrap();
    let (mut a, mut b) = (String::new(), String::new());
    ours(&blob.root(), 0, &mut a);
    theirs(&oracle.root(), 0, &mut b);
    assert_eq!(a, b);
    let reservations: Vec<_> = oracle.memory_reservations().map(|r| (r.address(), r.size())).collect();
    assert_eq!(blob.reservations().collect::<Vec<_>>(), reservations);
    Ok(())
}

fn node(depth: u32) -> BoxedStrategy<DeviceTreeNode> {
    let property = ("[a-z#?][a-z0-9,._+-]{0,30}", vec(any::<u8>(), 0..9));
    let children = if depth == 0 { Just(Vec::new()).boxed() } else { vec(node(depth - 1), 0..3).boxed() };
    ("[a-z][a-z0-9,._+-]{0,30}(@[0-9a-f]{1,16})?", vec(property, 0..4), children)
        .prop_map(|(name, properties, children)| {
            let mut node = DeviceTreeNode::new(&name).unwrap();
            for (name, value) in properties {
                node.add_property(DeviceTreeProperty::new(name, value).unwrap());
            }
            for child in children {
                node.add_child(child);
            }
            node
        })
        .boxed()
}

fn tree() -> impl Strategy<Value = Vec<u8>> {
    let reservations = vec((1_u64.., any::<u64>()), 0..3);
    (vec(node(2), 0..3), reservations).prop_map(|(nodes, reservations)| {
        let mut tree = DeviceTree::new();
        for node in nodes {
            tree.root.add_child(node);
        }
        tree.memory_reservations = reservations.iter().map(|&(a, s)| MemoryReservation::new(a, s)).collect();
        tree.to_dtb()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn written_trees_read_the_same(dtb in tree()) {
        prop_assert_eq!(compare(&dtb), Ok(()));
    }

    /// Words of header, structure and names are changed: nothing panics, and nothing is accepted that
    /// the oracle refuses.
    #[test]
    fn spoilt_trees_read_the_same_or_are_refused(
        dtb in tree(),
        changes in vec((any::<prop::sample::Index>(), prop_oneof![0_u32..10, any::<u32>()]), 1..3),
        cut in prop_oneof![9 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
    ) {
        let mut dtb = dtb;
        for (index, word) in changes {
            let at = index.index(dtb.len() / 4) * 4;
            dtb[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        if let Some(cut) = cut {
            dtb.truncate(cut.index(dtb.len()));
        }
        let _ = compare(&dtb);
    }
}

#[test]
fn the_tree_of_a_machine_reads_the_same() {
    assert_eq!(compare(QEMU), Ok(()));
    assert_eq!(total_size(QEMU), Some(QEMU.len()));
    assert_eq!(total_size(&QEMU[..7]), None);
    let root = Blob::open(QEMU).unwrap().root();
    assert_eq!(root.child("pl011").unwrap().name(), "pl011@9000000");
    assert!(root.child("pl011@9000001").is_none());
    assert_eq!(root.property("#address-cells"), Some(&[0, 0, 0, 2][..]));
    assert_eq!(root.property("#address"), None);
}

/// A tree of these words in its structure block, and of a property name at 0.
fn blob(structure: &[u32]) -> Vec<u8> {
    let len = u32::try_from(structure.len() * 4).unwrap();
    let header = [MAGIC, 56 + len + 4, 56, 56 + len, 40, 17, 16, 0, 4, len, 0, 0, 0, 0];
    let mut bytes: Vec<u8> = header.iter().chain(structure).flat_map(|word| word.to_be_bytes()).collect();
    bytes.extend(b"reg\0");
    bytes
}

#[test]
fn nops_say_nothing() {
    const A: u32 = u32::from_be_bytes(*b"a\0\0\0");
    const B: u32 = u32::from_be_bytes(*b"b\0\0\0");
    let data = blob(&[1, 0, 4, 3, 0, 0, 4, 4, 1, A, 4, 2, 4, 1, B, 2, 4, 2, 9]);
    assert_eq!(compare(&data), Ok(()));
    assert_eq!(Blob::open(&data).unwrap().root().children().count(), 2);
}

#[test]
fn flaws_are_named() {
    let refused = |structure: &[u32]| Blob::open(&blob(structure)).err().unwrap().to_string();
    assert!(Blob::open(&blob(&[1, 0, 2, 9])).is_ok());
    assert_eq!(refused(&[2, 9]), "no root node at offset 60");
    assert_eq!(refused(&[1, 0x6100_0000, 2, 9]), "a root node with a name at offset 64");
    assert_eq!(refused(&[1, 0, 1, 0, 2, 2, 9]), "a malformed node name at offset 72");
    assert_eq!(refused(&[1, 0, 3, 0, 4, 2, 9]), "a malformed property name at offset 76");
    assert_eq!(refused(&[1, 0, 3, 99, 0, 2, 9]), "the structure block ends at offset 76");
    assert_eq!(refused(&[1, 0, 2]), "a token out of place at offset 68");
    assert_eq!(refused(&[1, 0, 7]), "a token out of place at offset 68");
    assert_eq!(refused(&[1, 0, 1, 0x6100_0000, 2, 3, 0, 0, 2, 9]), "a token out of place at offset 80");
    let header = |word: usize, value: u32| {
        let mut data = blob(&[1, 0, 2, 9]);
        data[word * 4..word * 4 + 4].copy_from_slice(&value.to_be_bytes());
        Blob::open(&data).err().unwrap().to_string()
    };
    assert_eq!(header(0, 1), "no flattened device tree at offset 0");
    assert_eq!(header(1, 75), "another length than the tree has at offset 4");
    assert_eq!(header(2, 57), "an impossible structure block at offset 8");
    assert_eq!(header(3, 68), "an impossible strings block at offset 12");
    assert_eq!(header(4, 36), "an impossible memory reservation block at offset 16");
    assert_eq!(header(10, 1), "a memory reservation block without an end at offset 40");
    assert_eq!(header(5, 16), "a version of the format other than 17 at offset 20");
    assert_eq!(Blob::open(&[]).err().unwrap().to_string(), "the header is cut off at offset 0");
}
