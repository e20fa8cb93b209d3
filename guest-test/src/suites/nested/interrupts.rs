//! Timers of EL2 and of the guest, the virtual CPU interface, the maintenance interrupt.

use super::{EC_HVC, guest_code, guest_el1, need_el2, slot};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::el2::{self, El1, Exit, Guest, at_el2, with_guest};
use crate::rt::gic::{self, SPURIOUS, acknowledge, acknowledge_soon};
use crate::rt::machine::Machine;
use crate::rt::mem;
use crate::rt::timer::{self, ENABLE, PATIENCE, SECOND, ticks};

guest_code! {
    /// Waits for an interrupt with IRQs on: x0 rounds of a loop.
    busy "msr DAIFClr, #2\n isb\n 2: subs x0, x0, #1\n b.ne 2b\n mov x9, #1";
    /// Enables group 1, then as `busy`.
    enable_group "mov x1, #1\n msr ICC_IGRPEN1_EL1, x1\n isb\n 2: subs x0, x0, #1\n b.ne 2b\n mov x9, #1";
    /// Arms its virtual timer at x0 and spins for ever.
    arm "msr CNTV_CVAL_EL0, x0\n mov x1, #1\n msr CNTV_CTL_EL0, x1\n isb\n 2: b 2b";
    /// Arms its physical timer at x0 and spins for ever.
    arm_physical "msr CNTP_CVAL_EL0, x0\n mov x1, #1\n msr CNTP_CTL_EL0, x1\n isb\n 2: b 2b";
    /// Lets everything in.
    unmasked "msr DAIFClr, #7\n isb\n nop\n nop";
    /// Reads the virtual and the physical counter.
    counters "isb\n mrs x0, CNTVCT_EL0\n mrs x1, CNTPCT_EL0";
    /// Turns its group 1 off: x0 rounds of a loop.
    group_off "msr ICC_IGRPEN1_EL1, xzr\n isb\n 2: subs x0, x0, #1\n b.ne 2b\n mov x9, #1";
    /// Turns its interface on, lets IRQs in.
    receive "mov x1, #0xff\n msr ICC_PMR_EL1, x1\n mov x1, #1\n msr ICC_IGRPEN1_EL1, x1\n isb\n msr DAIFClr, #2\n isb\n nop\n nop";
}

const IMO: u64 = 1 << 4;
const FMO: u64 = 1 << 3;
const AMO: u64 = 1 << 5;
const VF: u64 = 1 << 6;
const VSE: u64 = 1 << 8;
const MAINTENANCE: u32 = 25;
const HYP_PHYSICAL: u32 = 26;
const GUEST_VIRTUAL: u32 = 27;
const GROUP1: u64 = 1 << 60;
const PENDING: u64 = 1 << 62;
/// ICH_VMCR_EL2: PMR 0xff, group 1 on.
const OPEN: u64 = 0xff << 24 | 1 << 1;

/// EL2's physical timer, from EL2, in both of its forms.
pub(super) fn hypervisor_timers(_: &Machine) -> Outcome {
    need_el2!();
    gic::enable(HYP_PHYSICAL);
    let intids = at_el2(|| {
        let now = mrs!("cntpct_el0");
        msr!("cnthp_cval_el2", now + ticks(SECOND / 500));
        msr!("cnthp_ctl_el2", ENABLE);
        let early = mrs!("cnthp_ctl_el2");
        // SAFETY: a barrier.
        unsafe { core::arch::asm!("isb") };
        let first = poll();
        let late = mrs!("cnthp_ctl_el2");
        msr!("cnthp_ctl_el2", 0);
        gic::end(HYP_PHYSICAL);
        msr!("cnthp_tval_el2", ticks(SECOND / 500));
        msr!("cnthp_ctl_el2", ENABLE);
        let second = poll();
        msr!("cnthp_ctl_el2", 0);
        gic::end(HYP_PHYSICAL);
        (early & 1, first, late, second)
    });
    check_eq!(intids, (1, HYP_PHYSICAL, 5, HYP_PHYSICAL), "CTL, INTID, CTL, INTID");
    check!(gic::quiet(), "an interrupt is left");
    Ok(())
}

