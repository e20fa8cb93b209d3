//! Values that each are allowed, but not together. Looked for when a VM is sealed.

use core::fmt;

use crate::field::Reg;
use crate::guest::{GuestIds, PAC_FRAC, PAUTH};

/// Two fields that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Contradiction {
    /// ID_AA64PFR0_EL1.FP and AdvSIMD.
    FpAdvSimd = 1,
    /// Instructions on FP and SIMD registers, without these.
    VectorsWithoutFp,
    /// ID_AA64PFR1_EL1.MTE_frac.
    MteFrac,
    /// ID_AA64PFR1_EL1.MTEX and ID_AA64PFR2_EL1.
    MteExtensions,
    /// ID_AA64PFR0_EL1.SVE and ID_AA64ZFR0_EL1.
    SveZfr,
    /// SVE without FP.
    SveFp,
    /// ID_AA64DFR0_EL1.PMUVer and ID_DFR0_EL1.PerfMon.
    PmuPerfMon,
    /// Two algorithms of pointer authentication.
    PAuthAlgorithms,
    /// ID_AA64ISAR0_EL1.SHA1 and SHA2.
    Sha,
    /// ID_AA64ISAR0_EL1.SM3 and SM4.
    Sm,
    /// ID_AA64DFR0_EL1: debug is not optional, and context-aware breakpoints are breakpoints.
    Debug,
    /// ID_AA64MMFR0_EL1: no granule.
    Granules,
    /// ID_AA64MMFR0_EL1.PARange and the VM's memory.
    AddressRange,
    /// Half an algorithm of pointer authentication.
    PAuthHalf,
    /// ID_AA64ISAR0_EL1.FHM without half precision.
    FhmWithoutHalf,
}

impl Contradiction {
    /// All.
    pub const ALL: [Self; 15] = [
        Self::FpAdvSimd,
        Self::VectorsWithoutFp,
        Self::MteFrac,
        Self::MteExtensions,
        Self::SveZfr,
        Self::SveFp,
        Self::PmuPerfMon,
        Self::PAuthAlgorithms,
        Self::Sha,
        Self::Sm,
        Self::Debug,
        Self::Granules,
        Self::AddressRange,
        Self::PAuthHalf,
        Self::FhmWithoutHalf,
    ];

