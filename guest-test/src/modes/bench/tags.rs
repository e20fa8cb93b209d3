//! Tag faults: lazy memory that gets tags, and a region that answers with an external abort.

use super::{ROUNDS, WARM_UP, measure, print};
use crate::rt::machine::Machine;
use crate::rt::{mmu, mte, timer};
use core::arch::{asm, global_asm};

/// Measures what the machine has the memory for: the second memory node, and region `bare`.
pub(super) fn run(machine: &Machine) {
    if let Some(&(start, size)) = machine.memory().get(1)
        && size >= (WARM_UP + ROUNDS) * 4096
    {
        let pages = |first: u64, count: u64| {
            let va = mmu::tagged(start + first * 4096);
            for page in (va..va + count * 4096).step_by(4096) {
                mte::stg(page);
            }
        };
        pages(0, WARM_UP);
        let begin = timer::now();
        pages(WARM_UP, ROUNDS);
        print("tag_fault_grant", timer::now() - begin);
    }
    if let Some(bare) = machine.region_called("bare") {
        measure("tag_fault_inject", |rounds| inject(mmu::tagged(bare.start), rounds));
    }
}

unsafe extern "C" {
    static bench_vectors: u8;
}

/// Stores tags; a handler of three instructions steps over each.
fn inject(va: u64, rounds: u64) {
    let vectors = mrs!("vbar_el1");
    // SAFETY: the vectors below handle what the loop provokes, interrupts are masked, and the old ones are
    // put back.
    unsafe {
        asm!(
            ".arch_extension memtag",
            "msr vbar_el1, {new}", "isb",
            "2: stg {va}, [{va}]", "subs {n}, {n}, #1", "b.ne 2b",
            "msr vbar_el1, {old}", "isb",
            new = in(reg) &raw const bench_vectors as u64, old = in(reg) vectors, va = in(reg) va,
            n = inout(reg) rounds => _, out("x9") _, options(nostack)
        )
    };
}

global_asm!(
    r#"
    .section .text.bench_vectors, "ax"
    .balign 2048
    .globl  bench_vectors
bench_vectors:
    .space  0x200
    mrs     x9, ELR_EL1
    add     x9, x9, #4
    msr     ELR_EL1, x9
    eret
    .balign 2048
    .text
"#
);