/// Acknowledges, waiting by the physical counter: EL2's timers do not depend on others.
fn poll() -> u32 {
    let end = mrs!("cntpct_el0") + ticks(PATIENCE);
    loop {
        let intid = acknowledge();
        if intid != SPURIOUS || mrs!("cntpct_el0") > end {
            return intid;
        }
    }
}

/// The guest's virtual timer, with an offset, interrupts the guest: EL2 takes it.
pub(super) fn guest_timer(_: &Machine) -> Outcome {
    need_el2!();
    gic::enable(GUEST_VIRTUAL);
    let mut guest = Guest::new(arm());
    let mut reader = Guest::new(counters());
    let (exit, intid, ctl, before) = at_el2(|| {
        let offset = mrs!("cntvoff_el2");
        let before = mrs!("cntpct_el0");
        msr!("cntvoff_el2", before);
        guest.x[0] = ticks(SECOND / 200);
        let out = with_guest(&guest_el1(), IMO, 0, || {
            el2::enter(&mut reader);
            let exit = el2::enter(&mut guest);
            let intid = acknowledge();
            let mut el1 = El1::read();
            let ctl = el1.cntv_ctl;
            el1.cntv_ctl = 0;
            el1.write();
            (exit, intid, ctl)
        });
        gic::end(GUEST_VIRTUAL);
        msr!("cntvoff_el2", offset);
        (out.0, out.1, out.2, before)
    });
    let (virtual_count, physical) = (reader.x[0], reader.x[1]);
    check!(
        physical >= before && virtual_count <= physical - before + ticks(SECOND / 1000),
        "CNTVCT {virtual_count:#x}, CNTPCT {physical:#x} after {before:#x}"
    );
    check_eq!((exit, intid), (Exit::Irq, GUEST_VIRTUAL), "exit and INTID");
    check_eq!(ctl & 5, 5, "CNTV_CTL: enabled, condition met");
    check!(gic::quiet(), "an interrupt is left");
    Ok(())
}

/// The guest's physical counter and timer lag behind by CNTPOFF_EL2, in the guest and while EL2 runs.
pub(super) fn physical_offset(_: &Machine) -> Outcome {
    need_el2!();
    if crate::rt::sysreg::field(mrs!("id_aa64mmfr0_el1"), 60) < 2 {
        skip!("no CNTPOFF_EL2");
    }
    const ECV: u64 = 1 << 12;
    const GUEST_PHYSICAL: u32 = 30;
    gic::enable(GUEST_PHYSICAL);
    let (mut with, mut without, mut guest) =
        (Guest::new(counters()), Guest::new(counters()), Guest::new(arm_physical()));
    let delay = ticks(SECOND / 200);
    guest.x[0] = delay;
    let (before, first, second) = at_el2(|| {
        let (cnthctl, offset) = (mrs!("cnthctl_el2"), mrs!("S3_4_C14_C0_6"));
        let before = mrs!("cntpct_el0");
        msr!("S3_4_C14_C0_6", before);
        with_guest(&guest_el1(), 0, 0, || el2::enter(&mut without));
        msr!("cnthctl_el2", cnthctl | ECV);
        let out = with_guest(&guest_el1(), IMO, 0, || {
            el2::enter(&mut with);
            let exit = el2::enter(&mut guest);
            let first = (exit, acknowledge(), mrs!("cntpct_el0") - before);
            let mut el1 = El1::read();
            el1.cntp_ctl = 0;
            el1.write();
            gic::end(GUEST_PHYSICAL);
            // Now while EL2 itself runs.
            let begin = mrs!("cntpct_el0");
            el1.cntp_cval = begin - before + delay;
            el1.cntp_ctl = ENABLE;
            el1.write();
            let second = (poll(), mrs!("cntpct_el0") - begin);
            el1.cntp_ctl = 0;
            el1.write();
            gic::end(GUEST_PHYSICAL);
            (first, second)
        });
        msr!("cnthctl_el2", cnthctl);
        msr!("S3_4_C14_C0_6", offset);
        (before, out.0, out.1)
    });
    check!(without.x[1] >= before, "CNTPCT {:#x} with CNTHCTL_EL2.ECV clear", without.x[1]);
    check!(with.x[1] <= first.2, "CNTPCT {:#x} with an offset of {before:#x}", with.x[1]);
    check_eq!((first.0, first.1), (Exit::Irq, GUEST_PHYSICAL), "exit and INTID");
    check!(first.2 >= delay, "the guest's timer fires after {} of {delay}", first.2);
    check_eq!(second.0, GUEST_PHYSICAL, "INTID at EL2");
    check!(second.1 >= delay, "the guest's timer fires after {} of {delay} while EL2 runs", second.1);
    check!(gic::quiet(), "an interrupt is left");
    Ok(())
}

