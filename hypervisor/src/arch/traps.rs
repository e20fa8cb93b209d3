//! What traps from a guest: whole values, worked out by `idreg`, written when a vCPU becomes resident.

use super::sysreg::{instruction, mrs, msr};
use idreg::{FgtLevel, HostIds, TrapConfig};

/// Before the first vCPU: physical interrupts and SErrors are EL2's, so that WFI here wakes for them, and
/// what a boot loader left in registers that no VM reaches does not haunt VMs.
pub(crate) fn before_first_vcpu(host: &HostIds) {
    use idreg::closing::hcr::{AMO, FMO, IMO, RW};
    msr!("hcr_el2", RW | AMO | FMO | IMO);
    // No step, breakpoint or watchpoint exceptions: MDSCR_EL1 of VMs is emulated, the OS lock stays locked.
    msr!("mdscr_el1", 0);
    msr!("oslar_el1", 1);
    if host.has_mpam() {
        // MPAM1_EL1, MPAM0_EL1: EL1 and EL0 run in the default partition.
        msr!("S3_0_C10_C5_0", 0);
        msr!("S3_0_C10_C5_1", 0);
        // MPAMIDR_EL1.HAS_HCR: MPAMHCR_EL2 is there. No virtual partitions; TRAP_MPAMIDR_EL1.
        if mrs!("S3_0_C10_C4_4") >> 17 & 1 != 0 {
            msr!("S3_4_C10_C4_0", 1 << 31);
        }
    }
    instruction!("isb");
}

/// Writes the trap controls and the identity of a vCPU. `extra_hcr`: HCR_EL2 bits that change while a
/// VM runs (VSE, TWE).
///
/// # Safety
/// The vCPU must be entered next, and `traps` must have been made for this machine.
pub(crate) unsafe fn load(traps: &TrapConfig, midr: u64, vmpidr: u64, extra_hcr: u64) {
    msr!("hcr_el2", traps.hcr | extra_hcr);
    if let Some(hcrx) = traps.hcrx {
        // HCRX_EL2.
        msr!("S3_4_C1_C2_2", hcrx);
    }
    msr!("mdcr_el2", traps.mdcr);
    msr!("cnthctl_el2", traps.cnthctl);
    msr!("vpidr_el2", midr);
    msr!("vmpidr_el2", vmpidr);
    // HSTR_EL2 traps AArch32 only.
    msr!("hstr_el2", 0);
    if traps.fgt >= FgtLevel::Fgt {
        // HFGRTR_EL2, HFGWTR_EL2, HFGITR_EL2, HDFGRTR_EL2, HDFGWTR_EL2.
        msr!("S3_4_C1_C1_4", traps.hfgrtr);
        msr!("S3_4_C1_C1_5", traps.hfgwtr);
        msr!("S3_4_C1_C1_6", traps.hfgitr);
        msr!("S3_4_C3_C1_4", traps.hdfgrtr);
        msr!("S3_4_C3_C1_5", traps.hdfgwtr);
    }
    if traps.fgt >= FgtLevel::Fgt2 {
        // HFGRTR2_EL2, HFGWTR2_EL2, HFGITR2_EL2, HDFGRTR2_EL2, HDFGWTR2_EL2: all closed.
        msr!("S3_4_C3_C1_2", 0);
        msr!("S3_4_C3_C1_3", 0);
        msr!("S3_4_C3_C1_7", 0);
        msr!("S3_4_C3_C1_0", 0);
        msr!("S3_4_C3_C1_1", 0);
    }
    if let Some(hafgrtr) = traps.hafgrtr {
        msr!("S3_4_C3_C1_6", hafgrtr);
    }
    if let Some(mpam2) = traps.mpam2 {
        msr!("S3_4_C10_C5_0", mpam2);
    }
    instruction!("isb");
}

/// Whether a virtual SError is still pending (HCR_EL2.VSE): the hardware clears it when it is taken.
pub(crate) fn pending_virtual_serror() -> u64 {
    mrs!("hcr_el2") & idreg::closing::hcr::VSE
}

/// Lets WFE trap, so that a vCPU that polls gives way, or not.
pub(crate) fn set_wfe_traps(traps: bool) {
    use idreg::closing::hcr::TWE;
    let hcr = mrs!("hcr_el2");
    let wanted = if traps { hcr | TWE } else { hcr & !TWE };
    if wanted != hcr {
        msr!("hcr_el2", wanted);
    }
}
