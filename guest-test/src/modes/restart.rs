//! A control VM restarts the VM that `vm=` names ("held" unless given) again and again: as soon as it runs, or,
//! every `slow=`th time, after a random part of [`LONGEST`].

use super::hostile::Random;
use crate::harness::{Outcome, check, check_eq};
use crate::rt::machine::Machine;
use crate::rt::timer;
use crate::suites::control::{Info, call0, drain_events, find, info};
use abi::hypercall::{VM_RESTART, VM_STOP, VmState};

/// The longest life of one that lives long, in nanoseconds.
const LONGEST: u64 = 300_000_000;

/// Restarts `count` times.
pub(crate) fn run(machine: &Machine) -> Outcome {
    let count = machine.number("count").unwrap_or(1000);
    let name = machine.option("vm").unwrap_or("held");
    let Some(held) = find(name) else {
        check!(false, "no VM is called {name}");
        return Ok(());
    };
    println!("# restarting {name}");
    let slow = machine.number("slow").unwrap_or(u64::MAX);
    let mut random = Random::new(0x5107 + held);
    let begin = info(held)?.starts;
    for round in 0..count {
        check_eq!(call0(VM_RESTART, held), 0, "VM_RESTART, round {round}");
        let running = |i: Info| i.state == VmState::Running as u64 && i.starts == begin + round + 1;
        let mut last = Err(0);
        let came = timer::wait(timer::PATIENCE, || {
            drain_events();
            last = info(held).map_err(|_| 1u8);
            last.is_ok_and(running)
        });
        check!(came, "round {round}: {last:x?}");
        if round % slow == 0 {
            timer::delay(random.below(LONGEST));
        }
        if (round + 1) % 100 == 0 {
            println!("# {} restarts", round + 1);
        }
    }
    check_eq!(call0(VM_STOP, held), 0, "VM_STOP");
    Ok(())
}
