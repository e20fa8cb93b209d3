//! Nodes and what is in them. The tree was checked, so what is malformed here ends an iteration.

use crate::{name, padded, property, token, word};

/// A node of a checked tree.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    /// The structure block behind the node's FDT_BEGIN_NODE.
    pub(crate) block: &'a [u8],
    pub(crate) strings: &'a [u8],
}

/// A property of a node.
#[derive(Clone, Copy)]
pub struct Property<'a> {
    name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Property<'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        text(self.name)
    }

    /// The bytes of its name.
    #[must_use]
    pub fn name_bytes(&self) -> &'a [u8] {
        self.name
    }
}

/// Names were checked to be ASCII.
fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or("")
}

impl<'a> Node<'a> {
    /// Its name with unit address; the root's is empty.
    #[must_use]
    pub fn name(&self) -> &'a str {
        text(self.name_bytes())
    }

    /// The bytes of its name before the unit address.
    #[must_use]
    pub fn bare_name(&self) -> &'a [u8] {
        bare(self.name_bytes())
    }

    fn name_bytes(&self) -> &'a [u8] {
        name(&mut { self.block }).unwrap_or(&[])
    }

    /// Its properties.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        let mut rest = self.block;
        if name(&mut rest).is_none() {
            rest = &[];
        }
        Properties { rest, strings: self.strings }
    }

    /// The value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        self.properties().find(|property| property.name == name.as_bytes()).map(|property| property.value)
    }

    /// Its children.
    #[must_use]
    pub fn children(&self) -> Children<'a> {
        self.properties().children()
    }

    /// The first child of this name; one without a unit address matches any.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<Self> {
        let name = name.as_bytes();
        self.children().find(|child| {
            let own = child.name_bytes();
            own == name || bare(own) == name
        })
    }
}

fn bare(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == b'@').next().unwrap_or(name)
}

/// Takes tokens off the front as long as they say nothing.
#[inline]
fn skip_nops(rest: &mut &[u8]) {
    while rest.first_chunk() == Some(&token::NOP.to_be_bytes()) {
        let _ = word(rest);
    }
}

/// A node's properties, in the tree's order.
#[derive(Clone)]
pub struct Properties<'a> {
    rest: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Properties<'a> {
    /// The children of the node, without passing again what was passed.
    #[must_use]
    pub fn children(mut self) -> Children<'a> {
        while self.advance().is_some() {}
        Children { rest: self.rest, strings: self.strings }
    }

    fn advance(&mut self) -> Option<(usize, &'a [u8])> {
        skip_nops(&mut self.rest);
        let mut rest = self.rest;
        if word(&mut rest)? != token::PROP {
            return None;
        }
        let property = property(&mut rest)?;
        self.rest = rest;
        Some(property)
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        let (at, value) = self.advance()?;
        let name = self.strings.get(at..)?.split(|&byte| byte == 0).next()?;
        Some(Property { name, value })
    }
}

/// A node's children, in the tree's order. Its end is final: it may be asked again.
#[derive(Clone)]
pub struct Children<'a> {
    /// In front of the next child's FDT_BEGIN_NODE or the node's FDT_END_NODE.
    rest: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Iterator for Children<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        skip_nops(&mut self.rest);
        let mut block = self.rest;
        if word(&mut block)? != token::BEGIN_NODE {
            return None;
        }
        self.rest = behind(block).unwrap_or(&[]);
        Some(Node { block, strings: self.strings })
    }
}

/// What is behind a node's FDT_END_NODE; `rest` starts at its name.
fn behind(mut rest: &[u8]) -> Option<&[u8]> {
    name(&mut rest)?;
    let mut depth = 1_usize;
    while depth > 0 {
        match word(&mut rest)? {
            token::BEGIN_NODE => {
                name(&mut rest)?;
                depth = depth.checked_add(1)?;
            }
            token::END_NODE => depth = depth.checked_sub(1)?,
            token::PROP => {
                let len = word(&mut rest)?;
                word(&mut rest)?;
                padded(&mut rest, usize::try_from(len).ok()?)?;
            }
            token::NOP => {}
            _ => return None,
        }
    }
    Some(rest)
}
