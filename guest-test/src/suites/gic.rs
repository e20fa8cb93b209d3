//! The GICv3: all kinds of interrupts, priorities, masks, active state, routing.
//!
//! Most tests keep IRQs masked and acknowledge by hand: the CPU interface behaves the same, and each
//! step can be looked at.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::gic::*;
use crate::rt::machine::Machine;
use crate::rt::mem::{read32, read64};
use crate::rt::timer::{ENABLE, PATIENCE, virtual_intid};
use crate::rt::{cpu, irq, timer};

mod configuration;
mod priority;
mod reach;

use configuration::{
    bits_of_others, edge_configuration, level_by_timer, one_of_n, priority_bits, priority_bytes,
    reroute_while_pending, reserved_registers, route_to_another_cpu,
};
use priority::{binary_point, group_disabled, preemption, priority_mask, priority_order, running_priority};
use reach::{sgi_of_group_0, state_on_another_cpu};

suite!(
    "gic",
    true,
    [
        identification,
        redistributors,
        sgi_self,
        sgi_all_sixteen,
        sgi_other,
        sgi_others,
        sgi_to_nobody,
        sgi_of_group_0,
        ppi_by_software,
        spi_by_software,
        state_on_another_cpu,
        disabled_is_not_delivered,
        disable_while_pending,
        clear_while_pending,
        priority_order,
        priority_mask,
        group_disabled,
        preemption,
        binary_point,
        running_priority,
        eoi_mode_1,
        active_blocks,
        active_by_register,
        pending_while_active,
        many_spis,
        many_by_exception,
        sgis_and_spis_together,
        level_by_timer,
        edge_configuration,
        route_to_another_cpu,
        reroute_while_pending,
        one_of_n,
        priority_bytes,
        priority_bits,
        reserved_registers,
        bits_of_others,
        spurious,
        highest_pending,
        masked_wakes_wfi,
    ]
);

/// SPIs that no device of either machine uses.
const SPI: u32 = 100;

/// Takes one interrupt by hand and ends it.
fn take(intid: u32, what: &str) -> Outcome {
    let got = acknowledge_soon();
    if got < SPECIAL {
        end(got);
    }
    check_eq!(got, intid, "INTID of {what}");
    Ok(())
}

fn nothing(what: &str) -> Outcome {
    check!(quiet(), "{what}: INTID {} is pending", mrs!("icc_hppir1_el1"));
    Ok(())
}

fn identification(_: &Machine) -> Outcome {
    let (typer, pidr2) = (read32(GICD + TYPER), read32(GICD + PIDR2));
    check_eq!(pidr2 >> 4 & 0xf, 3, "GICD_PIDR2.ArchRev");
    check_eq!(read32(redistributor() + PIDR2) >> 4 & 0xf, 3, "GICR_PIDR2.ArchRev");
    check!(intids() >= 64, "GICD_TYPER {typer:#x} has no SPIs");
    check!((typer >> 19 & 0x1f) >= 9, "GICD_TYPER.IDbits: {typer:#x}");
    let iidr = read32(GICD + IIDR);
    check_eq!(read32(GICD + IIDR), iidr, "GICD_IIDR twice");
    let ctlr = read32(GICD + CTLR);
    check_eq!(ctlr & 0x12, 0x12, "GICD_CTLR.ARE and EnableGrp1");
    // Without system registers another VM of the CPU would have none either.
    msr!("icc_sre_el1", 0);
    check_eq!(mrs!("icc_sre_el1") & 7, 7, "ICC_SRE_EL1 after it was cleared");
    Ok(())
}

