//! The EL2 control registers that close what a VM does not have.
//!
//! Whole values: RES1 bits are set here and nothing is read first, since reset values are UNKNOWN
//! (QEMU resets them to 0, RES1 bits included). A bit of an absent feature is RES0 and stays 0.

use crate::field::Reg;
use crate::guest::GuestIds;
use crate::host::HostIds;

/// HCR_EL2 (Arm, HCR_EL2).
pub mod hcr {
    /// Stage 2 on.
    pub const VM: u64 = 1 << 0;
    /// Set/way invalidation also cleans.
    pub const SWIO: u64 = 1 << 1;
    /// Physical FIQs to EL2.
    pub const FMO: u64 = 1 << 3;
    /// Physical IRQs to EL2.
    pub const IMO: u64 = 1 << 4;
    /// Physical SErrors to EL2.
    pub const AMO: u64 = 1 << 5;
    /// Virtual SError pending.
    pub const VSE: u64 = 1 << 8;
    /// Broadcast of local TLB and instruction cache maintenance.
    pub const FB: u64 = 1 << 9;
    /// Traps WFI.
    pub const TWI: u64 = 1 << 13;
    /// Traps WFE.
    pub const TWE: u64 = 1 << 14;
    /// Traps REVIDR_EL1, AIDR_EL1, SMIDR_EL1.
    pub const TID1: u64 = 1 << 16;
    /// Traps CTR_EL0 and what TID4 does.
    pub const TID2: u64 = 1 << 17;
    /// Traps the feature ID registers.
    pub const TID3: u64 = 1 << 18;
    /// Traps SMC.
    pub const TSC: u64 = 1 << 19;
    /// Traps implementation-defined registers.
    pub const TIDCP: u64 = 1 << 20;
    /// Traps ACTLR_EL1.
    pub const TACR: u64 = 1 << 21;
    /// Traps set/way maintenance.
    pub const TSW: u64 = 1 << 22;
    /// Traps cache maintenance to the point of coherency or persistence.
    pub const TPCP: u64 = 1 << 23;
    /// Traps DC ZVA and its tag forms.
    pub const TDZ: u64 = 1 << 28;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// Traps LORegion registers.
    pub const TLOR: u64 = 1 << 35;
    /// Traps RAS error records.
    pub const TERR: u64 = 1 << 36;
    /// Does not trap pointer authentication keys.
    pub const APK: u64 = 1 << 40;
    /// Does not trap pointer authentication instructions.
    pub const API: u64 = 1 << 41;
    /// Stage 2 forces attributes.
    pub const FWB: u64 = 1 << 46;
    /// Traps CCSIDR_EL1, CLIDR_EL1, CSSELR_EL1.
    pub const TID4: u64 = 1 << 49;
    /// Allocation tag access.
    pub const ATA: u64 = 1 << 56;
    /// Traps GMID_EL1.
    pub const TID5: u64 = 1 << 58;
}

/// CPTR_EL2 while HCR_EL2.E2H is 0 (Arm, CPTR_EL2).
pub mod cptr {
    /// RES1 without regard to SVE and SME, whose TZ and TSM are RES1 where those are absent.
    pub const RES1: u64 = 0x22ff;
    /// Traps SVE.
    pub const TZ: u64 = 1 << 8;
    /// Traps floating point.
    pub const TFP: u64 = 1 << 10;
    /// Traps SME.
    pub const TSM: u64 = 1 << 12;
    /// Traps the trace unit.
    pub const TTA: u64 = 1 << 20;
    /// Traps activity monitors.
    pub const TAM: u64 = 1 << 30;
}

/// MDCR_EL2 (Arm, MDCR_EL2).
pub mod mdcr {
    /// Traps PMCR_EL0.
    pub const TPMCR: u64 = 1 << 5;
    /// Traps the performance monitors.
    pub const TPM: u64 = 1 << 6;
    /// Traps debug registers.
    pub const TDA: u64 = 1 << 9;
    /// Traps OS lock and power-down debug registers.
    pub const TDOSA: u64 = 1 << 10;
    /// Traps debug ROM address registers.
    pub const TDRA: u64 = 1 << 11;
    /// Traps profiling controls.
    pub const TPMS: u64 = 1 << 14;
    /// No event counting at EL2.
    pub const HPMD: u64 = 1 << 17;
    /// Traps trace filter controls.
    pub const TTRF: u64 = 1 << 19;
    /// Traps the debug communications channel.
    pub const TDCC: u64 = 1 << 27;
}

