//! System registers and system instructions, as a trapped MRS, MSR or SYS names them.

use core::fmt;

use crate::bits::{bit, field};

/// The encoding of a system register or system instruction: op0, op1, CRn, CRm, op2.
///
/// It is kept where ISS of exception class 0x18 has it, so that decoding is a mask, and handlers
/// `match` on constants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct SysReg(u32);

/// ISS without Rt and Direction (Arm, ESR_EL2, "ISS encoding for an exception from MSR, MRS, or
/// System instruction execution in AArch64 state").
const ENCODING: u64 = 0x003f_fc1e;

impl SysReg {
    /// The encoding with these numbers; bits beyond a number's field are dropped.
    #[must_use]
    pub const fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Self {
        Self((op0 & 3) << 20 | (op2 & 7) << 17 | (op1 & 7) << 14 | (crn & 15) << 10 | (crm & 15) << 1)
    }

    /// op0.
    #[must_use]
    pub const fn op0(self) -> u32 {
        self.0 >> 20 & 3
    }

    /// op1.
    #[must_use]
    pub const fn op1(self) -> u32 {
        self.0 >> 14 & 7
    }

    /// CRn.
    #[must_use]
    pub const fn crn(self) -> u32 {
        self.0 >> 10 & 15
    }

    /// CRm.
    #[must_use]
    pub const fn crm(self) -> u32 {
        self.0 >> 1 & 15
    }

    /// op2.
    #[must_use]
    pub const fn op2(self) -> u32 {
        self.0 >> 17 & 7
    }

    /// The place in the space of feature ID registers that HCR_EL2.TID3 traps (op0 3, op1 0, CRn 0,
    /// CRm 1 to 7): `(CRm - 1) * 8 + op2`, below 56.
    #[inline(always)]
    #[must_use]
    pub const fn id_index(self) -> Option<usize> {
        let outside_crm_and_op2 = self.0 & 0x0031_fc10;
        let crm = self.crm() & 7;
        if outside_crm_and_op2 == Self::new(3, 0, 0, 0, 0).0 && crm != 0 {
            Some(crm.wrapping_sub(1).wrapping_mul(8).wrapping_add(self.op2()) as usize)
        } else {
            None
        }
    }
}

impl fmt::Debug for SysReg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S{}_{}_C{}_C{}_{}", self.op0(), self.op1(), self.crn(), self.crm(), self.op2())
    }
}

impl fmt::Display for SysReg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A trapped MRS, MSR or system instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysregAccess {
    /// What is accessed.
    pub reg: SysReg,
    /// The general-purpose register; 31 is XZR.
    pub rt: u8,
    /// Whether it is a read (MRS, SYSL) and so writes `rt`.
    pub read: bool,
}

impl SysregAccess {
    /// From a syndrome of exception class 0x18.
    #[inline(always)]
    #[must_use]
    pub const fn new(esr: u64) -> Self {
        Self { reg: SysReg((esr & ENCODING) as u32), rt: field(esr, 5, 5) as u8, read: bit(esr, 0) }
    }

    /// ISS of this access, to reflect it to a lower exception level.
    #[must_use]
    pub const fn iss(self) -> u64 {
        self.reg.0 as u64 | ((self.rt & 31) as u64) << 5 | self.read as u64
    }
}

