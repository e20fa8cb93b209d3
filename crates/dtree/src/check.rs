//! The check of a whole tree, once.

use crate::{Blob, HEADER, MAGIC, Malformed, Node, VERSION, name, property, reservations, token, word};

/// Longest name of a property, and of a node without its unit address (sections 2.2.1, 2.2.4).
const LONGEST: usize = 31;

/// The words of the header (section 5.2), in the tree's order.
struct Header {
    magic: u32,
    total: usize,
    structure: usize,
    strings: usize,
    reservations: usize,
    version: u32,
    compatible: u32,
    strings_len: usize,
    structure_len: usize,
}

fn header(mut rest: &[u8]) -> Option<Header> {
    let mut next = || word(&mut rest);
    let size = |word: u32| usize::try_from(word).ok();
    let magic = next()?;
    let (total, structure, strings) = (size(next()?)?, size(next()?)?, size(next()?)?);
    let reservations = size(next()?)?;
    let (version, compatible, _boot_cpu) = (next()?, next()?, next()?);
    let (strings_len, structure_len) = (size(next()?)?, size(next()?)?);
    Some(Header {
        magic,
        total,
        structure,
        strings,
        reservations,
        version,
        compatible,
        strings_len,
        structure_len,
    })
}

fn flaw(what: &'static str, offset: usize) -> Malformed {
    Malformed { what, offset }
}

pub(crate) fn blob(data: &[u8]) -> Result<Blob<'_>, Malformed> {
    let header = header(data).ok_or(flaw("the header is cut off", data.len()))?;
    if header.magic != MAGIC {
        return Err(flaw("no flattened device tree", 0));
    }
    if header.total != data.len() {
        return Err(flaw("another length than the tree has", 4));
    }
    if !(header.compatible..=header.version).contains(&VERSION) {
        return Err(flaw("a version of the format other than 17", 20));
    }
    let structure = part(data, header.structure, header.structure_len)
        .filter(|_| header.structure.is_multiple_of(4))
        .ok_or(flaw("an impossible structure block", 8))?;
    let strings = part(data, header.strings, header.strings_len)
        .filter(|_| header.structure.saturating_add(header.structure_len) <= header.strings)
        .ok_or(flaw("an impossible strings block", 12))?;
    let reserved = data
        .get(header.reservations..header.structure)
        .filter(|_| header.reservations >= HEADER && header.reservations.is_multiple_of(8))
        .ok_or(flaw("an impossible memory reservation block", 16))?;
    if !reservations(reserved).any(|entry| entry == (0, 0)) {
        return Err(flaw("a memory reservation block without an end", header.reservations));
    }
    let mut rest = structure;
    nodes(&mut rest, strings).map_err(|what| {
        flaw(what, header.structure.saturating_add(structure.len().saturating_sub(rest.len())))
    })?;
    let root = Node { block: structure.get(4..).unwrap_or(&[]), strings };
    Ok(Blob { data, reservations: reserved, root })
}

fn part(data: &[u8], start: usize, len: usize) -> Option<&[u8]> {
    data.get(start..start.checked_add(len)?)
}

/// Passes the root node and the end of the block. Where something is wrong, `rest` is behind it.
fn nodes(rest: &mut &[u8], strings: &[u8]) -> Result<(), &'static str> {
    const ENDS: &str = "the structure block ends";
    const STRAY: &str = "a token out of place";
    if word(rest) != Some(token::BEGIN_NODE) {
        return Err("no root node");
    }
    if !name(rest).ok_or(ENDS)?.is_empty() {
        return Err("a root node with a name");
    }
    let mut depth = 1_usize;
    // Properties come before children (section 5.4.2).
    let mut properties = true;
    while depth > 0 {
        match word(rest).ok_or(ENDS)? {
            token::BEGIN_NODE => {
                depth = depth.checked_add(1).ok_or(STRAY)?;
                properties = true;
                if !is_node_name(name(rest).ok_or(ENDS)?) {
                    return Err("a malformed node name");
                }
            }
            token::END_NODE => {
                depth = depth.saturating_sub(1);
                properties = false;
            }
            token::PROP if properties => {
                let (at, _) = property(rest).ok_or(ENDS)?;
                if !is_property_name(strings, at) {
                    return Err("a malformed property name");
                }
            }
            token::NOP => {}
            _ => return Err(STRAY),
        }
    }
    if word(rest) == Some(token::END) { Ok(()) } else { Err(STRAY) }
}

/// Section 2.2.1; the unit address may be of any length.
fn is_node_name(name: &[u8]) -> bool {
    let mut parts = name.split(|&byte| byte == b'@');
    let sound = |part: &[u8]| !part.is_empty() && part.iter().all(|&byte| is_in_node_name(byte));
    parts.next().is_some_and(|bare| sound(bare) && bare.len() <= LONGEST)
        && parts.next().is_none_or(sound)
        && parts.next().is_none()
}

fn is_in_node_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'.' | b'_' | b'+' | b'-')
}

/// Whether a property name (section 2.2.4) and its NUL are at `at`.
fn is_property_name(strings: &[u8], at: usize) -> bool {
    let Some(name) = strings.get(at..) else { return false };
    let len = name.iter().take_while(|&&byte| is_in_node_name(byte) || matches!(byte, b'?' | b'#')).count();
    (1..=LONGEST).contains(&len) && name.get(len) == Some(&0)
}
