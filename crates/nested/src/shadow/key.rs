//! What a shadow stands for.

use crate::stage2::{Offered, Registers, granule};

/// A stage 2 of L1's: what L1 wrote into its registers when a vCPU entered L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub(super) registers: Registers,
    pub(super) vmid: u16,
    pub(super) on: bool,
    /// Width of the offset in a page.
    pub(super) granule: u8,
}

/// VTCR_EL2.VS: VMIDs have 16 bits.
pub(super) const VS: u64 = 1 << 19;
/// What of VTCR_EL2 changes a translation: T0SZ, SL0, TG0, PS, VS, HA, HD.
const MEANING: u64 = 0x3f | 0b11 << 6 | 0b11 << 14 | 0b111 << 16 | VS | 0b11 << 21;

impl Key {
    /// For L1's registers; `on`: HCR_EL2.VM or DC, else L2's physical addresses are L1's, and only the
    /// VMID matters. `vmid16`: the VM's ID registers offer VMIDs of 16 bits.
    #[must_use]
    pub const fn new(registers: Registers, on: bool, offered: &Offered, vmid16: bool) -> Self {
        let vmid = guest_vmid(registers.vttbr, registers.vtcr, vmid16);
        let granule = if on { granule(registers.vtcr, offered) } else { 0 };
        let Registers { vttbr, vtcr, big_endian, fwb } = registers;
        let registers = if on {
            // Bit 0 is CnP.
            Registers { vttbr: vttbr & 0x0000_ffff_ffff_fffe, vtcr: vtcr & MEANING, big_endian, fwb }
        } else {
            Registers { vttbr: 0, vtcr: 0, big_endian: false, fwb: false }
        };
        Self { registers, vmid, on, granule }
    }

    /// L1's registers for a walk.
    #[must_use]
    pub const fn registers(&self) -> &Registers {
        &self.registers
    }

    /// L1's VMID.
    #[must_use]
    pub const fn vmid(&self) -> u16 {
        self.vmid
    }

    /// Whether L1's stage 2 is on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.on
    }
}

/// The VMID in a VTTBR_EL2 of L1's.
#[must_use]
pub const fn guest_vmid(vttbr: u64, vtcr: u64, vmid16: bool) -> u16 {
    let vmid = (vttbr >> 48) as u16;
    if vmid16 && vtcr & VS != 0 { vmid } else { vmid & 0xff }
}