fn redistributors(machine: &Machine) -> Outcome {
    let mut lasts = 0;
    for (n, &mpidr) in machine.cpus[..machine.cpu_count].iter().enumerate() {
        let frame = redistributor_of(mpidr);
        let typer = read64(frame + GICR_TYPER);
        check_eq!(typer >> 8 & 0xffff, n as u64, "GICR_TYPER.Processor_Number of CPU {n}");
        check_eq!(read32(frame + GICR_TYPER), typer as u32, "low half of GICR_TYPER");
        check_eq!(read32(frame + GICR_TYPER + 4), (typer >> 32) as u32, "high half of GICR_TYPER");
        lasts += typer >> 4 & 1;
    }
    check_eq!(lasts, 1, "redistributors with GICR_TYPER.Last");
    Ok(())
}

fn sgi_self(_: &Machine) -> Outcome {
    irq::clear(cpu::index());
    cpu::irq_on();
    for n in 1..=20 {
        send(5, cpu::affinity());
        check!(irq::wait(cpu::index(), n), "SGI {n} of 20 did not come");
        check_eq!(irq::logged(cpu::index(), n as usize - 1), 5, "INTID");
    }
    Ok(())
}

fn sgi_all_sixteen(_: &Machine) -> Outcome {
    for intid in (0..16).rev() {
        send(intid, cpu::affinity());
    }
    let mut seen = 0u32;
    for _ in 0..16 {
        let intid = acknowledge_soon();
        check!(intid < 16 && seen >> intid & 1 == 0, "INTID {intid} after {seen:#x}");
        seen |= 1 << intid;
        end(intid);
    }
    check_eq!(seen, 0xffff, "the SGIs that came");
    nothing("after all SGIs")
}

fn start_listening(machine: &Machine) -> Outcome {
    if machine.cpu_count < 2 {
        skip!("one CPU");
    }
    let listen: fn(u64) -> u64 = |_| {
        irq::reset();
        cpu::irq_on();
        0
    };
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
        check_eq!(cpu::run_on(index, listen, 0), Some(0), "CPU {index}");
    }
    Ok(())
}

fn sgi_other(machine: &Machine) -> Outcome {
    start_listening(machine)?;
    for (index, mpidr) in machine.secondaries() {
        for n in 1..=20 {
            send(n % 16, mpidr);
            check!(irq::wait(index, n), "SGI {n} did not reach CPU {index}");
            check_eq!(irq::logged(index, n as usize - 1), n % 16, "INTID at CPU {index}");
        }
    }
    nothing("at the sender")
}

fn sgi_others(machine: &Machine) -> Outcome {
    start_listening(machine)?;
    for n in 1..=5 {
        send_others(6);
        for (index, _) in machine.secondaries() {
            check!(irq::wait(index, n), "SGI {n} did not reach CPU {index}");
        }
    }
    nothing("at the sender")
}

fn sgi_to_nobody(_: &Machine) -> Outcome {
    for mpidr in [0xee_0000_0000, 0xff_0000, 0x0f] {
        if mpidr != cpu::affinity() {
            send(1, mpidr);
        }
    }
    nothing("after SGIs to nobody")
}

fn ppi_by_software(_: &Machine) -> Outcome {
    // PPI 16 belongs to no device.
    for intid in [16, 31] {
        set_edge(intid, true);
        enable(intid);
        set_pending(intid);
        check!(pending(intid), "PPI {intid} is not pending");
        take(intid, "the PPI")?;
        nothing("after the PPI")?;
    }
    Ok(())
}

fn spi_by_software(_: &Machine) -> Outcome {
    for intid in [SPI, SPI + 1, 63, 64, 287] {
        route(intid, cpu::affinity());
        set_edge(intid, true);
        enable(intid);
        check!(enabled(intid), "SPI {intid} is not enabled");
        set_pending(intid);
        take(intid, "the SPI")?;
        check!(!pending(intid) && !active(intid), "SPI {intid} is still pending or active");
    }
    nothing("after the SPIs")
}

fn edge_spi(intid: u32, priority: u8) {
    route(intid, cpu::affinity());
    set_edge(intid, true);
    set_priority(intid, priority);
    enable(intid);
}

