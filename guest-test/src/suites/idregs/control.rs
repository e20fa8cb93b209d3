//! ID registers of other VMs: for a control VM, on a VM called "fresh" that has not run yet. It is started
//! at the end, and its own report says whether it saw what it was given.

use crate::harness::{Outcome, Stop, check, check_eq, skip};
use crate::rt::machine::Machine;
use crate::rt::smccc::call;
use crate::rt::timer;
use crate::suites::control::find;
use abi::hypercall::{Error, IDREG_GET, IDREG_MASK, IDREG_SET, IdregBound, VM_LIST, VM_START};

/// op0 3, op1 0, CRn 0.
const fn feature(crm: u64, op2: u64) -> u64 {
    0xc000 | crm << 3 | op2
}

const PFR0: u64 = feature(4, 0);
const PFR1: u64 = feature(4, 1);
const ISAR0: u64 = feature(6, 0);
const ISAR1: u64 = feature(6, 1);
const MIDR: u64 = feature(0, 0);
const CTR: u64 = 0xc000 | 3 << 11 | 1;
const GMID: u64 = 0xc000 | 1 << 11 | 4;

/// The VM "fresh".
fn fresh(machine: &Machine) -> Result<u64, Stop> {
    if machine.control.is_none() {
        skip!("this is no control VM");
    }
    match find("fresh") {
        Some(vm) => Ok(vm),
        None => skip!("no VM is called fresh"),
    }
}

fn get(vm: u64, register: u64) -> u64 {
    call(IDREG_GET, vm, register, 0)[1]
}

/// x0 to x4 of IDREG_SET, x0 signed.
fn set(vm: u64, register: u64, value: u64) -> (i64, [u64; 4]) {
    let x = call(IDREG_SET, vm, register, value);
    (x[0] as i64, [x[1], x[2], x[3], x[4]])
}

const INVALID: i64 = Error::Invalid as i64;

/// VMs that control nobody, wrong VMs, and what is no ID register.
pub(super) fn of_strangers(machine: &Machine) -> Outcome {
    if !crate::rt::smccc::tagvisor() {
        skip!("no hypervisor");
    }
    for id in [IDREG_GET, IDREG_SET, IDREG_MASK] {
        if machine.control.is_none() {
            check_eq!(call(id, 0, PFR0, 0)[0] as i64, Error::Denied as i64, "call {id:#x}");
            continue;
        }
        for vm in [call(VM_LIST, 0, 0, 0)[1], u64::MAX, 1 << 32] {
            check_eq!(call(id, vm, PFR0, 0)[0] as i64, INVALID, "call {id:#x} of VM {vm:#x}");
        }
        let Some(vm) = find("fresh") else { continue };
        // TCR2_EL1, an encoding of CRm 0 that is nobody's, op0 2, more than 16 bits.
        for register in [0xc000 | 2 << 7 | 3, feature(0, 1), 0x8000, 1 << 16 | PFR0, u64::MAX] {
            check_eq!(call(id, vm, register, 0)[0] as i64, INVALID, "call {id:#x} of {register:#x}");
        }
        for other in (0..call(VM_LIST, 0, 0, 0)[1]).filter(|vm| call(VM_LIST, *vm, 0, 0)[2] & 1 == 0) {
            check_eq!(call(id, other, PFR0, 0)[0] as i64, Error::Denied as i64, "call {id:#x} of VM {other}");
        }
    }
    Ok(())
}

pub(super) fn get_and_mask(machine: &Machine) -> Outcome {
    let vm = fresh(machine)?;
    let mut writable = 0;
    for crm in 0..8 {
        for op2 in 0..8 {
            let register = feature(crm, op2);
            let (x, mask) = (call(IDREG_GET, vm, register, 0), call(IDREG_MASK, vm, register, 0));
            if crm == 0 && !matches!(op2, 0 | 5 | 6) {
                check_eq!((x[0] as i64, mask[0] as i64), (INVALID, INVALID), "register {register:#x}");
                continue;
            }
            check_eq!((x[0], mask[0]), (0, 0), "register {register:#x}");
            check!(crm >= 4 || mask[1] == 0, "mask of {register:#x}: {:#x}", mask[1]);
            writable += mask[1].count_ones();
            // What it has, it may have.
            check_eq!(set(vm, register, x[1]).0, 0, "the same value for {register:#x}");
        }
    }
    check!(writable > 100, "{writable} bits can be written");
    for (register, mask) in [(CTR, 0xf << 28 & 3 << 28 | 3 << 14), (GMID, 0)] {
        check_eq!(call(IDREG_MASK, vm, register, 0)[1], mask, "mask of {register:#x}");
    }
    // x3 is reserved.
    check_eq!(call(IDREG_MASK, vm, PFR0, 1)[0] as i64, INVALID, "IDREG_MASK with x3 = 1");
    check_eq!(get(vm, MIDR), mrs!("midr_el1"), "MIDR_EL1");
    check_eq!(get(vm, CTR), mrs!("ctr_el0"), "CTR_EL0");
    Ok(())
}

