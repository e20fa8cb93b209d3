//! What reaches whom: SGIs by the registers of group 0, and what one CPU sees of another's SPI.

use super::SPI;
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::gic::*;
use crate::rt::machine::Machine;
use crate::rt::timer::PATIENCE;
use crate::rt::{cpu, timer};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// With one Security state, ICC_SGI0R_EL1 and ICC_ASGI1R_EL1 send SGIs of group 0 only (IHI 0069H 12.1.10).
pub(super) fn sgi_of_group_0(_: &Machine) -> Outcome {
    const OF_0: u32 = 5;
    const OF_1: u32 = 6;
    set_group(OF_0, false);
    for other in [false, true] {
        for intid in [OF_0, OF_1] {
            send_group_0(intid, cpu::affinity(), other);
        }
        let came = timer::wait(PATIENCE, || pending(OF_0));
        let wrong = pending(OF_1);
        clear_pending(OF_0);
        clear_pending(OF_1);
        check!(came, "SGI of group 0, ASGI1R {other}");
        check!(!wrong, "SGI of group 1 came by a register of group 0, ASGI1R {other}");
    }
    set_group(OF_0, true);
    Ok(())
}

/// Steps that two CPUs take in turn.
static STEP: AtomicU64 = AtomicU64::new(0);

/// What another CPU does with an SPI is seen here at once: Linux's synchronize_irq asks this.
pub(super) fn state_on_another_cpu(machine: &Machine) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU") };
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    let serve: fn(u64) -> u64 = |_| {
        let intid = acknowledge_soon();
        STEP.store(1, SeqCst);
        let seen = timer::wait(PATIENCE, || STEP.load(SeqCst) == 2);
        end(intid);
        STEP.store(3, SeqCst);
        // It does nothing until it was looked at.
        u64::from(timer::wait(PATIENCE, || STEP.load(SeqCst) == 4) && seen)
    };
    set_edge(SPI, true);
    route(SPI, mpidr);
    enable(SPI);
    for round in 0..10 {
        STEP.store(0, SeqCst);
        cpu::submit(index, serve, 0);
        set_pending(SPI);
        check!(timer::wait(PATIENCE, || STEP.load(SeqCst) == 1), "round {round}: CPU {index} took nothing");
        let taken = (active(SPI), pending(SPI));
        STEP.store(2, SeqCst);
        check!(timer::wait(PATIENCE, || STEP.load(SeqCst) == 3), "round {round}: CPU {index} is stuck");
        let ended = (active(SPI), pending(SPI));
        STEP.store(4, SeqCst);
        check_eq!(cpu::collect(index), Some(1), "round {round} at CPU {index}");
        check_eq!(taken, (true, false), "round {round}: active and pending while CPU {index} serves it");
        check_eq!(ended, (false, false), "round {round}: active and pending after CPU {index} ended it");
    }
    Ok(())
}
