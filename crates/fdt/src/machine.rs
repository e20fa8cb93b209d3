//! What the hypervisor needs to know of its machine.

use crate::bus;
use crate::interrupt::{Controller, named};
use crate::tree::{Error, Flawed, Place, Seen, Tree, Walk};
use crate::uart::{Console, Uart};
use addr::{Pa, PaRange};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Most CPUs, and most ranges of each kind, that are read: for each, the properties of the node
/// above are searched again.
const MAX_COUNT: usize = 1024;
const TOO_MANY: &str = "brings the number of such ranges above 1024";

/// The machine as its device tree describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// RAM, sorted, neighbours merged. It includes what [`reserved`](Self::reserved) lists.
    pub memory: Vec<PaRange>,
    /// Memory that is not for use, sorted, neighbours merged: `/reserved-memory` children with an
    /// address, the reservation block, and tag storage. Boot loaders list the tree and the initrd here too.
    pub reserved: Vec<PaRange>,
    /// Memory that is the storage of other memory's tags: `arm,mte-tag-storage`, anywhere in the tree.
    pub tag_storage: Vec<PaRange>,
    /// RAM that cannot be tagged, sorted, neighbours merged: `memory` nodes with `arm,no-mte`.
    pub untaggable: Vec<PaRange>,
    /// CPUs in the order of the tree.
    pub cpus: Vec<Cpu>,
    /// How to call PSCI 0.2 or later, if there is one.
    pub psci: Option<Conduit>,
    /// The interrupt controller.
    pub gic: Gic,
    /// The architectural timer.
    pub timer: Timer,
    /// The console UART.
    pub uart: Option<Uart>,
    /// The initial RAM disk, which holds the bundle.
    pub initrd: Option<PaRange>,
    /// The command line, for [`Options::parse`](crate::Options::parse).
    pub bootargs: String,
    /// Length of the tree itself, in bytes.
    pub dtb_size: usize,
}

/// A CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its affinity fields as in MPIDR_EL1, all other bits zero.
    pub mpidr: u64,
    /// Whether its `status` lets it be used.
    pub enabled: bool,
}

/// The instruction that calls PSCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// SMC.
    Smc,
    /// HVC.
    Hvc,
}

/// The interrupt controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gic {
    /// Its architecture.
    pub version: GicVersion,
    /// The distributor.
    pub gicd: PaRange,
    /// The redistributor regions; empty for version 2.
    pub gicr: Vec<PaRange>,
    /// Distance of redistributors if the tree overrides what GICR_TYPER implies.
    pub stride: Option<u64>,
    /// INTID of the maintenance interrupt.
    pub maintenance_intid: Option<u32>,
}

/// Architecture of an interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicVersion {
    /// GICv2, which the hypervisor refuses.
    V2,
    /// GICv3 or GICv4.
    V3,
}

/// INTIDs of the architectural timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Non-secure EL2 physical timer.
    pub hyp_physical_intid: u32,
    /// EL1 virtual timer.
    pub virtual_intid: u32,
    /// Non-secure EL1 physical timer.
    pub physical_intid: u32,
    /// Non-secure EL2 virtual timer, if there is one.
    pub hyp_virtual_intid: Option<u32>,
}

/// Reads the machine from the device tree at the start of `dtb`. Needs about 16 KiB of stack.
///
/// # Errors
/// The tree is malformed, or does not describe memory, CPUs, a GIC and the architectural timer.
pub fn read(dtb: &[u8]) -> Result<Machine, Error> {
    let tree = Tree::open(dtb)?;
    machine(&tree).map_err(|flawed| tree.error(flawed))
}

