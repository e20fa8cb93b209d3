//! Aborts and accesses that a hypervisor cannot complete from the syndrome alone.

use crate::harness::{Outcome, check, check_eq, suite};
use crate::rt::exception::{
    EC_DABT_EL1, EC_IABT_EL0, EC_IABT_EL1, EC_SVC, FSC_ALIGNMENT, FSC_EXTERNAL, Fault, expect_fault,
};
use crate::rt::machine::Machine;
use crate::rt::{el0, gic, mem, mmu};
use core::arch::{asm, global_asm};

mod walk;

use walk::{absent_tables, read_only_tables, tables_that_abort_el2};

suite!(
    "abort",
    true,
    [
        undefined_instruction,
        fetch_from_devices,
        fetch_unaligned,
        fetch_at_el0,
        pair_from_device,
        post_index_from_device,
        vector_from_device,
        exclusive_from_device,
        atomic_to_device,
        unaligned_device,
        wrong_size,
        svc_round_trip,
        all_registers_from_device,
        absent_tables,
        read_only_tables,
        tables_that_abort_el2,
    ]
);

/// Where reads are harmless in every size: GICD_TYPER and IIDR.
const REGISTER: u64 = gic::GICD + 8;

/// An emulated device may complete an access without a valid syndrome, or abort it cleanly.
fn clear(fault: Option<Fault>, what: &str) -> Outcome {
    if let Some(fault) = fault {
        check_eq!(fault.ec(), EC_DABT_EL1, "EC of {what}");
        check_eq!(fault.fsc(), FSC_EXTERNAL, "DFSC of {what}");
        check!(
            fault.esr & (1 << 10) != 0 || fault.far & !7 == REGISTER & !7,
            "FAR {:#x} of {what}",
            fault.far
        );
    }
    Ok(())
}

fn undefined_instruction(_: &Machine) -> Outcome {
    // SAFETY: UDF is always undefined; the handler skips it.
    let fault = expect_fault(|| unsafe { asm!("udf #0x1234", options(nostack)) });
    check!(fault.is_some_and(|f| f.undefined()), "UDF: {fault:x?}");
    Ok(())
}

fn fetch_from_devices(_: &Machine) -> Outcome {
    // Stage 1 forbids it here: a permission fault, whatever stage 2 says.
    let fault = mem::try_execute(gic::GICD);
    let Err(fault) = fault else {
        check!(false, "a fetch from the distributor does not abort");
        return Ok(());
    };
    check_eq!(fault.ec(), EC_IABT_EL1, "EC");
    check_eq!(fault.fsc() >> 2, 0b0011, "IFSC, a permission fault");
    Ok(())
}

fn fetch_unaligned(_: &Machine) -> Outcome {
    let fault = expect_fault(|| {
        // SAFETY: the fetch faults, and the handler returns behind the branch.
        unsafe {
            asm!("adr {t}, 2f", "add {t}, {t}, #2", "blr {t}", "2:", t = out(reg) _, out("x30") _, options(nostack))
        };
    });
    check!(fault.is_some_and(|f| f.ec() == 0x22), "an unaligned fetch: {fault:x?}");
    Ok(())
}

unsafe extern "C" {
    fn abort_el0_branch();
    fn abort_el0_svc();
}

fn fetch_at_el0(machine: &Machine) -> Outcome {
    let absent = mmu::user_code(machine.absent());
    let left = el0::run(abort_el0_branch, [absent, 0, 0, 0, 0, 0, 0, 0]);
    check_eq!(left.ec(), EC_IABT_EL0, "EC");
    check_eq!(left.esr & 0x3f, FSC_EXTERNAL, "IFSC");
    check!(left.esr & (1 << 10) != 0 || left.far == absent, "FAR {:#x}", left.far);
    check_eq!(left.spsr & 0xf, 0, "SPSR.M");
    Ok(())
}

fn pair_from_device(_: &Machine) -> Outcome {
    let fault = expect_fault(|| {
        // SAFETY: a load from a device register.
        unsafe {
            asm!("ldp {x:w}, {y:w}, [{a}]", x = out(reg) _, y = out(reg) _, a = in(reg) REGISTER, options(nostack))
        };
    });
    clear(fault, "LDP")
}

fn post_index_from_device(_: &Machine) -> Outcome {
    let mut at = REGISTER;
    let fault = expect_fault(|| {
        // SAFETY: a load from a device register.
        unsafe { asm!("ldr {x:w}, [{a}], #4", x = out(reg) _, a = inout(reg) at, options(nostack)) };
    });
    let moved = at - REGISTER;
    check_eq!(moved, if fault.is_some() { 0 } else { 4 }, "the base register's move");
    clear(fault, "LDR with post-index")
}

