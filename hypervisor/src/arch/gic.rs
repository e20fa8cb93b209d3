//! GICv3 system registers: the physical CPU interface as EL2 uses it, and the virtual one (ICH_*).

use super::sysreg::{instruction, mrs, msr};

/// INTIDs from here on mean "nothing to acknowledge" (IHI 0069, special INTIDs).
const SPECIAL: u32 = 1020;
/// ICC_CTLR_EL1.EOImode: EOIR drops the priority, DIR deactivates.
const EOI_MODE: u64 = 1 << 1;
/// ICC_SRE_EL2 and ICC_SRE_EL1: system registers on, no legacy bypass. ICC_SRE_EL2.Enable is 0: EL1's
/// register traps, where it can be changed at all.
const SRE: u64 = idreg::ICC_SRE;

/// Turns the physical CPU interface on, all priorities open, nothing in service, EOI split from deactivation;
/// empties the virtual one.
pub(crate) fn init_cpu_interface() {
    msr!("S3_4_C12_C9_5", SRE);
    instruction!("isb");
    msr!("S3_0_C12_C12_5", SRE);
    clear_active_priorities();
    clear_virtual_interface();
    msr!("S3_0_C4_C6_0", 0xff);
    msr!("S3_0_C12_C12_4", EOI_MODE);
    msr!("S3_0_C12_C12_3", 0);
    msr!("S3_0_C12_C12_7", 1);
    instruction!("isb");
}

/// ICC_AP0R<n>_EL1 and ICC_AP1R<n>_EL1: a running priority that firmware left would hold back all that is not
/// more urgent.
fn clear_active_priorities() {
    // ICC_CTLR_EL1.PRIbits.
    let priority_bits = (mrs!("S3_0_C12_C12_4") >> 8 & 7) + 1;
    // Where EL3 has SCR_EL3.FIQ set, group 0 is its own and the registers trap to it. Then EL2 sees priorities
    // shifted, and the least bit of ICC_PMR_EL1 is lost (IHI 0069H 4.8.1).
    let least = 1_u64 << (8 - priority_bits);
    msr!("S3_0_C4_C6_0", least);
    let group0 = mrs!("S3_0_C4_C6_0") & least != 0;
    if priority_bits >= 7 {
        if group0 {
            msr!("S3_0_C12_C8_7", 0);
            msr!("S3_0_C12_C8_6", 0);
        }
        msr!("S3_0_C12_C9_3", 0);
        msr!("S3_0_C12_C9_2", 0);
    }
    if priority_bits >= 6 {
        if group0 {
            msr!("S3_0_C12_C8_5", 0);
        }
        msr!("S3_0_C12_C9_1", 0);
    }
    if group0 {
        msr!("S3_0_C12_C8_4", 0);
    }
    msr!("S3_0_C12_C9_0", 0);
}

/// Warm reset leaves ICH_* UNKNOWN (IHI 0069H 12.4), and a boot loader may have used them. The vGIC writes only
/// list registers that it uses.
fn clear_virtual_interface() {
    let interface = virtual_interface();
    // SAFETY: no vCPU is resident; this is the state without any.
    unsafe { VirtualCpuInterface::default().load(interface.active_priority_registers) };
    for n in 0..usize::from(interface.list_registers) {
        HardwareListRegisters::write(n, 0);
    }
}

/// Takes the most urgent pending interrupt (ICC_IAR1_EL1).
#[inline(always)]
pub(crate) fn acknowledge() -> Option<u32> {
    let intid = mrs!("S3_0_C12_C12_0") as u32 & 0xff_ffff;
    // What the sender of an SGI wrote before is read after it was acknowledged (IHI 0069 12.1.6).
    instruction!("dsb sy");
    (intid < SPECIAL).then_some(intid)
}

/// Waits until writes to GIC registers, in memory and in the system, have taken effect.
#[inline(always)]
pub(crate) fn complete() {
    instruction!("dsb sy");
    instruction!("isb");
}

/// Drops the running priority (ICC_EOIR1_EL1); the interrupt stays active.
#[inline(always)]
pub(crate) fn drop_priority(intid: u32) {
    msr!("S3_0_C12_C12_1", u64::from(intid));
}

/// Deactivates an interrupt (ICC_DIR_EL1).
#[inline(always)]
pub(crate) fn deactivate(intid: u32) {
    msr!("S3_0_C12_C11_1", u64::from(intid));
}

/// Sends SGI `intid` to the CPU with this affinity (ICC_SGI1R_EL1).
#[inline(always)]
pub(crate) fn send_sgi(intid: u32, affinity: u64) {
    let aff0 = affinity & 0xff;
    let list = 1u64.wrapping_shl((aff0 & 0xf) as u32);
    let value = (affinity >> 32 & 0xff) << 48
        | (aff0 >> 4) << 44
        | (affinity >> 16 & 0xff) << 32
        | u64::from(intid & 0xf) << 24
        | (affinity >> 8 & 0xff) << 16
        | list;
    // What the other CPU is to see was written before.
    instruction!("dsb ishst");
    msr!("S3_0_C12_C11_5", value);
    instruction!("isb");
}

/// What the virtual CPU interface has (ICH_VTR_EL2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct VirtualInterface {
    /// Number of list registers, 1 to 16.
    pub(crate) list_registers: u8,
    /// Number of ICH_APxRn registers, 1, 2 or 4.
    pub(crate) active_priority_registers: u8,
}

