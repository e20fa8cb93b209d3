//! L1's EL2 controls, brought into shape, and what of them holds for the hardware while L2 runs.

/// Bits of HCR_EL2 (D24.2, HCR_EL2) that only nesting needs; the others are `idreg`'s.
pub mod hcr {
    /// Stage 2 on.
    pub const VM: u64 = 1 << 0;
    /// A walk of EL1's that reads Device memory is a permission fault of stage 2.
    pub const PTW: u64 = 1 << 2;
    /// Physical FIQs, IRQs and SErrors are EL2's.
    pub const FMO: u64 = 1 << 3;
    /// As FMO.
    pub const IMO: u64 = 1 << 4;
    /// As FMO.
    pub const AMO: u64 = 1 << 5;
    /// Virtual FIQ, IRQ, SError pending.
    pub const VF: u64 = 1 << 6;
    /// As VF.
    pub const VI: u64 = 1 << 7;
    /// As VF.
    pub const VSE: u64 = 1 << 8;
    /// Stage 1 off means Normal write-back.
    pub const DC: u64 = 1 << 12;
    /// Traps WFI.
    pub const TWI: u64 = 1 << 13;
    /// Traps WFE.
    pub const TWE: u64 = 1 << 14;
    /// Traps SMC.
    pub const TSC: u64 = 1 << 19;
    /// Traps TLB maintenance of EL1.
    pub const TTLB: u64 = 1 << 25;
    /// EL0 belongs to EL2.
    pub const TGE: u64 = 1 << 27;
    /// HVC is UNDEFINED.
    pub const HCD: u64 = 1 << 29;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// Host extensions.
    pub const E2H: u64 = 1 << 34;
    /// Synchronous external aborts are EL2's.
    pub const TEA: u64 = 1 << 37;
    /// Pointer authentication keys do not trap.
    pub const APK: u64 = 1 << 40;
    /// Pointer authentication instructions do not trap.
    pub const API: u64 = 1 << 41;
    /// EL1 is a virtual EL2.
    pub const NV: u64 = 1 << 42;
    /// That EL2 has E2H 0.
    pub const NV1: u64 = 1 << 43;
    /// Traps AT of EL1.
    pub const AT: u64 = 1 << 44;
    /// Registers of that EL2 are in memory.
    pub const NV2: u64 = 1 << 45;
    /// Stage 2 forces attributes.
    pub const FWB: u64 = 1 << 46;
    /// Traps CCSIDR_EL1, CLIDR_EL1, CSSELR_EL1.
    pub const TID4: u64 = 1 << 49;
    /// Traps IC IALLUIS.
    pub const TICAB: u64 = 1 << 50;
    /// Traps other cache maintenance to the point of unification.
    pub const TOCU: u64 = 1 << 52;
    /// Traps TLB maintenance of EL1, Inner Shareable.
    pub const TTLBIS: u64 = 1 << 54;
    /// As TTLBIS, Outer Shareable.
    pub const TTLBOS: u64 = 1 << 55;
    /// Allocation tags.
    pub const ATA: u64 = 1 << 56;
}
use hcr as h;

/// Bits of HCRX_EL2.
pub mod hcrx {
    /// TLBI is as if it were nXS.
    pub const FNXS: u64 = 1 << 3;
    /// Fine-grained traps spare TLBI nXS.
    pub const FGT_NXS: u64 = 1 << 4;
}

/// Bits of CNTHCTL_EL2 that are the same with E2H 0 and 1, all of FEAT_ECV.
pub mod cnthctl {
    /// CNTPOFF_EL2 counts.
    pub const ECV: u64 = 1 << 12;
    /// Traps the virtual timer.
    pub const EL1TVT: u64 = 1 << 13;
    /// Traps the virtual counter.
    pub const EL1TVCT: u64 = 1 << 14;
}

