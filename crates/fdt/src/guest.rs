//! The device tree that a VM boots with.
//!
//! It describes what the hypervisor emulates at the addresses of [`manifest::layout`], and the
//! VM's regions: RAM that may hold tags as `memory` nodes, because Linux takes all of these for
//! taggable; all other memory as `reserved-memory` children, which it leaves alone; devices as
//! nodes of their own.

use crate::flat::Writer;
use crate::machine::Conduit;
use addr::IpaRange;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use manifest::layout::{
    DTB_SIZE, EVENT_INTID, GICD, GICR, GICR_STRIDE, HYP_PTIMER_INTID, HYP_VTIMER_INTID, MAINTENANCE_INTID,
    PTIMER_INTID, UART, UART_INTID, VTIMER_INTID,
};
use manifest::{Control, DeviceInterrupt, Named, RegionKind, RegionSpec, Tags, VmSpec, is_name};

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
/// The node of the UART, at the address of [`UART`].
const UART_PATH: &str = "/pl011@9000000";
const _: () = assert!(UART.start().get() == 0x900_0000);

/// INTID of the first SPI.
const FIRST_SPI: u32 = 32;

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

/// A VM's flattened device tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The tree, at most [`DTB_SIZE`] bytes.
    pub dtb: Vec<u8>,
    /// Which bytes of it are entropy, new at each start of the VM.
    pub seeds: Vec<Range<usize>>,
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
    /// This name of a region cannot name a node.
    Name(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM `{}`: ", self.vm)?;
        match &self.flaw {
            Flaw::TooLarge(size) => write!(f, "its device tree needs {size} of at most {DTB_SIZE} bytes"),
            Flaw::CommandLine => f.write_str("its command line has a NUL inside"),
            Flaw::Interrupt { region, intid } => {
                write!(f, "region `{region}`: interrupt {intid} is not an SPI (32 to 1019)")
            }
            Flaw::Name(name) => write!(f, "a region's name does not fit its device tree: '{name}'"),
        }
    }
}

impl core::error::Error for Error {}

/// The flattened device tree of a VM.
///
/// # Errors
/// The tree does not fit, or the VM's entry has values that a validated manifest excludes.
pub fn write(vm: &GuestTree<'_>) -> Result<Written, Error> {
    build(vm).map_err(|flaw| Error { vm: vm.spec.name.clone(), flaw })
}

fn build(vm: &GuestTree<'_>) -> Result<Written, Flaw> {
    let mut writer = Writer::new();
    let tree = &mut writer;
    tree.begin("", None);
    tree.cells("#address-cells", &[2]);
    tree.cells("#size-cells", &[2]);
    tree.cells("interrupt-parent", &[GIC_PHANDLE]);
    tree.text("compatible", "linux,dummy-virt");
    let seeds = chosen(tree, vm)?;
    psci(tree, vm.psci);
    cpus(tree, vm.spec.cpus.len());
    timer(tree, vm.spec.nested.is_some());
    gic(tree, vm.spec);
    clock(tree);
    uart(tree);
    match vm.spec.control {
        Control::None => {}
        Control::All | Control::Vms(_) => control(tree),
    }
    add_regions(tree, vm.spec)?;
    tree.end();
    let dtb = writer.finish();
    if u64::try_from(dtb.len()).is_ok_and(|size| size <= DTB_SIZE) {
        Ok(Written { dtb, seeds })
    } else {
        Err(Flaw::TooLarge(dtb.len()))
    }
}

/// Begins a node `NAME@address`.
fn begin_device(tree: &mut Writer, name: &str, range: IpaRange) {
    tree.begin(name, Some(range.start().get()));
}

/// Sets `reg`, with two cells for address and size each.
fn reg(tree: &mut Writer, range: IpaRange) {
    tree.numbers("reg", &[range.start().get(), range.size()]);
}

/// A specifier of the GIC binding for a level-sensitive PPI.
const fn ppi(intid: u32) -> [u32; 3] {
    [1, intid - 16, 4]
}

/// A specifier of the GIC binding for the SPI of this number, which is its INTID less 32.
const fn spi(number: u32, edge: bool) -> [u32; 3] {
    [0, number, if edge { 1 } else { 4 }]
}

/// Says where the entropy is.
fn chosen(tree: &mut Writer, vm: &GuestTree<'_>) -> Result<Vec<Range<usize>>, Flaw> {
    if vm.spec.cmdline.contains('\0') {
        return Err(Flaw::CommandLine);
    }
    tree.begin("chosen", None);
    tree.text("stdout-path", UART_PATH);
    tree.text("bootargs", &vm.spec.cmdline);
    if let Some(initrd) = vm.initrd {
        tree.numbers("linux,initrd-start", &[initrd.start().get()]);
        tree.numbers("linux,initrd-end", &[initrd.end().get()]);
    }
    let mut seeds = Vec::with_capacity(2);
    seeds.extend(vm.rng_seed.map(|seed| tree.place("rng-seed", seed)));
    seeds.extend(vm.kaslr_seed.map(|seed| tree.place("kaslr-seed", seed.to_be_bytes())));
    tree.end();
    Ok(seeds)
}

fn psci(tree: &mut Writer, conduit: Conduit) {
    let method = match conduit {
        Conduit::Smc => "smc",
        Conduit::Hvc => "hvc",
    };
    tree.begin("psci", None);
    tree.text("compatible", "arm,psci-1.0\0arm,psci-0.2");
    tree.text("method", method);
    tree.end();
}

