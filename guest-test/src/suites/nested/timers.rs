//! The timers of EL1 while EL2 runs: they are in no hardware then.

use super::{guest_code, guest_el1, need_el2};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::timer::{ENABLE, PATIENCE, SECOND, STATUS, ticks};
use crate::rt::{cpu, gic, sysreg};

const GUEST_VIRTUAL: u32 = 27;
const HYP_PHYSICAL: u32 = 26;

guest_code! {
    /// Lets x0 counts go by, then waits for an event, more than once: the first may be there already.
    late_wfe "isb\n mrs x1, CNTPCT_EL0\n add x1, x1, x0\n 3: isb\n mrs x2, CNTPCT_EL0\n cmp x2, x1\n b.lo 3b\n \
              wfe\n wfe\n wfe";
    /// Reads when its physical and its virtual timer fire.
    compare_values "mrs x0, CNTP_CVAL_EL0\n mrs x1, CNTV_CVAL_EL0";
}

/// At EL2: CVAL and CTL of EL1's virtual timer.
fn set_guest_timer(cval: u64, ctl: u64) {
    if el2::vhe() {
        msr!("s3_5_c14_c3_2", cval);
        msr!("s3_5_c14_c3_1", ctl);
    } else {
        msr!("cntv_cval_el0", cval);
        msr!("cntv_ctl_el0", ctl);
    }
}

/// At EL2: EL2's physical timer.
fn set_own_timer(cval: u64, ctl: u64) {
    msr!("cnthp_cval_el2", cval);
    msr!("cnthp_ctl_el2", ctl);
}

/// WFI at EL2 ends by EL1's timer, at whatever moment it fires.
pub(super) fn guest_timer_wakes(_: &Machine) -> Outcome {
    need_el2!();
    gic::enable(GUEST_VIRTUAL);
    gic::enable(HYP_PHYSICAL);
    let step = (mrs!("cntfrq_el0") >> 30).max(1) * 13;
    let offset = at_el2(|| mrs!("cntvoff_el2"));
    let late = at_el2(|| {
        msr!("cntvoff_el2", 0);
        (0..500u64).find(|n| {
            let now = mrs!("cntpct_el0");
            set_own_timer(now + ticks(PATIENCE), ENABLE);
            set_guest_timer(now + n * step, ENABLE);
            cpu::wait_interrupt();
            let late = mrs!("cnthp_ctl_el2") & STATUS != 0;
            set_guest_timer(0, 0);
            set_own_timer(0, 0);
            late
        })
    });
    at_el2(|| msr!("cntvoff_el2", offset));
    check!(late.is_none(), "moment {}: the timer did not end WFI", late.unwrap_or(0));
    check!(gic::quiet(), "an interrupt is left");
    Ok(())
}

/// EL1's timer, due, is moved on: it fires again at its new time, though EL2 never sleeps.
pub(super) fn guest_timer_moved(_: &Machine) -> Outcome {
    need_el2!();
    gic::enable(GUEST_VIRTUAL);
    let offset = at_el2(|| mrs!("cntvoff_el2"));
    let wait = |limit: u64| {
        let end = mrs!("cntpct_el0") + ticks(limit);
        loop {
            let intid = gic::acknowledge();
            if intid == GUEST_VIRTUAL || mrs!("cntpct_el0") > end {
                return intid;
            }
        }
    };
    let (first, second, early) = at_el2(|| {
        msr!("cntvoff_el2", 0);
        set_guest_timer(mrs!("cntpct_el0"), ENABLE);
        let first = wait(PATIENCE);
        let at = mrs!("cntpct_el0") + ticks(SECOND / 500);
        set_guest_timer(at, ENABLE);
        gic::end(GUEST_VIRTUAL);
        let second = wait(PATIENCE);
        let early = mrs!("cntpct_el0") < at;
        set_guest_timer(0, 0);
        gic::end(GUEST_VIRTUAL);
        msr!("cntvoff_el2", offset);
        (first, second, early)
    });
    check_eq!((first, second), (GUEST_VIRTUAL, GUEST_VIRTUAL), "INTIDs");
    check!(!early, "it fired before its time");
    check!(gic::quiet(), "an interrupt is left");
    Ok(())
}

/// EL2 traps WFE of its guest, whatever the machine does meanwhile for a timer of EL2's.
pub(super) fn wfe_traps_last(_: &Machine) -> Outcome {
    need_el2!();
    const TWE: u64 = 1 << 14;
    let mut guest = Guest::new(late_wfe());
    guest.x[0] = ticks(SECOND / 100);
    let exit = at_el2(|| {
        set_own_timer(mrs!("cntpct_el0") + ticks(SECOND / 1000), ENABLE);
        let exit = with_guest(&guest_el1(), TWE, 0, || el2::enter(&mut guest));
        set_own_timer(0, 0);
        exit
    });
    check_eq!((exit, guest.ec()), (Exit::Sync, 1), "exit: ESR {:#x}", guest.esr);
    Ok(())
}

/// TVAL of EL1's timers, written by EL2, counts from EL1's counters, and leaves EL2's own timer alone.
pub(super) fn guest_timer_values(_: &Machine) -> Outcome {
    need_el2!();
    const OFFSET: u64 = 1 << 20;
    const VALUE: u64 = 1 << 28;
    const OWN: u64 = 1 << 60;
    let count = || {
        // SAFETY: a barrier, so that the counter is read in turn.
        unsafe { core::arch::asm!("isb", options(nostack)) };
        mrs!("cntpct_el0")
    };
    let mut guest = Guest::new(compare_values());
    let (before, after, own) = at_el2(|| {
        let offset = mrs!("cntvoff_el2");
        msr!("cntvoff_el2", OFFSET);
        set_own_timer(OWN, 0);
        let span = with_guest(&guest_el1(), 0, 0, || {
            let before = count();
            if el2::vhe() {
                msr!("s3_5_c14_c2_0", VALUE);
                msr!("s3_5_c14_c3_0", VALUE);
            } else {
                msr!("cntp_tval_el0", VALUE);
                msr!("cntv_tval_el0", VALUE);
            }
            let after = count();
            el2::enter(&mut guest);
            (before, after)
        });
        msr!("cntvoff_el2", offset);
        (span.0, span.1, mrs!("cnthp_cval_el2"))
    });
    let counted = before..=after;
    check_eq!(own, OWN, "CNTHP_CVAL_EL2");
    let physical = guest.x[0].wrapping_sub(VALUE);
    check!(counted.contains(&physical), "CNTP_CVAL is {physical:#x} and TVAL, not from {counted:x?}");
    // Without FEAT_ECV, an EL2 without VHE does not reach the virtual one.
    if el2::vhe() || sysreg::field(mrs!("id_aa64mmfr0_el1"), 60) != 0 {
        let virt = guest.x[1].wrapping_add(OFFSET).wrapping_sub(VALUE);
        check!(counted.contains(&virt), "CNTV_CVAL is {virt:#x}, TVAL and offset, not from {counted:x?}");
    }
    Ok(())
}
