//! ID_AA64DFR0_EL1: debug, trace and profiling.

use super::field_rows;
use crate::field::Closed::{Open, Trap, Unreachable};
use crate::field::Offer::{AtMost, Hidden, Host, Value};
use crate::field::{Entry, Field, Reg, Row, Rule};

field_rows! {
    Dfr0 {
        DebugVer @ 0 LowerSafe: AtMost(0xa), Trap("MDCR_EL2.TDA"), "not optional; Debugv8p9 adds banks";
        TraceVer @ 4 LowerSafe: Hidden, Trap("CPTR_EL2.TTA"), "the trace unit is the machine's";
        PMUVer @ 8 SignedLowerSafe absent 0: Value(0), Trap("MDCR_EL2.TPM, TPMCR"), "no virtual PMU yet";
        BRPs @ 12 LowerSafe: Host, Trap("MDCR_EL2.TDA: all read as zero"), "mute, so their number is without effect";
        PMSS @ 16 LowerSafe: Hidden, Trap("HDFGRTR2_EL2.nPMSSDATA"), "as PMUVer";
        WRPs @ 20 LowerSafe: Host, Trap("MDCR_EL2.TDA"), "as BRPs";
        CTX_CMPs @ 28 LowerSafe: Host, Trap("MDCR_EL2.TDA"), "as BRPs";
        PMSVer @ 32 LowerSafe: Hidden, Trap("MDCR_EL2.TPMS, E2PB"), "profiling writes memory";
        DoubleLock @ 36 SignedLowerSafe: Hidden, Trap("MDCR_EL2.TDOSA"), "power-down debug is the machine's";
        TraceFilt @ 40 LowerSafe: Hidden, Trap("MDCR_EL2.TTRF"), "as TraceVer";
        TraceBuffer @ 44 LowerSafe: Hidden, Trap("MDCR_EL2.E2TB"), "tracing writes memory";
        MTPMU @ 48 SignedLowerSafe absent 0: Value(0), Trap("MDCR_EL2.TPM"), "as PMUVer";
        BRBE @ 52 LowerSafe: Hidden, Trap("HDFGRTR_EL2.nBRBIDR, nBRBCTL, nBRBDATA"), "records are not switched";
        ExtTrcBuff @ 56 LowerSafe: Hidden, Trap("MDCR_EL2.E2TB"), "as TraceBuffer";
        HPMN0 @ 60 LowerSafe: Hidden, Unreachable, "a control of EL2";
    }
    Dfr1 {
        SPMU @ 32 LowerSafe: Hidden, Trap("MDCR_EL2.EnSPM"), "system counters count other VMs";
        EBEP @ 48 LowerSafe: Hidden, Trap("MDCR_EL2.TPM"), "as PMUVer";
    }
    Dfr2 {
        STEP @ 0 LowerSafe: Hidden, Trap("MDCR_EL2.EnSTEPOP"), "MDSTEPOP is not switched";
        BWE @ 4 LowerSafe: Hidden, Open("MDCR_EL2.EBWE is 0: breakpoints are trapped anyway"), "not needed";
    }
}