/// One node for each vCPU; its Aff0 is its index, the other affinity fields are zero.
fn cpus(tree: &mut Writer, count: usize) {
    tree.begin("cpus", None);
    tree.cells("#address-cells", &[1]);
    tree.cells("#size-cells", &[0]);
    for index in (0u32..).take(count) {
        tree.begin("cpu", Some(index.into()));
        tree.text("device_type", "cpu");
        tree.text("compatible", "arm,armv8");
        tree.cells("reg", &[index]);
        tree.text("enable-method", "psci");
        tree.end();
    }
    tree.end();
}

/// The binding wants four interrupts; those of the secure and, without a virtual EL2, the EL2 timer
/// never come. The fifth is that of the virtual EL2 timer.
fn timer(tree: &mut Writer, el2: bool) {
    const INTERRUPTS: [[u32; 3]; 5] =
        [ppi(29), ppi(PTIMER_INTID), ppi(VTIMER_INTID), ppi(HYP_PTIMER_INTID), ppi(HYP_VTIMER_INTID)];
    let [a, b, c, d, _] = INTERRUPTS;
    tree.begin("timer", None);
    tree.text("compatible", "arm,armv8-timer");
    tree.bytes("always-on", &[]);
    let four = [a, b, c, d];
    tree.cells("interrupts", if el2 { INTERRUPTS.as_flattened() } else { four.as_flattened() });
    tree.end();
}

fn gic(tree: &mut Writer, spec: &VmSpec) {
    let redistributors = u64::try_from(spec.cpus.len()).unwrap_or(u64::MAX).saturating_mul(GICR_STRIDE);
    begin_device(tree, "intc", GICD);
    tree.text("compatible", "arm,gic-v3");
    tree.bytes("interrupt-controller", &[]);
    tree.cells("#interrupt-cells", &[3]);
    tree.cells("#address-cells", &[0]);
    tree.numbers("reg", &[GICD.start().get(), GICD.size(), GICR.start().get(), redistributors]);
    if spec.nested.is_some() {
        tree.cells("interrupts", &const { ppi(MAINTENANCE_INTID) });
    }
    tree.cells("phandle", &[GIC_PHANDLE]);
    tree.end();
}

fn clock(tree: &mut Writer) {
    tree.begin("clk", None);
    tree.text("compatible", "fixed-clock");
    tree.cells("#clock-cells", &[0]);
    tree.cells("clock-frequency", &[UART_CLOCK]);
    tree.cells("phandle", &[CLOCK_PHANDLE]);
    tree.end();
}

fn uart(tree: &mut Writer) {
    begin_device(tree, "pl011", UART);
    tree.text("compatible", "arm,pl011\0arm,primecell");
    reg(tree, UART);
    tree.cells("interrupts", &const { spi(UART_INTID - FIRST_SPI, false) });
    tree.cells("clocks", &[CLOCK_PHANDLE, CLOCK_PHANDLE]);
    tree.text("clock-names", "uartclk\0apb_pclk");
    tree.end();
}

fn control(tree: &mut Writer) {
    tree.begin("tagvisor", None);
    tree.text("compatible", CONTROL);
    tree.cells("interrupts", &const { spi(EVENT_INTID - FIRST_SPI, true) });
    tree.end();
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

fn add_regions(tree: &mut Writer, spec: &VmSpec) -> Result<(), Flaw> {
    let of_role = |role| spec.regions.iter().filter(move |region| Role::of(region, spec.mte) == role);
    for region in of_role(Role::Memory) {
        begin_device(tree, "memory", region.ipa);
        tree.text("device_type", "memory");
        reg(tree, region.ipa);
        tree.end();
    }
    let mut reserved = of_role(Role::Reserved).peekable();
    if reserved.peek().is_some() {
        tree.begin("reserved-memory", None);
        tree.cells("#address-cells", &[2]);
        tree.cells("#size-cells", &[2]);
        tree.bytes("ranges", &[]);
        for region in reserved {
            reserved_region(tree, region)?;
        }
        tree.end();
    }
    for region in &spec.regions {
        if let RegionKind::Device { interrupts, .. } = &region.kind {
            device(tree, region, interrupts)?;
        }
    }
    Ok(())
}

/// Begins the node of a region, which bears its name.
fn begin_region(tree: &mut Writer, region: &RegionSpec, compatible: &str) -> Result<(), Flaw> {
    if !is_name(&region.name) {
        return Err(Flaw::Name(region.name.clone()));
    }
    begin_device(tree, &region.name, region.ipa);
    tree.text("compatible", compatible);
    reg(tree, region.ipa);
    Ok(())
}

fn reserved_region(tree: &mut Writer, region: &RegionSpec) -> Result<(), Flaw> {
    begin_region(tree, region, REGION)?;
    tree.bytes("no-map", &[]);
    tree.text("region-name", &region.name);
    tree.text("tags", region.tags.name());
    tree.end();
    Ok(())
}

fn device(tree: &mut Writer, region: &RegionSpec, interrupts: &[DeviceInterrupt]) -> Result<(), Flaw> {
    begin_region(tree, region, DEVICE)?;
    let mut specifiers = Vec::new();
    for interrupt in interrupts {
        let intid = interrupt.guest;
        let number = intid.checked_sub(FIRST_SPI).filter(|&number| number < 988);
        let number = number.ok_or_else(|| Flaw::Interrupt { region: region.name.clone(), intid })?;
        specifiers.extend_from_slice(&spi(number, interrupt.edge));
    }
    if !specifiers.is_empty() {
        tree.cells("interrupts", &specifiers);
    }
    tree.end();
    Ok(())
}

#[cfg(test)]
mod tests;