macro_rules! encodings {
    ($($name:ident = $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal;)*) => {
        impl SysReg {
            $(
                #[doc = concat!(stringify!($name), ": S", $op0, "_", $op1, "_C", $crn, "_C", $crm, "_", $op2, ".")]
                pub const $name: Self = Self::new($op0, $op1, $crn, $crm, $op2);
            )*
        }

        /// Every named encoding, for the test of uniqueness.
        #[cfg(test)]
        pub(crate) const NAMED: &[(&str, SysReg)] = &[$((stringify!($name), SysReg::$name)),*];

        impl SysReg {
            /// The architectural name, where this crate has one.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

// Arm, C5.3 to C5.5 and D19.2: op0 op1 CRn CRm op2.
encodings! {
    // Cache maintenance by address, the tag forms beside the data forms.
    IC_IALLUIS = 1 0 7 1 0;
    IC_IALLU = 1 0 7 5 0;
    IC_IVAU = 1 3 7 5 1;
    DC_IVAC = 1 0 7 6 1;
    DC_IGVAC = 1 0 7 6 3;
    DC_IGDVAC = 1 0 7 6 5;
    DC_CVAC = 1 3 7 10 1;
    DC_CGVAC = 1 3 7 10 3;
    DC_CGDVAC = 1 3 7 10 5;
    DC_CVAU = 1 3 7 11 1;
    DC_CVAP = 1 3 7 12 1;
    DC_CGVAP = 1 3 7 12 3;
    DC_CGDVAP = 1 3 7 12 5;
    DC_CVADP = 1 3 7 13 1;
    DC_CGVADP = 1 3 7 13 3;
    DC_CGDVADP = 1 3 7 13 5;
    DC_CIVAC = 1 3 7 14 1;
    DC_CIGVAC = 1 3 7 14 3;
    DC_CIGDVAC = 1 3 7 14 5;
    // Zeroing.
    DC_ZVA = 1 3 7 4 1;
    DC_GVA = 1 3 7 4 3;
    DC_GZVA = 1 3 7 4 4;
    // Set/way.
    DC_ISW = 1 0 7 6 2;
    DC_IGSW = 1 0 7 6 4;
    DC_IGDSW = 1 0 7 6 6;
    DC_CSW = 1 0 7 10 2;
    DC_CGSW = 1 0 7 10 4;
    DC_CGDSW = 1 0 7 10 6;
    DC_CISW = 1 0 7 14 2;
    DC_CIGSW = 1 0 7 14 4;
    DC_CIGDSW = 1 0 7 14 6;
    // Identification.
    MIDR_EL1 = 3 0 0 0 0;
    MPIDR_EL1 = 3 0 0 0 5;
    REVIDR_EL1 = 3 0 0 0 6;
    CCSIDR_EL1 = 3 1 0 0 0;
    CLIDR_EL1 = 3 1 0 0 1;
    CCSIDR2_EL1 = 3 1 0 0 2;
    GMID_EL1 = 3 1 0 0 4;
    SMIDR_EL1 = 3 1 0 0 6;
    AIDR_EL1 = 3 1 0 0 7;
    CSSELR_EL1 = 3 2 0 0 0;
    CTR_EL0 = 3 3 0 0 1;
    DCZID_EL0 = 3 3 0 0 7;
    // Control.
    SCTLR_EL1 = 3 0 1 0 0;
    ACTLR_EL1 = 3 0 1 0 1;
    CPACR_EL1 = 3 0 1 0 2;
    SCTLR2_EL1 = 3 0 1 0 3;
    RGSR_EL1 = 3 0 1 0 5;
    GCR_EL1 = 3 0 1 0 6;
    ACTLR_EL12 = 3 5 1 0 1;
    ZCR_EL1 = 3 0 1 2 0;
    TRFCR_EL1 = 3 0 1 2 1;
    SMPRI_EL1 = 3 0 1 2 4;
    SMCR_EL1 = 3 0 1 2 6;
    TTBR0_EL1 = 3 0 2 0 0;
    TTBR1_EL1 = 3 0 2 0 1;
    TCR_EL1 = 3 0 2 0 2;
    TCR2_EL1 = 3 0 2 0 3;
    GCSCR_EL1 = 3 0 2 5 0;
    GCSPR_EL1 = 3 0 2 5 1;
    GCSCRE0_EL1 = 3 0 2 5 2;
    AFSR0_EL1 = 3 0 5 1 0;
    AFSR1_EL1 = 3 0 5 1 1;
    ESR_EL1 = 3 0 5 2 0;
    TFSR_EL1 = 3 0 5 6 0;
    TFSRE0_EL1 = 3 0 5 6 1;
    FAR_EL1 = 3 0 6 0 0;
    MAIR_EL1 = 3 0 10 2 0;
    MAIR2_EL1 = 3 0 10 2 1;
    PIRE0_EL1 = 3 0 10 2 2;
    PIR_EL1 = 3 0 10 2 3;
    POR_EL1 = 3 0 10 2 4;
    S2POR_EL1 = 3 0 10 2 5;
    AMAIR_EL1 = 3 0 10 3 0;
    AMAIR2_EL1 = 3 0 10 3 1;
    LORSA_EL1 = 3 0 10 4 0;
    LOREA_EL1 = 3 0 10 4 1;
    LORN_EL1 = 3 0 10 4 2;
    LORC_EL1 = 3 0 10 4 3;
    LORID_EL1 = 3 0 10 4 7;
    CONTEXTIDR_EL1 = 3 0 13 0 1;
    ACCDATA_EL1 = 3 0 13 0 5;
    SCXTNUM_EL1 = 3 0 13 0 7;
    RNDR = 3 3 2 4 0;
    RNDRRS = 3 3 2 4 1;
    POR_EL0 = 3 3 10 2 4;
    TPIDR2_EL0 = 3 3 13 0 5;
    SCXTNUM_EL0 = 3 3 13 0 7;
    // RAS.
    ERRIDR_EL1 = 3 0 5 3 0;
    ERRSELR_EL1 = 3 0 5 3 1;
    ERXGSR_EL1 = 3 0 5 3 2;
    ERXFR_EL1 = 3 0 5 4 0;
    ERXCTLR_EL1 = 3 0 5 4 1;
    ERXSTATUS_EL1 = 3 0 5 4 2;
    ERXADDR_EL1 = 3 0 5 4 3;
    ERXPFGF_EL1 = 3 0 5 4 4;
    ERXPFGCTL_EL1 = 3 0 5 4 5;
    ERXPFGCDN_EL1 = 3 0 5 4 6;
    ERXMISC0_EL1 = 3 0 5 5 0;
    ERXMISC1_EL1 = 3 0 5 5 1;
    ERXMISC2_EL1 = 3 0 5 5 2;
    ERXMISC3_EL1 = 3 0 5 5 3;
    DISR_EL1 = 3 0 12 1 1;
    // GIC CPU interface.
    ICC_PMR_EL1 = 3 0 4 6 0;
    ICC_IAR1_EL1 = 3 0 12 12 0;
    ICC_DIR_EL1 = 3 0 12 11 1;
    ICC_SGI1R_EL1 = 3 0 12 11 5;
    ICC_ASGI1R_EL1 = 3 0 12 11 6;
    ICC_SGI0R_EL1 = 3 0 12 11 7;
    ICC_SRE_EL1 = 3 0 12 12 5;
    // Timers.
    CNTPCT_EL0 = 3 3 14 0 1;
    CNTVCT_EL0 = 3 3 14 0 2;
    CNTP_TVAL_EL0 = 3 3 14 2 0;
    CNTP_CTL_EL0 = 3 3 14 2 1;
    CNTP_CVAL_EL0 = 3 3 14 2 2;
    CNTV_TVAL_EL0 = 3 3 14 3 0;
    CNTV_CTL_EL0 = 3 3 14 3 1;
    CNTV_CVAL_EL0 = 3 3 14 3 2;
    // Debug.
    MDSCR_EL1 = 2 0 0 2 2;
    MDCCINT_EL1 = 2 0 0 2 0;
    MDCCSR_EL0 = 2 3 0 1 0;
    DBGDTR_EL0 = 2 3 0 4 0;
    DBGDTRRX_EL0 = 2 3 0 5 0;
    OSDTRRX_EL1 = 2 0 0 0 2;
    OSDTRTX_EL1 = 2 0 0 3 2;
    OSECCR_EL1 = 2 0 0 6 2;
    MDRAR_EL1 = 2 0 1 0 0;
    OSLAR_EL1 = 2 0 1 0 4;
    OSLSR_EL1 = 2 0 1 1 4;
    OSDLR_EL1 = 2 0 1 3 4;
    DBGPRCR_EL1 = 2 0 1 4 4;
    DBGCLAIMSET_EL1 = 2 0 7 8 6;
    DBGCLAIMCLR_EL1 = 2 0 7 9 6;
    DBGAUTHSTATUS_EL1 = 2 0 7 14 6;
    // Performance monitors.
    PMCR_EL0 = 3 3 9 12 0;
}
