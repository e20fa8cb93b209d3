//! SVE: its vector lengths, and that Z, P and FFR keep their values over everything that leaves the CPU,
//! while what others left in them never shows. The payload is built without FP, so only this suite and
//! that of FP touch the registers.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::cpu::Together;
use crate::rt::exception::{EC_SVC, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, scratch, write64};
use crate::rt::timer::SECOND;
use crate::rt::{cpu, el0, gic, mem, mmu, smccc, sysreg, timer};
use core::arch::{asm, global_asm};

suite!(
    "sve",
    true,
    [
        starts_zeroed,
        lengths,
        as_the_machine_says,
        over_calls_and_devices,
        over_long_spin,
        with_fp,
        shorter_vectors,
        on_every_cpu,
        new_cpus_see_zeros,
        at_el0,
        disabled,
        hidden,
    ]
);

unsafe extern "C" {
    fn sve_load(state: u64);
    fn sve_store(state: u64);
    fn sve_spin_el0();
}

/// Exception class: SVE trapped by CPACR_EL1.ZEN.
const EC_SVE: u64 = 0x19;
/// CPACR_EL1.ZEN: SVE at EL1 and EL0; FPEN: FP.
const ZEN: u64 = 3 << 16;
const FPEN: u64 = 3 << 20;
/// Scratch pages for a state: Z to 8 KiB, P and FFR behind.
const PAGES: usize = 3;

pub(crate) fn has_sve() -> bool {
    sysreg::field(mrs!("id_aa64pfr0_el1"), 32) != 0
}

/// Runs `f` with SVE usable and vectors as long as they get, whose bytes it is told.
pub(crate) fn with_sve<R>(f: impl FnOnce(u64) -> R) -> R {
    msr!("cpacr_el1", FPEN | ZEN);
    let bytes = set_length(0xf);
    let result = f(bytes);
    msr!("cpacr_el1", FPEN);
    result
}

macro_rules! needs_sve {
    () => {
        if !has_sve() {
            skip!("no SVE");
        }
    };
}

/// Sets ZCR_EL1.LEN; returns the bytes of a vector.
fn set_length(len: u64) -> u64 {
    msr!("S3_0_C1_C2_0", len);
    let bytes;
    // SAFETY: reads the vector length.
    unsafe { asm!(".arch_extension sve", "rdvl {}, #1", out(reg) bytes, options(nostack, nomem)) };
    bytes
}

/// Bytes of Z0 to Z31, P0 to P15 and FFR.
const fn size(bytes: u64) -> u64 {
    32 * bytes + 17 * (bytes / 8)
}

/// Two places for states, this CPU's own.
fn places() -> (u64, u64) {
    let first = 2 * PAGES * cpu::index();
    (scratch(first), scratch(first + PAGES))
}

fn words(place: u64, bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size(bytes).div_ceil(8)).map(move |n| (n, read64(place + 8 * n)))
}

