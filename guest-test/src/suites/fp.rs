//! FP and SIMD registers keep their values over everything that leaves the CPU: exits, sleep, other
//! vCPUs on the same CPU. The payload is built without FP, so only this file touches the registers.

use crate::harness::{Outcome, check, check_eq, suite};
use crate::rt::cpu::Together;
use crate::rt::machine::Machine;
use crate::rt::timer::{ENABLE, SECOND};
use crate::rt::{cpu, el0, gic, irq, mem, mmu, smccc, timer};
use core::arch::global_asm;

suite!(
    "fp",
    true,
    [over_calls, over_mmio, over_interrupts, over_wfi, over_long_spin, on_every_cpu, at_el0, disabled]
);

/// V0 to V31, FPCR, FPSR.
type State = [u64; 66];

unsafe extern "C" {
    fn fp_load(state: *const u64);
    fn fp_store(state: *mut u64);
    fn fp_spin_el0();
}

/// Rounding towards zero and flush to zero.
const FPCR: u64 = (3 << 22) | (1 << 24);
/// Cumulative inexact and QC.
const FPSR: u64 = (1 << 4) | (1 << 27);

fn pattern(seed: u64) -> State {
    let mut state = core::array::from_fn(|i| {
        (seed ^ cpu::affinity() << 40 ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    state[64] = FPCR;
    state[65] = FPSR;
    state
}

fn kept(seed: u64, what: &str, f: impl FnOnce()) -> Outcome {
    let before = pattern(seed);
    let mut after = [0; 66];
    // SAFETY: 66 words; no compiled code uses these registers.
    unsafe { fp_load(before.as_ptr()) };
    f();
    // SAFETY: as above.
    unsafe { fp_store(after.as_mut_ptr()) };
    for (n, (got, want)) in after.iter().zip(&before).enumerate() {
        check_eq!(got, want, "word {n} of V0-V31, FPCR, FPSR over {what}");
    }
    Ok(())
}

fn over_calls(_: &Machine) -> Outcome {
    kept(1, "calls", || {
        for _ in 0..100 {
            smccc::call(abi::psci::VERSION, 0, 0, 0);
        }
    })
}

fn over_mmio(_: &Machine) -> Outcome {
    kept(2, "device accesses", || {
        for _ in 0..100 {
            mem::read32(gic::GICD + gic::TYPER);
            mrs!("id_aa64pfr0_el1");
        }
    })
}

fn over_interrupts(_: &Machine) -> Outcome {
    gic::enable(timer::virtual_intid());
    irq::clear(cpu::index());
    cpu::irq_on();
    kept(3, "interrupts", || {
        for n in 1..20 {
            msr!("cntv_tval_el0", timer::ticks(SECOND / 20_000));
            msr!("cntv_ctl_el0", ENABLE);
            irq::wait(cpu::index(), n);
        }
    })?;
    check!(irq::count(cpu::index()) >= 19, "interrupts did not come");
    Ok(())
}

fn over_wfi(_: &Machine) -> Outcome {
    gic::enable(timer::virtual_intid());
    irq::clear(cpu::index());
    for round in 0..10 {
        kept(10 + round, "WFI", || {
            msr!("cntv_tval_el0", timer::ticks(SECOND / 500));
            msr!("cntv_ctl_el0", ENABLE);
            cpu::wait_interrupt();
            cpu::irq_on();
            irq::wait(cpu::index(), round as u32 + 1);
            cpu::irq_off();
        })?;
    }
    Ok(())
}

fn over_long_spin(_: &Machine) -> Outcome {
    for round in 0..5 {
        kept(30 + round, "a spin longer than a time slice", || timer::delay(SECOND / 25))?;
    }
    Ok(())
}

fn on_every_cpu(machine: &Machine) -> Outcome {
    static ALL: Together = Together::new();
    let job: fn(u64) -> u64 =
        |seed| ALL.go_on(20, |n| kept(seed + n % 64, "a spin", || timer::delay(SECOND / 200)).is_ok());
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    }
    ALL.expect(1 + machine.secondaries().count());
    for (index, _) in machine.secondaries() {
        cpu::submit(index, job, 100 * index as u64);
    }
    check_eq!(job(5), 0, "the round that went wrong on CPU 0");
    for (index, _) in machine.secondaries() {
        check_eq!(cpu::collect(index), Some(0), "the round that went wrong on CPU {index}");
    }
    Ok(())
}

fn at_el0(_: &Machine) -> Outcome {
    let counter = timer::ticks(SECOND / 50);
    let page = mmu::user(mem::scratch(0));
    let before = pattern(77);
    for (n, word) in before.iter().enumerate() {
        mem::write64(page + 8 * n as u64, *word);
    }
    let left = el0::run(fp_spin_el0, [page, page + 2048, counter, 0, 0, 0, 0, 0]);
    check_eq!(left.ec(), crate::rt::exception::EC_SVC, "EC");
    for (n, want) in before.iter().enumerate() {
        check_eq!(&mem::read64(page + 2048 + 8 * n as u64), want, "word {n} over a spin at EL0");
    }
    Ok(())
}

fn disabled(_: &Machine) -> Outcome {
    // CPACR_EL1.FPEN belongs to the guest: a trap that it asked for goes to it.
    msr!("cpacr_el1", 0);
    let mut state = [0; 66];
    let fault = crate::rt::exception::expect_fault(|| {
        // SAFETY: every instruction of it traps and is skipped, except the plain ones.
        unsafe { fp_store(state.as_mut_ptr()) };
    });
    msr!("cpacr_el1", 3 << 20);
    let Some(fault) = fault else {
        check!(false, "no trap with CPACR_EL1.FPEN = 0");
        return Ok(());
    };
    check_eq!(fault.ec(), 0x07, "EC");
    kept(9, "a trap to EL1", || {})
}

global_asm!(
    r#"
    .arch_extension fp
    .arch_extension simd
    .macro  fp_all op
    \op     q0, q1, [x0]
    \op     q2, q3, [x0, #32]
    \op     q4, q5, [x0, #64]
    \op     q6, q7, [x0, #96]
    \op     q8, q9, [x0, #128]
    \op     q10, q11, [x0, #160]
    \op     q12, q13, [x0, #192]
    \op     q14, q15, [x0, #224]
    \op     q16, q17, [x0, #256]
    \op     q18, q19, [x0, #288]
    \op     q20, q21, [x0, #320]
    \op     q22, q23, [x0, #352]
    \op     q24, q25, [x0, #384]
    \op     q26, q27, [x0, #416]
    \op     q28, q29, [x0, #448]
    \op     q30, q31, [x0, #480]
    .endm
    .macro  fp_load_all
    fp_all  ldp
    ldr     x9, [x0, #512]
    msr     FPCR, x9
    ldr     x9, [x0, #520]
    msr     FPSR, x9
    .endm
    .macro  fp_store_all
    fp_all  stp
    mov     x9, xzr
    mrs     x9, FPCR
    str     x9, [x0, #512]
    mrs     x9, FPSR
    str     x9, [x0, #520]
    .endm

    .text
    .globl  fp_load
fp_load:
    fp_load_all
    ret
    .globl  fp_store
fp_store:
    fp_store_all
    ret

    .section .user, "ax"
    .globl  fp_spin_el0
fp_spin_el0:
    fp_load_all
    mrs     x3, CNTVCT_EL0
1:  mrs     x4, CNTVCT_EL0
    sub     x4, x4, x3
    cmp     x4, x2
    b.lo    1b
    mov     x0, x1
    fp_store_all
    svc     #0
    .text
"#
);