/// Runs the guest with one list register and an open interface; what is in the list register after.
fn with_list_register(lr: u64, hcr: u64, set: u64, guest: &mut Guest) -> (Exit, u64, u64, u32) {
    with_interface(OPEN, lr, hcr, set, guest)
}

/// The same with this ICH_VMCR_EL2.
fn with_interface(vmcr: u64, lr: u64, hcr: u64, set: u64, guest: &mut Guest) -> (Exit, u64, u64, u32) {
    at_el2(|| {
        msr!("S3_4_C12_C12_0", lr);
        msr!("S3_4_C12_C11_7", vmcr);
        msr!("S3_4_C12_C11_0", hcr);
        let exit = with_guest(&guest_el1(), IMO | set, 0, || el2::enter(guest));
        let (after, misr) = (mrs!("S3_4_C12_C12_0"), mrs!("S3_4_C12_C11_2"));
        let intid = if misr != 0 { poll() } else { SPURIOUS };
        msr!("S3_4_C12_C11_0", 0);
        msr!("S3_4_C12_C12_0", 0);
        if intid != SPURIOUS {
            gic::end(intid);
        }
        (exit, after, misr, intid)
    })
}

/// A list register of L1's interrupts the guest, which acknowledges and ends it.
pub(super) fn list_register(_: &Machine) -> Outcome {
    need_el2!();
    let mut guest = Guest::new(receive());
    let (exit, after, ..) = with_list_register(PENDING | GROUP1 | 0x80 << 48 | 0x40, 1, 0, &mut guest);
    check_eq!(
        (exit, guest.ec(), guest.esr & 0xffff),
        (Exit::Sync, EC_HVC, slot(5)),
        "exit of its IRQ handler"
    );
    check_eq!(guest.x[10], 0x40, "what it acknowledged");
    check_eq!(after, GROUP1 | 0x80 << 48 | 0x40, "the list register: neither pending nor active");
    // Masked by priority, it stays.
    let mut guest = Guest::new(receive());
    let (_, after, ..) = with_list_register(PENDING | GROUP1 | 0xf8 << 48 | 0x41, 0, 0, &mut guest);
    check_eq!((guest.esr & 0xffff, after >> 62), (0, 1), "with the interface off");
    Ok(())
}

/// List registers 0 and 2, and nothing in 1 and 3: what the guest does to each is found in its place.
pub(super) fn list_registers_with_holes(_: &Machine) -> Outcome {
    need_el2!();
    if at_el2(|| mrs!("S3_4_C12_C11_1")) & 0x1f < 2 {
        crate::harness::skip!("less than three list registers");
    }
    let (first, third) = (GROUP1 | 0x90 << 48 | 0x40, GROUP1 | 0x80 << 48 | 0x42);
    let mut guest = Guest::new(receive());
    let (exit, after) = at_el2(|| {
        msr!("S3_4_C12_C12_0", first | PENDING);
        msr!("S3_4_C12_C12_1", 0);
        msr!("S3_4_C12_C12_2", third | PENDING);
        msr!("S3_4_C12_C11_7", OPEN);
        msr!("S3_4_C12_C11_0", 1);
        let exit = with_guest(&guest_el1(), IMO, 0, || el2::enter(&mut guest));
        let after = [mrs!("S3_4_C12_C12_0"), mrs!("S3_4_C12_C12_1"), mrs!("S3_4_C12_C12_2")];
        let empty = mrs!("S3_4_C12_C11_5") & 7;
        msr!("S3_4_C12_C11_0", 0);
        msr!("S3_4_C12_C12_0", 0);
        msr!("S3_4_C12_C12_2", 0);
        (exit, (after, empty))
    });
    check_eq!(
        (exit, guest.esr & 0xffff, guest.x[10]),
        (Exit::Sync, slot(5), 0x42),
        "exit, what it acknowledged"
    );
    check_eq!(after, ([first | PENDING, 0, third], 0b110), "list registers, ICH_ELRSR_EL2");
    Ok(())
}