fn disabled_is_not_delivered(_: &Machine) -> Outcome {
    edge_spi(SPI, PRIORITY);
    disable(SPI);
    check!(!enabled(SPI), "the SPI is enabled");
    set_pending(SPI);
    nothing("a disabled SPI")?;
    check!(pending(SPI), "a disabled SPI loses its pending state");
    enable(SPI);
    take(SPI, "the SPI, enabled again")
}

fn disable_while_pending(_: &Machine) -> Outcome {
    edge_spi(SPI, PRIORITY);
    set_pending(SPI);
    disable(SPI);
    nothing("an SPI disabled while pending")?;
    check!(pending(SPI), "its pending state");
    enable(SPI);
    take(SPI, "the SPI")?;
    // The same with an SGI.
    send(7, cpu::affinity());
    disable(7);
    nothing("an SGI disabled while pending")?;
    enable(7);
    take(7, "the SGI")
}

fn clear_while_pending(_: &Machine) -> Outcome {
    edge_spi(SPI, PRIORITY);
    set_pending(SPI);
    clear_pending(SPI);
    check!(!pending(SPI), "the SPI is pending after ICPENDR");
    nothing("after ICPENDR")
}

fn eoi_mode_1(_: &Machine) -> Outcome {
    edge_spi(SPI, PRIORITY);
    msr!("icc_ctlr_el1", 2);
    check_eq!(mrs!("icc_ctlr_el1") & 2, 2, "ICC_CTLR_EL1.EOImode");
    for intid in [SPI, 9] {
        let again = || if intid < 16 { send(intid, cpu::affinity()) } else { set_pending(intid) };
        again();
        check_eq!(acknowledge_soon(), intid, "INTID");
        end(intid);
        check_eq!(mrs!("icc_rpr_el1"), 0xff, "ICC_RPR_EL1 after the priority drop");
        check!(active(intid), "INTID {intid} is not active after the priority drop");
        again();
        nothing("an interrupt that is still active")?;
        deactivate(intid);
        check!(!active(intid), "INTID {intid} is active after DIR");
        check_eq!(acknowledge_soon(), intid, "INTID after DIR");
        end(intid);
        deactivate(intid);
    }
    irq::reset();
    irq::SPLIT_EOI.store(true, core::sync::atomic::Ordering::Relaxed);
    cpu::irq_on();
    for n in 1..=10 {
        set_pending(SPI);
        check!(irq::wait(cpu::index(), n), "SPI {n} of 10 with EOImode 1");
    }
    Ok(())
}

fn active_blocks(_: &Machine) -> Outcome {
    edge_spi(SPI, 0x80);
    set_pending(SPI);
    check_eq!(acknowledge_soon(), SPI, "INTID");
    check!(active(SPI) && !pending(SPI), "active and not pending after the acknowledge");
    edge_spi(SPI + 1, 0x80);
    set_pending(SPI + 1);
    check_eq!(acknowledge(), SPURIOUS, "IAR for the same priority");
    end(SPI);
    take(SPI + 1, "the second")
}

fn active_by_register(_: &Machine) -> Outcome {
    edge_spi(SPI, PRIORITY);
    set_active(SPI);
    check!(active(SPI), "ISACTIVER has no effect");
    set_pending(SPI);
    nothing("an SPI made active by ISACTIVER")?;
    clear_active(SPI);
    check!(!active(SPI), "ICACTIVER has no effect");
    take(SPI, "the SPI after ICACTIVER")
}

fn pending_while_active(_: &Machine) -> Outcome {
    edge_spi(SPI, PRIORITY);
    set_pending(SPI);
    check_eq!(acknowledge_soon(), SPI, "INTID");
    set_pending(SPI);
    check!(pending(SPI) && active(SPI), "pending and active");
    end(SPI);
    take(SPI, "the second edge")?;
    nothing("after both edges")
}

const MANY: u32 = 64;

