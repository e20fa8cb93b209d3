//! ID_AA64MMFR0_EL1 to ID_AA64MMFR4_EL1: the memory system.

use super::{OWN_TABLES, PSTATE, SCTLR, TCR, field_rows};
use crate::field::Closed::{Open, Partly, Trap, Unreachable};
use crate::field::Offer::{AtMost, Hidden, Host};
use crate::field::{Entry, Field, Reg, Row, Rule};

field_rows! {
    Mmfr0 {
        PARange @ 0 LowerSafe: AtMost(5), Open("larger addresses are stage-2 address size faults"), "48 bits, no LPA2";
        ASIDBits @ 4 LowerSafe: Host, Open("TCR_EL1.AS is the guest's; ASIDs are tagged by its own VMID"), "no more state";
        BigEnd @ 8 LowerSafe: Host, Open(SCTLR), "EE and E0E";
        SNSMem @ 12 LowerSafe: Hidden, Unreachable, "Secure state is not the guest's";
        BigEndEL0 @ 16 LowerSafe: Host, Open(SCTLR), "E0E";
        TGran16 @ 20 LowerSafe: AtMost(1), Open("as PARange"), "no LPA2";
        TGran64 @ 24 SignedLowerSafe: Host, Open(TCR), "the granule of stage 1 is the guest's choice";
        TGran4 @ 28 SignedLowerSafe: AtMost(0), Open("as PARange"), "no LPA2";
        TGran16_2 @ 32 LowerSafe absent 1: Hidden, Unreachable, "stage 2 is of EL2: with virtual EL2, as TGran16";
        TGran64_2 @ 36 LowerSafe absent 1: Hidden, Unreachable, "as TGran16_2";
        TGran4_2 @ 40 LowerSafe absent 1: Hidden, Unreachable, "as TGran16_2";
        ExS @ 44 LowerSafe: Hidden, Open("SCTLR_EL1.EIS and EOS order the guest's own exceptions"), "not needed";
        FGT @ 56 LowerSafe: Hidden, Unreachable, "a control of EL2";
        ECV @ 60 LowerSafe: AtMost(1), Open("CNTPCTSS_EL0 and CNTVCTSS_EL0 read the counters that every guest has"), "CNTPOFF is a control of EL2";
    }
    Mmfr1 {
        HAFDBS @ 0 LowerSafe: AtMost(2), Open("TCR2_EL1.HAFT is trapped by HCRX_EL2.TCR2En"), "table flags are in TCR2";
        VMIDBits @ 4 LowerSafe: Hidden, Unreachable, "of EL2";
        VH @ 8 LowerSafe: Hidden, Unreachable, "of EL2";
        HPDS @ 12 LowerSafe: Host, Open(TCR), "HPD0 and HPD1";
        LO @ 16 LowerSafe: Hidden, Trap("HCR_EL2.TLOR"), "LORegions describe physical memory";
        PAN @ 20 LowerSafe: Host, Partly("HFGITR_EL2.ATS1E1RP, ATS1E1WP for PAN 2", "PSTATE.PAN, saved in SPSR_EL2; the PAN forms of AT where there is no FEAT_FGT"),
            "switched with SPSR_EL2";
        SpecSEI @ 24 HigherSafe: Host, Unreachable, "a hazard that a guest must know";
        XNX @ 28 LowerSafe: Hidden, Unreachable, "of stage 2";
        TWED @ 32 LowerSafe: Hidden, Unreachable, "a control of EL2";
        ETS @ 36 LowerSafe: Host, Unreachable, "a statement about the core";
        HCX @ 40 LowerSafe: Hidden, Unreachable, "a control of EL2";
        AFP @ 44 LowerSafe: Host, Open("FPCR is switched whole"), "switched with FP";
        nTLBPA @ 48 LowerSafe: Host, Unreachable, "a statement about the core";
        TIDCP1 @ 52 LowerSafe: Host, Open(SCTLR), "TIDCP traps the guest's own EL0";
        CMOW @ 56 LowerSafe: Host, Open(SCTLR), "CMOW";
        ECBHB @ 60 LowerSafe: Host, Unreachable, "a statement about the core";
    }
    Mmfr2 {
        CnP @ 0 LowerSafe: Host, Open(OWN_TABLES), "entries are shared under the guest's own VMID";
        UAO @ 4 LowerSafe: Host, Open(PSTATE), "switched with SPSR_EL2";
        LSM @ 8 LowerSafe: Host, Open(SCTLR), "LSMAOE and nTLSMD";
        IESB @ 12 LowerSafe: Hidden, Open("SCTLR_EL1.IESB orders the guest's own virtual SErrors"), "as RAS";
        VARange @ 16 LowerSafe: AtMost(0), Open("T0SZ and T1SZ are the guest's; walks in software end larger ranges"), "EL2 walks 48 bits of a guest's addresses";
        CCIDX @ 20 Exact: Host, Unreachable, "the invented CCSIDR_EL1 is the same in both formats";
        NV @ 24 LowerSafe: Hidden, Unreachable, "of EL2";
        ST @ 28 LowerSafe: Host, Open(TCR), "T0SZ and T1SZ";
        AT @ 32 LowerSafe: Host, Unreachable, "a statement about the core";
        IDS @ 36 LowerSafe: AtMost(1), Open("no control: with which syndrome a read of EL0 reaches the guest's own EL1"), "what is refused is reported alike";
        FWB @ 40 LowerSafe: Hidden, Unreachable, "of stage 2";
        TTL @ 48 LowerSafe: Host, Open(OWN_TABLES), "a hint of stage-1 TLBI too";
        BBM @ 52 LowerSafe: Host, Open(OWN_TABLES), "holds for the guest's stage 1";
        EVT @ 56 LowerSafe: Hidden, Unreachable, "a control of EL2";
        E0PD @ 60 LowerSafe: Host, Open(TCR), "E0PD0 and E0PD1";
    }
    Mmfr3 {
        TCRX @ 0 LowerSafe: Hidden, Trap("HCRX_EL2.TCR2En"), "TCR2 is not switched";
        SCTLRX @ 4 LowerSafe: Hidden, Trap("HCRX_EL2.SCTLR2En"), "SCTLR2 is not switched";
        S1PIE @ 8 LowerSafe: Hidden, Trap("HFGRTR_EL2.nPIR_EL1, nPIRE0_EL1"), "PIR is not switched";
        S2PIE @ 12 LowerSafe: Hidden, Unreachable, "of stage 2";
        S1POE @ 16 LowerSafe: Hidden, Trap("HFGRTR_EL2.nPOR_EL1, nPOR_EL0"), "POR is not switched";
        S2POE @ 20 LowerSafe: Hidden, Unreachable, "of stage 2";
        AIE @ 24 LowerSafe: Hidden, Trap("HFGRTR_EL2.nMAIR2_EL1, nAMAIR2_EL1"), "MAIR2 is not switched";
        MEC @ 28 LowerSafe: Hidden, Unreachable, "of the Realm state";
        D128 @ 32 LowerSafe: Hidden, Trap("HCRX_EL2.D128En"), "tables of 128 bits are not supported";
        D128_2 @ 36 LowerSafe: Hidden, Unreachable, "of stage 2";
        Spec_FPACC @ 60 LowerSafe: Host, Unreachable, "a statement about the core";
    }
    Mmfr4 {
        EIESB @ 4 SignedLowerSafe absent 0: Hidden, Open("as IESB"), "as RAS";
        ASID2 @ 8 LowerSafe: Hidden, Trap("HCRX_EL2.TCR2En"), "a control of TCR2";
        HACDBS @ 12 LowerSafe: Hidden, Unreachable, "of EL2";
        NV_frac @ 20 LowerSafe: Hidden, Unreachable, "of EL2";
        E2H0 @ 24 SignedLowerSafe absent 0: Hidden, Unreachable, "of EL2";
    }
}
