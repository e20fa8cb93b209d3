//! The walk over all nodes, and what it reads of each.

use super::{Flawed, MAX_DEPTH, Place, Tree, strings};
use core::ffi::CStr;
use dtree::{Children, Node};

/// Visits all nodes below the root, parents first.
pub(crate) struct Walk<'a> {
    place: Place<'a>,
    open: [Option<Children<'a>>; MAX_DEPTH + 1],
}

impl<'a> Walk<'a> {
    pub(crate) fn new(tree: &'a Tree<'a>) -> Self {
        let place = Place::root(tree);
        let mut open = [const { None }; MAX_DEPTH + 1];
        open[0] = Some(place.node.children());
        Self { place, open }
    }

    /// The next node; not an iterator because places are large and stay where they are.
    pub(crate) fn next(&mut self) -> Result<Option<Seen<'_, 'a>>, Flawed> {
        loop {
            let open = self.open.get_mut(self.place.depth).and_then(Option::as_mut);
            if let Some(node) = open.and_then(Iterator::next) {
                self.place.descend(node)?;
                let (marks, children) = Marks::read(node);
                if let Some(slot) = self.open.get_mut(self.place.depth) {
                    *slot = Some(children);
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
}

impl<'a> Marks<'a> {
    /// Those of a node, and its children, which come behind them.
    pub(super) fn read(node: Node<'a>) -> (Self, Children<'a>) {
        let mut marks = Self::default();
        let mut properties = node.properties();
        for property in &mut properties {
            let slot = match property.name_bytes() {
                b"compatible" => &mut marks.compatible,
                b"device_type" => &mut marks.device_type,
                b"phandle" => &mut marks.phandle,
                b"status" => &mut marks.status,
                _ => continue,
            };
            slot.get_or_insert(property.value);
        }
        (marks, properties.children())
    }

    /// The entries of the `compatible` list.
    pub(crate) fn compatible(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        strings(self.compatible)
    }

    /// Whether the node's `device_type` is this.
    pub(crate) fn is_device_type(&self, name: &CStr) -> bool {
        self.device_type == Some(name.to_bytes_with_nul())
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
