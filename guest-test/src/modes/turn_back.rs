//! A control VM that waits until the VM `vm=` has tagged `pages=` of its lazy memory, at `start=` MiB, `size=`
//! MiB; then it takes all tags away, with no quota left, and gives the quota back when a fault was injected.

use crate::harness::{Outcome, check, check_eq};
use crate::rt::machine::Machine;
use crate::rt::smccc::call;
use crate::rt::timer::{self, SECOND};
use crate::suites::control::find;
use abi::hypercall::{ALL_REGIONS, FAULT_INFO, TAG_DEMOTE, TAG_QUOTA, TAG_STATS};

/// Long, because a kernel has to boot.
const PATIENCE: u64 = 300 * SECOND;

pub(crate) fn run(machine: &Machine) -> Outcome {
    let name = machine.option("vm").unwrap_or("linux");
    let Some(vm) = find(name) else {
        check!(false, "no VM is called {name}");
        return Ok(());
    };
    let option = |key| machine.number(key).unwrap_or(0);
    let (start, size) = (option("start") << 20, option("size") << 20);
    let used = || call(TAG_STATS, vm, ALL_REGIONS, 0)[4];
    check!(timer::wait(PATIENCE, || used() >= option("pages")), "{} pages are tagged", used());
    let quota = call(TAG_QUOTA, vm, 0, 0);
    check_eq!(quota[0], 0, "TAG_QUOTA");
    let mut done = 0;
    while done < size {
        let x = call(TAG_DEMOTE, vm, start + done, size - done);
        check_eq!(x[0], 0, "TAG_DEMOTE");
        done += x[1];
    }
    println!("# turned back");
    let faulted = timer::wait(PATIENCE, || (0..4).any(|vcpu| call(FAULT_INFO, vm, vcpu, 0)[0] == 0));
    check_eq!(call(TAG_QUOTA, vm, quota[1], 0)[0], 0, "TAG_QUOTA back");
    check!(faulted, "no fault was injected");
    Ok(())
}
