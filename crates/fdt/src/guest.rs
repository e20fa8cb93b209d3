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
    cells(root, "#address-cells", &[2]);
    cells(root, "#size-cells", &[2]);
    cells(root, "interrupt-parent", &[GIC_PHANDLE]);
    texts(root, "compatible", &["linux,dummy-virt"]);
    chosen(root, vm)?;
    psci(root, vm.psci)?;
    cpus(root, vm.spec.cpus.len())?;
    timer(root)?;
    gic(root, vm.spec.cpus.len())?;
    clock(root)?;
    uart(root)?;
    match vm.spec.control {
        Control::None => {}
        Control::All | Control::Vms(_) => control(root)?,
    }
    add_regions(root, vm.spec)?;
    let dtb = tree.to_dtb();
    if u64::try_from(dtb.len()).is_ok_and(|size| size <= DTB_SIZE) {
        Ok(dtb)
    } else {
        Err(Flaw::TooLarge(dtb.len()))
    }
}

/// A new child. Nodes are filled in place because they are large, and by few functions because the
/// code for many properties counts.
#[inline(never)]
fn child<'a>(parent: &'a mut DeviceTreeNode, name: &str) -> Result<&'a mut DeviceTreeNode, ModelError> {
    Ok(parent.add_child_mut(DeviceTreeNode::new(name)?))
}

/// A new child `NAME@address`.
fn device_child<'a>(
    parent: &'a mut DeviceTreeNode,
    name: &str,
    range: IpaRange,
) -> Result<&'a mut DeviceTreeNode, ModelError> {
    child(parent, &unit(name, range))
}

