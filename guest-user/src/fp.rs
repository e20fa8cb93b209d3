//! FP and SIMD registers of processes that take turns on one CPU: the kernel switches them inside of the
//! VM, the hypervisor below it.
//!
//! UNSAFETY: only the registers themselves, and buffers of their size.

use crate::linux;
use core::arch::asm;

type Outcome = Result<(), &'static str>;

type Test = (&'static str, fn() -> Outcome);

/// All tests with their names.
pub(crate) const TESTS: [Test; 2] =
    [("fp.kept_over_switches", kept_over_switches), ("fp.kept_on_every_cpu", kept_on_every_cpu)];

/// V0 to V31.
type Registers = [u128; 32];

/// Fills all registers, lets others run, and returns what they hold then.
fn over_yield(before: &Registers) -> Registers {
    const SCHED_YIELD: usize = 124;
    let mut after = [0; 32];
    // SAFETY: loads from and stores to buffers of 32 registers; the call between keeps all but x0.
    unsafe {
        asm!(
            "ldp q0, q1, [{0}]", "ldp q2, q3, [{0}, #32]", "ldp q4, q5, [{0}, #64]", "ldp q6, q7, [{0}, #96]",
            "ldp q8, q9, [{0}, #128]", "ldp q10, q11, [{0}, #160]", "ldp q12, q13, [{0}, #192]",
            "ldp q14, q15, [{0}, #224]", "ldp q16, q17, [{0}, #256]", "ldp q18, q19, [{0}, #288]",
            "ldp q20, q21, [{0}, #320]", "ldp q22, q23, [{0}, #352]", "ldp q24, q25, [{0}, #384]",
            "ldp q26, q27, [{0}, #416]", "ldp q28, q29, [{0}, #448]", "ldp q30, q31, [{0}, #480]",
            "svc #0",
            "stp q0, q1, [{1}]", "stp q2, q3, [{1}, #32]", "stp q4, q5, [{1}, #64]", "stp q6, q7, [{1}, #96]",
            "stp q8, q9, [{1}, #128]", "stp q10, q11, [{1}, #160]", "stp q12, q13, [{1}, #192]",
            "stp q14, q15, [{1}, #224]", "stp q16, q17, [{1}, #256]", "stp q18, q19, [{1}, #288]",
            "stp q20, q21, [{1}, #320]", "stp q22, q23, [{1}, #352]", "stp q24, q25, [{1}, #384]",
            "stp q26, q27, [{1}, #416]", "stp q28, q29, [{1}, #448]", "stp q30, q31, [{1}, #480]",
            in(reg) before.as_ptr(), in(reg) after.as_mut_ptr(), in("x8") SCHED_YIELD, out("x0") _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _,
            out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
            out("v14") _, out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
            out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack)
        );
    }
    after
}

/// Whether registers with values of `seed` keep them while others run.
fn kept(seed: u128, rounds: u128) -> bool {
    (0..rounds).all(|round| {
        let value =
            |n: u128| (seed << 64 | round << 8 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let before = core::array::from_fn(|n| value(n as u128));
        over_yield(&before) == before
    })
}

/// This process and a child take turns on `cpus`; each does `keeps`, with a number of its own.
pub(crate) fn two_on(cpus: u64, keeps: impl Fn(u128) -> bool) -> Outcome {
    if !linux::run_on(cpus) {
        return Err("sched_setaffinity failed");
    }
    let child = linux::start_child(|| u8::from(!keeps(2))).ok_or("clone failed")?;
    let own = keeps(1);
    let childs = linux::wait_for(child);
    match (own, childs) {
        (true, Some(0)) => Ok(()),
        (false, _) => Err("registers changed"),
        (true, _) => Err("the child's registers changed"),
    }
}

fn kept_over_switches() -> Outcome {
    let all = linux::cpus();
    let result = two_on(1 << all.trailing_zeros().min(63), |seed| kept(seed, 500));
    linux::run_on(all);
    result
}

fn kept_on_every_cpu() -> Outcome {
    let all = linux::cpus();
    let each = (0..64).map(|cpu| 1 << cpu).filter(|cpu| all & cpu != 0);
    let result = each.map(|cpu| two_on(cpu, |seed| kept(seed, 50))).find(Result::is_err).unwrap_or(Ok(()));
    linux::run_on(all);
    result
}
