//! The UART that `/chosen/stdout-path` names. Devicetree Specification 0.4, sections 3.3, 3.6 and
//! 4.2; Linux bindings `arm,pl011` and `8250`.

use crate::bus;
use crate::interrupt::Controller;
use crate::tree::{Flawed, Place};
use addr::{Pa, PaRange};

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
    /// National Semiconductor 8250, 16450, 16550 and their descendants.
    Ns16550 {
        /// Registers lie `1 << shift` bytes apart, which is a whole number of accesses; all lie inside.
        shift: u8,
        /// Size of an access.
        width: Width,
    },
}

/// Size of an access to a register whose content is a byte, its lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two.
    Half,
    /// Four.
    Word,
}

/// What has the registers of a 16550, as far as a driver goes that leaves the line's setup alone: those
/// that Linux drives as such without further knowledge (`8250_of.c`), and `snps,dw-apb-uart`.
const NS16550: &[&[u8]] = &[
    b"ns8250",
    b"ns16450",
    b"ns16550",
    b"ns16550a",
    b"ns16750",
    b"ns16850",
    b"snps,dw-apb-uart",
    b"nvidia,tegra20-uart",
    b"ti,da830-uart",
    b"fsl,16550-FIFO64",
    b"altr,16550-FIFO32",
    b"altr,16550-FIFO64",
    b"altr,16550-FIFO128",
];
/// How many registers a 16550 has.
const REGISTERS: u64 = 8;

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
        let place = &self.place;
        let base = bus::device_reg(place, 0)?;
        let base = match self.kind {
            UartKind::Pl011 => base,
            UartKind::Ns16550 { shift, width } => ns16550_registers(place, base, shift, width)?,
        };
        Ok(Uart { kind: self.kind, base, intid: None, clock: None })
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
    if !place.compatible(NS16550) {
        return Ok(None);
    }
    if place.value("big-endian").is_some() {
        return Err(place.flaw("big-endian", "asks for an order of bytes that is not supported"));
    }
    let shift = match place.u32("reg-shift")?.unwrap_or(0) {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 3,
        _ => return Err(place.flaw("reg-shift", "is more than 3")),
    };
    let width = match place.u32("reg-io-width")?.unwrap_or(1) {
        1 => Width::Byte,
        2 => Width::Half,
        4 => Width::Word,
        _ => return Err(place.flaw("reg-io-width", "is not 1, 2 or 4")),
    };
    if width.bytes() > 1 << shift {
        return Err(place.flaw("reg-io-width", "is more than `reg-shift` leaves between registers"));
    }
    Ok(Some(UartKind::Ns16550 { shift, width }))
}

impl Width {
    /// The same in bytes.
    const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }
}

/// Where the registers of a 16550 are in its `reg`: from `reg-offset` on, all of them.
fn ns16550_registers(place: &Place<'_>, reg: PaRange, shift: u8, width: Width) -> Result<PaRange, Flawed> {
    let offset = u64::from(place.u32("reg-offset")?.unwrap_or(0));
    let start = reg.start().get().checked_add(offset);
    let size = reg.size().checked_sub(offset).filter(|size| *size >= REGISTERS << shift);
    let Some(range) = start.zip(size).and_then(|(start, size)| PaRange::new(Pa::new(start), size)) else {
        return Err(place.flaw("reg", "has no room for a 16550's registers"));
    };
    if !range.start().get().is_multiple_of(width.bytes()) {
        return Err(place.flaw("reg", "is not aligned to `reg-io-width`"));
    }
    Ok(range)
}
