//! Where a VM's emulated devices are: the addresses of QEMU's `virt` machine, because guests built
//! for it hard-code some of them.

use addr::{Ipa, IpaRange};

const fn range(start: u64, size: u64) -> IpaRange {
    match IpaRange::new(Ipa::new(start), size) {
        Some(r) => r,
        None => panic!("the layout wraps"),
    }
}

/// vGICv3 distributor.
pub const GICD: IpaRange = range(0x0800_0000, 0x1_0000);
/// vGICv3 redistributors: [`GICR_STRIDE`] bytes for each vCPU, at most [`MAX_VCPUS`](crate::MAX_VCPUS).
pub const GICR: IpaRange = range(0x080a_0000, GICR_STRIDE * crate::MAX_VCPUS as u64);
/// Size of one redistributor (RD and SGI frames).
pub const GICR_STRIDE: u64 = 0x2_0000;
/// vPL011.
pub const UART: IpaRange = range(0x0900_0000, 0x1000);
/// INTID of the vPL011's interrupt (SPI 1).
pub const UART_INTID: u32 = 33;
/// INTID of the interrupt that announces an event to a control VM (SPI 2).
pub const EVENT_INTID: u32 = 34;
/// Number of SPIs that the vGIC has: INTIDs 32 to 287.
pub const SPIS: u32 = 256;
/// INTID of the EL1 virtual timer (PPI 11).
pub const VTIMER_INTID: u32 = 27;
/// INTID of the EL1 physical timer (PPI 14).
pub const PTIMER_INTID: u32 = 30;
/// INTID of the EL2 physical timer (PPI 10) of a VM with virtual EL2.
pub const HYP_PTIMER_INTID: u32 = 26;
/// INTID of the EL2 virtual timer (PPI 12) of a VM with virtual EL2.
pub const HYP_VTIMER_INTID: u32 = 28;
/// INTID of the GIC maintenance interrupt (PPI 9) of a VM with virtual EL2.
pub const MAINTENANCE_INTID: u32 = 25;
/// Where RAM starts unless the manifest says otherwise.
pub const RAM_BASE: u64 = 0x4000_0000;
/// Space kept for the generated device tree, in bytes.
pub const DTB_SIZE: u64 = 0x1_0000;
/// The regions that the hypervisor emulates in every VM.
pub const EMULATED: [(&str, IpaRange); 3] =
    [("the GIC distributor", GICD), ("the GIC redistributors", GICR), ("the UART", UART)];
