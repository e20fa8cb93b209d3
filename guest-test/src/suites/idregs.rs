//! ID registers: the whole space at EL1 and EL0, that none can be written, values that the manifest or
//! a control VM gave, and that what they hide is closed.
//!
//! On the command line, `idreg=CRM.OP2.LSB:VALUE,...` says what fields must be; `fgt=on` that the CPU
//! has FEAT_FGT, without which some features that a manifest lowers stay open; `closed=all` that the VM has
//! nothing at all that can be closed.

mod closed;
mod control;

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::exception::{EC_SYSREG, EC_UNKNOWN, Fault, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::smccc::tagvisor;
use crate::rt::sysreg::field;
use crate::rt::{cpu, el0};
use closed::{closed_at_el0, closed_at_el1, tags_are_not_kept};
use control::{
    busy_after_the_run, contradictions_are_named, get_and_mask, lowered_before_the_run, of_strangers,
    wrong_values_are_named,
};
use core::arch::global_asm;

suite!(
    "idregs",
    true,
    [
        space_at_el1,
        space_at_el0,
        not_writable,
        identification,
        as_on_the_command_line,
        alike_on_every_cpu,
        closed_at_el1,
        closed_at_el0,
        tags_are_not_kept,
        of_strangers,
        get_and_mask,
        wrong_values_are_named,
        contradictions_are_named,
        lowered_before_the_run,
        busy_after_the_run,
    ]
);

// Each of the 64 registers of op0 3, op1 0, CRn 0: a stub of two instructions. CRm and op2 are bits 11:5
// of MRS and MSR.
global_asm!(
    r#"
    .macro id_stubs first, end:vararg
    .set    id, 0
    .rept   64
    .inst   \first + (id << 5)
    \end
    .set    id, id + 1
    .endr
    .endm

    .text
    .balign 8
    .globl  id_read, id_write
id_read:
    id_stubs 0xd5380000, ret
id_write:
    id_stubs 0xd5180000, ret

    .section .user, "ax"
    .balign 8
    .globl  id_read_el0
id_read_el0:
    id_stubs 0xd5380000, svc #0
    .text
"#
);

unsafe extern "C" {
    safe fn id_read(x0: u64) -> u64;
    safe fn id_write(x0: u64) -> u64;
    safe fn id_read_el0(x0: u64) -> u64;
}

type Stub = extern "C" fn(u64) -> u64;

/// Address of stub `n` of a table, each of which has `size` bytes.
fn place(table: Stub, n: usize, size: usize) -> u64 {
    table as *const () as u64 + (n * size) as u64
}

/// Runs stub `n` of a table at EL1 with this x0: x0 afterwards, or the exception.
fn run(table: Stub, n: usize, size: usize, x0: u64) -> Result<u64, Fault> {
    // SAFETY: the table has a function at each multiple of `size`.
    let stub: Stub = unsafe { core::mem::transmute(place(table, n, size)) };
    let mut value = 0;
    expect_fault(|| value = stub(x0)).map_or(Ok(value), Err)
}

/// Reads the register at `CRm * 8 + op2`.
fn read(register: usize) -> Result<u64, Fault> {
    run(id_read, register, 8, 0)
}

/// Whether the architecture has a register there (Arm, ID registers; of AArch32 all of CRm 1 to 3 but 3_3
/// and 3_7).
const fn is_allocated(register: usize) -> bool {
    matches!(register, 8..=26 | 28..=30)
        || matches!(register, 32..=34 | 36 | 37 | 39 | 40..=42 | 44 | 45 | 48..=51 | 56..=60)
}

/// The registers of CRm 0 that exist: MIDR, MPIDR, REVIDR.
const IDENTIFICATION: [usize; 3] = [0, 5, 6];

fn space_at_el1(_: &Machine) -> Outcome {
    for register in 0..64 {
        let (crm, op2) = (register / 8, register % 8);
        let got = read(register);
        if crm != 0 || IDENTIFICATION.contains(&register) {
            check!(got.is_ok(), "S3_0_C0_C{crm}_{op2}: {got:x?}");
        } else {
            check!(got.is_err_and(|f| f.undefined()), "S3_0_C0_C{crm}_{op2}: {got:x?}");
        }
        if crm != 0 && (!is_allocated(register) || tagvisor() && crm < 4) {
            check_eq!(got, Ok(0), "S3_0_C0_C{crm}_{op2}, which is reserved or of AArch32");
        }
    }
    Ok(())
}

fn space_at_el0(_: &Machine) -> Outcome {
    let reported = field(mrs!("id_aa64mmfr2_el1"), 36) >= 1;
    for register in 0..64 {
        let (crm, op2) = (register / 8, register % 8);
        let left = el0::run_at(place(id_read_el0, register, 8), &[0; 31]);
        let ec = left.ec();
        check!(matches!(ec, EC_UNKNOWN | EC_SYSREG), "S3_0_C0_C{crm}_{op2} at EL0: EC {ec:#x}");
        if reported && crm != 0 {
            // FEAT_IDST: with the register in the syndrome, Rt 0, a read.
            let iss = 3 << 20 | (op2 as u64) << 17 | (crm as u64) << 1 | 1;
            check_eq!((ec, left.esr & 0x1ff_ffff), (EC_SYSREG, iss), "S3_0_C0_C{crm}_{op2} at EL0");
        }
    }
    Ok(())
}

fn not_writable(_: &Machine) -> Outcome {
    for register in 0..64 {
        let before = read(register).ok();
        let got = run(id_write, register, 8, u64::MAX);
        let (crm, op2) = (register / 8, register % 8);
        check!(got.is_err_and(|f| f.ec() == EC_UNKNOWN), "MSR S3_0_C0_C{crm}_{op2}: {got:x?}");
        check_eq!(read(register).ok(), before, "S3_0_C0_C{crm}_{op2} after MSR");
    }
    Ok(())
}

/// The registers outside of that space.
fn identification(machine: &Machine) -> Outcome {
    if !tagvisor() {
        skip!("the machine's own");
    }
    check_eq!(mrs!("mpidr_el1"), 1 << 31, "MPIDR_EL1 of vCPU 0");
    let (ctr, dczid) = (mrs!("ctr_el0"), mrs!("dczid_el0"));
    check!(ctr >> 31 & 1 == 1 && matches!(ctr >> 14 & 3, 2 | 3), "CTR_EL0 {ctr:#x}");
    check!(dczid < 0x20, "DCZID_EL0 {dczid:#x}");
    // CLIDR_EL1 agrees with CTR_EL0.IDC, CCSIDR_EL1 with its line size.
    let clidr = mrs!("clidr_el1");
    check_eq!(clidr >> 21 & 7 == 0, ctr >> 28 & 1 == 1, "LoUIS in CLIDR_EL1 {clidr:#x}");
    check_eq!(mrs!("ccsidr_el1") & 7, (ctr >> 16 & 0xf) - 2, "CCSIDR_EL1.LineSize");
    let gmid = probe!("S3_1_C0_C0_4");
    if crate::rt::mte::level() >= 2 {
        check!(matches!(gmid, Ok(2..=6)), "GMID_EL1 {gmid:x?}");
    } else {
        check!(gmid.is_err_and(|f| f.undefined()), "GMID_EL1 {gmid:x?}");
    }
    if let Some(ctr_bits) = machine.number("ctr") {
        check_eq!(ctr >> 28 & 3, ctr_bits, "CTR_EL0.DIC and IDC");
    }
    Ok(())
}

fn as_on_the_command_line(machine: &Machine) -> Outcome {
    let Some(fields) = machine.option("idreg") else { skip!("no idreg= on the command line") };
    for wanted in fields.split(',') {
        let mut numbers = wanted.split(['.', ':']).map(|n| n.parse::<usize>().ok());
        let (Some(Some(crm)), Some(Some(op2)), Some(Some(lsb)), Some(Some(value))) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            check!(false, "idreg={wanted}");
            continue;
        };
        let register = crm * 8 + op2;
        check!(register < 64 && lsb < 61, "idreg={wanted}");
        let got = read(register).map(|v| field(v, lsb as u32));
        check_eq!(got, Ok(value as u64), "S3_0_C0_C{crm}_{op2} bit {lsb}");
    }
    Ok(())
}

/// Two vCPUs read the same at the same time, again and again.
fn alike_on_every_cpu(machine: &Machine) -> Outcome {
    if machine.cpu_count < 2 {
        skip!("one CPU");
    }
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
        for register in 8..64 {
            let there = cpu::run_on(index, |r| read(r as usize).unwrap_or(u64::MAX), register);
            check_eq!(there, read(register as usize).ok(), "register {register} of CPU {index}");
        }
    }
    Ok(())
}
