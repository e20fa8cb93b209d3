//! Two vCPUs with one ASID and one virtual address, each with its own tables: each sees its own
//! page. Where they share a physical CPU, switching between them must drop the other's translations.

use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::cpu::Together;
use crate::rt::machine::Machine;
use crate::rt::mmu::{TABLE, Table};
use crate::rt::{cpu, mem, timer};
use core::cell::UnsafeCell;

/// In a gigabyte that the windows leave free.
const VA: u64 = 500 << 30;
const ASID: u64 = 5;
/// Page descriptor: Normal, EL1 only, inner shareable, accessed, not global, no execution.
const PAGE: u64 = 0b11 | (3 << 8) | (1 << 10) | (1 << 11) | (3 << 53);

/// Levels 1 to 3 of each of two CPUs.
struct Tables(UnsafeCell<[[Table; 3]; 2]>);
// SAFETY: CPU n touches element n only, and only in `own`.
unsafe impl Sync for Tables {}
static TABLES: Tables = Tables(UnsafeCell::new([const { [const { Table([0; 512]) }; 3] }; 2]));

/// TTBR0_EL1 of CPU `n`'s own tables: everything as usual, and [`VA`] on scratch page `n`.
fn own(n: usize) -> u64 {
    let all = TABLES.0.get();
    // SAFETY: see `Tables`; the tables are not in use while they are written: the CPU runs on TABLE.
    let [l1, l2, l3] = unsafe { &mut (*all)[n] };
    l1.0 = TABLE.0;
    l1.0[500] = l2 as *const _ as u64 | 0b11;
    l2.0[0] = l3 as *const _ as u64 | 0b11;
    l3.0[0] = mem::scratch(n) | PAGE;
    l1 as *const _ as u64 | ASID << 48
}

fn set_ttbr(ttbr: u64) {
    mem::barrier();
    // SAFETY: both tables map Rust's memory alike.
    unsafe { core::arch::asm!("msr ttbr0_el1, {0}", "isb", in(reg) ttbr, options(nostack)) };
}

fn flush() {
    // SAFETY: TLB maintenance.
    unsafe { core::arch::asm!("tlbi vmalle1", "dsb nsh", "isb", options(nostack)) };
}

/// Both of them.
static BOTH: Together = Together::new();

/// Argument: index of the tables in the low byte, rounds above. Returns the round that went wrong, or 0.
fn job(argument: u64) -> u64 {
    let (n, rounds) = (argument & 0xff, argument >> 8);
    let old = mrs!("ttbr0_el1");
    set_ttbr(own(n as usize));
    flush();
    let wrong = BOTH.go_on(rounds, |round| {
        let value = n << 32 | round;
        mem::write64(mem::scratch(n as usize), value);
        // Through the shared address, again and again over several time slices.
        !timer::wait(timer::SECOND / 40, || mem::read64(VA) != value)
    });
    set_ttbr(old);
    flush();
    wrong
}

/// Runs both for at least `rounds` of 25 ms.
pub(crate) fn run(machine: &Machine, rounds: u64) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU") };
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    BOTH.expect(2);
    cpu::submit(index, job, rounds << 8 | 1);
    let here = job(rounds << 8);
    let there = cpu::collect(index);
    check!(cpu::stop(index, mpidr), "CPU_OFF");
    check_eq!(here, 0, "round in which CPU 0 saw the other's page");
    check_eq!(there, Some(0), "round in which CPU {index} saw the other's page");
    Ok(())
}
