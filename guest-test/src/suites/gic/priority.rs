//! Priorities: order, masks, preemption.

use super::{SPI, edge_spi, nothing, take};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::gic::*;
use crate::rt::machine::Machine;
use crate::rt::mem::write32;
use crate::rt::timer::SECOND;
use crate::rt::{cpu, irq, timer};

pub(super) fn priority_order(_: &Machine) -> Outcome {
    let order = [(SPI + 3, 0x20), (SPI, 0x40), (SPI + 4, 0x80), (SPI + 1, 0xa0), (SPI + 2, 0xc0)];
    msr!("icc_pmr_el1", 0);
    for &(intid, priority) in order.iter().rev() {
        edge_spi(intid, priority);
        set_pending(intid);
    }
    msr!("icc_pmr_el1", 0xff);
    for (intid, _) in order {
        take(intid, "the next in order")?;
    }
    nothing("after all")
}

pub(super) fn priority_mask(_: &Machine) -> Outcome {
    edge_spi(SPI, 0x80);
    msr!("icc_pmr_el1", 0x80);
    set_pending(SPI);
    check_eq!(acknowledge(), SPURIOUS, "IAR with PMR equal to the priority");
    check!(pending(SPI), "the SPI is not pending");
    msr!("icc_pmr_el1", 0x90);
    take(SPI, "the SPI with a lower mask")?;
    check_eq!(mrs!("icc_pmr_el1"), 0x90, "ICC_PMR_EL1");
    Ok(())
}

pub(super) fn group_disabled(_: &Machine) -> Outcome {
    edge_spi(SPI, PRIORITY);
    msr!("icc_igrpen1_el1", 0);
    set_pending(SPI);
    timer::delay(SECOND / 500);
    check_eq!(acknowledge(), SPURIOUS, "IAR with ICC_IGRPEN1_EL1 = 0");
    msr!("icc_igrpen1_el1", 1);
    take(SPI, "the SPI with group 1 on")?;
    write32(GICD + CTLR, 0x10);
    set_pending(SPI);
    timer::delay(SECOND / 500);
    let got = acknowledge();
    write32(GICD + CTLR, 0x12);
    check_eq!(got, SPURIOUS, "IAR with GICD_CTLR.EnableGrp1 = 0");
    take(SPI, "the SPI with the distributor on")
}

pub(super) fn nest(outer: u8, inner: u8) -> u32 {
    edge_spi(SPI, outer);
    edge_spi(SPI + 1, inner);
    irq::reset();
    irq::NEST.store(SPI + 1, core::sync::atomic::Ordering::Relaxed);
    cpu::irq_on();
    set_pending(SPI);
    irq::wait(cpu::index(), 2);
    cpu::irq_off();
    irq::NESTED.load(core::sync::atomic::Ordering::Relaxed)
}

pub(super) fn preemption(_: &Machine) -> Outcome {
    check_eq!(nest(0x80, 0x40), 1, "interrupts inside one of lower priority");
    check_eq!(irq::count(cpu::index()), 2, "interrupts in all");
    check_eq!(nest(0x80, 0x80), 0, "interrupts inside one of the same priority");
    check_eq!(irq::count(cpu::index()), 2, "interrupts in all, same priority");
    check_eq!(nest(0x40, 0x80), 0, "interrupts inside one of higher priority");
    check_eq!(irq::count(cpu::index()), 2, "interrupts in all, lower priority");
    nothing("after all")
}

pub(super) fn binary_point(_: &Machine) -> Outcome {
    // With BPR1 = 5, priority bits 7:5 decide about preemption, the rest only about the order.
    msr!("icc_bpr1_el1", 5);
    check_eq!(mrs!("icc_bpr1_el1"), 5, "ICC_BPR1_EL1");
    check_eq!(nest(0x98, 0x80), 0, "interrupts inside one of the same group priority");
    check_eq!(nest(0x98, 0x60), 1, "interrupts inside one of a lower group priority");
    msr!("icc_bpr1_el1", 0);
    let least = mrs!("icc_bpr1_el1");
    check!((1..=4).contains(&least), "the least ICC_BPR1_EL1 is {least}");
    nothing("after all")
}

pub(super) fn running_priority(_: &Machine) -> Outcome {
    edge_spi(SPI, 0x80);
    edge_spi(SPI + 1, 0x40);
    check_eq!(mrs!("icc_rpr_el1"), 0xff, "ICC_RPR_EL1 when idle");
    set_pending(SPI);
    check_eq!(acknowledge_soon(), SPI, "the first");
    check_eq!(mrs!("icc_rpr_el1"), 0x80, "ICC_RPR_EL1 inside the first");
    set_pending(SPI + 1);
    check_eq!(acknowledge_soon(), SPI + 1, "the second");
    check_eq!(mrs!("icc_rpr_el1"), 0x40, "ICC_RPR_EL1 inside the second");
    check!(active(SPI) && active(SPI + 1), "both are active");
    end(SPI + 1);
    check_eq!(mrs!("icc_rpr_el1"), 0x80, "ICC_RPR_EL1 after the second");
    end(SPI);
    check_eq!(mrs!("icc_rpr_el1"), 0xff, "ICC_RPR_EL1 after both");
    check!(!active(SPI) && !active(SPI + 1), "neither is active");
    Ok(())
}
