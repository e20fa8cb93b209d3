//! Trees that are no trees, and trees that say anything.

use super::*;
use crate::tree::total_size;
use core::fmt::Write as _;
use dtoolkit::error::FdtErrorKind;

/// Our check lets through what the parser's own does, and names that it does not; nothing else in the
/// parser then panics.
fn agrees_with_the_parser(dtb: &[u8]) -> Result<(), TestCaseError> {
    let ours = Tree::open(dtb);
    if total_size(dtb) != Some(dtb.len()) {
        return Ok(());
    }
    match Fdt::new(dtb) {
        Ok(_) => prop_assert!(ours.is_ok(), "{:?}", ours.err()),
        Err(error) => {
            let name =
                matches!(error.kind, FdtErrorKind::InvalidNodeName | FdtErrorKind::InvalidPropertyName);
            prop_assert!(ours.is_err() || name, "{error}");
        }
    }
    if let Ok(tree) = ours {
        // Printing reads all of it; it fails where a list of strings is odd.
        let _ = write!(String::new(), "{}", tree.fdt());
    }
    Ok(())
}

proptest! {
    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..if cfg!(miri) { 20 } else { 200 })) {
        let _ = (read(&bytes), early::uart(&bytes));
    }

    #[test]
    fn mutated_trees_never_panic(
        rich in any::<bool>(),
        patches in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cells in prop::collection::vec((any::<prop::sample::Index>(), 0u32..12), 0..12),
        length in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut tree = qemu();
        if rich {
            behind_buses(&mut tree);
        }
        let mut dtb = tree.to_dtb();
        for (at, value) in cells {
            let at = at.index(dtb.len() / 4) * 4;
            dtb[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        for (at, value) in patches {
            let at = at.index(dtb.len());
            dtb[at] = value;
        }
        if let Some(length) = length {
            dtb.truncate(length.index(dtb.len()));
        }
        if let Err(error) = read(&dtb) {
            prop_assert!(error.to_string().starts_with("device tree: "));
        }
        let _ = early::uart(&dtb);
        agrees_with_the_parser(&dtb)?;
    }

    /// Like the above, but each tree is well-formed, so that the mutation reaches the meaning.
    #[test]
    fn mutated_values_never_panic(
        edits in prop::collection::vec((0usize..PATHS.len(), any::<prop::sample::Index>(), value()), 1..6),
    ) {
        let mut tree = qemu();
        behind_buses(&mut tree);
        for (path, property, value) in edits {
            let node = tree.find_node_mut(PATHS[path]).unwrap();
            let count = node.properties_mut().count();
            if let Some(property) = node.properties_mut().nth(property.index(count)) {
                property.set_value(value);
            }
        }
        let dtb = tree.to_dtb();
        if let Err(error) = read(&dtb) {
            prop_assert!(error.to_string().starts_with("device tree: "));
        }
        let _ = early::uart(&dtb);
    }
}

const PATHS: [&str; 12] = [
    "/",
    "/chosen",
    "/aliases",
    "/soc",
    "/soc/bus@7e000000",
    "/soc/bus@7e000000/serial@7e201000",
    "/intc@8000000",
    "/timer",
    "/cpus",
    "/cpus/cpu@1",
    "/memory@40000000",
    "/psci",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..if cfg!(miri) { 20 } else { 40 }),
        prop::collection::vec(prop_oneof![0u32..6, Just(u32::MAX), Just(0x8005)], 0..16)
            .prop_map(|cells| cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()),
    ]
}