/// What of EL2 a VM has beyond Armv8.4, as its ID registers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// ID_AA64MMFR2_EL1.EVT.
    pub evt: u64,
    /// ID_AA64MMFR0_EL1.ECV.
    pub ecv: u64,
    /// Pointer authentication.
    pub pauth: bool,
    /// FEAT_MTE2.
    pub mte: bool,
    /// FEAT_FGT.
    pub fgt: bool,
    /// FEAT_HCX and FEAT_XS.
    pub xs_controls: bool,
}

/// The bits of L1's controls that its VM has. All others count as what traps nothing, and reach no hardware:
/// what the VM does not have is UNDEFINED in L2, and not L1's to trap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// Bits of HCR_EL2 that it has not: of these the first count as 0, the second as 1.
    no_hcr: u64,
    no_open: u64,
    /// Bits of MDCR_EL2 that it has not.
    no_mdcr: u64,
    /// HCRX_EL2.
    pub hcrx: u64,
    /// Those bits of CNTHCTL_EL2 of [`cnthctl`].
    pub cnthctl: u64,
}

impl Offered {
    /// Those of a VM with these features.
    #[must_use]
    pub const fn new(features: Features) -> Self {
        const EVT1: u64 = h::TID4 | h::TICAB | h::TOCU;
        const EVT2: u64 = h::TTLBIS | h::TTLBOS;
        const TID5: u64 = 1 << 58;
        Self {
            no_hcr: match features.evt {
                0 => EVT1 | EVT2,
                1 => EVT2,
                _ => 0,
            } | if features.mte { 0 } else { TID5 },
            no_open: if features.mte { 0 } else { h::ATA } | if features.pauth { 0 } else { h::APK | h::API },
            no_mdcr: if features.fgt { 0 } else { MDCR_TDCC },
            hcrx: if features.xs_controls { hcrx::FNXS | hcrx::FGT_NXS } else { 0 },
            cnthctl: match features.ecv {
                0 => 0,
                1 => cnthctl::EL1TVT | cnthctl::EL1TVCT,
                _ => cnthctl::EL1TVT | cnthctl::EL1TVCT | cnthctl::ECV,
            },
        }
    }

    /// L1's HCR_EL2, sanitised.
    #[inline(always)]
    #[must_use]
    pub const fn hcr(&self, raw: u64, vhe: bool) -> L1Hcr {
        L1Hcr::new(raw & !self.no_hcr | self.no_open, vhe)
    }

    /// L1's MDCR_EL2.
    #[must_use]
    pub const fn mdcr(&self, raw: u64) -> u64 {
        raw & !self.no_mdcr
    }

    /// CNTHCTL_EL2 with E2H 0 while L2 runs: EL1PCTEN and EL1PCEN, from L1's in the format that it has,
    /// and what is at the same place in both.
    #[must_use]
    pub const fn cnthctl_for_l2(&self, l1: u64, vhe: bool) -> u64 {
        (if vhe { l1 >> 10 & 3 } else { l1 & 3 }) | l1 & self.cnthctl
    }
}

/// What L1 may trap or change of L2 by HCR_EL2: bits that are the hardware's business once they are
/// in the real register.
const TRAPS: u64 = h::DC
    | h::TWI
    | h::TWE
    | 0xf << 15 // TID0 to TID3
    | h::TSC
    | 1 << 20 // TIDCP
    | 1 << 21 // TACR
    | 1 << 22 // TSW
    | 1 << 23 // TPCP
    | 1 << 24 // TPU
    | h::TTLB
    | 1 << 26 // TVM
    | 1 << 28 // TDZ
    | h::HCD
    | 1 << 30 // TRVM
    | h::PTW
    | 3 << 10 // BSU
    | 1 << 36 // TERR
    | 1 << 58 // TID5
    | h::TID4
    | h::TICAB
    | h::TOCU
    | h::TTLBIS
    | h::TTLBOS
    | h::TEA;

/// Bits that open what L0 has opened.
const ENABLES: u64 = h::APK | h::API | h::ATA;

