//! ID_AA64PFR0_EL1 to ID_AA64PFR2_EL1: exception levels, floating point, MTE.

use super::{COMPUTES, PSTATE, field_rows};
use crate::field::Closed::{Inert, Nothing, Open, Partly, Trap, Unreachable};
use crate::field::Offer::{AtMost, Hidden, Host, Value, WithMte, WithSve};
use crate::field::{Entry, Field, Reg, Row, Rule};

field_rows! {
    Pfr0 {
        EL0 @ 0 LowerSafe: Value(1), Open("a vCPU found in AArch32 state is stopped"),
            "AArch64 only: AArch32 state is not switched";
        EL1 @ 4 LowerSafe: Value(1), Inert("HCR_EL2.RW"), "AArch64 only";
        EL2 @ 8 LowerSafe: Hidden, Trap("HCR_EL2.NV is 0: EL2 registers are UNDEFINED"), "only where the manifest says `nested`";
        EL3 @ 12 LowerSafe: Hidden, Trap("HCR_EL2.TSC"), "firmware is not the guest's";
        FP @ 16 SignedLowerSafe: Host, Partly("CPTR_EL2.TFP", "half precision, where 1 is lowered to 0: it only computes"),
            "switched lazily";
        AdvSIMD @ 20 SignedLowerSafe: Host, Trap("CPTR_EL2.TFP, as FP"), "switched with FP";
        GIC @ 24 LowerSafe: Value(1), Nothing, "every VM has a GICv3 by system registers, no NMI";
        RAS @ 28 LowerSafe: Hidden, Trap("HCR_EL2.TERR: no records"), "error records are the machine's";
        SVE @ 32 LowerSafe: WithSve(1), Trap("CPTR_EL2.TZ"), "switched lazily; vectors as long as ZCR_EL2 allows";
        SEL2 @ 36 LowerSafe: Hidden, Trap("HCR_EL2.TSC"), "Secure state is not the guest's";
        MPAM @ 40 LowerSafe: Hidden, Trap("MPAM2_EL2.TRAPMPAM0EL1, TRAPMPAM1EL1, TIDR; MPAMHCR_EL2.TRAP_MPAMIDR_EL1"), "PARTIDs are the machine's";
        AMU @ 44 LowerSafe: Hidden, Trap("CPTR_EL2.TAM"), "the counters count other VMs";
        DIT @ 48 LowerSafe: Host, Open(PSTATE), "switched with SPSR_EL2";
        RME @ 52 LowerSafe: Hidden, Unreachable, "of EL3 only";
        CSV2 @ 56 LowerSafe: AtMost(1), Trap("HCR_EL2.EnSCXT"), "SCXTNUM is not switched";
        CSV3 @ 60 LowerSafe: Host, Unreachable, "a statement about the core";
    }
    Pfr1 {
        BT @ 0 LowerSafe: Host, Open(PSTATE), "switched with SPSR_EL2";
        SSBS @ 4 LowerSafe: Host, Open(PSTATE), "switched with SPSR_EL2";
        MTE @ 8 LowerSafe: WithMte(3), Partly("HCR_EL2.ATA, and TID5 for GMID_EL1", "ADDG, IRG and the like only compute; where 3 is lowered to 2, SCTLR_EL1.TCF and TCF0 3, the guest's own and switched"),
            "only where the manifest says so: the VM's memory must be able to hold tags";
        RAS_frac @ 12 LowerSafe: Hidden, Trap("HCR_EL2.TERR, FIEN"), "as RAS";
        MPAM_frac @ 16 LowerSafe: Hidden, Trap("MPAM2_EL2.TRAPMPAM0EL1, TRAPMPAM1EL1, TIDR; MPAMHCR_EL2.TRAP_MPAMIDR_EL1"), "as MPAM";
        SME @ 24 LowerSafe: Hidden, Trap("CPTR_EL2.TSM, HFGRTR_EL2.nTPIDR2_EL0"), "ZA and streaming mode are not switched";
        RNDR_trap @ 28 LowerSafe: Hidden, Unreachable, "a control of EL3";
        CSV2_frac @ 32 LowerSafe: Hidden, Trap("HCR_EL2.EnSCXT"), "as CSV2";
        NMI @ 36 LowerSafe: Hidden, Partly("HCRX_EL2.TALLINT", "MRS of ALLINT and its copy in SPSR_EL1, SCTLR_EL1.NMI and SPINTMASK: the guest's own and switched"),
            "the virtual GIC has no NMIs";
        MTE_frac @ 40 SignedLowerSafe absent 0: WithMte(0), Inert("HCR_EL2.ATA"),
            "with MTE 2 a 0 promises asynchronous faults: the machine's answer";
        GCS @ 44 LowerSafe: Hidden, Trap("HCRX_EL2.GCSEn, HFGRTR_EL2.nGCS_EL0, nGCS_EL1"),
            "GCSPR is not switched, and stage 2 has no shadow stack permission";
        THE @ 48 LowerSafe: Hidden, Partly("HFGRTR_EL2.nRCWMASK_EL1, HCRX_EL2.TCR2En", "RCWCAS and the like access memory that stage 2 gives, as other atomics do"),
            "RCWMASK is not switched";
        MTEX @ 52 LowerSafe: Hidden, Open("TCR_EL1.MTX changes checks of the guest's own accesses only"),
            "no guest needs canonical tags yet";
        DF2 @ 56 LowerSafe: Hidden, Trap("HCRX_EL2.SCTLR2En"), "SCTLR2 is not switched";
        PFAR @ 60 LowerSafe: Hidden, Trap("HFGRTR2_EL2.nPFAR_EL1"), "physical addresses are not the guest's";
    }
    Pfr2 {
        MTEPERM @ 0 LowerSafe: Hidden, Unreachable, "a property of stage 2";
        MTESTOREONLY @ 4 LowerSafe: WithMte(1), Open("SCTLR_EL1.TCSO drops checks of the guest's own loads only"),
            "no state beyond SCTLR_EL1";
        MTEFAR @ 8 LowerSafe: WithMte(1), Inert("HCR_EL2.ATA"), "says which bits of FAR_EL1 hold: the hardware writes it";
        GCIE @ 12 LowerSafe: Hidden, Unreachable, "a CPU that has it has no GICv3 of its own, and a machine without one is refused";
        UINJ @ 16 LowerSafe: Hidden, Open("PSTATE.UINJ raises an exception of the guest itself"), "not needed";
        FPMR @ 32 LowerSafe: Hidden, Trap("HCRX_EL2.EnFPM"), "FPMR is not switched";
    }
    Zfr0 {
        SVEver @ 0 LowerSafe: WithSve(0xf), Open(COMPUTES), "SVE2 and later: no further registers";
        AES @ 4 LowerSafe: WithSve(0xf), Open(COMPUTES), "as SVE";
        BitPerm @ 16 LowerSafe: WithSve(0xf), Open(COMPUTES), "as SVE";
        BF16 @ 20 LowerSafe: WithSve(0xf), Open(COMPUTES), "as SVE";
        B16B16 @ 24 LowerSafe: WithSve(0xf), Open(COMPUTES), "as SVE";
        SHA3 @ 32 LowerSafe: WithSve(0xf), Open(COMPUTES), "as SVE";
        SM4 @ 40 LowerSafe: WithSve(0xf), Open(COMPUTES), "as SVE";
        I8MM @ 44 LowerSafe: WithSve(0xf), Open(COMPUTES), "as SVE";
        F32MM @ 52 LowerSafe: WithSve(0xf), Open(COMPUTES), "as SVE";
        F64MM @ 56 LowerSafe: WithSve(0xf), Open(COMPUTES), "as SVE";
    }
}
