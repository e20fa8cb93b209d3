//! Interrupts: from a device's `interrupts` to the INTID at the GIC.
//! Devicetree Specification 0.4, section 2.4; Linux binding `arm,gic-v3`.

use crate::tree::{Flawed, Place, by_phandle, cells};

/// Most interrupts of one device that are looked at.
const MAX_INTERRUPTS: usize = 16;

/// The interrupt controller that all resolved interrupts must belong to.
pub(crate) struct Controller {
    phandle: Option<u32>,
    cells: usize,
}

impl Controller {
    /// The GIC at `place`.
    pub(crate) fn new(place: &Place<'_>) -> Result<Self, Flawed> {
        match specifier_cells(place)? {
            cells if cells >= 3 => Ok(Self { phandle: place.phandle()?, cells }),
            _ => Err(place.flaw("#interrupt-cells", "is less than 3")),
        }
    }

    /// The INTID of interrupt `index` of a device; `None` if it has no such interrupt or if that
    /// does not go to this controller.
    pub(crate) fn intid(&self, device: &Place<'_>, index: usize) -> Result<Option<u32>, Flawed> {
        if index >= MAX_INTERRUPTS {
            return Err(device.flaw("interrupts", "names an interrupt behind the sixteenth"));
        }
        if let Some(value) = device.value("interrupts-extended") {
            return self.extended(device, value, index);
        }
        let Some(value) = device.value("interrupts") else { return Ok(None) };
        if !self.serves(device)? {
            return Ok(None);
        }
        let stride = self.cells.saturating_mul(4);
        if !value.len().is_multiple_of(stride) {
            return Err(device.flaw("interrupts", "does not fit the #interrupt-cells of the GIC"));
        }
        let Some(specifier) = value.chunks_exact(stride).nth(index) else { return Ok(None) };
        decode(specifier).map(Some).ok_or_else(|| device.flaw("interrupts", "names no interrupt of a GIC"))
    }

    fn extended(&self, device: &Place<'_>, value: &[u8], index: usize) -> Result<Option<u32>, Flawed> {
        let flaw = |text| device.flaw("interrupts-extended", text);
        let mut value = value;
        for position in 0..=index {
            if value.is_empty() {
                return Ok(None);
            }
            let phandle = take_u32(&mut value).ok_or_else(|| flaw("is not a whole number of cells"))?;
            let own = self.phandle == Some(phandle);
            let length = if own {
                self.cells
            } else {
                let other = by_phandle(device.tree(), phandle)?;
                specifier_cells(&other.ok_or_else(|| flaw("names a node that does not exist"))?)?
            };
            let Some((specifier, rest)) = value.split_at_checked(length.saturating_mul(4)) else {
                return Err(flaw("is shorter than the #interrupt-cells it needs"));
            };
            if position == index {
                let intid = own.then(|| decode(specifier).ok_or_else(|| flaw("names no interrupt of a GIC")));
                return intid.transpose();
            }
            value = rest;
        }
        Ok(None)
    }

    /// Whether the interrupts of `device` go to this controller. A tree that never says where
    /// interrupts go can only mean its GIC.
    fn serves(&self, device: &Place<'_>) -> Result<bool, Flawed> {
        let mut place = *device;
        loop {
            if let Some(parent) = place.u32("interrupt-parent")? {
                return Ok(self.phandle == Some(parent));
            }
            let Some(above) = place.parent() else { return Ok(true) };
            if above.value("#interrupt-cells").is_some() {
                return Ok(self.phandle.is_some() && above.phandle()? == self.phandle);
            }
            place = above;
        }
    }
}

/// The position of `name` in a device's `interrupt-names`.
pub(crate) fn named(device: &Place<'_>, name: &str) -> Option<usize> {
    let list = device.value("interrupt-names")?;
    list.split(|&byte| byte == 0).position(|entry| entry == name.as_bytes())
}

fn specifier_cells(controller: &Place<'_>) -> Result<usize, Flawed> {
    match controller.u32("#interrupt-cells")? {
        Some(count @ 0..=8) => Ok(usize::try_from(count).unwrap_or(0)),
        Some(_) => Err(controller.flaw("#interrupt-cells", "is more than 8")),
        None => Err(controller.flaw("#interrupt-cells", "is missing")),
    }
}

/// The INTID of a GIC's interrupt specifier: type, number within the type, trigger. The ranges are
/// those of Arm IHI 0069, section 2.2.
fn decode(mut specifier: &[u8]) -> Option<u32> {
    let kind = take_u32(&mut specifier)?;
    let number = take_u32(&mut specifier)?;
    let (first, count) = match kind {
        0 => (32, 988),
        1 => (16, 16),
        2 => (4096, 1024),
        3 => (1056, 64),
        _ => return None,
    };
    (number < count).then(|| number.saturating_add(first))
}

fn take_u32(value: &mut &[u8]) -> Option<u32> {
    u32::try_from(cells(value, 1)?).ok()
}