/// L1's HCR_EL2, sanitised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L1Hcr(u64);

impl L1Hcr {
    /// From the page: E2H is what the VM has, RW is 1, and TGE without E2H is 0: an EL0 below an EL2
    /// without host extensions is not offered.
    #[inline]
    #[must_use]
    pub const fn new(raw: u64, vhe: bool) -> Self {
        let fixed = if vhe { raw | h::E2H } else { raw & !(h::E2H | h::TGE) };
        Self(fixed & !(h::NV | h::NV1 | h::AT | h::NV2) | h::RW)
    }

    /// The value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether any of these bits is set.
    #[inline]
    #[must_use]
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    /// Whether EL0 is vEL2's own.
    #[must_use]
    pub const fn hosts_el0(self) -> bool {
        self.has(h::TGE) && self.has(h::E2H)
    }

    /// Whether L1's interrupts leave L2, and L2 has virtual ones of L1's making.
    #[must_use]
    pub const fn owns_interrupts(self) -> bool {
        self.has(h::IMO | h::FMO)
    }

    /// Whether physical SErrors leave L2. If not, HCR_EL2.VSE of the hardware is free for them.
    #[inline]
    #[must_use]
    pub const fn takes_serrors(self) -> bool {
        self.has(h::AMO | h::TGE)
    }

    /// HCR_EL2 while L2 runs, on top of what L0 has for the VM.
    #[inline]
    #[must_use]
    pub const fn for_l2(self, base: u64) -> u64 {
        let closed = base & !(ENABLES & !self.0);
        // Virtual interrupts exist where the physical ones are taken (D1.3.6).
        let pending = (self.0 & (h::FMO | h::IMO | h::AMO)) << 3 & self.0;
        closed | self.0 & TRAPS | pending
    }
}

/// HCR_EL2 while vEL2 runs, on top of what L0 has for the VM: all of nesting, and traps of those
/// instructions that would otherwise act on vEL2's own regime instead of L2's.
#[must_use]
pub const fn for_vel2(base: u64, vhe: bool) -> u64 {
    base | h::NV | h::NV2 | h::AT | h::TTLB | if vhe { 0 } else { h::NV1 }
}

/// CPTR_EL2 with E2H 0 while L2 runs: `base` of L0, and L1's CPTR_EL2 in the format that it has.
#[must_use]
pub const fn cptr_for_l2(base: u64, l1: u64, vhe: bool) -> u64 {
    const TZ: u64 = 1 << 8;
    const TFP: u64 = 1 << 10;
    const TCPAC: u64 = 1 << 31;
    let sve = if traps_sve(l1, vhe) { TZ } else { 0 };
    base | sve | (if traps_fp(l1, vhe) { TFP } else { 0 }) | l1 & TCPAC
}

/// Bits of CPTR_EL2 with E2H 1 that CPACR_EL1, which plays it, does not have: TCPAC, TAM.
const CPTR_ONLY: u64 = 3 << 30;

/// L1's CPTR_EL2 in the format that it has: as L1 has `written` it, but with E2H 1 vEL2's CPACR_EL1 has the
/// rest.
#[must_use]
pub const fn cptr(written: u64, cpacr: u64, vhe: bool) -> u64 {
    if vhe { cpacr & !CPTR_ONLY | written & CPTR_ONLY } else { written }
}

/// CPACR_EL1 for a CPTR_EL2 with E2H 1.
#[must_use]
pub const fn cpacr(cptr: u64) -> u64 {
    cptr & !CPTR_ONLY
}

/// Syndromes of a trapped SVE and a trapped FP instruction, in AArch64.
pub const SVE_TRAP: u64 = 0x19 << 26 | 1 << 25;
/// See [`SVE_TRAP`]: CV is 1, COND is 0b1110.
pub const FP_TRAP: u64 = 0x07 << 26 | 1 << 25 | 0x1e << 20;

