//! AT at EL2, for a guest's registers and for its own.

use super::super::nested::need_el2;
use super::tables::{NESTED, PAGE, READ, Stage2, data};
use super::{FWB, PERMISSION, TRANSLATION, VM, el1_with_map};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{El1, at_el2, with_guest};
use crate::rt::machine::Machine;
use core::arch::asm;

/// At EL2: AT under the guest's registers, and PAR_EL1.
macro_rules! ask {
    ($name:literal, $el1:expr, $bits:expr, $va:expr) => {{
        let el1: El1 = $el1;
        with_guest(&el1, $bits, FWB & !$bits, || {
            let kept = mrs!("par_el1");
            // SAFETY: translation changes PAR_EL1 only.
            unsafe { asm!(concat!("at ", $name, ", {}"), "isb", in(reg) $va, options(nostack)) };
            let par = mrs!("par_el1");
            msr!("par_el1", kept);
            par
        })
    }};
}
pub(super) use ask;

pub(super) fn translate(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ);
    stage2.forget();
    let answers = at_el2(|| {
        stage2.install();
        let map = el1_with_map();
        [
            ask!("s1e1r", map, VM, NESTED + 0x123),
            ask!("s12e1r", map, VM, NESTED + 0x123),
            ask!("s12e1w", map, VM, NESTED + 0x123),
            ask!("s12e1r", map, VM, NESTED + PAGE),
            ask!("s1e1r", map, VM, 1_u64 << 40),
            ask!("s12e0r", map, VM, NESTED),
            ask!("s1e2r", map, VM, NESTED),
        ]
    });
    let [first, both, write, nothing, outside, el0, own] = answers;
    const ADDRESS: u64 = 0xffff_ffff_f001;
    check_eq!(first & ADDRESS, NESTED, "AT S1E1R");
    check_eq!(both & ADDRESS, data(0), "AT S12E1R");
    // F, S, and the status.
    check_eq!(write & 0x3ff, 1 | 1 << 9 | (PERMISSION | 3) << 1, "AT S12E1W, read-only");
    check_eq!(nothing & 0x3ff, 1 | 1 << 9 | (TRANSLATION | 3) << 1, "AT S12E1R, absent");
    check_eq!(outside & 0x3ff, 1 | TRANSLATION << 1, "AT S1E1R, no stage 1");
    check_eq!(el0 & 0x3ff, 1 | (PERMISSION | 1) << 1, "AT S12E0R, of EL1 only");
    check_eq!(own & ADDRESS, NESTED, "AT S1E2R");
    Ok(())
}