/// HCR_EL2.VF and VSE: as VI, if FMO and AMO are set. The SError comes
/// once: the bit is clear afterwards.
pub(super) fn virtual_fiq_and_serror(_: &Machine) -> Outcome {
    need_el2!();
    // HCR_EL2 afterwards as well.
    let go = |set: u64| {
        let mut guest = Guest::new(unmasked());
        let (exit, hcr) =
            at_el2(|| with_guest(&guest_el1(), set, 0, || (el2::enter(&mut guest), mrs!("hcr_el2"))));
        (exit, guest.esr & 0xffff, hcr & VSE != 0)
    };
    check_eq!(go(FMO | VF), (Exit::Sync, slot(6), false), "VF");
    check_eq!(go(VF), (Exit::Sync, 0, false), "VF without FMO");
    check_eq!(go(AMO | VSE), (Exit::Sync, slot(7), false), "VSE, taken");
    check_eq!(go(VSE), (Exit::Sync, 0, true), "VSE without AMO");
    Ok(())
}

/// An interrupt of group 0, which EL2 has off, is more urgent than one of group 1: that one takes the guest back
/// to EL2 all the same, as an IRQ; and with group 0 on, the other one does, as an FIQ.
pub(super) fn groups_of_own(_: &Machine) -> Outcome {
    need_el2!();
    const OTHER: u32 = 3;
    const THIS: u32 = 5;
    gic::enable(OTHER);
    gic::enable(THIS);
    // EnableGrp0.
    let ctlr = mem::read32(gic::GICD + gic::CTLR);
    mem::write32(gic::GICD + gic::CTLR, ctlr | 1);
    gic::set_group(OTHER, false);
    gic::set_priority(OTHER, 0x20);
    let both = |groups: u64| {
        let mut guest = Guest::new(busy());
        guest.x[0] = ticks(SECOND);
        gic::set_pending(OTHER);
        gic::set_pending(THIS);
        at_el2(|| {
            msr!("icc_igrpen0_el1", groups & 1);
            msr!("icc_igrpen1_el1", groups >> 1);
            // SAFETY: a barrier.
            unsafe { core::arch::asm!("isb", options(nostack)) };
            let exit = with_guest(&guest_el1(), IMO | FMO, 0, || el2::enter(&mut guest));
            msr!("icc_igrpen0_el1", 0);
            msr!("icc_igrpen1_el1", 1);
            exit
        })
    };
    let (first, second) = (both(0b10), both(0b11));
    gic::clear_pending(OTHER);
    gic::clear_pending(THIS);
    gic::set_group(OTHER, true);
    gic::set_priority(OTHER, gic::PRIORITY);
    mem::write32(gic::GICD + gic::CTLR, ctlr);
    check_eq!((first, second), (Exit::Irq, Exit::Fiq), "exits with group 0 off, on");
    check!(gic::quiet(), "an interrupt is left");
    Ok(())
}

/// HCR_EL2.VI interrupts the guest as long as it is set.
pub(super) fn virtual_irq_bit(_: &Machine) -> Outcome {
    need_el2!();
    let mut guest = Guest::new(receive());
    let (exit, ..) = with_list_register(0, 1, 1 << 7, &mut guest);
    check_eq!((exit, guest.esr & 0xffff), (Exit::Sync, slot(5)), "exit of its IRQ handler");
    check_eq!(guest.x[10] & 0xff_ffff, u64::from(SPURIOUS), "what it acknowledged");
    Ok(())
}

