//! Several CPUs: start and stop, memory seen by all, exclusives, interrupts between them.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::machine::Machine;
use crate::rt::timer::PATIENCE;
use crate::rt::{cpu, gic, irq, mem, smccc, timer};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

suite!(
    "smp",
    true,
    [start_and_stop_20_times, data, atomics, message_passing, code, ping_pong, counters_agree, same_asid]
);

fn several(machine: &Machine) -> Outcome {
    if machine.cpu_count < 2 {
        skip!("one CPU");
    }
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON of CPU {index}");
    }
    Ok(())
}

fn start_and_stop_20_times(machine: &Machine) -> Outcome {
    for round in 0..20 {
        several(machine)?;
        for (index, _) in machine.secondaries() {
            cpu::submit(index, |x| x * 3, round);
        }
        for (index, mpidr) in machine.secondaries() {
            check_eq!(cpu::collect(index), Some(round * 3), "result of CPU {index}, round {round}");
            check!(cpu::stop(index, mpidr), "CPU_OFF of CPU {index}, round {round}");
        }
    }
    Ok(())
}

fn data(machine: &Machine) -> Outcome {
    several(machine)?;
    let fill: fn(u64) -> u64 = |n| {
        let base = mem::scratch(n as usize);
        (0..4096).step_by(8).for_each(|o| mem::write64(base + o, n << 32 | o));
        n
    };
    for (index, _) in machine.secondaries() {
        check_eq!(cpu::run_on(index, fill, index as u64), Some(index as u64), "CPU {index}");
        for offset in (0..4096).step_by(8) {
            let value = mem::read64(mem::scratch(index) + offset);
            check_eq!(value, (index as u64) << 32 | offset, "what CPU {index} stored");
        }
    }
    Ok(())
}

static COUNTER: AtomicU64 = AtomicU64::new(0);

fn atomics(machine: &Machine) -> Outcome {
    several(machine)?;
    const EACH: u64 = 20_000;
    COUNTER.store(0, Relaxed);
    let count: fn(u64) -> u64 = |_| {
        (0..EACH).for_each(|_| {
            COUNTER.fetch_add(1, Relaxed);
        });
        0
    };
    for (index, _) in machine.secondaries() {
        cpu::submit(index, count, 0);
    }
    count(0);
    for (index, _) in machine.secondaries() {
        check_eq!(cpu::collect(index), Some(0), "CPU {index}");
    }
    check_eq!(COUNTER.load(SeqCst), EACH * machine.cpu_count as u64, "the sum");
    Ok(())
}

static MESSAGE: AtomicU64 = AtomicU64::new(0);
static TURN: AtomicU64 = AtomicU64::new(0);

fn message_passing(machine: &Machine) -> Outcome {
    several(machine)?;
    TURN.store(0, Relaxed);
    let answer: fn(u64) -> u64 = |rounds| {
        for n in 0..rounds {
            if !timer::wait(PATIENCE, || TURN.load(Acquire) == 2 * n + 1) {
                return n;
            }
            MESSAGE.store(MESSAGE.load(Relaxed) + 1, Relaxed);
            TURN.store(2 * n + 2, Release);
        }
        rounds
    };
    cpu::submit(1, answer, 1000);
    for n in 0..1000 {
        MESSAGE.store(n * 10, Relaxed);
        TURN.store(2 * n + 1, Release);
        check!(timer::wait(PATIENCE, || TURN.load(Acquire) == 2 * n + 2), "no answer in round {n}");
        check_eq!(MESSAGE.load(Relaxed), n * 10 + 1, "the answer in round {n}");
    }
    check_eq!(cpu::collect(1), Some(1000), "rounds of CPU 1");
    Ok(())
}

/// Each CPU takes exceptions and makes calls of its own at the same time.
fn code(machine: &Machine) -> Outcome {
    several(machine)?;
    let job: fn(u64) -> u64 = |absent| {
        u64::from((0..200).all(|n| {
            let fault = mem::try_read64(absent + 8 * n);
            let version = smccc::call(abi::psci::VERSION, 0, 0, 0)[0];
            mem::read32(gic::GICD + gic::TYPER);
            fault.is_err() && version >= 0x1_0000
        }))
    };
    for (index, _) in machine.secondaries() {
        cpu::submit(index, job, machine.absent() + 0x1000 * index as u64);
    }
    check_eq!(job(machine.absent()), 1, "CPU 0");
    for (index, _) in machine.secondaries() {
        check_eq!(cpu::collect(index), Some(1), "CPU {index}");
    }
    Ok(())
}

/// SGIs there and back.
fn ping_pong(machine: &Machine) -> Outcome {
    several(machine)?;
    const ROUNDS: u32 = 200;
    let answer: fn(u64) -> u64 = |back_to| {
        irq::clear(cpu::index());
        cpu::irq_on();
        TURN.store(77, Release);
        let mut answered = 0;
        for n in 1..=ROUNDS {
            if irq::wait(cpu::index(), n) {
                gic::send(4, back_to);
                answered = n;
            } else {
                break;
            }
        }
        cpu::irq_off();
        u64::from(answered)
    };
    for (index, mpidr) in machine.secondaries() {
        TURN.store(0, Relaxed);
        irq::clear(0);
        cpu::submit(index, answer, machine.cpus[0]);
        check!(timer::wait(PATIENCE, || TURN.load(Acquire) == 77), "CPU {index} does not start");
        cpu::irq_on();
        for n in 1..=ROUNDS {
            gic::send(3, mpidr);
            check!(irq::wait(0, n), "no answer of CPU {index} to SGI {n}");
        }
        cpu::irq_off();
        check_eq!(cpu::collect(index), Some(u64::from(ROUNDS)), "SGIs of CPU {index}");
    }
    Ok(())
}

fn counters_agree(machine: &Machine) -> Outcome {
    several(machine)?;
    for (index, _) in machine.secondaries() {
        let before = timer::now();
        let Some(there) = cpu::run_on(index, |_| timer::now(), 0) else {
            check!(false, "CPU {index} does not answer");
            return Ok(());
        };
        let after = timer::now();
        check!(
            (before..=after).contains(&there),
            "CNTVCT of CPU {index} is {there:#x}, not in {before:#x}..{after:#x}"
        );
    }
    Ok(())
}

/// One ASID, one address, two tables.
fn same_asid(machine: &Machine) -> Outcome {
    crate::modes::tlb::run(machine, 10)
}