pub(super) fn wrong_values_are_named(machine: &Machine) -> Outcome {
    let vm = fresh(machine)?;
    let (pfr0, pfr1) = (get(vm, PFR0), get(vm, PFR1));
    let mte = pfr1 >> 8 & 0xf;
    let at_most = IdregBound::AtMost as u64;
    let only = IdregBound::Only as u64;
    check_eq!(set(vm, PFR1, pfr1 + 0x100), (INVALID, [8, mte + 1, mte, at_most]), "a higher MTE");
    // SME is hidden from all, bits 23:20 belong to no field.
    check_eq!(set(vm, PFR1, pfr1 | 1 << 24), (INVALID, [24, 1, 0, only]), "SME");
    check_eq!(set(vm, PFR1, pfr1 | 1 << 21), (INVALID, [21, 1, 0, only]), "bit 21");
    // Signed: 0xf is less than 0, and 1 is more than 0.
    let fp = pfr0 >> 16 & 0xf;
    check_eq!(set(vm, PFR0, pfr0 + (1 << 16)), (INVALID, [16, fp + 1, fp, at_most]), "a higher FP");
    check_eq!(set(vm, PFR0, pfr0 | 0xf << 16).0, 0, "no FP");
    check_eq!(set(vm, PFR0, pfr0).0, 0, "FP again");
    // Reserved and hidden registers are 0; those of AArch32 take anything and keep nothing.
    check_eq!(set(vm, feature(4, 3), 1), (INVALID, [0, 1, 0, only]), "S3_0_C0_C4_3");
    check_eq!(set(vm, feature(7, 7), 1 << 63), (INVALID, [63, 1, 0, only]), "S3_0_C0_C7_7");
    check_eq!(set(vm, feature(2, 0), 0x0210_1110).0, 0, "ID_ISAR0_EL1");
    check_eq!(get(vm, feature(2, 0)), 0, "ID_ISAR0_EL1");
    check_eq!(set(vm, MIDR, 0x410f_d490).0, INVALID, "MIDR_EL1");
    // Lines are the hardware's.
    check_eq!(set(vm, CTR, get(vm, CTR) ^ 1).0, INVALID, "CTR_EL0.IminLine");
    check_eq!((get(vm, PFR0), get(vm, PFR1)), (pfr0, pfr1), "values after what was refused");
    Ok(())
}

/// A VM whose registers contradict each other does not start, and they stay open to changes.
pub(super) fn contradictions_are_named(machine: &Machine) -> Outcome {
    /// Number of the rule about FP and AdvSIMD.
    const FP_ADVSIMD: u64 = 1;
    /// Of that about halves of an algorithm; APA, API, GPA, GPI.
    const PAUTH_HALF: u64 = 14;
    const PAUTH: u64 = 0xff << 4 | 0xff << 24;
    let vm = fresh(machine)?;
    let pfr0 = get(vm, PFR0);
    check_eq!(set(vm, PFR0, pfr0 | 0xf << 16).0, 0, "no FP");
    let x = call(VM_START, vm, 0, 0);
    check_eq!((x[0] as i64, x[1]), (INVALID, FP_ADVSIMD), "VM_START");
    check_eq!(set(vm, PFR0, pfr0).0, 0, "FP again");
    // Pointer authentication without its PACGA, or the other way round.
    let isar1 = get(vm, ISAR1);
    check!(isar1 & PAUTH != 0, "ID_AA64ISAR1_EL1 is {isar1:#x}");
    for half in [0xf << 4 | 0xf << 8, 0xf << 24 | 0xf << 28] {
        check_eq!(set(vm, ISAR1, isar1 & !half).0, 0, "half of pointer authentication");
        let x = call(VM_START, vm, 0, 0);
        check_eq!((x[0] as i64, x[1]), (INVALID, PAUTH_HALF), "VM_START");
    }
    check_eq!(set(vm, ISAR1, isar1).0, 0, "all of it again");
    Ok(())
}

/// What "fresh" finds: see `idreg=` on its command line.
pub(super) fn lowered_before_the_run(machine: &Machine) -> Outcome {
    let vm = fresh(machine)?;
    let pfr1 = get(vm, PFR1);
    check_eq!(set(vm, PFR1, pfr1 & !0xf00 | 0x200).0, 0, "MTE 2");
    check_eq!(get(vm, PFR1) >> 8 & 0xf, 2, "MTE");
    check_eq!(set(vm, ISAR0, get(vm, ISAR0) & !(0xf << 20)).0, 0, "no atomics");
    Ok(())
}

pub(super) fn busy_after_the_run(machine: &Machine) -> Outcome {
    let vm = fresh(machine)?;
    let (pfr1, isar0) = (get(vm, PFR1), get(vm, ISAR0));
    check_eq!(call(VM_START, vm, 0, 0)[0], 0, "VM_START");
    // From the start on, not only from the first instruction.
    check_eq!(set(vm, PFR1, pfr1).0, 0, "the same value");
    check_eq!(set(vm, PFR1, pfr1 & !0xf).0, Error::Busy as i64, "another value");
    check_eq!(set(vm, PFR1, pfr1 | 0xf00).0, Error::Busy as i64, "a value that is too high");
    let done = timer::wait(timer::PATIENCE, || {
        crate::suites::control::info(vm).is_ok_and(|i| i.starts == 1 && i.state == 0)
    });
    check!(done, "fresh does not end");
    check_eq!(set(vm, ISAR0, isar0 & !0xf0).0, Error::Busy as i64, "another value after the end");
    check_eq!((get(vm, PFR1), get(vm, ISAR0)), (pfr1, isar0), "values after the run");
    Ok(())
}
