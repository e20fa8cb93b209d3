//! The device tree that a VM boots with.
//!
//! It describes what the hypervisor emulates at the addresses of [`manifest::layout`], and the
//! VM's regions: RAM that may hold tags as `memory` nodes, because Linux takes all of these for
//! taggable; all other memory as `reserved-memory` children, which it leaves alone; devices as
//! nodes of their own.

use crate::machine::Conduit;
use addr::IpaRange;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use dtoolkit::ToPropertyValue;
use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use manifest::layout::{
    DTB_SIZE, EVENT_INTID, GICD, GICR, GICR_STRIDE, PTIMER_INTID, UART, UART_INTID, VTIMER_INTID,
};
use manifest::{Control, DeviceInterrupt, RegionKind, RegionSpec, Tags, VmSpec};

/// `compatible` of a memory region that is not ordinary RAM.
pub const REGION: &str = "tagvisor,region";
/// `compatible` of a device region.
pub const DEVICE: &str = "tagvisor,device";
/// `compatible` of the node that tells a control VM its event interrupt.
pub const CONTROL: &str = "tagvisor,control";

const GIC_PHANDLE: u32 = 1;
const CLOCK_PHANDLE: u32 = 2;
/// Input clock of the vPL011 in Hz, as on QEMU's `virt` machine.
const UART_CLOCK: u32 = 24_000_000;

/// What a VM's tree is made from.
#[derive(Clone, Debug)]
pub struct GuestTree<'a> {
    /// The VM.
    pub spec: &'a VmSpec,
    /// Where its initial RAM disk lies.
    pub initrd: Option<IpaRange>,
    /// Entropy for the guest's random number generator (`rng-seed`).
    pub rng_seed: Option<[u8; 32]>,
    /// Entropy for the placement of the guest's kernel (`kaslr-seed`).
    pub kaslr_seed: Option<u64>,
    /// How it calls PSCI: HVC, or SMC at virtual EL2.
    pub psci: Conduit,
}

/// Why a VM's tree cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Name of the VM.
    pub vm: String,
    /// What is wrong with its entry.
    pub flaw: Flaw,
}