/// Sets a property; empty is one whose presence says it all. Names are constants, so they need no check.
#[inline(never)]
fn bytes(node: &mut DeviceTreeNode, name: &'static str, value: &[u8]) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

/// Sets a property to strings, each of which ends with NUL.
#[inline(never)]
fn texts(node: &mut DeviceTreeNode, name: &'static str, values: &[&str]) {
    let mut value = Vec::new();
    for text in values {
        value.extend_from_slice(text.as_bytes());
        value.push(0);
    }
    bytes(node, name, &value);
}

/// Sets a property to numbers of one cell.
#[inline(never)]
fn cells(node: &mut DeviceTreeNode, name: &'static str, values: &[u32]) {
    let mut value = Vec::new();
    for cell in values {
        value.extend_from_slice(&cell.to_be_bytes());
    }
    bytes(node, name, &value);
}

/// Sets a property to numbers of two cells.
#[inline(never)]
fn numbers(node: &mut DeviceTreeNode, name: &'static str, values: &[u64]) {
    let mut value = Vec::new();
    for number in values {
        value.extend_from_slice(&number.to_be_bytes());
    }
    bytes(node, name, &value);
}

/// Sets `reg`, with two cells for address and size each.
fn reg(node: &mut DeviceTreeNode, range: IpaRange) {
    numbers(node, "reg", &[range.start().get(), range.size()]);
}

/// A specifier of the GIC binding for a level-sensitive PPI.
const fn ppi(number: u32) -> [u32; 3] {
    [1, number, 4]
}

/// A specifier of the GIC binding for an SPI; `None` if this is none.
fn spi(intid: u32, edge: bool) -> Option<[u32; 3]> {
    let number = intid.checked_sub(32).filter(|&number| number < 988)?;
    Some([0, number, if edge { 1 } else { 4 }])
}

fn chosen(root: &mut DeviceTreeNode, vm: &GuestTree<'_>) -> Result<(), Flaw> {
    if vm.spec.cmdline.contains('\0') {
        return Err(Flaw::CommandLine);
    }
    let node = child(root, "chosen")?;
    texts(node, "stdout-path", &[&uart_path()]);
    texts(node, "bootargs", &[&vm.spec.cmdline]);
    if let Some(initrd) = vm.initrd {
        numbers(node, "linux,initrd-start", &[initrd.start().get()]);
        numbers(node, "linux,initrd-end", &[initrd.end().get()]);
    }
    if let Some(seed) = vm.rng_seed {
        bytes(node, "rng-seed", &seed);
    }
    if let Some(seed) = vm.kaslr_seed {
        numbers(node, "kaslr-seed", &[seed]);
    }
    Ok(())
}

fn psci(root: &mut DeviceTreeNode, conduit: Conduit) -> Result<(), ModelError> {
    let method = match conduit {
        Conduit::Smc => "smc",
        Conduit::Hvc => "hvc",
    };
    let node = child(root, "psci")?;
    texts(node, "compatible", &["arm,psci-1.0", "arm,psci-0.2"]);
    texts(node, "method", &[method]);
    Ok(())
}

/// One node for each vCPU; its Aff0 is its index, the other affinity fields are zero.
fn cpus(root: &mut DeviceTreeNode, count: usize) -> Result<(), ModelError> {
    let node = child(root, "cpus")?;
    cells(node, "#address-cells", &[1]);
    cells(node, "#size-cells", &[0]);
    for index in (0u32..).take(count) {
        let cpu = child(node, &format!("cpu@{index:x}"))?;
        texts(cpu, "device_type", &["cpu"]);
        texts(cpu, "compatible", &["arm,armv8"]);
        cells(cpu, "reg", &[index]);
        texts(cpu, "enable-method", &["psci"]);
    }
    Ok(())
}

/// The binding wants four interrupts; those of the secure and the EL2 timer never come.
fn timer(root: &mut DeviceTreeNode) -> Result<(), ModelError> {
    const FIRST_PPI: u32 = 16;
    const INTERRUPTS: [[u32; 3]; 4] =
        [ppi(13), ppi(PTIMER_INTID - FIRST_PPI), ppi(VTIMER_INTID - FIRST_PPI), ppi(10)];
    let node = child(root, "timer")?;
    texts(node, "compatible", &["arm,armv8-timer"]);
    bytes(node, "always-on", &[]);
    cells(node, "interrupts", INTERRUPTS.as_flattened());
    Ok(())
}

fn gic(root: &mut DeviceTreeNode, cpus: usize) -> Result<(), ModelError> {
    let redistributors = u64::try_from(cpus).unwrap_or(u64::MAX).saturating_mul(GICR_STRIDE);
    let node = device_child(root, "intc", GICD)?;
    texts(node, "compatible", &["arm,gic-v3"]);
    bytes(node, "interrupt-controller", &[]);
    cells(node, "#interrupt-cells", &[3]);
    cells(node, "#address-cells", &[0]);
    numbers(node, "reg", &[GICD.start().get(), GICD.size(), GICR.start().get(), redistributors]);
    cells(node, "phandle", &[GIC_PHANDLE]);
    Ok(())
}

fn clock(root: &mut DeviceTreeNode) -> Result<(), ModelError> {
    let node = child(root, "clk")?;
    texts(node, "compatible", &["fixed-clock"]);
    cells(node, "#clock-cells", &[0]);
    cells(node, "clock-frequency", &[UART_CLOCK]);
    cells(node, "phandle", &[CLOCK_PHANDLE]);
    Ok(())
}

fn uart(root: &mut DeviceTreeNode) -> Result<(), Flaw> {
    let node = device_child(root, "pl011", UART)?;
    texts(node, "compatible", &["arm,pl011", "arm,primecell"]);
    reg(node, UART);
    cells(node, "interrupts", &own_spi(UART_INTID, false)?);
    cells(node, "clocks", &[CLOCK_PHANDLE, CLOCK_PHANDLE]);
    texts(node, "clock-names", &["uartclk", "apb_pclk"]);
    Ok(())
}

fn uart_path() -> String {
    format!("/{}", unit("pl011", UART))
}

fn control(root: &mut DeviceTreeNode) -> Result<(), Flaw> {
    let node = child(root, "tagvisor")?;
    texts(node, "compatible", &[CONTROL]);
    cells(node, "interrupts", &own_spi(EVENT_INTID, true)?);
    Ok(())
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
#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// Memory of its own, which it may tag if it has MTE.
    Memory,
    /// Memory that it must not take for its own.
    Reserved,
    /// A device.
    Device,
}

impl Role {
    fn of(region: &RegionSpec, mte: bool) -> Self {
        match (&region.kind, region.tags) {
            (RegionKind::Ram, Tags::Backed | Tags::Lazy) => Self::Memory,
            (RegionKind::Ram, Tags::None) if !mte => Self::Memory,
            (RegionKind::Ram, Tags::None) | (RegionKind::ReadOnly { .. } | RegionKind::Shared { .. }, _) => {
                Self::Reserved
            }
            (RegionKind::Device { .. }, _) => Self::Device,
        }
    }
}

fn add_regions(root: &mut DeviceTreeNode, spec: &VmSpec) -> Result<(), Flaw> {
    let role = |region: &RegionSpec| Role::of(region, spec.mte);
    for region in spec.regions.iter().filter(|region| role(region) == Role::Memory) {
        let node = device_child(root, "memory", region.ipa)?;
        texts(node, "device_type", &["memory"]);
        reg(node, region.ipa);
    }
    let mut reserved = spec.regions.iter().filter(|region| role(region) == Role::Reserved).peekable();
    if reserved.peek().is_some() {
        let parent = child(root, "reserved-memory")?;
        cells(parent, "#address-cells", &[2]);
        cells(parent, "#size-cells", &[2]);
        bytes(parent, "ranges", &[]);
        for region in reserved {
            reserved_region(parent, region)?;
        }
    }
    for region in &spec.regions {
        if let RegionKind::Device { interrupts, .. } = &region.kind {
            device(root, region, interrupts)?;
        }
    }
    Ok(())
}

fn reserved_region(parent: &mut DeviceTreeNode, region: &RegionSpec) -> Result<(), ModelError> {
    let tags = match region.tags {
        Tags::Backed => "backed",
        Tags::None => "none",
        Tags::Lazy => "lazy",
    };
    let node = device_child(parent, &region.name, region.ipa)?;
    texts(node, "compatible", &[REGION]);
    reg(node, region.ipa);
    bytes(node, "no-map", &[]);
    texts(node, "region-name", &[&region.name]);
    texts(node, "tags", &[tags]);
    Ok(())
}

fn device(
    root: &mut DeviceTreeNode,
    region: &RegionSpec,
    interrupts: &[DeviceInterrupt],
) -> Result<(), Flaw> {
    let node = device_child(root, &region.name, region.ipa)?;
    texts(node, "compatible", &[DEVICE]);
    reg(node, region.ipa);
    let mut specifiers = Vec::new();
    for interrupt in interrupts {
        let intid = interrupt.guest;
        let flaw = || Flaw::Interrupt { region: region.name.to_string(), intid };
        specifiers.extend(spi(intid, interrupt.edge).ok_or_else(flaw)?);
    }
    if !specifiers.is_empty() {
        cells(node, "interrupts", &specifiers);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
