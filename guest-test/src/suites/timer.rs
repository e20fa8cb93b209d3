//! The EL1 timers and the counter.

use crate::harness::{Outcome, check, check_eq, suite};
use crate::rt::machine::Machine;
use crate::rt::timer::{ENABLE, MASK, PATIENCE, SECOND, STATUS, now, physical_intid, ticks, virtual_intid};
use crate::rt::{cpu, el2, entry, gic, irq, smccc, timer};

suite!(
    "timer",
    true,
    [
        frequency,
        monotonic,
        starts_small,
        virtual_fires,
        physical_fires,
        tval_and_cval,
        masked,
        far_future,
        wfi_wakes,
        wfi_wakes_unmasked,
        event_register,
        repeated,
        on_every_cpu,
    ]
);

fn frequency(_: &Machine) -> Outcome {
    let frequency = mrs!("cntfrq_el0");
    check!((1_000_000..=10_000_000_000).contains(&frequency), "CNTFRQ {frequency}");
    Ok(())
}

fn monotonic(_: &Machine) -> Outcome {
    let mut last = now();
    for _ in 0..10_000 {
        let next = now();
        check!(next >= last, "CNTVCT went from {last:#x} to {next:#x}");
        last = next;
    }
    let (physical, later) = (mrs!("cntpct_el0"), mrs!("cntpct_el0"));
    check!(later >= physical, "CNTPCT went backwards");
    Ok(())
}

fn starts_small(_: &Machine) -> Outcome {
    let at_entry = entry::state_of(0).counter;
    if !smccc::tagvisor() {
        crate::harness::skip!("no hypervisor sets CNTVOFF");
    }
    if el2::present() {
        crate::harness::skip!("CNTVOFF_EL2 is the payload's own");
    }
    // It goes on while a busy host does not let the guest begin.
    check!(at_entry < ticks(PATIENCE), "CNTVCT was {at_entry} at entry");
    let count = mrs!("cntvct_el0");
    let ahead = mrs!("cntpct_el0").wrapping_sub(count);
    check!(ahead > ticks(SECOND / 1000), "CNTPCT is {ahead} ahead of CNTVCT: the boot took longer");
    Ok(())
}

macro_rules! fires {
    ($name:ident, $intid:expr, $counter:literal, $cval:literal, $ctl:literal) => {
        fn $name(_: &Machine) -> Outcome {
            gic::enable($intid);
            irq::clear(cpu::index());
            let at = mrs!($counter) + ticks(SECOND / 200);
            msr!($cval, at);
            msr!($ctl, ENABLE);
            let waiting = mrs!($ctl);
            check!(waiting == ENABLE || mrs!($counter) >= at, "CTL is {waiting} while it waits");
            cpu::irq_on();
            let fired = irq::wait(cpu::index(), 1);
            let when = mrs!($counter);
            cpu::irq_off();
            check!(fired, "no interrupt");
            check_eq!(irq::logged(cpu::index(), 0), $intid, "INTID");
            check!(when >= at, "it fired {} ticks early", at - when);
            check_eq!(mrs!($ctl) & STATUS, STATUS, "ISTATUS");
            timer::delay(SECOND / 500);
            check_eq!(irq::count(cpu::index()), 1, "interrupts, masked by the handler");
            Ok(())
        }
    };
}
fires!(virtual_fires, virtual_intid(), "cntvct_el0", "cntv_cval_el0", "cntv_ctl_el0");
fires!(physical_fires, physical_intid(), "cntpct_el0", "cntp_cval_el0", "cntp_ctl_el0");

