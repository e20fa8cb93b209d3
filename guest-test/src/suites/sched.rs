//! What other VMs on the same CPU cost this one, in virtual time: on a machine in real time (without
//! `-icount`) the host's own pauses count too. Limits in microseconds, from the command line:
//! `gap=LEAST,MOST` for the longest gap in its time, `wake=MOST` for the latest wake-up by a timer.

use crate::harness::{Outcome, Stop, check, skip, suite};
use crate::rt::machine::Machine;
use crate::rt::timer::{self, ENABLE, SECOND, ticks, virtual_intid};
use crate::rt::{cpu, gic};

suite!("sched", false, [wake, gap]);

const MICROSECOND: u64 = 1000;
/// How often the timer wakes the VM, and how far apart.
const WAKES: u64 = 20;
const PAUSE: u64 = 3_700 * MICROSECOND;
/// How long it looks for gaps: several slices of itself and of another.
const LOOK: u64 = 100_000 * MICROSECOND;

fn limit(machine: &Machine, key: &str) -> Result<(u64, u64), Stop> {
    let Some(text) = machine.option(key) else { skip!("no {key}=") };
    let (least, most) = text.split_once(',').unwrap_or(("0", text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) => Ok((least, most)),
        _ => skip!("{key}={text} is no limit"),
    }
}

fn microseconds(count: u64) -> u64 {
    (u128::from(count) * 1_000_000 / u128::from(mrs!("cntfrq_el0"))) as u64
}

fn wake(machine: &Machine) -> Outcome {
    let (least, most) = limit(machine, "wake")?;
    gic::enable(virtual_intid());
    let mut worst = 0;
    for _ in 0..WAKES {
        let at = timer::now() + ticks(PAUSE);
        msr!("cntv_cval_el0", at);
        msr!("cntv_ctl_el0", ENABLE);
        cpu::wait_interrupt();
        let now = timer::now();
        timer::off();
        let intid = gic::acknowledge_soon();
        gic::end(intid);
        check!(intid == virtual_intid() && now >= at, "INTID {intid}, {now} instead of {at}");
        worst = worst.max(now - at);
    }
    let worst = microseconds(worst);
    println!("# the latest wake-up came after {worst} us");
    check!((least..=most).contains(&worst), "the latest wake-up came after {worst} us");
    Ok(())
}

fn gap(machine: &Machine) -> Outcome {
    let (least, most) = limit(machine, "gap")?;
    let (begin, patience) = (timer::now(), ticks(LOOK));
    let (mut last, mut worst) = (begin, 0);
    while last - begin < patience {
        let now = timer::now();
        worst = worst.max(now - last);
        last = now;
        cpu::relax();
    }
    let worst = microseconds(worst);
    println!("# the longest gap is {worst} us, of {} us", SECOND.min(LOOK) / MICROSECOND);
    check!((least..=most).contains(&worst), "the longest gap is {worst} us, not {least} to {most}");
    Ok(())
}
