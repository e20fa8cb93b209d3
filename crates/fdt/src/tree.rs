//! Walking a device tree without recursion or allocation.
//!
//! A [`Place`] is a node together with the nodes above it, which addresses and interrupts need;
//! [`Walk`] visits all places. Depth is limited, so stack use and time are: a walk takes at most
//! `MAX_DEPTH` times the length of the tree.

use core::cell::OnceCell;
use core::ffi::CStr;
use core::fmt::{self, Write};
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};

mod check;
mod walk;

pub(crate) use walk::{Marks, Seen, Walk, by_phandle};

/// Deepest nesting of nodes that is read; real boards stay below 12, and each level costs stack.
pub(crate) const MAX_DEPTH: usize = 16;

/// Longest tree that is read, in bytes: the limit of the arm64 Linux boot protocol.
const MAX_SIZE: usize = 2 << 20;

/// Why a device tree cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is no well-formed flattened device tree.
    Malformed {
        /// What is wrong; completes a sentence that starts with the tree.
        what: &'static str,
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// It is longer than 2 MiB.
    TooLong,
    /// Its nodes are nested too deeply.
    TooDeep(NodePath),
    /// It lacks something that each machine must describe.
    Lacks(&'static str),
    /// A property is missing or makes no sense.
    Property {
        /// Path of the node.
        node: NodePath,
        /// Name of the property.
        property: &'static str,
        /// What is wrong with it; completes a sentence that starts with the property.
        flaw: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { what, offset } => write!(f, "device tree: it {what} (offset {offset:#x})"),
            Self::TooLong => f.write_str("device tree: it is longer than 2 MiB"),
            Self::TooDeep(node) => write!(f, "device tree: {node} is nested deeper than {MAX_DEPTH} nodes"),
            Self::Lacks(what) => write!(f, "device tree: there is no {what}"),
            Self::Property { node, property, flaw } => {
                write!(f, "device tree: {node}: property `{property}` {flaw}")
            }
        }
    }
}

impl core::error::Error for Error {}

/// A node's path, cut off where it exceeds the space: errors must not need the heap.
#[derive(Clone, PartialEq, Eq)]
pub struct NodePath {
    text: [u8; Self::MAX],
    len: usize,
    cut: bool,
}

impl NodePath {
    const MAX: usize = 72;

    const fn new() -> Self {
        Self { text: [0; Self::MAX], len: 0, cut: false }
    }
}

impl Write for NodePath {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            match self.text.get_mut(self.len) {
                // Node names are checked to be ASCII; the rest stays so.
                Some(slot) if byte.is_ascii() => (*slot, self.len) = (byte, self.len.saturating_add(1)),
                Some(_) | None => {
                    self.cut = true;
                    break;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.get(..self.len).and_then(|t| core::str::from_utf8(t).ok()).unwrap_or("");
        write!(f, "{text}{}", if self.cut { "..." } else { "" })
    }
}

impl fmt::Debug for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodePath({self})")
    }
}

/// The length of the whole tree whose first bytes these are (8 suffice), or `None` if they do not
/// start a flattened device tree. Devicetree Specification 0.4, section 5.2.
#[must_use]
pub fn total_size(header: &[u8]) -> Option<usize> {
    let (magic, rest) = header.split_first_chunk()?;
    let size = u32::from_be_bytes(*rest.first_chunk()?);
    (u32::from_be_bytes(*magic) == 0xd00d_feed).then(|| usize::try_from(size).ok()).flatten()
}

/// A tree that is being read, and what is wrong with it.
pub(crate) struct Tree<'a> {
    fdt: Fdt<'a>,
    error: OnceCell<Error>,
}

/// The tree knows what is wrong. Results carry this and not an [`Error`], which is large: moving
/// one through every function on its way out takes more code than reading the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flawed;

impl<'a> Tree<'a> {
    /// Checks the tree at the start of `dtb`; what follows the tree is ignored.
    pub(crate) fn open(dtb: &'a [u8]) -> Result<Self, Error> {
        let tree = total_size(dtb).and_then(|size| dtb.get(..size)).unwrap_or(dtb);
        if tree.len() > MAX_SIZE {
            return Err(Error::TooLong);
        }
        check::check(tree)?;
        Ok(Self { fdt: Fdt::new_unchecked(tree), error: OnceCell::new() })
    }

    /// The parser's view.
    pub(crate) fn fdt(&self) -> Fdt<'a> {
        self.fdt
    }

    /// Keeps `error` for [`error`](Self::error); the first one stays.
    #[cold]
    #[inline(never)]
    pub(crate) fn note(&self, error: Error) -> Flawed {
        let _ = self.error.set(error);
        Flawed
    }

    /// Notes that the tree lacks something.
    pub(crate) fn lacks(&self, what: &'static str) -> Flawed {
        self.note(Error::Lacks(what))
    }

    /// What was noted.
    pub(crate) fn error(self, _: Flawed) -> Error {
        // Only `note` makes a `Flawed`.
        self.error.into_inner().unwrap_or(Error::Lacks("sense in it"))
    }
}

/// A node and the nodes above it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    tree: &'a Tree<'a>,
    node: FdtNode<'a>,
    above: [Option<FdtNode<'a>>; MAX_DEPTH],
    depth: usize,
}

impl<'a> Place<'a> {
    pub(crate) fn root(tree: &'a Tree<'a>) -> Self {
        Self { tree, node: tree.fdt.root(), above: [None; MAX_DEPTH], depth: 0 }
    }

