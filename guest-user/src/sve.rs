//! SVE registers of processes that are preempted by each other. System calls do not keep them (Linux,
//! Documentation/arch/arm64/sve.rst), so the processes spin.
//!
//! UNSAFETY: only the registers themselves, and buffers of their size.

use crate::fp::two_on;
use crate::linux;
use core::arch::asm;

type Outcome = Result<(), &'static str>;

type Test = (&'static str, fn() -> Outcome);

/// All tests with their names.
pub(crate) const TESTS: [Test; 1] = [("sve.kept_over_preemption", kept_over_preemption)];

/// Z0 to Z31 of at most 2048 bits; as many bytes of it are used as vectors have.
#[repr(align(16))]
struct Registers([u8; 32 * 256]);

/// Fills all Z registers, spins for `ticks` of the counter, and stores them; returns the bytes used.
fn over_spin(before: &Registers, after: &mut Registers, ticks: u64) -> usize {
    let bytes: usize;
    // SAFETY: loads from and stores to buffers that hold 32 registers of any length.
    unsafe {
        asm!(
            ".arch_extension sve",
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "ldr z\\n, [{0}, #\\n, mul vl]",
            ".endr",
            "mrs {start}, cntvct_el0",
            "2: mrs {now}, cntvct_el0",
            "sub {now}, {now}, {start}",
            "cmp {now}, {ticks}",
            "b.lo 2b",
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "str z\\n, [{1}, #\\n, mul vl]",
            ".endr",
            "rdvl {bytes}, #1",
            in(reg) before.0.as_ptr(), in(reg) after.0.as_mut_ptr(), ticks = in(reg) ticks,
            start = out(reg) _, now = out(reg) _, bytes = out(reg) bytes,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _,
            out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
            out("v14") _, out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
            out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack)
        );
    }
    32 * bytes
}

/// Whether registers with values of `seed` keep them while others take their turns.
fn kept(seed: u128, rounds: u128) -> bool {
    let (mut before, mut after) = (Registers([0; 32 * 256]), Registers([0; 32 * 256]));
    let frequency: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack)) };
    (0..rounds).all(|round| {
        for (n, byte) in before.0.iter_mut().enumerate() {
            *byte = (seed * 37 + round * 11 + n as u128 * 13 + (n as u128 >> 4)) as u8;
        }
        let size = over_spin(&before, &mut after, frequency / 100);
        before.0.get(..size) == after.0.get(..size)
    })
}

fn kept_over_preemption() -> Outcome {
    let all = linux::cpus();
    let result = two_on(1 << all.trailing_zeros().min(63), |seed| kept(seed, 20));
    linux::run_on(all);
    result
}
