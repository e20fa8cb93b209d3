//! Both stages: AT at EL2, for a guest's registers and for its own, and a guest with tables of its own.

use super::super::nested::need_el2;
use super::tables::{BLOCK_2M, NESTED, PAGE, READ, Stage2, WRITE, data};
use super::{EC_HVC, EC_IABT, FWB, PERMISSION, TRANSLATION, VM, el1_with_map, load64, run_as};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{El1, Exit, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mem::write64;
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

/// The guest's own tables lie where stage 2 has nothing: the fault is on its walk.
pub(super) fn guest_tables(_: &Machine) -> Outcome {
    need_el2!();
    let stage2 = Stage2::new(0, 1);
    stage2.forget();
    let el1 = El1 { ttbr0: NESTED + BLOCK_2M, ..el1_with_map() };
    let (exit, guest) = run_as(&el1, &stage2, VM, load64(), 0, load64());
    check_eq!((exit, guest.ec()), (Exit::Sync, EC_IABT), "ESR {:#x}", guest.esr);
    check_eq!(guest.esr & (1 << 7 | 0x3f), 1 << 7 | TRANSLATION | 2, "S1PTW and status");
    let index = load64() >> 30 & 0x1ff;
    check_eq!(guest.hpfar, (NESTED + BLOCK_2M + 8 * index) >> 12 << 4, "HPFAR_EL2");
    // With them, a load through both stages.
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ | WRITE);
    stage2.forget();
    write64(data(0) + 16, 1234);
    let (exit, guest) = run_as(&el1_with_map(), &stage2, VM, load64(), 0, NESTED + 16);
    check_eq!((exit, guest.ec(), guest.x[0]), (Exit::Sync, EC_HVC, 1234), "ESR {:#x}", guest.esr);
    Ok(())
}
