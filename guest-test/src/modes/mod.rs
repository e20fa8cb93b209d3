//! What is not a test: special behaviour asked for by `mode=` on the command line.

use crate::harness::{Outcome, check, report};
use crate::rt::machine::Machine;
use crate::rt::{cpu, gic, timer};

mod bench;
mod faulted;
mod hostile;
mod noise;
pub(crate) mod proxy;
pub(crate) mod puppet;
mod reset;
mod resets;
mod restart;
mod shadows;
pub(crate) mod tlb;
mod turn_back;

/// Runs `mode`. Those that end report one KTAP test.
pub(crate) fn run(mode: &'static str, machine: &Machine) {
    let f: fn(&Machine) -> Outcome = match mode {
        "spin" => spin(machine.option("yield").is_some()),
        "idle" => idle(machine.number("every")),
        "bench" => bench::run,
        "hostile" => hostile::run,
        "noise" => noise::run,
        "shadows" => shadows::run,
        "tlb" => |machine| tlb::run(machine, machine.number("count").unwrap_or(40)),
        "puppet" => puppet::run,
        "proxy" => proxy::run,
        "faulted" => faulted::run,
        "turn-back" => turn_back::run,
        "reset" => reset::run,
        "resets" => resets::run,
        "restart-loop" => restart::run,
        _ => |_| {
            check!(false, "no such mode");
            Ok(())
        },
    };
    println!("KTAP version 1");
    println!("1..1");
    report(1, "mode", mode, &f(machine));
}

/// Keeps the CPU for ever, without ever waiting. With `yield=on` it ends its turn each time where
/// QEMU emulates all CPUs in turns, so that a measurement on another CPU sees little of it.
fn spin(yielding: bool) -> ! {
    println!("# spinning");
    loop {
        if yielding {
            cpu::relax();
        }
        // SAFETY: an instruction that does nothing, so that the loop is not empty.
        unsafe { core::arch::asm!("nop", options(nostack)) };
    }
}

/// Sleeps for ever; a timer wakes it every so many microseconds.
fn idle(every: Option<u64>) -> ! {
    println!("# idle");
    gic::enable(timer::virtual_intid());
    loop {
        if let Some(every) = every {
            msr!("cntv_cval_el0", timer::now() + timer::ticks(every * 1000));
            msr!("cntv_ctl_el0", timer::ENABLE);
        }
        cpu::wait_interrupt();
        msr!("cntv_ctl_el0", timer::ENABLE | timer::MASK);
        let intid = gic::acknowledge();
        if intid < gic::SPECIAL {
            gic::end(intid);
        }
    }
}