/// Writes a state of random Z and P, and an FFR whose first bits are set, as it must be.
fn pattern(place: u64, bytes: u64, seed: u64) {
    for n in 0..(32 * bytes + 16 * bytes / 8).div_ceil(8) {
        let value = (seed ^ cpu::affinity() << 40 ^ n << 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        write64(place + 8 * n, value ^ value >> 29);
    }
    let ffr = place + 32 * bytes + 16 * (bytes / 8);
    let set = seed % (bytes + 1);
    for n in 0..bytes / 8 {
        let bits = set.saturating_sub(8 * n).min(8);
        mem::write8(ffr + n, ((1u16 << bits) - 1) as u8);
    }
}

/// Compares what `place` holds with `wanted`, whole words: the last may hold bytes behind the state.
fn compare(place: u64, wanted: u64, bytes: u64, what: &str) -> Outcome {
    for n in 0..size(bytes) {
        let (got, want) = (mem::read8(place + n), mem::read8(wanted + n));
        check_eq!(got, want, "byte {n} of Z, P, FFR over {what}");
    }
    Ok(())
}

fn kept(seed: u64, what: &str, f: impl FnOnce()) -> Outcome {
    with_sve(|bytes| {
        let (before, after) = places();
        pattern(before, bytes, seed);
        // SAFETY: the places are large enough for vectors of any length; no compiled code uses these
        // registers.
        unsafe { sve_load(before) };
        f();
        // SAFETY: as above.
        unsafe { sve_store(after) };
        compare(after, before, bytes, what)
    })
}

/// Whether all but V, which FP code may have written, is zero.
fn zeroed(bytes: u64) -> Outcome {
    let (place, _) = places();
    // SAFETY: as in `kept`.
    unsafe { sve_store(place) };
    for (n, word) in words(place, bytes) {
        let in_v = n < 4 * bytes && n % (bytes / 8) < 2;
        // The last word may have bytes behind the state.
        let over = (8 * (n + 1)).saturating_sub(size(bytes));
        let word = if over == 0 { word } else { word & (u64::MAX >> (8 * over)) };
        check!(in_v || word == 0, "word {n} of Z, P, FFR is {word:#x} at the first use");
    }
    Ok(())
}

/// The first of the suite: nobody has used SVE on this CPU of the VM.
fn starts_zeroed(_: &Machine) -> Outcome {
    needs_sve!();
    with_sve(zeroed)
}

fn lengths(_: &Machine) -> Outcome {
    needs_sve!();
    with_sve(|longest| {
        check!(matches!(longest, 16..=256) && longest % 16 == 0, "a vector of {longest} bytes");
        for len in 0..16 {
            let bytes = set_length(len);
            check!(bytes <= 16 * (len + 1) && bytes <= longest, "{bytes} bytes with ZCR_EL1.LEN = {len}");
            if 16 * (len + 1) >= longest {
                check_eq!(bytes, longest, "bytes with ZCR_EL1.LEN = {len}");
            }
        }
        check_eq!(set_length(0), 16, "bytes with ZCR_EL1.LEN = 0");
        Ok(())
    })
}

/// The longest vector is what the command line says: `vl=` bits.
fn as_the_machine_says(machine: &Machine) -> Outcome {
    let Some(bits) = machine.number("vl") else { skip!("no vl= on the command line") };
    check_eq!(has_sve(), bits != 0, "SVE in ID_AA64PFR0_EL1");
    if bits != 0 {
        check_eq!(with_sve(|bytes| 8 * bytes), bits, "bits of the longest vector");
    }
    Ok(())
}

fn over_calls_and_devices(_: &Machine) -> Outcome {
    needs_sve!();
    kept(1, "calls and device accesses", || {
        for _ in 0..100 {
            smccc::call(abi::psci::VERSION, 0, 0, 0);
            mem::read32(gic::GICD + gic::TYPER);
            mrs!("S3_0_C0_C4_4");
        }
    })
}

fn over_long_spin(_: &Machine) -> Outcome {
    needs_sve!();
    for round in 0..5 {
        kept(30 + round, "a spin longer than a time slice", || timer::delay(SECOND / 25))?;
    }
    Ok(())
}

/// A write to V zeroes the rest of Z; V is the low part of Z, over a spin.
fn with_fp(_: &Machine) -> Outcome {
    needs_sve!();
    with_sve(|bytes| {
        let (before, after) = places();
        pattern(before, bytes, 50);
        // SAFETY: as in `kept`.
        unsafe { sve_load(before) };
        // SAFETY: a register that no compiled code uses.
        unsafe { asm!(".arch_extension fp", "fmov d7, {}", in(reg) 0x1234_5678_u64, options(nostack)) };
        timer::delay(SECOND / 25);
        // SAFETY: as in `kept`.
        unsafe { sve_store(after) };
        for n in 0..bytes / 8 {
            write64(before + 7 * bytes + 8 * n, if n == 0 { 0x1234_5678 } else { 0 });
        }
        compare(after, before, bytes, "FMOV D7 and a spin")
    })
}

/// Vectors of 128 bits keep their values too, and ZCR_EL1 is as it was.
fn shorter_vectors(_: &Machine) -> Outcome {
    needs_sve!();
    with_sve(|_| {
        let bytes = set_length(0);
        let (before, after) = places();
        pattern(before, bytes, 60);
        // SAFETY: as in `kept`.
        unsafe { sve_load(before) };
        timer::delay(SECOND / 25);
        // SAFETY: as in `kept`.
        unsafe { sve_store(after) };
        check_eq!(mrs!("S3_0_C1_C2_0"), 0, "ZCR_EL1 over a spin");
        compare(after, before, bytes, "a spin")
    })
}

fn on_every_cpu(machine: &Machine) -> Outcome {
    needs_sve!();
    static ALL: Together = Together::new();
    let job: fn(u64) -> u64 =
        |seed| ALL.go_on(10, |n| kept(seed + n % 64, "a spin", || timer::delay(SECOND / 200)).is_ok());
    for (index, mpidr) in machine.secondaries().take(4) {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    }
    ALL.expect(1 + machine.secondaries().take(4).count());
    for (index, _) in machine.secondaries().take(4) {
        cpu::submit(index, job, 100 * index as u64);
    }
    check_eq!(job(5), 0, "the round that went wrong on CPU 0");
    for (index, _) in machine.secondaries().take(4) {
        check_eq!(cpu::collect(index), Some(0), "the round that went wrong on CPU {index}");
    }
    Ok(())
}

/// CPUs that are turned on find zeros, whatever this one, or themselves before, left in the registers.
fn new_cpus_see_zeros(machine: &Machine) -> Outcome {
    needs_sve!();
    let look: fn(u64) -> u64 = |_| u64::from(with_sve(zeroed).is_ok());
    let soil: fn(u64) -> u64 = |seed| u64::from(kept(seed, "nothing", || {}).is_ok());
    let mut looked = 0;
    for (index, mpidr) in machine.secondaries().take(4) {
        for round in 0..3 {
            check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
            check_eq!(soil(round), 1, "registers of CPU 0");
            check_eq!(cpu::run_on(index, look, 0), Some(1), "zeros on CPU {index}, round {round}");
            check_eq!(cpu::run_on(index, soil, 7 + round), Some(1), "registers of CPU {index}");
            check!(cpu::stop(index, mpidr), "CPU {index} does not stop");
            looked += 1;
        }
    }
    if looked == 0 {
        skip!("one CPU");
    }
    Ok(())
}

fn at_el0(_: &Machine) -> Outcome {
    needs_sve!();
    let ticks = timer::ticks(SECOND / 25);
    with_sve(|bytes| {
        let (before, after) = places();
        pattern(before, bytes, 70);
        let left = el0::run(sve_spin_el0, [mmu::user(before), mmu::user(after), ticks, 0, 0, 0, 0, 0]);
        check_eq!(left.ec(), EC_SVC, "EC");
        compare(after, before, bytes, "a spin at EL0")
    })
}

fn disabled(_: &Machine) -> Outcome {
    needs_sve!();
    // CPACR_EL1.ZEN belongs to the guest: a trap that it asked for goes to it.
    let fault = expect_fault(|| {
        set_length(3);
    });
    check_eq!(fault.map(|f| f.ec()), Some(EC_SVE), "EC with CPACR_EL1.ZEN = 0");
    kept(9, "a trap to EL1", || {})
}

/// Where there is no SVE, nothing of it works.
fn hidden(_: &Machine) -> Outcome {
    if has_sve() {
        skip!("the CPU has SVE");
    }
    check_eq!(mrs!("S3_0_C0_C4_4"), 0, "ID_AA64ZFR0_EL1");
    msr!("cpacr_el1", FPEN | ZEN);
    // SAFETY: changes a register that no compiled code uses.
    let fault = expect_fault(|| unsafe { asm!(".arch_extension sve", "mov z0.b, #1", options(nostack)) });
    let zcr = probe!("S3_0_C1_C2_0");
    msr!("cpacr_el1", FPEN);
    check!(fault.is_some_and(|f| f.undefined()), "an SVE instruction: {fault:x?}");
    check!(zcr.is_err_and(|f| f.undefined()), "ZCR_EL1: {zcr:x?}");
    Ok(())
}

global_asm!(
    r#"
    .arch_extension sve
    .macro  sve_load_all
    addvl   x9, x0, #16
    addvl   x9, x9, #16
    ldr     p0, [x9, #16, mul vl]
    wrffr   p0.b
    .irp    n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    ldr     p\n, [x9, #\n, mul vl]
    .endr
    .irp    n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ldr     z\n, [x0, #\n, mul vl]
    .endr
    .endm
    .macro  sve_store_all
    addvl   x9, x0, #16
    addvl   x9, x9, #16
    .irp    n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    str     z\n, [x0, #\n, mul vl]
    .endr
    .irp    n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    str     p\n, [x9, #\n, mul vl]
    .endr
    rdffr   p0.b
    str     p0, [x9, #16, mul vl]
    .endm

    .text
    .globl  sve_load
sve_load:
    sve_load_all
    ret
    .globl  sve_store
sve_store:
    sve_store_all
    ret

    .section .user, "ax"
    .globl  sve_spin_el0
sve_spin_el0:
    sve_load_all
    mrs     x3, CNTVCT_EL0
1:  mrs     x4, CNTVCT_EL0
    sub     x4, x4, x3
    cmp     x4, x2
    b.lo    1b
    mov     x0, x1
    sve_store_all
    svc     #0
    .text
"#
);