fn machine(tree: &Tree<'_>) -> Result<Machine, Flawed> {
    let root = Place::root(tree);
    let [chosen, cpu_parent, reserve] = root.named(["chosen", "cpus", "reserved-memory"])?;
    let console = chosen.as_ref().map(Console::find).transpose()?.flatten();
    let found = Found::read(tree, console.as_ref().and_then(Console::clock))?;
    let gic_place = found.gic.ok_or_else(|| tree.lacks("interrupt controller that is a GIC"))?;
    let controller = Controller::new(&gic_place)?;
    let uart = console.map(|console| console.uart(&controller, found.clock.as_ref()));
    Ok(Machine {
        memory: memory(tree, found.memory)?,
        reserved: reserved(&root, reserve.as_ref(), found.tag_storage.clone())?,
        tag_storage: found.tag_storage,
        untaggable: merged(found.untaggable),
        cpus: cpus(&cpu_parent.ok_or_else(|| tree.lacks("/cpus node"))?)?,
        psci: found.psci.as_ref().map(psci).transpose()?,
        gic: gic(&gic_place, &controller)?,
        timer: timer(&found.timer.ok_or_else(|| tree.lacks("architectural timer"))?, &controller)?,
        uart: uart.transpose()?,
        initrd: chosen.as_ref().map(initrd).transpose()?.flatten(),
        bootargs: bootargs(chosen.as_ref())?,
        dtb_size: tree.fdt().data().len(),
    })
}

const GIC_V3: &[u8] = b"arm,gic-v3";
const GICS: &[&[u8]] =
    &[GIC_V3, b"arm,gic-400", b"arm,cortex-a15-gic", b"arm,cortex-a9-gic", b"arm,cortex-a7-gic"];
/// Version 0.1 had function ids of its own and is ignored (Linux binding `psci`).
const PSCIS: &[&[u8]] = &[b"arm,psci-1.0", b"arm,psci-0.2"];
/// Neither this nor the property `arm,no-mte` is a binding of Linux yet: both were proposed for its
/// dynamic tag storage, and boards' firmware has them.
const TAG_STORAGE: &[u8] = b"arm,mte-tag-storage";
const TIMERS: &[&[u8]] = &[b"arm,armv8-timer", b"arm,armv7-timer"];

/// What may lie anywhere in the tree, all found in one walk; of each, the first that can be used.
#[derive(Default)]
struct Found<'a> {
    memory: Vec<PaRange>,
    untaggable: Vec<PaRange>,
    tag_storage: Vec<PaRange>,
    gic: Option<Place<'a>>,
    psci: Option<Place<'a>>,
    timer: Option<Place<'a>>,
    clock: Option<Place<'a>>,
}

impl<'a> Found<'a> {
    fn read(tree: &'a Tree<'a>, clock: Option<u32>) -> Result<Self, Flawed> {
        let mut found = Self::default();
        let mut walk = Walk::new(tree);
        while let Some(Seen { place, marks }) = walk.next()? {
            if clock.is_some_and(|clock| marks.is_called(clock)) {
                found.clock.get_or_insert(*place);
            }
            if !marks.available() {
                continue;
            }
            // Section 3.4.
            if place.depth() == 1 && marks.is_device_type(c"memory") {
                collect(place, &mut found.memory)?;
                if marks.no_mte() {
                    collect(place, &mut found.untaggable)?;
                }
            }
            for name in marks.compatible() {
                if name == TAG_STORAGE {
                    collect(place, &mut found.tag_storage)?;
                }
                let kinds = [(GICS, &mut found.gic), (PSCIS, &mut found.psci), (TIMERS, &mut found.timer)];
                for (_, slot) in kinds.into_iter().filter(|(names, _)| names.contains(&name)) {
                    slot.get_or_insert(*place);
                }
            }
        }
        Ok(found)
    }
}

fn memory(tree: &Tree<'_>, ranges: Vec<PaRange>) -> Result<Vec<PaRange>, Flawed> {
    if ranges.is_empty() { Err(tree.lacks("memory")) } else { Ok(merged(ranges)) }
}