/// HCRX_EL2.TALLINT: traps MSR ALLINT.
const HCRX_TALLINT: u64 = 1 << 6;
/// HFGITR_EL2 (Arm, HFGITR_EL2): system instructions that trap.
pub mod hfgitr {
    /// DC CVAP and its tag forms.
    pub const DCCVAP: u64 = 1 << 8;
    /// DC CVADP and its tag forms.
    pub const DCCVADP: u64 = 1 << 9;
    /// AT S1E1RP and S1E1WP.
    pub const ATS1E1P: u64 = 0b11 << 16;
    /// TLBI of Outer Shareable, without ranges.
    pub const TLBI_OS: u64 = 0x3f << 18;
    /// TLBI of ranges: Outer Shareable, Inner Shareable, local.
    pub const TLBI_RANGE: u64 = 0xf << 24 | 0xf << 34 | 0xf << 38;
    /// CFP RCTX, DVP RCTX, CPP RCTX.
    pub const RCTX: u64 = 0b111 << 48;
    /// COSP RCTX.
    pub const COSPRCTX: u64 = 1 << 60;
    /// AT S1E1A.
    pub const ATS1E1A: u64 = 1 << 62;
}

/// CNTHCTL_EL2.EL1PCTEN and EL1PCEN with E2H 0: no trap of the physical counter and timer, which the
/// guest owns while it runs (the hypervisor's own timer is that of EL2).
const CNTHCTL: u64 = 0b11;
/// MPAM2_EL2.TRAPMPAM1EL1 and TRAPMPAM0EL1, and TIDR, which traps MPAMIDR_EL1 (RES0 where MPAMHCR_EL2 does
/// that).
const MPAM2_TRAPS: u64 = 0b11 << 48 | 1 << 58;

/// Which fine-grained trap registers exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FgtLevel {
    /// None: whatever they would close does not exist either.
    None,
    /// FEAT_FGT.
    Fgt,
    /// FEAT_FGT2.
    Fgt2,
}

/// Values for the registers that stay as they are while a vCPU runs on its CPU.
///
/// In the fine-grained trap registers a bit named n* traps when it is 0, any other when it is 1: what
/// HCR_EL2, HCRX_EL2, CPTR_EL2 and MDCR_EL2 do not reach has n* bits, so that 0 is the closed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapConfig {
    /// HCR_EL2. The hypervisor adds VSE and TWE.
    pub hcr: u64,
    /// HCRX_EL2; `None` where the register does not exist.
    pub hcrx: Option<u64>,
    /// CPTR_EL2 for E2H 0. The hypervisor adds [`cptr::TFP`] where the registers are not the VM's; a VM
    /// without floating point has it already.
    pub cptr: u64,
    /// MDCR_EL2.
    pub mdcr: u64,
    /// Which of the following registers exist.
    pub fgt: FgtLevel,
    /// HFGRTR_EL2; HFGRTR2_EL2 takes 0.
    pub hfgrtr: u64,
    /// HFGWTR_EL2; HFGWTR2_EL2 takes 0.
    pub hfgwtr: u64,
    /// HFGITR_EL2; HFGITR2_EL2 takes 0.
    pub hfgitr: u64,
    /// HDFGRTR_EL2; HDFGRTR2_EL2 takes 0.
    pub hdfgrtr: u64,
    /// HDFGWTR_EL2; HDFGWTR2_EL2 takes 0.
    pub hdfgwtr: u64,
    /// HAFGRTR_EL2; `None` where the register does not exist.
    pub hafgrtr: Option<u64>,
    /// CNTHCTL_EL2 for E2H 0.
    pub cnthctl: u64,
    /// MPAM2_EL2; `None` where the register does not exist.
    pub mpam2: Option<u64>,
}

impl TrapConfig {
    /// The values for a VM that sees `ids`, on a CPU that has `host`. What the VM does not see is closed,
    /// whoever hid it, also where only some CPUs of the machine have it: `host` is this CPU alone, not
    /// the combination. `fwb`: the VM's stage 2 is made for FEAT_S2FWB, on all CPUs.
    #[must_use]
    pub fn new(host: &HostIds, ids: &GuestIds, fwb: bool) -> Self {
        let fgt = match host.field(Reg::Mmfr0, 56) {
            0 => FgtLevel::None,
            1 => FgtLevel::Fgt,
            _ => FgtLevel::Fgt2,
        };
        let amu = host.field(Reg::Pfr0, 44) != 0;
        let nmi = host.field(Reg::Pfr1, 36) != 0;
        Self {
            hcr: hcr_value(host, ids) | set(hcr::FWB, fwb),
            hcrx: host.has_hcx().then_some(set(HCRX_TALLINT, nmi)),
            cptr: cptr_value(host, amu) | set(cptr::TFP, !ids.has_fp()) | set(cptr::TZ, !ids.has_sve()),
            mdcr: mdcr_value(host, fgt),
            fgt,
            hfgrtr: 0,
            hfgwtr: 0,
            hfgitr: hfgitr_value(host, ids),
            hdfgrtr: 0,
            hdfgwtr: 0,
            hafgrtr: (fgt != FgtLevel::None && amu).then_some(0),
            cnthctl: CNTHCTL,
            mpam2: host.has_mpam().then_some(MPAM2_TRAPS),
        }
    }