/// What is wrong with a VM's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The tree would not fit in the space kept for it.
    TooLarge(usize),
    /// The command line has a NUL inside.
    CommandLine,
    /// A device region has an interrupt that is no SPI.
    Interrupt {
        /// Name of the region.
        region: String,
        /// The INTID that the guest should see.
        intid: u32,
    },
    /// A region's name cannot name a node.
    Name(ModelError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM `{}`: ", self.vm.escape_debug())?;
        match &self.flaw {
            Flaw::TooLarge(size) => write!(f, "its device tree needs {size} of at most {DTB_SIZE} bytes"),
            Flaw::CommandLine => f.write_str("its command line has a NUL inside"),
            Flaw::Interrupt { region, intid } => {
                write!(f, "region `{}`: interrupt {intid} is not an SPI (32 to 1019)", region.escape_debug())
            }
            Flaw::Name(e) => write!(f, "a region's name does not fit its device tree: {e}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<ModelError> for Flaw {
    fn from(error: ModelError) -> Self {
        Self::Name(error)
    }
}

/// The flattened device tree of a VM, at most [`DTB_SIZE`] bytes.
///
/// # Errors
/// The tree does not fit, or the VM's entry has values that a validated manifest excludes.
pub fn write(vm: &GuestTree<'_>) -> Result<Vec<u8>, Error> {
    build(vm).map_err(|flaw| Error { vm: vm.spec.name.clone(), flaw })
}

fn build(vm: &GuestTree<'_>) -> Result<Vec<u8>, Flaw> {
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    root.add_property(property("#address-cells", 2u32));
    root.add_property(property("#size-cells", 2u32));
    root.add_property(property("interrupt-parent", GIC_PHANDLE));
    root.add_property(property("compatible", "linux,dummy-virt"));
    root.add_child(chosen(vm)?);
    root.add_child(psci(vm.psci)?);
    root.add_child(cpus(vm.spec.cpus.len())?);
    root.add_child(timer()?);
    root.add_child(gic(vm.spec.cpus.len())?);
    root.add_child(clock()?);
    root.add_child(uart()?);
    match vm.spec.control {
        Control::None => {}
        Control::All | Control::Vms(_) => root.add_child(control()?),
    }
    add_regions(root, vm.spec)?;
    let dtb = tree.to_dtb();
    if u64::try_from(dtb.len()).is_ok_and(|size| size <= DTB_SIZE) {
        Ok(dtb)
    } else {
        Err(Flaw::TooLarge(dtb.len()))
    }
}

/// Names of properties are constants, so they need no check.
fn property(name: &'static str, value: impl ToPropertyValue) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}

/// A property whose presence says it all.
fn flag(name: &'static str) -> DeviceTreeProperty {
    property(name, [0u8; 0])
}

/// `reg` with two cells for address and size each.
fn reg(range: IpaRange) -> DeviceTreeProperty {
    let pair = (u128::from(range.start().get()) << 64) | u128::from(range.size());
    property("reg", pair.to_be_bytes())
}

/// A specifier of the GIC binding for a level-sensitive PPI.
fn ppi(number: u32) -> [u32; 3] {
    [1, number, 4]
}

/// A specifier of the GIC binding for an SPI; `None` if this is none.
fn spi(intid: u32, edge: bool) -> Option<[u32; 3]> {
    let number = intid.checked_sub(32).filter(|&number| number < 988)?;
    Some([0, number, if edge { 1 } else { 4 }])
}

fn chosen(vm: &GuestTree<'_>) -> Result<DeviceTreeNode, Flaw> {
    if vm.spec.cmdline.contains('\0') {
        return Err(Flaw::CommandLine);
    }
    let mut node = DeviceTreeNode::new("chosen")?;
    node.add_property(property("stdout-path", uart_path().as_str()));
    node.add_property(property("bootargs", vm.spec.cmdline.as_str()));
    if let Some(initrd) = vm.initrd {
        node.add_property(property("linux,initrd-start", initrd.start().get()));
        node.add_property(property("linux,initrd-end", initrd.end().get()));
    }
    if let Some(seed) = vm.rng_seed {
        node.add_property(property("rng-seed", seed));
    }
    if let Some(seed) = vm.kaslr_seed {
        node.add_property(property("kaslr-seed", seed));
    }
    Ok(node)
}

fn psci(conduit: Conduit) -> Result<DeviceTreeNode, ModelError> {
    let method = match conduit {
        Conduit::Smc => "smc",
        Conduit::Hvc => "hvc",
    };
    Ok(DeviceTreeNode::builder("psci")?
        .property(property("compatible", &["arm,psci-1.0", "arm,psci-0.2"][..]))
        .property(property("method", method))
        .build())
}

/// One node for each vCPU; its Aff0 is its index, the other affinity fields are zero.
fn cpus(count: usize) -> Result<DeviceTreeNode, ModelError> {
    let mut node = DeviceTreeNode::builder("cpus")?
        .property(property("#address-cells", 1u32))
        .property(property("#size-cells", 0u32))
        .build();
    for index in (0u32..).take(count) {
        let cpu = DeviceTreeNode::builder(format!("cpu@{index:x}"))?
            .property(property("device_type", "cpu"))
            .property(property("compatible", "arm,armv8"))
            .property(property("reg", index))
            .property(property("enable-method", "psci"));
        node.add_child(cpu.build());
    }
    Ok(node)
}

/// The binding wants four interrupts; those of the secure and the EL2 timer never come.
fn timer() -> Result<DeviceTreeNode, ModelError> {
    const FIRST_PPI: u32 = 16;
    let interrupts =
        [ppi(13), ppi(PTIMER_INTID - FIRST_PPI), ppi(VTIMER_INTID - FIRST_PPI), ppi(10)].concat();
    Ok(DeviceTreeNode::builder("timer")?
        .property(property("compatible", "arm,armv8-timer"))
        .property(flag("always-on"))
        .property(property("interrupts", interrupts))
        .build())
}

fn gic(cpus: usize) -> Result<DeviceTreeNode, ModelError> {
    let redistributors = u64::try_from(cpus).unwrap_or(u64::MAX).saturating_mul(GICR_STRIDE);
    let regions = [GICD.start().get(), GICD.size(), GICR.start().get(), redistributors];
    let reg: Vec<u8> = regions.into_iter().flat_map(u64::to_be_bytes).collect();
    Ok(DeviceTreeNode::builder(unit("intc", GICD))?
        .property(property("compatible", "arm,gic-v3"))
        .property(flag("interrupt-controller"))
        .property(property("#interrupt-cells", 3u32))
        .property(property("#address-cells", 0u32))
        .property(property("reg", reg))
        .property(property("phandle", GIC_PHANDLE))
        .build())
}

fn clock() -> Result<DeviceTreeNode, ModelError> {
    Ok(DeviceTreeNode::builder("clk")?
        .property(property("compatible", "fixed-clock"))
        .property(property("#clock-cells", 0u32))
        .property(property("clock-frequency", UART_CLOCK))
        .property(property("phandle", CLOCK_PHANDLE))
        .build())
}

fn uart() -> Result<DeviceTreeNode, Flaw> {
    Ok(DeviceTreeNode::builder(unit("pl011", UART))?
        .property(property("compatible", &["arm,pl011", "arm,primecell"][..]))
        .property(reg(UART))
        .property(property("interrupts", own_spi(UART_INTID, false)?))
        .property(property("clocks", [CLOCK_PHANDLE, CLOCK_PHANDLE]))
        .property(property("clock-names", &["uartclk", "apb_pclk"][..]))
        .build())
}

fn uart_path() -> String {
    format!("/{}", unit("pl011", UART))
}

fn control() -> Result<DeviceTreeNode, Flaw> {
    Ok(DeviceTreeNode::builder("tagvisor")?
        .property(property("compatible", CONTROL))
        .property(property("interrupts", own_spi(EVENT_INTID, true)?))
        .build())
}

/// The specifier of an SPI that the hypervisor itself raises.
fn own_spi(intid: u32, edge: bool) -> Result<[u32; 3], Flaw> {
    spi(intid, edge).ok_or_else(|| Flaw::Interrupt { region: String::new(), intid })
}

/// `NAME@address`.
fn unit(name: &str, range: IpaRange) -> String {
    format!("{name}@{:x}", range.start())
}

/// What a region is to the guest's kernel.
enum Role<'a> {
    /// Memory of its own, which it may tag if it has MTE.
    Memory,
    /// Memory that it must not take for its own.
    Reserved,
    /// A device that raises these interrupts.
    Device(&'a [DeviceInterrupt]),
}

impl<'a> Role<'a> {
    fn of(region: &'a RegionSpec, mte: bool) -> Self {
        match (&region.kind, region.tags) {
            (RegionKind::Ram, Tags::Backed | Tags::Lazy) => Self::Memory,
            (RegionKind::Ram, Tags::None) if !mte => Self::Memory,
            (RegionKind::Ram, Tags::None) | (RegionKind::ReadOnly | RegionKind::Shared { .. }, _) => {
                Self::Reserved
            }
            (RegionKind::Device { interrupts, .. }, _) => Self::Device(interrupts),
        }
    }
}

fn add_regions(root: &mut DeviceTreeNode, spec: &VmSpec) -> Result<(), Flaw> {
    let mut devices = Vec::new();
    let mut reserved = DeviceTreeNode::builder("reserved-memory")?
        .property(property("#address-cells", 2u32))
        .property(property("#size-cells", 2u32))
        .property(flag("ranges"))
        .build();
    let mut has_reserved = false;
    for region in &spec.regions {
        match Role::of(region, spec.mte) {
            Role::Memory => root.add_child(memory(region)?),
            Role::Reserved => {
                reserved.add_child(reserved_region(region)?);
                has_reserved = true;
            }
            Role::Device(interrupts) => devices.push(device(region, interrupts)?),
        }
    }
    if has_reserved {
        root.add_child(reserved);
    }
    devices.into_iter().for_each(|device| root.add_child(device));
    Ok(())
}

fn memory(region: &RegionSpec) -> Result<DeviceTreeNode, ModelError> {
    Ok(DeviceTreeNode::builder(unit("memory", region.ipa))?
        .property(property("device_type", "memory"))
        .property(reg(region.ipa))
        .build())
}

fn reserved_region(region: &RegionSpec) -> Result<DeviceTreeNode, ModelError> {
    let tags = match region.tags {
        Tags::Backed => "backed",
        Tags::None => "none",
        Tags::Lazy => "lazy",
    };
    Ok(DeviceTreeNode::builder(unit(&region.name, region.ipa))?
        .property(property("compatible", REGION))
        .property(reg(region.ipa))
        .property(flag("no-map"))
        .property(property("region-name", region.name.as_str()))
        .property(property("tags", tags))
        .build())
}

fn device(region: &RegionSpec, interrupts: &[DeviceInterrupt]) -> Result<DeviceTreeNode, Flaw> {
    let mut node = DeviceTreeNode::builder(unit(&region.name, region.ipa))?
        .property(property("compatible", DEVICE))
        .property(reg(region.ipa))
        .build();
    let mut specifiers = Vec::new();
    for interrupt in interrupts {
        let intid = interrupt.guest;
        let flaw = || Flaw::Interrupt { region: region.name.to_string(), intid };
        specifiers.extend(spi(intid, interrupt.edge).ok_or_else(flaw)?);
    }
    if !specifiers.is_empty() {
        node.add_property(property("interrupts", specifiers));
    }
    Ok(node)
}

#[cfg(test)]
mod tests;
