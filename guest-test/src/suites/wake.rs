//! Sleep and wake-up: whatever the moment at which an interrupt comes, WFI ends.
//!
//! Each test moves that moment by a few counts a time, over more than what an exit takes, so that it also
//! falls between a look at what is pending and the sleep that follows.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::machine::Machine;
use crate::rt::timer::{self, ENABLE, STATUS, ticks, virtual_intid};
use crate::rt::{cpu, gic};

suite!("wake", true, [by_timer, by_both_timers, by_sgi, by_sgi_and_timer, on_and_off]);

/// A sleep that should end at once lasts this long if nobody ends it.
const GUARD: u64 = timer::PATIENCE;
/// The moments that are tried, and the counts between two of them.
const MOMENTS: u64 = 400;

/// Counts between two moments: where a count is an instruction, a few.
fn step() -> u64 {
    (mrs!("cntfrq_el0") >> 30).max(1) * 13
}

/// Sleeps with IRQs masked until something is pending, the physical timer after [`GUARD`] if nothing
/// else; returns whether it was that.
fn sleep() -> bool {
    msr!("cntp_cval_el0", mrs!("cntpct_el0") + ticks(GUARD));
    msr!("cntp_ctl_el0", ENABLE);
    cpu::wait_interrupt();
    let late = mrs!("cntp_ctl_el0") & STATUS != 0;
    msr!("cntp_ctl_el0", 0);
    late
}

fn by_timer(_: &Machine) -> Outcome {
    gic::enable(virtual_intid());
    gic::enable(timer::physical_intid());
    for n in 0..MOMENTS {
        msr!("cntv_cval_el0", timer::now() + n * step());
        msr!("cntv_ctl_el0", ENABLE);
        // It may end for no reason, too.
        while mrs!("cntv_ctl_el0") & STATUS == 0 {
            check!(!sleep(), "moment {n}: the timer did not end WFI");
        }
        msr!("cntv_ctl_el0", 0);
    }
    Ok(())
}

/// Two timers: the later one of them has to end a WFI of its own.
fn by_both_timers(_: &Machine) -> Outcome {
    gic::enable(virtual_intid());
    gic::enable(timer::physical_intid());
    for n in 0..MOMENTS {
        msr!("cntv_cval_el0", timer::now() + n * step());
        msr!("cntv_ctl_el0", ENABLE);
        msr!("cntp_cval_el0", mrs!("cntpct_el0") + (MOMENTS - n) * step());
        msr!("cntp_ctl_el0", ENABLE);
        let begin = timer::now();
        for _ in 0..2 {
            cpu::wait_interrupt();
            let intid = gic::acknowledge_soon();
            if intid == virtual_intid() {
                msr!("cntv_ctl_el0", 0);
            } else {
                msr!("cntp_ctl_el0", 0);
            }
            check!(intid < gic::SPECIAL, "moment {n}: WFI ended, INTID {intid}");
            gic::end(intid);
        }
        check!(timer::now() - begin < ticks(GUARD), "moment {n}: late");
        timer::off();
    }
    Ok(())
}

/// Answers every SGI with one, asleep in between, until there were `rounds`.
fn answer(rounds: u64) -> u64 {
    gic::enable(timer::physical_intid());
    for n in 0..rounds {
        loop {
            let intid = gic::acknowledge();
            if intid < 16 {
                gic::end(intid);
                break;
            }
            if sleep() {
                return n;
            }
        }
        busy(n * 3 % MOMENTS);
        gic::send(2, FIRST.load(core::sync::atomic::Ordering::Relaxed));
    }
    rounds
}

static FIRST: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

/// Lets a few counts go by.
fn busy(n: u64) {
    let end = timer::now() + n * step();
    while timer::now() < end {}
}

fn rounds(machine: &Machine, with_timer: bool) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU") };
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    FIRST.store(cpu::affinity(), core::sync::atomic::Ordering::Relaxed);
    gic::enable(timer::physical_intid());
    gic::enable(virtual_intid());
    cpu::submit(index, answer, MOMENTS);
    for n in 0..MOMENTS {
        busy(n * 7 % MOMENTS);
        if with_timer {
            msr!("cntv_cval_el0", timer::now() + n * step());
            msr!("cntv_ctl_el0", ENABLE);
        }
        gic::send(1, mpidr);
        loop {
            let intid = gic::acknowledge();
            if intid < gic::SPECIAL {
                gic::end(intid);
            }
            if intid == 2 {
                break;
            }
            if intid == virtual_intid() {
                msr!("cntv_ctl_el0", 0);
            }
            check!(!sleep(), "round {n}: no SGI came back");
        }
        msr!("cntv_ctl_el0", 0);
    }
    check_eq!(cpu::collect(index), Some(MOMENTS), "SGIs that the other CPU answered");
    Ok(())
}

fn by_sgi(machine: &Machine) -> Outcome {
    rounds(machine, false)
}

fn by_sgi_and_timer(machine: &Machine) -> Outcome {
    rounds(machine, true)
}

/// CPU_ON to a CPU that has just turned itself off, at every moment.
fn on_and_off(machine: &Machine) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU") };
    for n in 0..60 {
        check_eq!(cpu::start(index, mpidr), Ok(()), "round {n}: CPU_ON");
        busy(n * 29 % MOMENTS);
        check!(cpu::stop(index, mpidr), "round {n}: CPU_OFF");
        busy(n * 17 % MOMENTS);
    }
    Ok(())
}