/// Whether L1 traps SVE of L2.
#[must_use]
pub const fn traps_sve(l1: u64, vhe: bool) -> bool {
    // As FPEN, so ZEN.
    if vhe { l1 >> 16 & 1 == 0 } else { l1 >> 8 & 1 == 1 }
}

/// Whether L1 traps floating point of L2.
#[must_use]
pub const fn traps_fp(l1: u64, vhe: bool) -> bool {
    // With E2H 1 and TGE 0, FPEN 0b01 traps nothing (D24.2, CPTR_EL2).
    if vhe { l1 >> 20 & 1 == 0 } else { l1 >> 10 & 1 == 1 }
}

/// CNTHCTL_EL2 with E2H 0 while vEL2 runs. Without host extensions the EL1 timers are L2's and in the
/// page: their TVAL must trap, and with it CTL and CVAL; the virtual timer can only with FEAT_ECV.
/// With host extensions their names end in EL02, which FEAT_ECV traps.
#[must_use]
pub const fn cnthctl_for_vel2(vhe: bool, ecv: bool) -> u64 {
    const EL1PCTEN: u64 = 1;
    const EL1PCEN: u64 = 1 << 1;
    const EL1TVT: u64 = cnthctl::EL1TVT;
    const EL1NVPCT: u64 = 1 << 15;
    const EL1NVVCT: u64 = 1 << 16;
    match (vhe, ecv) {
        (true, true) => EL1PCTEN | EL1PCEN | EL1NVPCT | EL1NVVCT,
        (true, false) => EL1PCTEN | EL1PCEN,
        (false, true) => EL1PCTEN | EL1TVT,
        (false, false) => EL1PCTEN,
    }
}

/// MDCR_EL2 while L2 runs: L0's, which traps all of debug and performance monitors, and L1's TDE.
#[must_use]
pub const fn mdcr_for_l2(base: u64, l1: u64) -> u64 {
    base | l1 & MDCR_TDE
}

