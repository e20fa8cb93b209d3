//! ID_AA64ISAR0_EL1 to ID_AA64ISAR3_EL1: instructions.
//!
//! Instructions that only compute cannot be trapped and keep no state that another VM could see: they
//! are offered as the machine has them.

use super::{ACCESSES, COMPUTES, HINT, NO_FGT, PSTATE, field_rows};
use crate::field::Closed::{Inert, Open, Partly, Trap, Undef};
use crate::field::Offer::{AtMost, Hidden, Host};
use crate::field::{Entry, Field, Reg, Row, Rule};

field_rows! {
    Isar0 {
        AES @ 4 LowerSafe: Host, Open(COMPUTES), "no state";
        SHA1 @ 8 LowerSafe: Host, Open(COMPUTES), "no state";
        SHA2 @ 12 LowerSafe: Host, Open(COMPUTES), "no state";
        CRC32 @ 16 LowerSafe: Host, Open(COMPUTES), "no state";
        Atomic @ 20 LowerSafe: Host, Open(ACCESSES), "no state";
        RDM @ 28 LowerSafe: Host, Open(COMPUTES), "no state";
        SHA3 @ 32 LowerSafe: Host, Open(COMPUTES), "no state";
        SM3 @ 36 LowerSafe: Host, Open(COMPUTES), "no state";
        SM4 @ 40 LowerSafe: Host, Open(COMPUTES), "no state";
        DP @ 44 LowerSafe: Host, Open(COMPUTES), "no state";
        FHM @ 48 LowerSafe: Host, Open(COMPUTES), "no state";
        TS @ 52 LowerSafe: Host, Open(PSTATE), "switched with SPSR_EL2";
        TLB @ 56 LowerSafe: Host, Partly("HFGITR_EL2.TLBI*OS, TLBIR*", NO_FGT), "acts on the guest's own VMID";
        RNDR @ 60 LowerSafe: Host, Open("no control at EL2; numbers that others cannot see"), "no state";
    }
    Isar1 {
        DPB @ 0 LowerSafe: Host, Partly("HFGITR_EL2.DCCVAP, DCCVADP", NO_FGT), "cleans the guest's own lines";
        APA @ 4 Exact: Host, Trap("HCR_EL2.API, APK"), "keys are switched";
        API @ 8 Exact: Host, Trap("HCR_EL2.API, APK"), "as APA";
        JSCVT @ 12 LowerSafe: Host, Open(COMPUTES), "no state";
        FCMA @ 16 LowerSafe: Host, Open(COMPUTES), "no state";
        LRCPC @ 20 LowerSafe: Host, Open(ACCESSES), "no state";
        GPA @ 24 Exact: Host, Trap("HCR_EL2.API, APK"), "as APA";
        GPI @ 28 Exact: Host, Trap("HCR_EL2.API, APK"), "as APA";
        FRINTTS @ 32 LowerSafe: Host, Open(COMPUTES), "no state";
        SB @ 36 LowerSafe: Host, Open("no control: a barrier"), "no state";
        SPECRES @ 40 LowerSafe: AtMost(1), Partly("HFGITR_EL2.COSPRCTX, CFPRCTX, DVPRCTX, CPPRCTX", NO_FGT), "COSP RCTX is not needed";
        BF16 @ 44 LowerSafe: Host, Open(COMPUTES), "no state";
        DGH @ 48 LowerSafe: Host, Open(HINT), "no state";
        I8MM @ 52 LowerSafe: Host, Open(COMPUTES), "no state";
        XS @ 56 LowerSafe: Host, Open("nothing traps the nXS forms alone; they act on the guest's own VMID"), "no state";
        LS64 @ 60 LowerSafe: Hidden, Trap("HCRX_EL2.EnALS, EnASR, EnAS0"), "no device of a VM takes 64 bytes at once";
    }
    Isar2 {
        WFxT @ 0 LowerSafe: Hidden, Inert("HCR_EL2.TWI: WFIT ends at once; WFET waits as WFE does"), "a parked vCPU has no deadline";
        RPRES @ 4 LowerSafe: Host, Open(COMPUTES), "no state";
        GPA3 @ 8 Exact: Host, Trap("HCR_EL2.API, APK"), "as APA";
        APA3 @ 12 Exact: Host, Trap("HCR_EL2.API, APK"), "as APA";
        MOPS @ 16 LowerSafe: Hidden, Undef("HCRX_EL2.MSCEn"), "CPUs may differ in the algorithm, and a sequence that moved must be restarted";
        BC @ 20 LowerSafe: Host, Open(HINT), "a branch with a hint";
        PAC_frac @ 24 LowerSafe: Host, Trap("HCR_EL2.API, APK, with the algorithm"), "as APA";
        CLRBHB @ 28 LowerSafe: Host, Open(HINT), "no state";
        SYSREG_128 @ 32 LowerSafe: Hidden, Trap("HCRX_EL2.D128En, EnIDCP128"), "state of 128 bits is not switched";
        SYSINSTR_128 @ 36 LowerSafe: Hidden, Trap("HCRX_EL2.D128En"), "as SYSREG_128";
        PRFMSLC @ 40 LowerSafe: Host, Open(HINT), "no state";
        RPRFM @ 48 LowerSafe: Host, Open(HINT), "no state";
        CSSC @ 52 LowerSafe: Host, Open(COMPUTES), "no state";
        LUT @ 56 LowerSafe: Host, Open(COMPUTES), "no state";
        ATS1A @ 60 LowerSafe: Hidden, Trap("HFGITR_EL2.ATS1E1A"), "of use with S1POE only";
    }
    Isar3 {
        CPA @ 0 LowerSafe: AtMost(1), Partly("HCRX_EL2.SCTLR2En", "ADDPT, SUBPT, MADDPT and MSUBPT only compute"),
            "checked addition is a control of SCTLR2";
        FAMINMAX @ 4 LowerSafe: Host, Open(COMPUTES), "no state";
        PACM @ 12 LowerSafe: Hidden, Inert("HCRX_EL2.PACMEn: a NOP"), "PSTATE.PACM is not switched";
        LSFE @ 16 LowerSafe: Host, Open(ACCESSES), "no state";
        OCCMO @ 20 LowerSafe: Hidden, Open("cleans the guest's own lines"), "outer caches are the machine's";
        LSUI @ 24 LowerSafe: Host, Open(ACCESSES), "no state";
        FPRCVT @ 28 LowerSafe: Host, Open(COMPUTES), "no state";
        MTETC @ 36 LowerSafe: Hidden, Open("HCR_EL2.ATA and stage 2 govern it as other tag stores"), "not needed";
    }
}