    const fn sentence(self) -> &'static str {
        match self {
            Self::FpAdvSimd => "ID_AA64PFR0_EL1.FP and AdvSIMD differ",
            Self::VectorsWithoutFp => {
                "ID_AA64PFR0_EL1.FP is absent, but ID_AA64ISAR0_EL1 to ID_AA64ISAR3_EL1 or ID_AA64MMFR1_EL1.AFP has what works on its registers"
            }
            Self::MteFrac => "ID_AA64PFR1_EL1.MTE_frac is not 0, which needs MTE 2",
            Self::MteExtensions => {
                "ID_AA64PFR1_EL1.MTEX or ID_AA64PFR2_EL1.MTESTOREONLY or MTEFAR is not 0, which needs ID_AA64PFR1_EL1.MTE 2"
            }
            Self::SveZfr => "ID_AA64ZFR0_EL1 is not 0, which needs ID_AA64PFR0_EL1.SVE",
            Self::SveFp => "ID_AA64PFR0_EL1.SVE needs FP",
            Self::PmuPerfMon => "ID_DFR0_EL1.PerfMon does not fit ID_AA64DFR0_EL1.PMUVer",
            Self::PAuthAlgorithms => {
                "ID_AA64ISAR1_EL1 and ID_AA64ISAR2_EL1 have more than one algorithm of pointer authentication"
            }
            Self::PAuthHalf => {
                "ID_AA64ISAR1_EL1.APA and GPA, API and GPI, or ID_AA64ISAR2_EL1.APA3 and GPA3 are not both there or both absent, or PAC_frac is there alone"
            }
            Self::FhmWithoutHalf => "ID_AA64ISAR0_EL1.FHM needs ID_AA64PFR0_EL1.FP 1",
            Self::Sha => "ID_AA64ISAR0_EL1.SHA1 and SHA2 are not both there or both absent",
            Self::Sm => "ID_AA64ISAR0_EL1.SM3 and SM4 differ",
            Self::Debug => "ID_AA64DFR0_EL1 needs DebugVer 6, BRPs 1, WRPs 1, and CTX_CMPs of at most BRPs",
            Self::Granules => "ID_AA64MMFR0_EL1 has no granule: TGran4, TGran16 and TGran64 are absent",
            Self::AddressRange => "ID_AA64MMFR0_EL1.PARange does not reach the end of the VM's memory",
        }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// ID_AA64MMFR0_EL1.PARange in bits, at most 48.
#[must_use]
pub const fn address_bits(range: u64) -> u8 {
    match range {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}

/// The first contradiction; `memory_bits` is how many bits the VM's highest address has.
pub(crate) fn contradiction(ids: &GuestIds, memory_bits: u8) -> Option<Contradiction> {
    let holds = |rule: &Contradiction| !is_kept(*rule, ids, memory_bits);
    Contradiction::ALL.into_iter().find(holds)
}

fn is_kept(rule: Contradiction, ids: &GuestIds, memory_bits: u8) -> bool {
    /// ID_DFR0_EL1, ID_PFR0_EL1: AArch32.
    const ID_DFR0: usize = 2;
    let pfr0 = |lsb| ids.field(Reg::Pfr0, lsb);
    let isar0 = |lsb| ids.field(Reg::Isar0, lsb);
    let isar1 = |lsb| ids.field(Reg::Isar1, lsb);
    let isar2 = |lsb| ids.field(Reg::Isar2, lsb);
    let isar3 = |lsb| ids.field(Reg::Isar3, lsb);
    let dfr0 = |lsb| ids.field(Reg::Dfr0, lsb);
    let mmfr0 = |lsb| ids.field(Reg::Mmfr0, lsb);
    let mte = ids.field(Reg::Pfr1, 8);
    let at_most_one = |values: [u64; 3]| values.into_iter().filter(|v| *v != 0).count() <= 1;
    match rule {
        Contradiction::FpAdvSimd => pfr0(16) == pfr0(20),
        // AES, SHA1, SHA2, RDM, SHA3, SM3, SM4, DP, FHM; JSCVT, FCMA, FRINTTS, BF16, I8MM; RPRES, LUT;
        // FAMINMAX, LSFE, FPRCVT; AFP.
        Contradiction::VectorsWithoutFp => {
            ids.has_fp()
                || [4, 8, 12, 28, 32, 36, 40, 44, 48].into_iter().all(|lsb| isar0(lsb) == 0)
                    && [12, 16, 32, 44, 52].into_iter().all(|lsb| isar1(lsb) == 0)
                    && [4, 56].into_iter().all(|lsb| isar2(lsb) == 0)
                    && [4, 16, 28].into_iter().all(|lsb| isar3(lsb) == 0)
                    && ids.field(Reg::Mmfr1, 44) == 0
        }
        // FEAT_FHM needs FEAT_FP16.
        Contradiction::FhmWithoutHalf => isar0(48) == 0 || matches!(pfr0(16), 1..=0xe),
        Contradiction::MteFrac => mte == 2 || ids.field(Reg::Pfr1, 40) == 0,
        Contradiction::MteExtensions => {
            mte >= 2 || ids.field(Reg::Pfr1, 52) == 0 && ids.read(Reg::Pfr2 as usize) & 0xff0 == 0
        }
        Contradiction::SveZfr => pfr0(32) != 0 || ids.read(Reg::Zfr0 as usize) == 0,
        Contradiction::SveFp => pfr0(32) == 0 || ids.has_fp(),
        // PerfMon is that of AArch32, 0 where there is none.
        Contradiction::PmuPerfMon => {
            let perf_mon = ids.read(ID_DFR0) >> 24 & 0xf;
            perf_mon == if pfr0(0) < 2 { 0 } else { as_perf_mon(dfr0(8)) }
        }
        Contradiction::PAuthAlgorithms => {
            at_most_one([isar1(4), isar1(8), isar2(12)]) && at_most_one([isar1(24), isar1(28), isar2(8)])
        }
        Contradiction::PAuthHalf => {
            let has = |(reg, lsb)| ids.field(reg, lsb) != 0;
            PAUTH.into_iter().all(|[a, b]| has(a) == has(b)) && (ids.has_pauth() || !has(PAC_FRAC))
        }
        Contradiction::Sha => (isar0(8) == 0) == (isar0(12) == 0),
        Contradiction::Sm => isar0(36) == isar0(40),
        Contradiction::Debug => dfr0(0) >= 6 && dfr0(12) >= 1 && dfr0(20) >= 1 && dfr0(28) <= dfr0(12),
        // TGran4 and TGran64 are 0xf where absent, TGran16 is 0.
        Contradiction::Granules => mmfr0(28) != 0xf || mmfr0(24) != 0xf || mmfr0(20) != 0,
        Contradiction::AddressRange => memory_bits <= address_bits(mmfr0(0)),
    }
}

/// ID_DFR0_EL1.PerfMon for a value of PMUVer: PMUv3 is 1 there and 3 here.
const fn as_perf_mon(pmu: u64) -> u64 {
    match pmu {
        1 => 3,
        other => other,
    }
}
