//! SVE under two hypervisors: the length of vectors, and whose trap it is.

use super::{EC_HVC, guest_code, guest_el1, need_el2, slot};
use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::el2::{self, El1, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::timer::{SECOND, ticks};
use crate::suites::sve::has_sve;
use core::arch::asm;

suite!("nested-sve", true, [vector_lengths, lengths_over_time, sve_traps, traps_over_time, hidden]);

guest_code! {
    /// The vector's bytes into x2; adds 1 to the bytes of Z0.
    vectors ".arch_extension sve\n rdvl x2, #1\n add z0.b, z0.b, #1";
    /// As `vectors` until CNTPCT_EL0 is x0: x5 is 1 if the length was ever another than at first.
    vectors_until ".arch_extension sve\n mov x5, #0\n rdvl x2, #1\n 3: rdvl x3, #1\n cmp x3, x2\n cinc x5, xzr, ne\n b.ne 4f\n mrs x4, CNTPCT_EL0\n cmp x4, x0\n b.lo 3b\n 4: add z0.b, z0.b, #1";
    /// Waits until CNTPCT_EL0 is x0, and uses FP and SVE.
    fp_then_sve ".arch_extension sve\n 3: mrs x4, CNTPCT_EL0\n cmp x4, x0\n b.lo 3b\n fmov d1, x0\n rdvl x2, #1";
    /// One SVE instruction.
    sve_alone ".arch_extension sve\n rdvl x2, #1";
    /// ZCR_EL1.
    read_zcr "mrs x2, S3_0_C1_C2_0";
}

const EC_FP: u64 = 0x07;
const EC_SVE: u64 = 0x19;

macro_rules! need_sve {
    () => {
        if !has_sve() {
            skip!("no SVE");
        }
    };
}

/// EL1 of a guest that may use SVE.
fn open_el1() -> El1 {
    El1 { cpacr: 3 << 20 | 3 << 16, ..guest_el1() }
}

/// ZCR_EL1 of the guest, from EL2.
fn set_guest_zcr(value: u64) {
    if el2::vhe() {
        msr!("S3_5_C1_C2_0", value);
    } else {
        msr!("S3_0_C1_C2_0", value);
    }
}

fn guest_zcr() -> u64 {
    if el2::vhe() { mrs!("S3_5_C1_C2_0") } else { mrs!("S3_0_C1_C2_0") }
}

/// At EL2: runs `f` with these traps of FP and SVE.
fn with_traps<R>(fp: bool, sve: bool, f: impl FnOnce() -> R) -> R {
    let old = mrs!("cptr_el2");
    let (fp_bits, sve_bits) = if el2::vhe() { (3 << 20, 3 << 16) } else { (1 << 10, 1 << 8) };
    let set = |value: u64, bits: u64, on: bool| if on { value | bits } else { value & !bits };
    // With VHE the bits open, without they trap.
    let value = set(set(old, fp_bits, fp != el2::vhe()), sve_bits, sve != el2::vhe());
    msr!("cptr_el2", value);
    let result = f();
    msr!("cptr_el2", old);
    result
}

/// Bytes of a vector here.
fn length() -> u64 {
    let bytes;
    // SAFETY: reads the vector length.
    unsafe { asm!(".arch_extension sve", "rdvl {}, #1", out(reg) bytes, options(nostack, nomem)) };
    bytes
}

/// What EL2 and its guest saw of vectors.
struct Seen {
    exit: Exit,
    /// Bytes of EL2's, before and after.
    own: (u64, u64),
    /// The first byte of Z0 at the end.
    first: u64,
    /// ZCR_EL2 and the guest's ZCR_EL1 at the end.
    zcr: (u64, u64),
}

/// Runs the guest with these lengths in ZCR_EL2 and its ZCR_EL1, and 41 in each byte of Z0.
fn with_lengths(len: u64, inner: u64, guest: &mut Guest) -> Seen {
    at_el2(|| {
        with_traps(false, false, || {
            let old = mrs!("S3_4_C1_C2_0");
            msr!("S3_4_C1_C2_0", len);
            let before = length();
            // SAFETY: no compiled code uses the register.
            unsafe { asm!(".arch_extension sve", "dup z0.b, #41", options(nostack, nomem)) };
            let (exit, guest_zcr) = with_guest(&open_el1(), 0, 0, || {
                set_guest_zcr(inner);
                let exit = el2::enter(guest);
                (exit, guest_zcr())
            });
            let after = length();
            let first: u64;
            // SAFETY: as above.
            unsafe {
                asm!(".arch_extension sve", ".arch_extension simd", "umov {0:w}, v0.b[0]", out(reg) first,
                    options(nostack, nomem))
            };
            let zcr = mrs!("S3_4_C1_C2_0");
            msr!("S3_4_C1_C2_0", old);
            Seen { exit, own: (before, after), first, zcr: (zcr, guest_zcr) }
        })
    })
}

fn check_lengths(len: u64, inner: u64, guest: &Guest, seen: &Seen) -> Outcome {
    let own = seen.own.0;
    check_eq!((seen.exit, guest.ec()), (Exit::Sync, EC_HVC), "exit with lengths {len}, {inner}");
    check!(own <= 16 * (len + 1), "EL2's vectors have {own} bytes with {len}");
    check!(guest.x[2] <= own.min(16 * (inner + 1)), "{} bytes with {len}, {inner}", guest.x[2]);
    if inner == 0xf {
        check_eq!(guest.x[2], own, "the guest's bytes as long as EL2's");
    }
    check_eq!((seen.own.1, seen.zcr), (own, (len, inner)), "bytes, ZCR_EL2 and ZCR_EL1 after {len}, {inner}");
    check_eq!(seen.first, 42, "Z0");
    Ok(())
}

/// ZCR_EL2 bounds the guest's vectors, and the guest's ZCR_EL1 leaves those of EL2 alone.
fn vector_lengths(_: &Machine) -> Outcome {
    need_el2!();
    need_sve!();
    for len in [0xf, 7, 1, 0, 3] {
        for inner in [0xf, 0, 1] {
            let mut guest = Guest::new(vectors());
            let seen = with_lengths(len, inner, &mut guest);
            check_lengths(len, inner, &guest, &seen)?;
        }
    }
    Ok(())
}

/// So it stays while others take the CPU from the guest.
fn lengths_over_time(_: &Machine) -> Outcome {
    need_el2!();
    need_sve!();
    for (len, inner) in [(1, 0xf), (3, 1), (0xf, 0)] {
        let mut guest = Guest::new(vectors_until());
        guest.x[0] = mrs!("cntpct_el0") + ticks(SECOND / 10);
        let seen = with_lengths(len, inner, &mut guest);
        check_lengths(len, inner, &guest, &seen)?;
        check_eq!(guest.x[5], 0, "the length changed with {len}, {inner}");
    }
    Ok(())
}

/// CPTR_EL2 takes SVE of the guest to EL2: as SVE, or as FP if that alone is trapped. So it is with EL2's
/// own ZCR_EL2.
fn sve_traps(_: &Machine) -> Outcome {
    need_el2!();
    need_sve!();
    for used in [false, true] {
        for (fp, sve, code, want) in [
            (false, true, sve_alone(), EC_SVE),
            (true, true, sve_alone(), EC_SVE),
            (true, false, sve_alone(), EC_FP),
            (false, true, read_zcr(), EC_SVE),
            (false, false, read_zcr(), EC_HVC),
            (false, false, sve_alone(), EC_HVC),
        ] {
            let mut guest = Guest::new(code);
            let exit = at_el2(|| {
                if used {
                    with_traps(false, false, length);
                }
                with_traps(fp, sve, || with_guest(&open_el1(), 0, 0, || el2::enter(&mut guest)))
            });
            check_eq!((exit, guest.ec()), (Exit::Sync, want), "EC with traps of FP {fp}, of SVE {sve}");
            if want != EC_HVC {
                check_eq!(guest.pc, code, "ELR_EL2");
                let iss = if want == EC_FP { 0x1e0_0000 } else { 0 };
                check_eq!(guest.esr & 0x1ff_ffff, iss, "ISS of class {want:#x}");
            }
        }
    }
    let own = at_el2(|| {
        with_traps(false, true, || {
            el2::forget();
            let _ = mrs!("S3_4_C1_C2_0");
            el2::own()
        })
    });
    check_eq!((own.count, own.esr), (1, EC_SVE << 26 | 1 << 25), "ZCR_EL2 while EL2 traps itself");
    Ok(())
}

/// A trap of SVE stays when the guest, which others took the CPU from, gets its FP registers back.
fn traps_over_time(_: &Machine) -> Outcome {
    need_el2!();
    need_sve!();
    for _ in 0..3 {
        let mut guest = Guest::new(fp_then_sve());
        let exit = at_el2(|| {
            with_traps(false, false, length);
            guest.x[0] = mrs!("cntpct_el0") + ticks(SECOND / 10);
            with_traps(false, true, || with_guest(&open_el1(), 0, 0, || el2::enter(&mut guest)))
        });
        check_eq!((exit, guest.ec()), (Exit::Sync, EC_SVE), "EC");
        check_eq!(guest.pc, fp_then_sve() + 16, "ELR_EL2");
    }
    Ok(())
}

/// Without SVE there is no ZCR_EL2, and what the guest executes is undefined, whatever EL2 says of traps.
fn hidden(_: &Machine) -> Outcome {
    need_el2!();
    if has_sve() {
        skip!("the CPU has SVE");
    }
    let own = at_el2(|| {
        el2::forget();
        let _ = mrs!("S3_4_C1_C2_0");
        el2::own()
    });
    check_eq!((own.count, own.esr), (1, 1 << 25), "exceptions and ESR_EL2 after a read of ZCR_EL2");
    for sve in [false, true] {
        for code in [sve_alone(), read_zcr()] {
            let mut guest = Guest::new(code);
            let exit = at_el2(|| {
                with_traps(false, sve, || with_guest(&open_el1(), 0, 0, || el2::enter(&mut guest)))
            });
            check_eq!(
                (exit, guest.ec(), guest.esr & 0xffff),
                (Exit::Sync, EC_HVC, slot(4)),
                "exit, EC, slot"
            );
            check_eq!(guest.x[11] >> 26, 0, "ESR_EL1.EC");
        }
    }
    Ok(())
}