    /// Whether CTR_EL0 traps and must be emulated.
    #[must_use]
    pub const fn traps_ctr(&self) -> bool {
        self.hcr & hcr::TID2 != 0
    }
}

const fn set(bits: u64, when: bool) -> u64 {
    if when { bits } else { 0 }
}

fn hcr_value(host: &HostIds, ids: &GuestIds) -> u64 {
    const ALWAYS: u64 = hcr::VM
        | hcr::SWIO
        | hcr::FMO
        | hcr::IMO
        | hcr::AMO
        | hcr::FB
        | hcr::TWI
        | hcr::TID1
        | hcr::TID3
        | hcr::TSC
        | hcr::TIDCP
        | hcr::TACR
        | hcr::TSW
        | hcr::RW;
    // FEAT_EVT has a trap of the cache hierarchy that leaves CTR_EL0 alone, which EL0 reads often.
    let evt = host.field(Reg::Mmfr2, 56) >= 1;
    let native_ctr = ids.ctr() == host.ctr;
    let mte2 = host.field(Reg::Pfr1, 8) >= 2;
    let mte = ids.has_mte();
    ALWAYS
        | if evt && native_ctr { hcr::TID4 } else { hcr::TID2 }
        | set(hcr::TLOR, host.field(Reg::Mmfr1, 16) != 0)
        | set(hcr::TERR, host.has_ras())
        | set(hcr::APK | hcr::API, ids.has_pauth())
        | set(hcr::ATA, mte)
        | set(hcr::TID5, mte2 && !mte)
}

/// Instructions that the CPU has and the VM does not.
fn hfgitr_value(host: &HostIds, ids: &GuestIds) -> u64 {
    instructions(|reg, lsb, level| host.field(reg, lsb) >= level && ids.field(reg, lsb) < level)
}

/// Bits of HFGITR_EL2 for instructions that a VM does not have.
#[must_use]
pub fn absent_instructions(ids: &GuestIds) -> u64 {
    instructions(|reg, lsb, level| ids.field(reg, lsb) < level)
}

/// Bits of HFGITR_EL2 for instructions that not every CPU has, as far as `want` says so of the field and
/// the value from which on they exist.
fn instructions(want: impl Fn(Reg, u32, u64) -> bool) -> u64 {
    set(hfgitr::COSPRCTX, want(Reg::Isar1, 40, 2))
        | set(hfgitr::RCTX, want(Reg::Isar1, 40, 1))
        | set(hfgitr::ATS1E1A, want(Reg::Isar2, 60, 1))
        | set(hfgitr::ATS1E1P, want(Reg::Mmfr1, 20, 2))
        | set(hfgitr::TLBI_OS, want(Reg::Isar0, 56, 1))
        | set(hfgitr::TLBI_RANGE, want(Reg::Isar0, 56, 2))
        | set(hfgitr::DCCVAP, want(Reg::Isar1, 0, 1))
        | set(hfgitr::DCCVADP, want(Reg::Isar1, 0, 2))
}

fn cptr_value(host: &HostIds, amu: bool) -> u64 {
    cptr::RES1 | cptr::TSM | set(cptr::TTA, host.field(Reg::Dfr0, 4) != 0) | set(cptr::TAM, amu)
}

fn mdcr_value(host: &HostIds, fgt: FgtLevel) -> u64 {
    // E2PB and E2TB stay 0: the buffers belong to EL2 and their registers trap.
    let pmu = host.has_pmu();
    // HPMN above the number of counters is CONSTRAINED UNPREDICTABLE, and so is 0 without FEAT_HPMN0.
    let counters = host.pmcr >> 11 & 0x1f;
    mdcr::TDA
        | mdcr::TDOSA
        | mdcr::TDRA
        | set(mdcr::TPM | mdcr::TPMCR | counters, pmu)
        | set(mdcr::HPMD, pmu && host.field(Reg::Dfr0, 8) >= 4)
        | set(mdcr::TPMS, host.field(Reg::Dfr0, 32) != 0)
        | set(mdcr::TTRF, host.field(Reg::Dfr0, 40) != 0)
        | set(mdcr::TDCC, fgt != FgtLevel::None)
}