/// MDCR_EL2.TDE: debug exceptions are EL2's.
pub const MDCR_TDE: u64 = 1 << 8;
/// MDCR_EL2.TDCC: traps the debug communications channel (FEAT_FGT).
pub const MDCR_TDCC: u64 = 1 << 27;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever L1 writes, the bits that keep L0 in charge are L0's.
        #[test]
        fn l0_stays_in_charge(raw: u64, base: u64, vhe: bool) {
            let kept = h::VM | h::FMO | h::IMO | h::AMO | h::RW | h::TGE | h::E2H | h::NV | h::NV1 | h::NV2;
            let real = L1Hcr::new(raw, vhe).for_l2(base);
            prop_assert_eq!(real & kept, base & kept);
            prop_assert_eq!(real & ENABLES & !base, 0);
            prop_assert_eq!(base & !real & !ENABLES, 0, "no trap of L0's is lost");
        }

        #[test]
        fn formats_agree(l1: u64) {
            prop_assert_eq!(cptr_for_l2(0, 3 << 20 | 3 << 16, true), 0);
            prop_assert_eq!(cptr_for_l2(0, 3 << 20, true), 1 << 8);
            prop_assert_eq!(cptr_for_l2(0, 3 << 16, true), 1 << 10);
            let (old, new) = (Offered::new(Features::default()), Offered::new(Features { ecv: 2, ..Features::default() }));
            prop_assert_eq!(old.cnthctl_for_l2(l1, true) & !3, 0);
            prop_assert_eq!(new.cnthctl_for_l2(l1, true) & !0x7003, 0);
            prop_assert_eq!(new.cnthctl_for_l2(l1, false), l1 & 0x7003);
            prop_assert_eq!(cptr_for_l2(0, l1, false), l1 & (1 << 8 | 1 << 10 | 1 << 31));
        }
    }

    #[test]
    fn the_trap_of_cpacr_survives_cpacr() {
        const TCPAC: u64 = 1 << 31;
        for vhe in [false, true] {
            let written = if vhe { TCPAC | 3 << 20 | 3 << 16 } else { TCPAC };
            let l1 = cptr(written, cpacr(written), vhe);
            assert_eq!((l1, cptr_for_l2(0, l1, vhe)), (written, TCPAC), "{vhe}");
            assert_eq!(cptr_for_l2(0, cptr(written & !TCPAC, cpacr(written), vhe), vhe), 0, "{vhe}");
        }
        // FPEN may have been written by the name of CPACR_EL1.
        assert_eq!(cptr(TCPAC | 3 << 20, 1 << 20, true), TCPAC | 1 << 20);
    }

    #[test]
    fn e2h_is_the_vms() {
        assert!(L1Hcr::new(0, true).has(h::E2H) && !L1Hcr::new(!0, false).has(h::E2H));
        assert!(L1Hcr::new(h::TGE, true).hosts_el0() && !L1Hcr::new(!0, false).hosts_el0());
    }

    #[test]
    fn traps_of_l1_reach_the_hardware() {
        // TID0 to TID3, TACR, TVM, TRVM, TERR, TID5.
        for bit in [15, 16, 17, 18, 21, 26, 30, 36, 58] {
            assert_eq!(L1Hcr::new(1 << bit, true).for_l2(0), 1 << bit, "{bit}");
        }
    }

    #[test]
    fn traps_of_later_features_count_where_they_are() {
        let at = |evt, bit: u32| Offered::new(Features { evt, ..Features::default() }).hcr(1 << bit, true);
        // TID4, TICAB, TOCU; TTLBIS, TTLBOS.
        for (bits, level) in [(&[49, 50, 52][..], 1), (&[54, 55], 2)] {
            for bit in bits {
                assert_eq!(at(level, *bit).for_l2(0), 1 << bit, "{bit}");
                assert!(!at(level - 1, *bit).has(1 << bit), "{bit} without");
            }
        }
        let none = Offered::new(Features::default()).hcr(1 << 58, true);
        assert!(
            none.has(h::ATA) && none.has(h::APK) && none.has(h::API) && !none.has(1 << 58),
            "no MTE, no keys"
        );
        let all = Features { mte: true, pauth: true, ..Features::default() };
        assert!(!Offered::new(all).hcr(0, true).has(h::ATA | h::APK | h::API));
        let fgt = |fgt| Offered::new(Features { fgt, ..Features::default() }).mdcr(!0) & MDCR_TDCC != 0;
        assert!(fgt(true) && !fgt(false));
    }

    #[test]
    fn virtual_interrupts_need_the_physical_ones() {
        let real = |raw| L1Hcr::new(raw, true).for_l2(0) & (h::VI | h::VF | h::VSE);
        assert_eq!(real(h::VI | h::VF | h::VSE), 0);
        assert_eq!(real(h::VI | h::IMO | h::VF), h::VI);
        assert_eq!(real(h::VSE | h::AMO | h::VF | h::FMO), h::VSE | h::VF);
    }

    #[test]
    fn the_bit_of_a_virtual_serror_is_l1s_or_l0s() {
        for amo in [0, h::AMO] {
            for own in [0, h::VSE] {
                let l1 = L1Hcr::new(amo | own, true);
                let expected = if amo == 0 { (false, 0) } else { (true, own) };
                assert_eq!((l1.takes_serrors(), l1.for_l2(0) & h::VSE), expected);
            }
        }
        assert!(L1Hcr::new(h::TGE, true).takes_serrors());
    }

    #[test]
    fn values_of_the_reference() {
        // VM, FMO, IMO, AMO, TSC, RW.
        let base = 0x8008_0039;
        assert_eq!(for_vel2(base, true), 0x3400_8208_0039);
        assert_eq!(for_vel2(base, false), 0x3c00_8208_0039);
    }
}
