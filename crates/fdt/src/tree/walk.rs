//! The walk over all nodes, and what it reads of each.

use super::{Flawed, MAX_DEPTH, Place, Tree, strings};
use core::ffi::CStr;
use core::iter::Fuse;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};

type Children<'a> = <FdtNode<'a> as Node>::Children<'a>;

/// Visits all nodes below the root, parents first.
pub(crate) struct Walk<'a> {
    place: Place<'a>,
    // Fused because the iterators of the parser may not be asked again after their end.
    open: [Option<Fuse<Children<'a>>>; MAX_DEPTH + 1],
}

impl<'a> Walk<'a> {
    pub(crate) fn new(tree: &'a Tree<'a>) -> Self {
        let place = Place::root(tree);
        let mut open = [const { None }; MAX_DEPTH + 1];
        open[0] = Some(place.node.children().fuse());
        Self { place, open }
    }

    /// The next node; not an iterator because places are large and stay where they are.
    pub(crate) fn next(&mut self) -> Result<Option<Seen<'_, 'a>>, Flawed> {
        loop {
            let open = self.open.get_mut(self.place.depth).and_then(Option::as_mut);
            if let Some(node) = open.and_then(Iterator::next) {
                self.place.descend(node)?;
                let marks = self.place.marks();
                if let Some(slot) = self.open.get_mut(self.place.depth) {
                    *slot = (!marks.leaf).then(|| node.children().fuse());
                }
                return Ok(Some(Seen { place: &self.place, marks }));
            }
            if !self.place.ascend() {
                return Ok(None);
            }
        }
    }
}

/// A node that a walk visits.
pub(crate) struct Seen<'w, 'a> {
    pub(crate) place: &'w Place<'a>,
    pub(crate) marks: Marks<'a>,
}

/// By what nodes are told apart, from one pass over their properties: each pass checks all names.
#[derive(Default)]
pub(crate) struct Marks<'a> {
    compatible: Option<&'a [u8]>,
    device_type: Option<&'a [u8]>,
    phandle: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
    no_mte: Option<&'a [u8]>,
    leaf: bool,
}

impl<'a> Marks<'a> {
    pub(super) fn read(fdt: Fdt<'a>, node: FdtNode<'a>) -> Self {
        let mut marks = Self::default();
        let mut last = None;
        for property in node.properties() {
            let Ok(value) = property.value_as::<&'a [u8]>() else { continue };
            last = Some(value);
            let slot = match property.name() {
                "compatible" => &mut marks.compatible,
                "device_type" => &mut marks.device_type,
                "phandle" => &mut marks.phandle,
                "status" => &mut marks.status,
                "arm,no-mte" => &mut marks.no_mte,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        marks.leaf = last.is_some_and(|value| ends_node(fdt, value));
        marks
    }

    /// The entries of the `compatible` list.
    pub(crate) fn compatible(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        strings(self.compatible)
    }

    /// Whether the node's `device_type` is this.
    pub(crate) fn is_device_type(&self, name: &CStr) -> bool {
        self.device_type == Some(name.to_bytes_with_nul())
    }

    /// Whether the node is memory that cannot be tagged.
    pub(crate) fn no_mte(&self) -> bool {
        self.no_mte.is_some()
    }

    /// Whether others call the node `phandle`.
    pub(crate) fn is_called(&self, phandle: u32) -> bool {
        self.phandle == Some(&phandle.to_be_bytes())
    }

    /// Whether the node's `status` says that it can be used (section 2.3.4; `ok` is the old form).
    pub(crate) fn available(&self) -> bool {
        self.status.is_none_or(|status| matches!(status, b"okay\0" | b"ok\0"))
    }
}

/// Whether the node ends behind `value`, that of its last property: FDT_END_NODE follows (section
/// 5.4.1). Saves asking for its children, for which the parser passes all properties twice.
fn ends_node(fdt: Fdt<'_>, value: &[u8]) -> bool {
    let data = fdt.data();
    let end = value.as_ptr_range().end.addr().checked_sub(data.as_ptr().addr());
    let token = end.and_then(|end| data.get(end.checked_next_multiple_of(4)?..)?.first_chunk());
    token == Some(&[0, 0, 0, 2])
}

/// The node that others call `phandle`.
pub(crate) fn by_phandle<'a>(tree: &'a Tree<'a>, phandle: u32) -> Result<Option<Place<'a>>, Flawed> {
    let mut walk = Walk::new(tree);
    while let Some(seen) = walk.next()? {
        if seen.marks.is_called(phandle) {
            return Ok(Some(*seen.place));
        }
    }
    Ok(None)
}
