//! The guest's device tree, and the addresses in it: those of QEMU's `virt` machine, which the
//! hypervisor's own VMs have, too (`manifest::layout`).

use anyhow::Result;
use vm_fdt::FdtWriter;

/// The distributor: address and size.
pub(crate) const GICD: (u64, u64) = (0x0800_0000, 0x1_0000);
/// The first redistributor: its address, and the size of each.
pub(crate) const GICR: (u64, u64) = (0x080a_0000, 0x2_0000);
/// The PL011.
pub(crate) const UART: (u64, u64) = (0x0900_0000, 0x1000);
/// Number of the PL011's interrupt among the SPIs.
pub(crate) const UART_SPI: u32 = 1;
/// Where RAM begins.
pub(crate) const RAM: u64 = 0x4000_0000;
/// Bytes kept for the tree at the end of RAM.
pub(crate) const SPACE: u64 = 0x1_0000;

const GIC_PHANDLE: u32 = 1;
const CLOCK_PHANDLE: u32 = 2;
const CLOCK_RATE: u32 = 24_000_000;
/// Secure and EL1 physical timers, virtual timer, EL2 timer: PPIs, level-sensitive.
const TIMERS: [u32; 12] = [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4];

/// The tree of a VM with `memory` bytes of RAM. `initrd`: start and end.
pub(crate) fn write(cpus: u32, memory: u64, initrd: Option<(u64, u64)>, bootargs: &str) -> Result<Vec<u8>> {
    let mut tree = FdtWriter::new()?;
    let root = tree.begin_node("")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_u32("interrupt-parent", GIC_PHANDLE)?;
    tree.property_string("compatible", "linux,dummy-virt")?;
    let node = tree.begin_node("chosen")?;
    tree.property_string("stdout-path", "/pl011@9000000")?;
    tree.property_string("bootargs", bootargs)?;
    if let Some((start, end)) = initrd {
        tree.property_u64("linux,initrd-start", start)?;
        tree.property_u64("linux,initrd-end", end)?;
    }
    tree.end_node(node)?;
    let node = tree.begin_node("memory@40000000")?;
    tree.property_string("device_type", "memory")?;
    tree.property_array_u64("reg", &[RAM, memory])?;
    tree.end_node(node)?;
    let node = tree.begin_node("psci")?;
    tree.property_string_list("compatible", vec!["arm,psci-1.0".into(), "arm,psci-0.2".into()])?;
    tree.property_string("method", "hvc")?;
    tree.end_node(node)?;
    add_cpus(&mut tree, cpus)?;
    let node = tree.begin_node("timer")?;
    tree.property_string("compatible", "arm,armv8-timer")?;
    tree.property_null("always-on")?;
    tree.property_array_u32("interrupts", &TIMERS)?;
    tree.end_node(node)?;
    add_gic(&mut tree, cpus)?;
    add_uart(&mut tree)?;
    tree.end_node(root)?;
    Ok(tree.finish()?)
}

fn add_cpus(tree: &mut FdtWriter, cpus: u32) -> Result<()> {
    let node = tree.begin_node("cpus")?;
    tree.property_u32("#address-cells", 1)?;
    tree.property_u32("#size-cells", 0)?;
    for index in 0..cpus {
        let cpu = tree.begin_node(&format!("cpu@{index:x}"))?;
        tree.property_string("device_type", "cpu")?;
        tree.property_string("compatible", "arm,armv8")?;
        tree.property_u32("reg", index)?;
        tree.property_string("enable-method", "psci")?;
        tree.end_node(cpu)?;
    }
    tree.end_node(node)?;
    Ok(())
}

fn add_gic(tree: &mut FdtWriter, cpus: u32) -> Result<()> {
    let node = tree.begin_node("intc@8000000")?;
    tree.property_string("compatible", "arm,gic-v3")?;
    tree.property_null("interrupt-controller")?;
    tree.property_u32("#interrupt-cells", 3)?;
    tree.property_u32("#address-cells", 0)?;
    tree.property_array_u64("reg", &[GICD.0, GICD.1, GICR.0, GICR.1 * u64::from(cpus)])?;
    tree.property_phandle(GIC_PHANDLE)?;
    tree.end_node(node)?;
    Ok(())
}

fn add_uart(tree: &mut FdtWriter) -> Result<()> {
    let node = tree.begin_node("clk")?;
    tree.property_string("compatible", "fixed-clock")?;
    tree.property_u32("#clock-cells", 0)?;
    tree.property_u32("clock-frequency", CLOCK_RATE)?;
    tree.property_phandle(CLOCK_PHANDLE)?;
    tree.end_node(node)?;
    let node = tree.begin_node("pl011@9000000")?;
    tree.property_string_list("compatible", vec!["arm,pl011".into(), "arm,primecell".into()])?;
    tree.property_array_u64("reg", &[UART.0, UART.1])?;
    tree.property_array_u32("interrupts", &[0, UART_SPI, 4])?;
    tree.property_array_u32("clocks", &[CLOCK_PHANDLE, CLOCK_PHANDLE])?;
    tree.property_string_list("clock-names", vec!["uartclk".into(), "apb_pclk".into()])?;
    tree.end_node(node)?;
    Ok(())
}
