//! Configuration of the distributor: triggers, routes, priority fields, reserved registers.

use super::{SPI, edge_spi, nothing, start_listening, take};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::gic::*;
use crate::rt::machine::Machine;
use crate::rt::mem::{read8, read32, write8, write32, write64};
use crate::rt::timer::{ENABLE, PATIENCE, virtual_intid};
use crate::rt::{cpu, irq, timer};

pub(super) fn level_by_timer(_: &Machine) -> Outcome {
    enable(virtual_intid());
    msr!("cntv_tval_el0", 0);
    msr!("cntv_ctl_el0", ENABLE);
    check_eq!(acknowledge_soon(), virtual_intid(), "INTID");
    // Still high while active: ending it makes it pending again, lowering the line does not.
    end(virtual_intid());
    check_eq!(acknowledge_soon(), virtual_intid(), "INTID while the line stays high");
    timer::off();
    end(virtual_intid());
    nothing("after the line went low")?;
    // High, then low before it is acknowledged: gone.
    disable(virtual_intid());
    msr!("cntv_ctl_el0", ENABLE);
    check!(timer::wait(PATIENCE, || pending(virtual_intid())), "the line is high and the PPI not pending");
    timer::off();
    check!(timer::wait(PATIENCE, || !pending(virtual_intid())), "the line is low and the PPI pending");
    enable(virtual_intid());
    nothing("after the line went low, disabled")
}

pub(super) fn edge_configuration(_: &Machine) -> Outcome {
    for intid in [SPI, SPI + 15, 32 + 15] {
        let old = edge(intid);
        set_edge(intid, true);
        check!(edge(intid), "SPI {intid} is not edge-triggered");
        set_edge(intid, false);
        check!(!edge(intid), "SPI {intid} is not level-sensitive");
        set_edge(intid, old);
    }
    // SGIs are always edge-triggered.
    check!(edge(0) && edge(15), "SGIs are not edge-triggered");
    set_edge(3, false);
    check!(edge(3), "an SGI became level-sensitive");
    // A level SPI pended by software: the latch stays until the acknowledge.
    route(SPI, cpu::affinity());
    set_edge(SPI, false);
    enable(SPI);
    set_pending(SPI);
    take(SPI, "a level SPI pended by software")?;
    nothing("after it")
}

pub(super) fn route_to_another_cpu(machine: &Machine) -> Outcome {
    start_listening(machine)?;
    for (index, mpidr) in machine.secondaries() {
        edge_spi(SPI, PRIORITY);
        route(SPI, mpidr);
        check_eq!(routed(SPI), mpidr, "GICD_IROUTER");
        for n in 1..=10 {
            set_pending(SPI);
            check!(irq::wait(index, n), "SPI {n} did not reach CPU {index}");
            check_eq!(irq::logged(index, n as usize - 1), SPI, "INTID at CPU {index}");
        }
    }
    nothing("at CPU 0")
}

pub(super) fn reroute_while_pending(machine: &Machine) -> Outcome {
    start_listening(machine)?;
    edge_spi(SPI, PRIORITY);
    set_pending(SPI);
    check!(timer::wait(PATIENCE, || mrs!("icc_hppir1_el1") as u32 == SPI), "not pending at CPU 0");
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU") };
    route(SPI, mpidr);
    check!(irq::wait(index, 1), "the SPI did not follow its route");
    nothing("at CPU 0")
}

pub(super) fn one_of_n(_: &Machine) -> Outcome {
    // Interrupt_Routing_Mode: any CPU, or RES0 where GICD_TYPER.No1N says so. Either way the only
    // listener gets it.
    edge_spi(SPI, PRIORITY);
    write64(GICD + 0x6000 + u64::from(SPI) * 8, 1 << 31 | cpu::affinity());
    set_pending(SPI);
    take(SPI, "an SPI with IRM = 1")
}

pub(super) fn priority_bytes(_: &Machine) -> Outcome {
    for (n, priority) in [0x10, 0x58, 0xa0, 0xf8].into_iter().enumerate() {
        set_priority(SPI + n as u32, priority);
    }
    check_eq!(priority_word(SPI), 0xf8a0_5810, "GICD_IPRIORITYR as a word");
    check_eq!(priority(SPI + 2), 0xa0, "GICD_IPRIORITYR as a byte");
    for (n, priority) in [0x18, 0x50, 0xa8, 0xf0].into_iter().enumerate() {
        set_priority(4 + n as u32, priority);
    }
    check_eq!(priority_word(4), 0xf0a8_5018, "GICR_IPRIORITYR as a word");
    check_eq!(read8(redistributor() + 0x1_0400 + 6), 0xa8, "GICR_IPRIORITYR as a byte");
    Ok(())
}

pub(super) fn priority_bits(_: &Machine) -> Outcome {
    let bits = (mrs!("icc_ctlr_el1") >> 8 & 7) + 1;
    check!((4..=8).contains(&bits), "ICC_CTLR_EL1.PRIbits + 1 is {bits}");
    set_priority(SPI, 0xff);
    let kept = priority(SPI);
    check_eq!(kept.count_ones(), kept.leading_ones(), "implemented bits are the upper ones: {kept:#x}");
    check!(u64::from(kept.leading_ones()) >= bits.min(4), "the distributor keeps {kept:#x}");
    msr!("icc_pmr_el1", 0xff);
    check!(mrs!("icc_pmr_el1") >= 0xf0, "ICC_PMR_EL1 {:#x}", mrs!("icc_pmr_el1"));
    Ok(())
}

pub(super) fn reserved_registers(_: &Machine) -> Outcome {
    // Legacy and reserved offsets are RES0 with affinity routing.
    for offset in [0x0c00u64, 0x0080, 0x0100, 0x0200, 0x0300, 0x0400] {
        // The first word belongs to SGIs and PPIs, which live in the redistributor.
        let register = GICD + offset;
        write32(register, 0xffff_ffff);
        check_eq!(read32(register), 0, "GICD + {offset:#x} with affinity routing");
    }
    for offset in [0x20u64, 0x3c, 0x7c, 0xf10, 0xf20, 0x5ff8] {
        write32(GICD + offset, 0xffff_ffff);
        check_eq!(read32(GICD + offset), 0, "GICD + {offset:#x}");
    }
    Ok(())
}

pub(super) fn bits_of_others(_: &Machine) -> Outcome {
    // Writing 0 and other bits of one word leaves an interrupt as it is.
    edge_spi(SPI, PRIORITY);
    let word = GICD + 0x100 + u64::from(SPI / 32) * 4;
    write32(word, 0);
    write32(word + 0x80, 1 << ((SPI + 1) % 32));
    check!(enabled(SPI), "ICENABLER of another SPI");
    check_eq!(read32(word), read32(word + 0x80), "ISENABLER and ICENABLER read alike");
    set_pending(SPI + 1);
    check!(!pending(SPI), "ISPENDR of another SPI");
    clear_pending(SPI + 1);
    let before = priority(SPI + 1);
    write8(GICD + 0x400 + u64::from(SPI), 0x20);
    check_eq!(priority(SPI + 1), before, "a priority byte's neighbour");
    Ok(())
}