fn vector_from_device(_: &Machine) -> Outcome {
    let fault = expect_fault(|| {
        // SAFETY: a load from a device register into a register that no compiled code uses.
        unsafe { asm!(".arch_extension fp", "ldr s0, [{a}]", a = in(reg) REGISTER, options(nostack)) };
    });
    clear(fault, "LDR to a vector register")
}

fn exclusive_from_device(_: &Machine) -> Outcome {
    let fault = expect_fault(|| {
        // SAFETY: a load from a device register.
        unsafe { asm!("ldxr {x:w}, [{a}]", "clrex", x = out(reg) _, a = in(reg) REGISTER, options(nostack)) };
    });
    // FSC 0x35, unsupported exclusive, is as good an answer (Arm ARM B2.17.5).
    match fault {
        Some(f) if f.fsc() == 0x35 => Ok(()),
        other => clear(other, "LDXR"),
    }
}

fn atomic_to_device(_: &Machine) -> Outcome {
    if crate::rt::sysreg::field(mrs!("id_aa64isar0_el1"), 20) < 2 {
        crate::harness::skip!("no FEAT_LSE");
    }
    let fault = expect_fault(|| {
        // SAFETY: adds 0 to a read-only device register.
        unsafe {
            asm!(".arch_extension lse", "ldadd wzr, {x:w}, [{a}]", x = out(reg) _, a = in(reg) REGISTER, options(nostack))
        };
    });
    match fault {
        Some(f) if f.fsc() == 0x35 => Ok(()),
        other => clear(other, "LDADD"),
    }
}

fn unaligned_device(_: &Machine) -> Outcome {
    let at = REGISTER + 1;
    let Some(fault) = expect_fault(|| {
        mem::read32(at);
    }) else {
        check!(false, "an unaligned load from a device does not abort");
        return Ok(());
    };
    check_eq!((fault.ec(), fault.fsc()), (EC_DABT_EL1, FSC_ALIGNMENT), "EC and DFSC");
    check_eq!(fault.far, at, "FAR");
    Ok(())
}

/// Sizes that a register does not have: an answer, an abort, but no other harm.
fn wrong_size(_: &Machine) -> Outcome {
    let before = mem::read32(REGISTER);
    for offset in [0, 1, 3] {
        let fault = expect_fault(|| {
            mem::read8(REGISTER + offset);
        });
        clear(fault, "a byte load")?;
    }
    clear(
        expect_fault(|| {
            mem::read64(REGISTER);
        }),
        "a 64-bit load",
    )?;
    clear(expect_fault(|| mem::write8(REGISTER, 0)), "a byte store")?;
    check_eq!(mem::read32(REGISTER), before, "the register");
    Ok(())
}

fn svc_round_trip(_: &Machine) -> Outcome {
    for n in 0..100 {
        let left = el0::run(abort_el0_svc, [n, 0, 0, 0, 0, 0, 0, 0]);
        check_eq!((left.ec(), left.esr & 0xffff), (EC_SVC, 0x77), "EC and immediate");
        check_eq!(left.x[0], n + 1, "x0");
    }
    Ok(())
}

/// Each general register as the target of an emulated load, and the zero register as source.
fn all_registers_from_device(_: &Machine) -> Outcome {
    let want = mem::read32(REGISTER);
    macro_rules! load {
        ($($w:literal $x:tt),*) => {$(
            let value: u64;
            // SAFETY: a load from a device register.
            unsafe { asm!(concat!("ldr ", $w, ", [{a}]"), a = in(reg) REGISTER, out($x) value, options(nostack)) };
            check_eq!(value, u64::from(want), "LDR to {}", $w);
        )*};
    }
    load!("w0" "x0", "w1" "x1", "w2" "x2", "w3" "x3", "w4" "x4", "w5" "x5", "w6" "x6", "w7" "x7", "w8" "x8");
    load!("w9" "x9", "w10" "x10", "w11" "x11", "w12" "x12", "w13" "x13", "w14" "x14", "w15" "x15", "w16" "x16", "w17" "x17");
    load!("w20" "x20", "w21" "x21", "w22" "x22", "w23" "x23", "w24" "x24", "w25" "x25", "w26" "x26", "w27" "x27", "w28" "x28", "w30" "x30");
    // SAFETY: loads that target xzr, sign-extend and zero-extend.
    unsafe { asm!("ldr wzr, [{a}]", a = in(reg) REGISTER, options(nostack)) };
    let extended: i64;
    // SAFETY: as above.
    unsafe { asm!("ldrsw {x}, [{a}]", x = out(reg) extended, a = in(reg) REGISTER, options(nostack)) };
    check_eq!(extended, i64::from(want as i32), "LDRSW");
    Ok(())
}

global_asm!(
    r#"
    .section .user, "ax"
    .globl  abort_el0_branch
abort_el0_branch:
    blr     x0
    svc     #1
    .globl  abort_el0_svc
abort_el0_svc:
    add     x0, x0, #1
    svc     #0x77
    .text
"#
);
