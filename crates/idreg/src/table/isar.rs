//! ID_AA64ISAR0_EL1 to ID_AA64ISAR3_EL1: instructions.
//!
//! Instructions that only compute cannot be trapped and keep no state that another VM could see: they
//! are offered as the machine has them.

use super::field_rows;
use crate::field::Closed::{Nothing, Open, Trap, Undef};
use crate::field::Offer::{AtMost, Hidden, Host};
use crate::field::{Entry, Field, Reg, Row, Rule};

field_rows! {
    Isar0 {
        AES @ 4 LowerSafe: Host, Nothing, "computes";
        SHA1 @ 8 LowerSafe: Host, Nothing, "computes";
        SHA2 @ 12 LowerSafe: Host, Nothing, "computes";
        CRC32 @ 16 LowerSafe: Host, Nothing, "computes";
        ATOMIC @ 20 LowerSafe: Host, Nothing, "accesses memory as other instructions do";
        RDM @ 28 LowerSafe: Host, Nothing, "computes";
        SHA3 @ 32 LowerSafe: Host, Nothing, "computes";
        SM3 @ 36 LowerSafe: Host, Nothing, "computes";
        SM4 @ 40 LowerSafe: Host, Nothing, "computes";
        DP @ 44 LowerSafe: Host, Nothing, "computes";
        FHM @ 48 LowerSafe: Host, Nothing, "computes";
        TS @ 52 LowerSafe: Host, Nothing, "flags are part of SPSR";
        TLB @ 56 LowerSafe: Host, Nothing, "acts on the guest's own VMID";
        RNDR @ 60 LowerSafe: Host, Nothing, "random numbers are not shared";
    }
    Isar1 {
        DPB @ 0 LowerSafe: Host, Nothing, "cleans the guest's own lines";
        APA @ 4 Exact: Host, Nothing, "keys are switched, HCR_EL2.API and APK are 1";
        API @ 8 Exact: Host, Nothing, "as APA";
        JSCVT @ 12 LowerSafe: Host, Nothing, "computes";
        FCMA @ 16 LowerSafe: Host, Nothing, "computes";
        LRCPC @ 20 LowerSafe: Host, Nothing, "accesses memory as other instructions do";
        GPA @ 24 Exact: Host, Nothing, "as APA";
        GPI @ 28 Exact: Host, Nothing, "as APA";
        FRINTTS @ 32 LowerSafe: Host, Nothing, "computes";
        SB @ 36 LowerSafe: Host, Nothing, "a barrier";
        SPECRES @ 40 LowerSafe: AtMost(1), Trap("HFGITR_EL2.COSPRCTX"), "COSP RCTX is not needed";
        BF16 @ 44 LowerSafe: Host, Nothing, "computes";
        DGH @ 48 LowerSafe: Host, Nothing, "a hint";
        I8MM @ 52 LowerSafe: Host, Nothing, "computes";
        XS @ 56 LowerSafe: Host, Nothing, "a weaker TLBI on the guest's own VMID";
        LS64 @ 60 LowerSafe: Hidden, Trap("HCRX_EL2.EnALS, EnASR, EnAS0"), "no device of a VM takes 64 bytes";
    }
    Isar2 {
        WFXT @ 0 LowerSafe: Hidden, Trap("HCR_EL2.TWI"), "a parked vCPU has no deadline; WFET only waits";
        RPRES @ 4 LowerSafe: Host, Nothing, "computes";
        GPA3 @ 8 Exact: Host, Nothing, "as APA";
        APA3 @ 12 Exact: Host, Nothing, "as APA";
        MOPS @ 16 LowerSafe: Hidden, Undef("HCRX_EL2.MSCEn"), "CPUs may differ in the algorithm";
        BC @ 20 LowerSafe: Host, Nothing, "a branch";
        PAC_FRAC @ 24 LowerSafe: Host, Nothing, "as APA";
        CLRBHB @ 28 LowerSafe: Host, Nothing, "a hint";
        SYSREG_128 @ 32 LowerSafe: Hidden, Trap("HCRX_EL2.D128En, EnIDCP128"), "state of 128 bits is not switched";
        SYSINSTR_128 @ 36 LowerSafe: Hidden, Trap("HCRX_EL2.D128En"), "as SYSREG_128";
        PRFMSLC @ 40 LowerSafe: Host, Nothing, "a hint";
        RPRFM @ 48 LowerSafe: Host, Nothing, "a hint";
        CSSC @ 52 LowerSafe: Host, Nothing, "computes";
        LUT @ 56 LowerSafe: Host, Nothing, "computes";
        ATS1A @ 60 LowerSafe: Hidden, Trap("HFGITR_EL2.ATS1E1A"), "of use with S1POE only";
    }
    Isar3 {
        CPA @ 0 LowerSafe: AtMost(1), Trap("HCRX_EL2.SCTLR2En"), "checked addition is a control of SCTLR2";
        FAMINMAX @ 4 LowerSafe: Host, Nothing, "computes";
        PACM @ 12 LowerSafe: Hidden, Trap("HCRX_EL2.PACMEn"), "PSTATE.PACM is not switched";
        LSFE @ 16 LowerSafe: Host, Nothing, "accesses memory as other instructions do";
        OCCMO @ 20 LowerSafe: Hidden, Open("cleans the guest's own lines"), "outer caches are the machine's";
        LSUI @ 24 LowerSafe: Host, Nothing, "accesses memory as other instructions do";
        FPRCVT @ 28 LowerSafe: Host, Nothing, "computes";
        MTETC @ 36 LowerSafe: Hidden, Open("HCR_EL2.ATA and stage 2 govern it as other tag stores"), "not needed";
    }
}
