//! Addresses: a device's `reg`, translated by the `ranges` of the buses above it.
//! Devicetree Specification 0.4, sections 2.3.5, 2.3.6 and 2.3.8.

use crate::tree::{Flawed, Place, cells};
use addr::{Pa, PaRange};

/// Most entries of a `ranges` that are read: it is searched for each address below that bus.
const MAX_RANGES: usize = 256;

/// How many cells a node's children use in their `reg`.
struct CellCounts {
    address: usize,
    size: usize,
}

impl CellCounts {
    fn of(bus: &Place<'_>) -> Result<Self, Flawed> {
        Ok(Self {
            address: Self::count(bus, "#address-cells", 2)?,
            size: Self::count(bus, "#size-cells", 1)?,
        })
    }

    fn count(bus: &Place<'_>, property: &'static str, default: u32) -> Result<usize, Flawed> {
        match bus.u32(property)?.unwrap_or(default) {
            0 => Ok(0),
            1 => Ok(1),
            2 => Ok(2),
            _ => Err(bus.flaw(property, "is more than 2")),
        }
    }

    /// Bytes of one `reg` entry.
    fn stride(&self) -> usize {
        self.address.saturating_add(self.size).saturating_mul(4)
    }
}

/// The address range in entry `index` of a node's `reg`, or `None` behind the last one.
pub(crate) fn reg(place: &Place<'_>, index: usize) -> Result<Option<PaRange>, Flawed> {
    let Some((address, size)) = untranslated(place, index)? else { return Ok(None) };
    let range = PaRange::new(Pa::new(translate(place, address, size)?), size);
    range.map(Some).ok_or_else(|| place.flaw("reg", "wraps around the end of the address space"))
}

/// Like [`reg`], for a device that cannot do without it.
pub(crate) fn device_reg(place: &Place<'_>, index: usize) -> Result<PaRange, Flawed> {
    match reg(place, index)? {
        Some(range) if range.size() > 0 => Ok(range),
        Some(_) => Err(place.flaw("reg", "has an entry of size 0")),
        None => Err(place.flaw("reg", "has too few entries or is missing")),
    }
}

/// A node's only address where it is a name, not a place (a CPU's).
pub(crate) fn unit(place: &Place<'_>) -> Result<u64, Flawed> {
    match untranslated(place, 0)? {
        Some((address, 0)) => Ok(address),
        Some(_) => Err(place.flaw("reg", "has a size")),
        None => Err(place.flaw("reg", "is missing")),
    }
}

fn untranslated(place: &Place<'_>, index: usize) -> Result<Option<(u64, u64)>, Flawed> {
    let (Some(value), Some(bus)) = (place.value("reg"), place.parent()) else { return Ok(None) };
    let counts = CellCounts::of(&bus)?;
    let stride = counts.stride();
    if stride == 0 || !value.len().is_multiple_of(stride) {
        return Err(place.flaw("reg", "does not fit the cell counts of the node above"));
    }
    let Some(mut entry) = value.chunks_exact(stride).nth(index) else { return Ok(None) };
    let pair = cells(&mut entry, counts.address).zip(cells(&mut entry, counts.size));
    pair.map(Some).ok_or_else(|| place.flaw("reg", "does not fit the cell counts of the node above"))
}

/// The physical address of `address`, which `place` uses on the bus above it.
fn translate(place: &Place<'_>, address: u64, size: u64) -> Result<u64, Flawed> {
    let mut address = address;
    let mut level = place.parent();
    while let Some(bus) = level {
        level = bus.parent();
        let Some(above) = &level else { break };
        let Some(ranges) = bus.value("ranges") else {
            return Err(bus.flaw("ranges", "is missing, so the addresses below are not physical ones"));
        };
        if !ranges.is_empty() {
            address = map(&bus, above, ranges, address, size)?;
        }
    }
    Ok(address)
}

fn map(bus: &Place<'_>, above: &Place<'_>, ranges: &[u8], address: u64, size: u64) -> Result<u64, Flawed> {
    let (counts, outer) = (CellCounts::of(bus)?, CellCounts::of(above)?);
    let stride = counts.stride().saturating_add(outer.address.saturating_mul(4));
    if stride == 0 || !ranges.len().is_multiple_of(stride) {
        return Err(bus.flaw("ranges", "does not fit the cell counts"));
    }
    if ranges.len() / stride > MAX_RANGES {
        return Err(bus.flaw("ranges", "has more than 256 entries"));
    }
    for mut entry in ranges.chunks_exact(stride) {
        let inner_start = cells(&mut entry, counts.address);
        let outer_start = cells(&mut entry, outer.address);
        let (Some(inner), Some(outer), Some(length)) =
            (inner_start, outer_start, cells(&mut entry, counts.size))
        else {
            return Err(bus.flaw("ranges", "does not fit the cell counts"));
        };
        let Some(offset) = address.checked_sub(inner) else { continue };
        if length.checked_sub(offset).is_some_and(|left| left > 0 && left >= size) {
            return outer.checked_add(offset).ok_or_else(|| bus.flaw("ranges", "wraps around"));
        }
    }
    Err(bus.flaw("ranges", "does not cover a device below"))
}