/// Reads it.
pub(crate) fn virtual_interface() -> VirtualInterface {
    let vtr = mrs!("S3_4_C12_C11_1");
    let preemption_bits = (vtr >> 26 & 7) as u8 + 1;
    VirtualInterface {
        list_registers: (vtr & 0x1f) as u8 + 1,
        active_priority_registers: match preemption_bits {
            7 => 4,
            6 => 2,
            _ => 1,
        },
    }
}

/// Per-vCPU registers of the virtual CPU interface besides the list registers.
#[derive(Debug, Default)]
pub(crate) struct VirtualCpuInterface {
    hcr: u64,
    vmcr: u64,
    ap0r: [u64; 4],
    ap1r: [u64; 4],
}

impl VirtualCpuInterface {
    /// ICH_VMCR_EL2, and the active priorities of both groups.
    pub(crate) fn masks(&self) -> (u64, [&[u64; 4]; 2]) {
        (self.vmcr, [&self.ap0r, &self.ap1r])
    }
}

/// ICH_HCR_EL2.En: the virtual CPU interface delivers.
pub(crate) const ICH_HCR_EN: u64 = 1;

impl VirtualCpuInterface {
    /// At reset: enabled, nothing active, VMCR as a CPU interface resets.
    pub(crate) fn at_reset() -> Self {
        Self { hcr: ICH_HCR_EN, ..Self::default() }
    }

    /// Reads the registers and turns the interface off. List registers are the vGIC's to unload.
    pub(crate) fn save(&mut self, active_priority_registers: u8) {
        self.hcr = mrs!("S3_4_C12_C11_0");
        self.vmcr = mrs!("S3_4_C12_C11_7");
        let Self { ap0r: [a0, a1, a2, a3], ap1r: [b0, b1, b2, b3], .. } = self;
        *a0 = mrs!("S3_4_C12_C8_0");
        *b0 = mrs!("S3_4_C12_C9_0");
        if active_priority_registers > 1 {
            *a1 = mrs!("S3_4_C12_C8_1");
            *b1 = mrs!("S3_4_C12_C9_1");
        }
        if active_priority_registers > 2 {
            *a2 = mrs!("S3_4_C12_C8_2");
            *b2 = mrs!("S3_4_C12_C9_2");
            *a3 = mrs!("S3_4_C12_C8_3");
            *b3 = mrs!("S3_4_C12_C9_3");
        }
        msr!("S3_4_C12_C11_0", 0);
        instruction!("isb");
    }

    /// Writes the registers.
    ///
    /// # Safety
    /// The vCPU must be the one that is entered next.
    pub(crate) unsafe fn load(&self, active_priority_registers: u8) {
        let Self { ap0r: [a0, a1, a2, a3], ap1r: [b0, b1, b2, b3], .. } = self;
        msr!("S3_4_C12_C8_0", *a0);
        msr!("S3_4_C12_C9_0", *b0);
        if active_priority_registers > 1 {
            msr!("S3_4_C12_C8_1", *a1);
            msr!("S3_4_C12_C9_1", *b1);
        }
        if active_priority_registers > 2 {
            msr!("S3_4_C12_C8_2", *a2);
            msr!("S3_4_C12_C9_2", *b2);
            msr!("S3_4_C12_C8_3", *a3);
            msr!("S3_4_C12_C9_3", *b3);
        }
        msr!("S3_4_C12_C11_7", self.vmcr);
        msr!("S3_4_C12_C11_0", self.hcr);
    }
}

/// The list registers of this CPU.
#[derive(Debug)]
pub(crate) struct HardwareListRegisters;

macro_rules! list_registers {
    ($($n:literal $reg:literal;)*) => {
        impl HardwareListRegisters {
            /// ICH_LR`n`_EL2; 0 for a register that no GIC has.
            #[inline]
            pub(super) fn read(n: usize) -> u64 {
                match n {
                    $( $n => mrs!($reg), )*
                    _ => 0,
                }
            }

            /// Writes ICH_LR`n`_EL2.
            #[inline]
            pub(super) fn write(n: usize, value: u64) {
                match n {
                    $( $n => msr!($reg, value), )*
                    _ => {}
                }
            }
        }
    };
}

list_registers! {
    0 "S3_4_C12_C12_0";
    1 "S3_4_C12_C12_1";
    2 "S3_4_C12_C12_2";
    3 "S3_4_C12_C12_3";
    4 "S3_4_C12_C12_4";
    5 "S3_4_C12_C12_5";
    6 "S3_4_C12_C12_6";
    7 "S3_4_C12_C12_7";
    8 "S3_4_C12_C13_0";
    9 "S3_4_C12_C13_1";
    10 "S3_4_C12_C13_2";
    11 "S3_4_C12_C13_3";
    12 "S3_4_C12_C13_4";
    13 "S3_4_C12_C13_5";
    14 "S3_4_C12_C13_6";
    15 "S3_4_C12_C13_7";
}

impl vgic::ListRegisters for HardwareListRegisters {
    #[inline]
    fn read_lr(&mut self, n: usize) -> u64 {
        Self::read(n)
    }

    #[inline]
    fn write_lr(&mut self, n: usize, value: u64) {
        Self::write(n, value);
    }

    #[inline]
    fn elrsr(&mut self) -> u32 {
        mrs!("S3_4_C12_C11_5") as u32
    }

    #[inline]
    fn read_hcr(&mut self) -> u64 {
        mrs!("S3_4_C12_C11_0")
    }

    #[inline]
    fn write_hcr(&mut self, value: u64) {
        msr!("S3_4_C12_C11_0", value);
    }
}