fn tval_and_cval(_: &Machine) -> Outcome {
    msr!("cntv_cval_el0", now() + 2_000_000_000);
    let tval = mrs!("cntv_tval_el0") as u32;
    check!(tval <= 2_000_000_000 && tval > 0, "TVAL {tval} for a CVAL 2,000,000,000 ahead");
    let before = now();
    msr!("cntv_tval_el0", 5_000);
    let (cval, after) = (mrs!("cntv_cval_el0"), now());
    check!(cval >= before + 5_000 && cval <= after + 5_000, "CVAL {cval} for TVAL 5,000 at {before}");
    msr!("cntv_tval_el0", u64::from((-100i32) as u32));
    msr!("cntv_ctl_el0", ENABLE | MASK);
    check_eq!(mrs!("cntv_ctl_el0"), ENABLE | MASK | STATUS, "CTL with a negative TVAL");
    let before = mrs!("cntpct_el0");
    msr!("cntp_tval_el0", 5_000);
    let (cval, after) = (mrs!("cntp_cval_el0"), mrs!("cntpct_el0"));
    check!(cval >= before + 5_000 && cval <= after + 5_000, "CNTP CVAL {cval} for TVAL 5,000 at {before}");
    Ok(())
}

fn masked(_: &Machine) -> Outcome {
    gic::enable(virtual_intid());
    msr!("cntv_cval_el0", now());
    msr!("cntv_ctl_el0", ENABLE | MASK);
    check!(gic::quiet(), "a masked timer interrupts");
    check_eq!(mrs!("cntv_ctl_el0"), ENABLE | MASK | STATUS, "CTL");
    msr!("cntv_ctl_el0", ENABLE);
    check_eq!(gic::acknowledge_soon(), virtual_intid(), "INTID once unmasked");
    // The line is still high: pending again as soon as it is not active.
    gic::end(virtual_intid());
    check_eq!(gic::acknowledge_soon(), virtual_intid(), "INTID while the line stays high");
    msr!("cntv_ctl_el0", 0);
    gic::end(virtual_intid());
    check!(gic::quiet(), "a disabled timer interrupts");
    Ok(())
}

fn far_future(_: &Machine) -> Outcome {
    gic::enable(virtual_intid());
    msr!("cntv_cval_el0", u64::MAX);
    msr!("cntv_ctl_el0", ENABLE);
    check!(gic::quiet(), "a timer of the far future interrupts");
    check_eq!(mrs!("cntv_ctl_el0"), ENABLE, "CTL");
    Ok(())
}

fn sleep(interrupts: bool) -> Outcome {
    gic::enable(virtual_intid());
    irq::clear(cpu::index());
    let (start, duration) = (now(), ticks(SECOND / 100));
    msr!("cntv_cval_el0", start + duration);
    msr!("cntv_ctl_el0", ENABLE);
    // WFI may end early for no reason. It runs with IRQs masked: an interrupt taken just before it
    // would be slept over.
    while now() < start + duration && (!interrupts || irq::count(cpu::index()) == 0) {
        cpu::wait_interrupt();
        if interrupts {
            cpu::irq_on();
            cpu::irq_off();
        }
    }
    if interrupts {
        cpu::irq_on();
        check!(irq::wait(cpu::index(), 1), "no interrupt");
        cpu::irq_off();
        return Ok(());
    }
    check_eq!(gic::acknowledge_soon(), virtual_intid(), "what woke the CPU");
    timer::off();
    gic::end(virtual_intid());
    Ok(())
}

fn wfi_wakes(_: &Machine) -> Outcome {
    sleep(false)
}

fn wfi_wakes_unmasked(_: &Machine) -> Outcome {
    sleep(true)
}

fn event_register(_: &Machine) -> Outcome {
    // With an event registered WFE does not wait; the event stream bounds the second one.
    cpu::send_event();
    cpu::wait_event();
    // SAFETY: a hint.
    unsafe { core::arch::asm!("sevl", options(nostack)) };
    cpu::wait_event();
    cpu::wait_event();
    Ok(())
}

fn repeated(_: &Machine) -> Outcome {
    gic::enable(virtual_intid());
    irq::clear(cpu::index());
    cpu::irq_on();
    for n in 1..=100 {
        msr!("cntv_tval_el0", ticks(SECOND / 20_000));
        msr!("cntv_ctl_el0", ENABLE);
        check!(irq::wait(cpu::index(), n), "interrupt {n} of 100 did not come");
    }
    Ok(())
}

fn on_every_cpu(machine: &Machine) -> Outcome {
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
        let job = |_| u64::from(sleep(true).is_ok() && sleep(false).is_ok());
        check_eq!(cpu::run_on(index, job, 0), Some(1), "timer of CPU {index}");
        timer::off();
    }
    Ok(())
}
