//! CTR_EL0: what of it a VM may change. The sizes of lines and blocks are the hardware's.

use super::field_rows;
use crate::field::Closed::Inert;
use crate::field::Offer::Host;
use crate::field::{Entry, Field, Reg, Row, Rule};

field_rows! {
    Ctr {
        // PIPT may be called VIPT, which asks for the more maintenance.
        L1Ip @ 14 / 2 Exact absent 2: Host, Inert("HCR_EL2.TID2: more maintenance than needed"), "as the machine";
        IDC @ 28 / 1 LowerSafe: Host, Inert("HCR_EL2.TID2: more maintenance than needed"), "as the machine";
        DIC @ 29 / 1 LowerSafe: Host, Inert("HCR_EL2.TID2: more maintenance than needed"), "as the machine";
    }
}