/// A list register with HW: the guest's end deactivates L1's interrupt.
pub(super) fn interrupt_ends_here(_: &Machine) -> Outcome {
    need_el2!();
    const SPI: u32 = 50;
    gic::enable(SPI);
    gic::route(SPI, crate::rt::cpu::affinity());
    msr!("icc_ctlr_el1", 2);
    gic::set_pending(SPI);
    let intid = acknowledge_soon();
    gic::end(intid);
    let active = gic::active(SPI);
    let mut guest = Guest::new(receive());
    let lr = PENDING | GROUP1 | 1 << 61 | u64::from(SPI) << 32 | 0x80 << 48 | 0x55;
    let (exit, after, ..) = with_list_register(lr, 1, 0, &mut guest);
    let left = gic::active(SPI);
    msr!("icc_ctlr_el1", 0);
    gic::clear_active(SPI);
    gic::disable(SPI);
    check_eq!((intid, active), (SPI, true), "the interrupt, active");
    check_eq!((exit, guest.x[10], after >> 62), (Exit::Sync, 0x55, 0), "exit, INTID, state");
    check!(!left, "it is still active");
    Ok(())
}

/// The maintenance interrupt: at the end of an interrupt with EOI, and with none pending.
pub(super) fn maintenance(_: &Machine) -> Outcome {
    need_el2!();
    gic::enable(MAINTENANCE);
    let mut guest = Guest::new(receive());
    guest.x[0] = 1 << 40;
    // The guest's own handler may return before the interrupt arrives: both ends are fine.
    let (exit, after, misr, intid) =
        with_list_register(PENDING | GROUP1 | 1 << 41 | 0x80 << 48 | 0x40, 1, 0, &mut guest);
    check_eq!((after >> 62, misr & 1), (0, 1), "list register state, MISR.EOI after exit {exit:?}");
    check_eq!(intid, MAINTENANCE, "INTID");
    check!(gic::quiet(), "it comes again");
    // No interrupt is pending: NPIE interrupts at once, before the guest gets far.
    let mut guest = Guest::new(busy());
    guest.x[0] = ticks(10 * SECOND);
    let (exit, _, misr, intid) = with_list_register(0, 1 | 1 << 3, 0, &mut guest);
    check_eq!((exit, misr), (Exit::Irq, 1 << 3), "exit, MISR");
    check_eq!(intid, MAINTENANCE, "INTID");
    check!(guest.x[9] == 0, "the guest ended");
    timer::delay(SECOND / 1000);
    check!(gic::quiet(), "it comes again");
    // The guest turns its group off, which EL2 asked to hear of (VGrp1DIE).
    let mut guest = Guest::new(group_off());
    guest.x[0] = ticks(10 * SECOND);
    let (exit, _, misr, intid) = with_list_register(0, 1 | 1 << 7, 0, &mut guest);
    check_eq!((exit, misr), (Exit::Irq, 1 << 7), "exit, MISR after the group was turned off");
    check_eq!(intid, MAINTENANCE, "INTID");
    check!(gic::quiet(), "it comes again");
    Ok(())
}

/// The maintenance interrupt when the guest enables a group.
pub(super) fn maintenance_of_groups(_: &Machine) -> Outcome {
    need_el2!();
    const VGRP1EIE: u64 = 1 << 6;
    gic::enable(MAINTENANCE);
    let mut guest = Guest::new(enable_group());
    guest.x[0] = ticks(10 * SECOND);
    let (exit, _, misr, intid) = with_interface(0xff << 24, 0, 1 | VGRP1EIE, 0, &mut guest);
    check_eq!((exit, misr, intid), (Exit::Irq, VGRP1EIE, MAINTENANCE), "exit, MISR, INTID");
    check!(guest.x[9] == 0, "the guest ended");
    check!(gic::quiet(), "it comes again");
    Ok(())
}