/// `/reserved-memory` (section 3.5) and the reservation block (section 5.3), in addition to `ranges`.
/// Children without `reg` ask an operating system to choose a place; nothing lies there yet.
fn reserved(
    root: &Place<'_>,
    parent: Option<&Place<'_>>,
    mut ranges: Vec<PaRange>,
) -> Result<Vec<PaRange>, Flawed> {
    for place in parent.into_iter().flat_map(Place::children) {
        let place = place?;
        if place.marks().available() {
            collect(&place, &mut ranges)?;
        }
    }
    for entry in root.tree().fdt().memory_reservations() {
        let flaw = |text| root.flaw("(memory reservation block)", text);
        let range = PaRange::new(Pa::new(entry.address()), entry.size());
        ranges.push(range.ok_or_else(|| flaw("has an entry that wraps"))?);
        if ranges.len() > MAX_COUNT {
            return Err(flaw(TOO_MANY));
        }
    }
    Ok(merged(ranges))
}

/// Adds the ranges of a node's `reg`.
fn collect(place: &Place<'_>, ranges: &mut Vec<PaRange>) -> Result<(), Flawed> {
    for index in 0..=MAX_COUNT {
        let Some(range) = bus::reg(place, index)? else { return Ok(()) };
        ranges.push(range);
        if ranges.len() > MAX_COUNT {
            break;
        }
    }
    Err(place.flaw("reg", TOO_MANY))
}

/// The same memory as sorted ranges that neither touch nor are empty.
fn merged(ranges: Vec<PaRange>) -> Vec<PaRange> {
    // At most `MAX_COUNT`, so that the time of insertion sort matters less than the size of a faster one.
    let mut sorted: Vec<PaRange> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| range.size() > 0) {
        sorted.insert(sorted.partition_point(|other| other.start() <= range.start()), range);
    }
    let mut result: Vec<PaRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        let joined = result.last().filter(|last| range.start() <= last.end()).and_then(|last| {
            let size = last.end().max(range.end()).offset_from(last.start())?;
            PaRange::new(last.start(), size)
        });
        match (joined, result.last_mut()) {
            (Some(joined), Some(last)) => *last = joined,
            (Some(_) | None, _) => result.push(range),
        }
    }
    result
}

/// `/cpus` (section 3.8).
fn cpus(parent: &Place<'_>) -> Result<Vec<Cpu>, Flawed> {
    let mut cpus = Vec::new();
    for place in parent.children() {
        let place = place?;
        let marks = place.marks();
        if !marks.is_device_type(c"cpu") {
            continue;
        }
        let mpidr = bus::unit(&place)?;
        // Aff3 and Aff2 to Aff0 (Linux binding `arm,cpus`; Arm ARM, MPIDR_EL1).
        if mpidr & !0xff_00ff_ffff != 0 {
            return Err(place.flaw("reg", "has bits outside the affinity fields"));
        }
        cpus.push(Cpu { mpidr, enabled: marks.available() });
        if cpus.len() > MAX_COUNT {
            return Err(place.flaw("reg", "is that of the 1025th CPU, one more than can be"));
        }
    }
    if cpus.is_empty() {
        return Err(parent.tree().lacks("CPU"));
    }
    let twice = |(index, cpu): (usize, &Cpu)| cpus.iter().take(index).any(|other| other.mpidr == cpu.mpidr);
    if cpus.iter().enumerate().any(twice) {
        return Err(parent.flaw("reg", "of two CPUs is the same"));
    }
    Ok(cpus)
}

/// Linux binding `psci`.
fn psci(place: &Place<'_>) -> Result<Conduit, Flawed> {
    match place.text("method")? {
        Some("smc") => Ok(Conduit::Smc),
        Some("hvc") => Ok(Conduit::Hvc),
        Some(_) => Err(place.flaw("method", "is neither `smc` nor `hvc`")),
        None => Err(place.flaw("method", "is missing")),
    }
}

