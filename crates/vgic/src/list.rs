//! The layout of list registers, and how the hypervisor lends them.

/// The list registers and the control register of one vCPU: the system registers while it is
/// resident, a copy in memory otherwise.
pub trait ListRegisters {
    /// Reads ICH_LR<n>_EL2. `n` is below the configured number of list registers.
    fn read_lr(&mut self, n: usize) -> u64;
    /// Writes ICH_LR<n>_EL2.
    fn write_lr(&mut self, n: usize, value: u64);
    /// Reads ICH_ELRSR_EL2: the list registers that hold neither an interrupt nor a maintenance event.
    fn elrsr(&mut self) -> u32;
    /// Reads ICH_HCR_EL2.
    fn read_hcr(&mut self) -> u64;
    /// Writes ICH_HCR_EL2. Bits outside [`hcr::OWNED`] come unchanged from `read_hcr`.
    fn write_hcr(&mut self, value: u64);
}

/// The bits of ICH_HCR_EL2 that [`Vgic`](crate::Vgic) sets (IHI 0069H 12.4.4); all others are the
/// hypervisor's.
pub mod hcr {
    /// Maintenance interrupt while EOIcount is not 0.
    pub const LRENPIE: u64 = 1 << 2;
    /// Maintenance interrupt while no list register is pending.
    pub const NPIE: u64 = 1 << 3;
    /// Trap of ICC_DIR_EL1. On a machine with ICH_VTR_EL2.TDS = 0 use TC (bit 10) in its place.
    pub const TDIR: u64 = 1 << 14;
    /// Where EOIcount begins.
    pub const EOICOUNT_SHIFT: u32 = 27;
    /// EOIcount: deactivations of interrupts that no list register held.
    pub const EOICOUNT: u64 = 0x1f << EOICOUNT_SHIFT;
    /// All of these.
    pub const OWNED: u64 = LRENPIE | NPIE | TDIR | EOICOUNT;
}

pub(crate) const PENDING: u64 = 1 << 62;
pub(crate) const ACTIVE: u64 = 1 << 63;
const HW: u64 = 1 << 61;
const GROUP1: u64 = 1 << 60;
const PRIORITY_SHIFT: u32 = 48;
const PINTID_SHIFT: u32 = 32;
const EOI: u64 = 1 << 41;

/// What ends an interrupt in a list register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing but the guest's EOI.
    Quiet,
    /// A maintenance interrupt at EOI, because there is more to deliver.
    Maintenance,
    /// The deactivation of this physical interrupt.
    Physical(u16),
}

/// The value of an occupied list register (IHI 0069H 12.4.8, ICH_LR<n>_EL2).
pub(crate) fn encode(intid: u32, priority: u8, group1: bool, state: u64, end: End) -> u64 {
    let end = match end {
        End::Quiet => 0,
        End::Maintenance => EOI,
        End::Physical(pintid) => HW | u64::from(pintid).wrapping_shl(PINTID_SHIFT),
    };
    let group = if group1 { GROUP1 } else { 0 };
    u64::from(intid) | u64::from(priority).wrapping_shl(PRIORITY_SHIFT) | group | state | end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_measured_on_the_machine() {
        assert_eq!(encode(27, 0x50, false, PENDING, End::Quiet), 0x4050_0000_0000_001b);
        assert_eq!(encode(27, 0x50, true, PENDING, End::Physical(27)), 0x7050_001b_0000_001b);
        assert_eq!(encode(33, 0xa0, true, ACTIVE | PENDING, End::Maintenance), 0xd0a0_0200_0000_0021);
    }
}
