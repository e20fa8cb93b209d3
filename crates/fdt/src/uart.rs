//! The UART that `/chosen/stdout-path` names. Devicetree Specification 0.4, sections 3.3, 3.6 and
//! 4.2; Linux bindings `arm,pl011` and `8250`.

use crate::bus;
use crate::interrupt::Controller;
use crate::tree::{Flawed, Place};
use addr::PaRange;

/// The machine's console UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// Its register layout.
    pub kind: UartKind,
    /// Its registers.
    pub base: PaRange,
    /// Its interrupt, if that goes to the GIC.
    pub intid: Option<u32>,
    /// Its input clock in Hz, if the tree says so.
    pub clock: Option<u32>,
}

/// Register layout of a UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// Arm PrimeCell UART (PL011) or the subset that Arm's SBSA defines.
    Pl011,
    /// National Semiconductor 16550 and its descendants.
    Ns16550 {
        /// Registers lie `1 << reg_shift` bytes apart.
        reg_shift: u8,
        /// Size of an access in bytes: 1, 2 or 4.
        reg_io_width: u8,
    },
}

/// Where the console is.
pub(crate) struct Console<'a> {
    place: Place<'a>,
    kind: UartKind,
}

impl<'a> Console<'a> {
    /// The console; `None` if `/chosen` names none or one of another layout.
    pub(crate) fn find(chosen: &Place<'a>) -> Result<Option<Self>, Flawed> {
        let Some(place) = stdout(chosen)? else { return Ok(None) };
        Ok(kind(&place)?.map(|kind| Self { place, kind }))
    }

    /// The phandle of its first clock, unless the node itself tells the frequency.
    pub(crate) fn clock(&self) -> Option<u32> {
        if self.place.value("clock-frequency").is_some() {
            return None;
        }
        self.place.value("clocks")?.first_chunk().map(|cell| u32::from_be_bytes(*cell))
    }

    /// The UART, its interrupt and clock unknown: on it, what is wrong elsewhere in the tree can be said.
    pub(crate) fn bare(&self) -> Result<Uart, Flawed> {
        Ok(Uart { kind: self.kind, base: bus::device_reg(&self.place, 0)?, intid: None, clock: None })
    }

    /// The UART. `clock` is the node that [`clock`](Self::clock) asks for, whose frequency is known if
    /// it is a fixed one.
    pub(crate) fn uart(&self, gic: &Controller, clock: Option<&Place<'_>>) -> Result<Uart, Flawed> {
        let place = &self.place;
        let teller = clock.filter(|clock| clock.compatible(&[b"fixed-clock"])).unwrap_or(place);
        let (intid, clock) = (gic.intid(place, 0)?, teller.u32("clock-frequency")?);
        Ok(Uart { intid, clock, ..self.bare()? })
    }
}

/// Kept out of line so that its places are off the stack when the rest needs it.
#[inline(never)]
fn stdout<'a>(chosen: &Place<'a>) -> Result<Option<Place<'a>>, Flawed> {
    let root = Place::root(chosen.tree());
    let Some(text) = chosen.text("stdout-path")? else { return Ok(None) };
    // What follows the colon configures the line (`115200n8`).
    let path = text.split_once(':').map_or(text, |(path, _)| path);
    let place = if path.starts_with('/') { root.find(path)? } else { by_alias(&root, path)? };
    place.map(Some).ok_or_else(|| chosen.flaw("stdout-path", "names a node that does not exist"))
}

/// The place that a path leads to whose first component is an alias.
fn by_alias<'a>(root: &Place<'a>, path: &str) -> Result<Option<Place<'a>>, Flawed> {
    let (alias, rest) = path.split_once('/').unwrap_or((path, ""));
    let Some(aliases) = root.find("/aliases")? else { return Ok(None) };
    let Some(value) = aliases.value(alias) else { return Ok(None) };
    let target = value.strip_suffix(b"\0").and_then(|t| core::str::from_utf8(t).ok());
    let Some(target) = target.filter(|t| t.starts_with('/')) else {
        return Err(aliases.flaw("(the alias of stdout-path)", "is not a path"));
    };
    match root.find(target)? {
        Some(place) => place.find(rest),
        None => Ok(None),
    }
}

fn kind(place: &Place<'_>) -> Result<Option<UartKind>, Flawed> {
    if place.compatible(&[b"arm,pl011", b"arm,sbsa-uart"]) {
        return Ok(Some(UartKind::Pl011));
    }
    if !place.compatible(&[b"ns16550a", b"ns16550", b"snps,dw-apb-uart"]) {
        return Ok(None);
    }
    let reg_shift = match place.u32("reg-shift")?.unwrap_or(0) {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 3,
        _ => return Err(place.flaw("reg-shift", "is more than 3")),
    };
    let reg_io_width = match place.u32("reg-io-width")?.unwrap_or(1) {
        1 => 1,
        2 => 2,
        4 => 4,
        _ => return Err(place.flaw("reg-io-width", "is not 1, 2 or 4")),
    };
    Ok(Some(UartKind::Ns16550 { reg_shift, reg_io_width }))
}