    /// How many nodes are above.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// The tree.
    pub(crate) fn tree(&self) -> &'a Tree<'a> {
        self.tree
    }

    /// The place of the node above, or `None` at the root.
    pub(crate) fn parent(&self) -> Option<Self> {
        let mut parent = *self;
        parent.ascend().then_some(parent)
    }

    /// The place of a child of this node.
    pub(crate) fn child(&self, node: FdtNode<'a>) -> Result<Self, Flawed> {
        let mut child = *self;
        child.descend(node)?;
        Ok(child)
    }

    /// The places of all children.
    pub(crate) fn children(&self) -> impl Iterator<Item = Result<Self, Flawed>> + use<'_, 'a> {
        self.node.children().map(|node| self.child(node))
    }

    /// The place that `path` leads to from here; a component without a unit address matches any.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Self>, Flawed> {
        let mut place = *self;
        for component in path.split('/').filter(|c| !c.is_empty()) {
            let Some(node) = place.node.child(component) else { return Ok(None) };
            place.descend(node)?;
        }
        Ok(Some(place))
    }

    /// The first child of each of these names, in one pass; all names are without unit address.
    pub(crate) fn named<const N: usize>(&self, names: [&str; N]) -> Result<[Option<Self>; N], Flawed> {
        let mut found = [None; N];
        for node in self.node.children() {
            let name = node.name_without_address();
            for (slot, _) in found.iter_mut().zip(names).filter(|(slot, n)| slot.is_none() && *n == name) {
                *slot = Some(self.child(node)?);
            }
        }
        Ok(found)
    }

    fn descend(&mut self, node: FdtNode<'a>) -> Result<(), Flawed> {
        let Some(slot) = self.above.get_mut(self.depth) else { return Err(self.too_deep()) };
        *slot = Some(self.node);
        self.node = node;
        self.depth = self.depth.saturating_add(1);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn too_deep(&self) -> Flawed {
        self.tree.note(Error::TooDeep(self.path()))
    }

    fn ascend(&mut self) -> bool {
        let Some(depth) = self.depth.checked_sub(1) else { return false };
        let Some(Some(node)) = self.above.get(depth) else { return false };
        self.node = *node;
        self.depth = depth;
        true
    }

    /// The node's path, for a message.
    pub(crate) fn path(&self) -> NodePath {
        let mut path = NodePath::new();
        let above = self.above.iter().take(self.depth).flatten();
        for node in above.chain([&self.node]).skip(1) {
            // Writing to a path cannot fail: it cuts.
            let _ = write!(path, "/{}", node.name());
        }
        if self.depth == 0 {
            let _ = path.write_str("/");
        }
        path
    }

    /// Notes a flaw in a property of this node.
    #[cold]
    #[inline(never)]
    pub(crate) fn flaw(&self, property: &'static str, flaw: &'static str) -> Flawed {
        self.tree.note(Error::Property { node: self.path(), property, flaw })
    }

    /// The bytes of a property.
    #[inline(never)]
    pub(crate) fn value(&self, property: &str) -> Option<&'a [u8]> {
        self.node.property(property)?.value_as::<&'a [u8]>().ok()
    }

    /// A property of one cell.
    pub(crate) fn u32(&self, property: &'static str) -> Result<Option<u32>, Flawed> {
        let Some(value) = self.value(property) else { return Ok(None) };
        match value.try_into() {
            Ok(cell) => Ok(Some(u32::from_be_bytes(cell))),
            Err(_) => Err(self.flaw(property, "is not one cell")),
        }
    }

    /// A property of one or two cells.
    pub(crate) fn number(&self, property: &'static str) -> Result<Option<u64>, Flawed> {
        let Some(mut value) = self.value(property) else { return Ok(None) };
        let count = value.len() / 4;
        match cells(&mut value, count) {
            Some(number) if value.is_empty() => Ok(Some(number)),
            Some(_) | None => Err(self.flaw(property, "is not one or two cells")),
        }
    }

    /// A property that is text.
    pub(crate) fn text(&self, property: &'static str) -> Result<Option<&'a str>, Flawed> {
        let Some(value) = self.value(property) else { return Ok(None) };
        let text = CStr::from_bytes_until_nul(value).ok().and_then(|t| t.to_str().ok());
        text.map(Some).ok_or_else(|| self.flaw(property, "is not text that ends with NUL"))
    }

    /// Whether the node's `compatible` list holds one of `names`.
    pub(crate) fn compatible(&self, names: &[&[u8]]) -> bool {
        strings(self.value("compatible")).any(|entry| names.contains(&entry))
    }

    /// What tells the node from others.
    pub(crate) fn marks(&self) -> Marks<'a> {
        Marks::read(self.tree.fdt, self.node)
    }

    /// What other nodes call this one.
    pub(crate) fn phandle(&self) -> Result<Option<u32>, Flawed> {
        self.u32("phandle")
    }
}

/// The strings in a property.
fn strings(list: Option<&[u8]>) -> impl Iterator<Item = &[u8]> {
    list.unwrap_or(&[]).split(|&byte| byte == 0)
}

/// Takes the number in the next `count` cells, at most two, off the front of `value`.
pub(crate) fn cells(value: &mut &[u8], count: usize) -> Option<u64> {
    let mut number = 0;
    if count > 2 {
        return None;
    }
    for _ in 0..count {
        let (cell, rest) = value.split_first_chunk()?;
        number = number << 32 | u64::from(u32::from_be_bytes(*cell));
        *value = rest;
    }
    Some(number)
}