/// A GICv3's frames lie on multiples of this, and are as large; a redistributor has two or more.
/// Arm IHI 0069, section 12.10.
const FRAME: u64 = 0x1_0000;
const FRAMES: u64 = 2 * FRAME;

/// Linux binding `arm,gic-v3`: distributor, then the redistributor regions.
fn gic(place: &Place<'_>, controller: &Controller) -> Result<Gic, Flawed> {
    let version = if place.compatible(&[GIC_V3]) { GicVersion::V3 } else { GicVersion::V2 };
    let regions = match version {
        GicVersion::V2 => 0,
        GicVersion::V3 => place.u32("#redistributor-regions")?.unwrap_or(1),
    };
    let last = usize::try_from(regions).unwrap_or(usize::MAX);
    if last > MAX_COUNT {
        return Err(place.flaw("#redistributor-regions", "is more than 1024"));
    }
    let stride = place.number("redistributor-stride")?.filter(|&stride| stride != 0);
    if stride.is_some_and(|stride| stride < FRAMES || !stride.is_multiple_of(FRAME)) {
        return Err(place.flaw("redistributor-stride", "is not a multiple of 64 KiB, at least two"));
    }
    let frames = |index| match bus::device_reg(place, index)? {
        range if range.start().get().is_multiple_of(FRAME) || version == GicVersion::V2 => Ok(range),
        _ => Err(place.flaw("reg", "has an address that is not on 64 KiB")),
    };
    Ok(Gic {
        version,
        gicd: frames(0)?,
        gicr: (1..=last).map(frames).collect::<Result<_, _>>()?,
        stride,
        maintenance_intid: controller.intid(place, 0)?,
    })
}

/// Linux binding `arm,arch_timer`: interrupts by name, else in this order.
fn timer(place: &Place<'_>, gic: &Controller) -> Result<Timer, Flawed> {
    const ORDER: [&str; 5] = ["sec-phys", "phys", "virt", "hyp-phys", "hyp-virt"];
    let has_names = place.value("interrupt-names").is_some();
    let intid = |name: &str| {
        let index = if has_names { named(place, name) } else { ORDER.iter().position(|n| *n == name) };
        index.map(|index| gic.intid(place, index)).transpose().map(Option::flatten)
    };
    let required = |name, flaw| intid(name).and_then(|id| id.ok_or_else(|| place.flaw("interrupts", flaw)));
    Ok(Timer {
        hyp_physical_intid: required("hyp-phys", "has no EL2 physical timer at the GIC")?,
        virtual_intid: required("virt", "has no virtual timer at the GIC")?,
        physical_intid: required("phys", "has no EL1 physical timer at the GIC")?,
        hyp_virtual_intid: intid("hyp-virt")?,
    })
}

/// `linux,initrd-start` and `linux,initrd-end` (Linux binding `chosen`).
fn initrd(chosen: &Place<'_>) -> Result<Option<PaRange>, Flawed> {
    let (start, end) = (chosen.number("linux,initrd-start")?, chosen.number("linux,initrd-end")?);
    match (start, end) {
        (Some(start), Some(end)) => {
            let size = end
                .checked_sub(start)
                .ok_or_else(|| chosen.flaw("linux,initrd-end", "is below `linux,initrd-start`"))?;
            Ok(PaRange::new(Pa::new(start), size).filter(|range| range.size() > 0))
        }
        (Some(_), None) => Err(chosen.flaw("linux,initrd-end", "is missing")),
        (None, Some(_)) => Err(chosen.flaw("linux,initrd-start", "is missing")),
        (None, None) => Ok(None),
    }
}

fn bootargs(chosen: Option<&Place<'_>>) -> Result<String, Flawed> {
    let text = chosen.map(|chosen| chosen.text("bootargs")).transpose()?.flatten();
    Ok(text.unwrap_or("").to_string())
}

#[cfg(test)]
mod tests;
