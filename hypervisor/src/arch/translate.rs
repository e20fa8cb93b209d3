//! Address translation by the hardware, under the resident guest's own regime.

use super::sysreg::{instruction, mrs, msr, operation};
use addr::{Canonical, Ipa, Va};

/// Where the guest's stage 1 sends `va` for a privileged read, by AT S1E1R; `None` if it faults now.
/// The guest's PAR_EL1 is kept.
pub(crate) fn guest_ipa(va: Va) -> Option<Ipa<Canonical>> {
    let kept = mrs!("par_el1");
    operation!("at s1e1r", va.get());
    instruction!("isb");
    let par = mrs!("par_el1");
    msr!("par_el1", kept);
    (par & 1 == 0).then(|| Ipa::new(par & 0x000f_ffff_ffff_f000 | va.get() & 0xfff))
}