fn raise_many() {
    for n in 0..MANY {
        edge_spi(SPI + n, (n * 7 % 31 * 8) as u8);
    }
    for n in 0..MANY {
        set_pending(SPI + n);
    }
}

fn many_spis(_: &Machine) -> Outcome {
    raise_many();
    let (mut seen, mut last) = (0u64, 0);
    for n in 0..MANY {
        let intid = acknowledge_soon();
        check!((SPI..SPI + MANY).contains(&intid), "INTID {intid} after {n} SPIs");
        let priority = mrs!("icc_rpr_el1");
        end(intid);
        check!(seen >> (intid - SPI) & 1 == 0, "SPI {intid} twice");
        check!(priority >= last, "priority {priority:#x} after {last:#x}, SPI {intid}");
        seen |= 1 << (intid - SPI);
        last = priority;
    }
    check_eq!(seen, u64::MAX, "the SPIs that came");
    nothing("after all SPIs")
}

fn many_by_exception(_: &Machine) -> Outcome {
    irq::clear(cpu::index());
    raise_many();
    cpu::irq_on();
    check!(irq::wait(cpu::index(), MANY), "{} of {MANY} SPIs came", irq::count(cpu::index()));
    cpu::irq_off();
    let mut seen = 0u64;
    for n in 0..MANY as usize {
        let intid = irq::logged(cpu::index(), n);
        check!((SPI..SPI + MANY).contains(&intid), "INTID {intid}");
        seen |= 1 << (intid - SPI);
    }
    check_eq!(seen, u64::MAX, "the SPIs that came");
    Ok(())
}

fn sgis_and_spis_together(_: &Machine) -> Outcome {
    irq::clear(cpu::index());
    for n in 0..16 {
        edge_spi(SPI + n, 0x60 + 8 * (n % 4) as u8);
        set_priority(n, 0x60 + 8 * (n % 4) as u8);
        set_pending(SPI + n);
        send(n, cpu::affinity());
    }
    msr!("cntv_tval_el0", 0);
    msr!("cntv_ctl_el0", ENABLE);
    enable(virtual_intid());
    let mut last = 0;
    for n in 0..33 {
        let intid = acknowledge_soon();
        check!(intid < SPECIAL, "{n} of 33 interrupts came");
        let priority = mrs!("icc_rpr_el1");
        if intid == virtual_intid() {
            timer::off();
        }
        end(intid);
        check!(priority >= last, "priority {priority:#x} after {last:#x}, INTID {intid}");
        last = priority;
    }
    nothing("after all")
}

fn spurious(_: &Machine) -> Outcome {
    check_eq!(acknowledge(), SPURIOUS, "IAR when nothing is pending");
    check_eq!(mrs!("icc_hppir1_el1"), u64::from(SPURIOUS), "HPPIR when nothing is pending");
    // Ending a spurious interrupt does nothing.
    end(SPURIOUS);
    check_eq!(mrs!("icc_rpr_el1"), 0xff, "ICC_RPR_EL1");
    Ok(())
}

fn highest_pending(_: &Machine) -> Outcome {
    edge_spi(SPI, 0x80);
    edge_spi(SPI + 1, 0x20);
    set_pending(SPI);
    check!(timer::wait(PATIENCE, || mrs!("icc_hppir1_el1") as u32 == SPI), "HPPIR is not the only one");
    set_pending(SPI + 1);
    check!(timer::wait(PATIENCE, || mrs!("icc_hppir1_el1") as u32 == SPI + 1), "HPPIR is not the highest");
    clear_pending(SPI + 1);
    check!(timer::wait(PATIENCE, || mrs!("icc_hppir1_el1") as u32 == SPI), "HPPIR after ICPENDR");
    take(SPI, "the one left")
}

fn masked_wakes_wfi(_: &Machine) -> Outcome {
    // PSTATE.I does not keep an interrupt from waking the CPU: WFI returns at once.
    send(2, cpu::affinity());
    cpu::wait_interrupt();
    take(2, "the SGI that woke the CPU")
}
