//! ID_AA64MMFR0_EL1 to ID_AA64MMFR4_EL1: the memory system.

use super::field_rows;
use crate::field::Closed::{Nothing, Open, Trap, Unreachable};
use crate::field::Offer::{AtMost, Hidden, Host};
use crate::field::{Entry, Field, Reg, Row, Rule};

field_rows! {
    Mmfr0 {
        PARANGE @ 0 LowerSafe: AtMost(5), Open("larger addresses are stage-2 address size faults"), "48 bits, no LPA2";
        ASIDBITS @ 4 LowerSafe: Host, Nothing, "tagged by the guest's own VMID";
        BIGEND @ 8 LowerSafe: Host, Nothing, "SCTLR_EL1.EE, E0E";
        SNSMEM @ 12 LowerSafe: Hidden, Unreachable, "Secure state is not the guest's";
        BIGENDEL0 @ 16 LowerSafe: Host, Nothing, "SCTLR_EL1.E0E";
        TGRAN16 @ 20 LowerSafe: AtMost(1), Open("as PARANGE"), "no LPA2";
        TGRAN64 @ 24 SignedLowerSafe: Host, Nothing, "the granule of stage 1 is the guest's choice";
        TGRAN4 @ 28 SignedLowerSafe: AtMost(0), Open("as PARANGE"), "no LPA2";
        TGRAN16_2 @ 32 LowerSafe absent 1: Hidden, Unreachable, "a guest has no stage 2";
        TGRAN64_2 @ 36 LowerSafe absent 1: Hidden, Unreachable, "a guest has no stage 2";
        TGRAN4_2 @ 40 LowerSafe absent 1: Hidden, Unreachable, "a guest has no stage 2";
        EXS @ 44 LowerSafe: Hidden, Open("SCTLR_EL1.EIS and EOS order the guest's own exceptions"), "not needed";
        FGT @ 56 LowerSafe: Hidden, Unreachable, "a control of EL2";
        ECV @ 60 LowerSafe: AtMost(1), Unreachable, "CNTPOFF is a control of EL2";
    }
    Mmfr1 {
        HAFDBS @ 0 LowerSafe: AtMost(2), Open("TCR2_EL1.HAFT is trapped by HCRX_EL2.TCR2En"), "table flags are in TCR2";
        VMIDBITS @ 4 LowerSafe: Hidden, Unreachable, "of EL2";
        VH @ 8 LowerSafe: Hidden, Unreachable, "of EL2";
        HPDS @ 12 LowerSafe: Host, Nothing, "TCR_EL1";
        LO @ 16 LowerSafe: Hidden, Trap("HCR_EL2.TLOR"), "LORegions describe physical memory";
        PAN @ 20 LowerSafe: Host, Nothing, "a PSTATE bit, part of SPSR";
        SPECSEI @ 24 HigherSafe: Host, Nothing, "a hazard that a guest must know";
        XNX @ 28 LowerSafe: Hidden, Unreachable, "of stage 2";
        TWED @ 32 LowerSafe: Hidden, Unreachable, "a control of EL2";
        ETS @ 36 LowerSafe: Host, Nothing, "a statement about the core";
        HCX @ 40 LowerSafe: Hidden, Unreachable, "a control of EL2";
        AFP @ 44 LowerSafe: Host, Nothing, "FPCR is switched whole";
        NTLBPA @ 48 LowerSafe: Host, Nothing, "a statement about the core";
        TIDCP1 @ 52 LowerSafe: Host, Nothing, "SCTLR_EL1.TIDCP";
        CMOW @ 56 LowerSafe: Host, Nothing, "SCTLR_EL1.CMOW";
        ECBHB @ 60 LowerSafe: Host, Nothing, "a statement about the core";
    }
    Mmfr2 {
        CNP @ 0 LowerSafe: Host, Nothing, "entries are shared under the guest's own VMID";
        UAO @ 4 LowerSafe: Host, Nothing, "a PSTATE bit, part of SPSR";
        LSM @ 8 LowerSafe: Host, Nothing, "SCTLR_EL1";
        IESB @ 12 LowerSafe: Hidden, Open("SCTLR_EL1.IESB orders the guest's own virtual SErrors"), "as RAS";
        VARANGE @ 16 LowerSafe: AtMost(1), Open("as PARANGE"), "56 bits need D128";
        CCIDX @ 20 Exact: Host, Nothing, "the invented CCSIDR_EL1 is the same in both formats";
        NV @ 24 LowerSafe: Hidden, Unreachable, "of EL2";
        ST @ 28 LowerSafe: Host, Nothing, "TCR_EL1";
        AT @ 32 LowerSafe: Host, Nothing, "a statement about the core";
        IDS @ 36 LowerSafe: AtMost(1), Unreachable, "what is refused is reported alike";
        FWB @ 40 LowerSafe: Hidden, Unreachable, "of stage 2";
        TTL @ 48 LowerSafe: Host, Nothing, "a hint of stage-1 TLBI too";
        BBM @ 52 LowerSafe: Host, Nothing, "holds for the guest's stage 1";
        EVT @ 56 LowerSafe: Hidden, Unreachable, "a control of EL2";
        E0PD @ 60 LowerSafe: Host, Nothing, "TCR_EL1";
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
        SPEC_FPACC @ 60 LowerSafe: Host, Nothing, "a statement about the core";
    }
    Mmfr4 {
        EIESB @ 4 SignedLowerSafe absent 0: Hidden, Open("as IESB"), "as RAS";
        ASID2 @ 8 LowerSafe: Hidden, Trap("HCRX_EL2.TCR2En"), "a control of TCR2";
        HACDBS @ 12 LowerSafe: Hidden, Unreachable, "of EL2";
        NV_FRAC @ 20 LowerSafe: Hidden, Unreachable, "of EL2";
        E2H0 @ 24 SignedLowerSafe absent 0: Hidden, Unreachable, "of EL2";
    }
}
