//! Instructions of every feature that a VM may not have, at EL1 and at EL0.
//!
//! The names are those of the rows of the table in `crates/idreg`, whose tests see to it that each row
//! that says how it is closed is here, but for the few of which no instruction exists to try.

use super::{place, run};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::exception::{EC_SVC, EC_SYSREG, EC_UNKNOWN};
use crate::rt::machine::Machine;
use crate::rt::smccc::tagvisor;
use crate::rt::sysreg::field;
use crate::rt::{el0, mem, mmu, mte};
use core::arch::global_asm;

/// What an instruction of a feature that is not there does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// UNDEFINED at EL1 and EL0.
    Undefined,
    /// The same where FEAT_FGT can trap it (`fgt=on`); else it is open.
    UndefinedByFgt,
    /// Reads as zero at EL1, UNDEFINED at EL0.
    Zero,
    /// Nothing, or UNDEFINED where the CPU does not know it.
    Nothing,
}

/// An instruction of a feature; `hidden` looks at the ID registers.
struct Closed {
    name: &'static str,
    hidden: fn() -> bool,
    effect: Effect,
}

/// Reads a field of 4 bits.
macro_rules! id {
    ($register:literal, $lsb:literal) => {
        field(mrs!($register), $lsb)
    };
}

macro_rules! closed {
    ($($name:literal, $hidden:expr, $effect:ident, $code:literal;)*) => {
        static CLOSED: &[Closed] =
            &[$(Closed { name: $name, hidden: || $hidden, effect: Effect::$effect }),*];
        global_asm!(
            ".text\n.balign 8\n.globl closed_el1\nclosed_el1:",
            $($code, "ret",)*
            ".section .user, \"ax\"\n.balign 8\n.globl closed_el0\nclosed_el0:",
            $($code, "svc #0",)*
            ".text"
        );
    };
}

// x0 = address with a tag, x1 = the same without, x2 = the same, which gets the tag of memory.
global_asm!(
    ".section .user, \"ax\"\n.balign 8\n.globl tag_el0\ntag_el0:",
    ".inst 0xd9200820", // STG X0, [X1]
    ".inst 0xd9600022", // LDG X2, [X1]
    "svc #0",
    ".text"
);

unsafe extern "C" {
    fn tag_el0();
    safe fn closed_el1(x0: u64) -> u64;
    safe fn closed_el0(x0: u64) -> u64;
}

fn no_pauth() -> bool {
    id!("id_aa64isar1_el1", 4) == 0 && id!("id_aa64isar1_el1", 8) == 0 && id!("S3_0_C0_C6_2", 12) == 0
}

fn no_scxtnum() -> bool {
    id!("id_aa64pfr0_el1", 56) < 2 && id!("id_aa64pfr1_el1", 32) < 2
}

fn no_mpam() -> bool {
    id!("id_aa64pfr0_el1", 40) == 0 && id!("id_aa64pfr1_el1", 16) == 0
}

fn no_sctlr2() -> bool {
    id!("id_aa64mmfr3_el1", 4) == 0
}

fn no_ras() -> bool {
    id!("id_aa64pfr0_el1", 28) == 0
}

fn no_pmu() -> bool {
    matches!(id!("id_aa64dfr0_el1", 8), 0 | 0xf)
}

closed! {
    "ID_AA64PFR0_EL1.EL2", id!("id_aa64pfr0_el1", 8) == 0, Undefined, "mrs x0, S3_4_C1_C1_0";
    "ID_AA64PFR0_EL1.EL3", id!("id_aa64pfr0_el1", 12) == 0, Undefined, "mrs x0, S3_6_C1_C1_0";
    "ID_AA64PFR0_EL1.FP", id!("id_aa64pfr0_el1", 16) == 0xf, Undefined, ".inst 0x9e670000"; // FMOV D0, X0
    "ID_AA64PFR0_EL1.AdvSIMD", id!("id_aa64pfr0_el1", 20) == 0xf, Undefined, ".inst 0x6f00e400"; // MOVI V0.2D, #0
    "ID_AA64PFR0_EL1.RAS", no_ras(), Zero, "mrs x0, S3_0_C5_C3_0"; // ERRIDR_EL1
    "ID_AA64PFR1_EL1.RAS_frac", no_ras(), Zero, "mrs x0, S3_0_C5_C4_4"; // ERXPFGF_EL1
    "ID_AA64PFR0_EL1.SVE", id!("id_aa64pfr0_el1", 32) == 0, Undefined, ".inst 0x04bf5020"; // RDVL X0, #1
    "ID_AA64PFR0_EL1.SEL2", id!("id_aa64pfr0_el1", 36) == 0, Undefined, "mrs x0, S3_4_C2_C6_0"; // VSTTBR_EL2
    "ID_AA64PFR0_EL1.MPAM", no_mpam(), Undefined, "mrs x0, S3_0_C10_C5_1"; // MPAM0_EL1
    "ID_AA64PFR1_EL1.MPAM_frac", no_mpam(), Undefined, "mrs x0, S3_0_C10_C5_0"; // MPAM1_EL1
    "ID_AA64PFR0_EL1.AMU", id!("id_aa64pfr0_el1", 44) == 0, Undefined, "mrs x0, S3_3_C13_C2_0"; // AMCR_EL0
    "ID_AA64PFR0_EL1.CSV2", no_scxtnum(), Undefined, "mrs x0, S3_3_C13_C0_7"; // SCXTNUM_EL0
    "ID_AA64PFR1_EL1.CSV2_frac", no_scxtnum(), Undefined, "mrs x0, S3_0_C13_C0_7"; // SCXTNUM_EL1
    "ID_AA64PFR1_EL1.MTE", mte::level() < 2, Undefined, "mrs x0, S3_1_C0_C0_4"; // GMID_EL1
    "ID_AA64PFR1_EL1.SME", id!("id_aa64pfr1_el1", 24) == 0, Undefined, ".inst 0xd503477f"; // SMSTART
    "ID_AA64PFR1_EL1.SME", id!("id_aa64pfr1_el1", 24) == 0, Undefined, "mrs x0, S3_3_C13_C0_5"; // TPIDR2_EL0
    "ID_AA64PFR1_EL1.NMI", id!("id_aa64pfr1_el1", 36) == 0, Undefined, "msr S3_0_C4_C3_0, xzr"; // ALLINT
    "ID_AA64PFR1_EL1.GCS", id!("id_aa64pfr1_el1", 44) == 0, Undefined, "mrs x0, S3_3_C2_C5_1"; // GCSPR_EL0
    "ID_AA64PFR1_EL1.GCS", id!("id_aa64pfr1_el1", 44) == 0, Undefined, "sys #3, C7, C7, #0, x0"; // GCSPUSHM
    "ID_AA64PFR1_EL1.THE", id!("id_aa64pfr1_el1", 48) == 0, Undefined, "mrs x0, S3_0_C13_C0_6"; // RCWMASK_EL1
    "ID_AA64PFR1_EL1.DF2", no_sctlr2(), Undefined, "mrs x0, S3_0_C1_C0_3"; // SCTLR2_EL1
    "ID_AA64PFR1_EL1.PFAR", id!("id_aa64pfr1_el1", 60) == 0, Undefined, "mrs x0, S3_0_C6_C0_5"; // PFAR_EL1
    "ID_AA64PFR2_EL1.GCIE", id!("S3_0_C0_C4_2", 12) == 0, Undefined, "sysl x0, #0, C12, C3, #0"; // GICR CDIA
    "ID_AA64PFR2_EL1.FPMR", id!("S3_0_C0_C4_2", 32) == 0, Undefined, "mrs x0, S3_3_C4_C4_2";
    "ID_AA64DFR0_EL1.DebugVer", tagvisor(), Zero, "mrs x0, S2_0_C0_C0_5"; // DBGBCR0_EL1
    "ID_AA64DFR0_EL1.TraceVer", id!("id_aa64dfr0_el1", 4) == 0, Undefined, "mrs x0, S2_1_C0_C8_7"; // TRCIDR0
    "ID_AA64DFR0_EL1.PMUVer", no_pmu(), Undefined, "mrs x0, S3_3_C9_C12_0"; // PMCR_EL0
    "ID_AA64DFR0_EL1.MTPMU", no_pmu(), Undefined, "mrs x0, S3_3_C14_C12_0"; // PMEVTYPER0_EL0
    "ID_AA64DFR0_EL1.BRPs", tagvisor(), Zero, "mrs x0, S2_0_C0_C0_4"; // DBGBVR0_EL1
    "ID_AA64DFR0_EL1.CTX_CMPs", tagvisor(), Zero, "mrs x0, S2_0_C0_C5_5"; // DBGBCR5_EL1
    "ID_AA64DFR0_EL1.WRPs", tagvisor(), Zero, "mrs x0, S2_0_C0_C0_6"; // DBGWVR0_EL1
    "ID_AA64DFR0_EL1.PMSS", id!("id_aa64dfr0_el1", 16) == 0, Undefined, "mrs x0, S3_0_C9_C13_3"; // PMSSCR_EL1
    "ID_AA64DFR0_EL1.PMSVer", id!("id_aa64dfr0_el1", 32) == 0, Undefined, "mrs x0, S3_0_C9_C9_0"; // PMSCR_EL1
    "ID_AA64DFR0_EL1.DoubleLock", tagvisor(), Zero, "mrs x0, S2_0_C1_C3_4"; // OSDLR_EL1
    "ID_AA64DFR0_EL1.TraceFilt", id!("id_aa64dfr0_el1", 40) == 0, Undefined, "mrs x0, S3_0_C1_C2_1"; // TRFCR_EL1
    "ID_AA64DFR0_EL1.TraceBuffer", id!("id_aa64dfr0_el1", 44) == 0, Undefined, "mrs x0, S3_0_C9_C11_0"; // TRBLIMITR_EL1
    "ID_AA64DFR0_EL1.ExtTrcBuff", id!("id_aa64dfr0_el1", 44) == 0, Undefined, "mrs x0, S3_0_C9_C11_1"; // TRBPTR_EL1
    "ID_AA64DFR0_EL1.BRBE", id!("id_aa64dfr0_el1", 52) == 0, Undefined, "mrs x0, S2_1_C9_C0_0"; // BRBCR_EL1
    "ID_AA64DFR1_EL1.SPMU", id!("id_aa64dfr1_el1", 32) == 0, Undefined, "mrs x0, S2_3_C9_C12_0"; // SPMCR_EL0
    "ID_AA64DFR1_EL1.EBEP", id!("id_aa64dfr1_el1", 48) == 0, Undefined, "mrs x0, S3_0_C9_C14_5"; // PMECR_EL1
    "ID_AA64DFR2_EL1.STEP", id!("S3_0_C0_C5_2", 0) == 0, Undefined, "mrs x0, S2_0_C0_C5_2"; // MDSTEPOP_EL1
    "ID_AA64ISAR0_EL1.TLB", id!("id_aa64isar0_el1", 56) < 1, UndefinedByFgt, "sys #0, C8, C1, #0"; // TLBI VMALLE1OS
    "ID_AA64ISAR0_EL1.TLB", id!("id_aa64isar0_el1", 56) < 2, UndefinedByFgt, "sys #0, C8, C6, #1, x0"; // TLBI RVAE1
    "ID_AA64ISAR1_EL1.DPB", id!("id_aa64isar1_el1", 0) < 1, UndefinedByFgt, "sys #3, C7, C12, #1, x0"; // DC CVAP
    "ID_AA64ISAR1_EL1.DPB", id!("id_aa64isar1_el1", 0) < 2, UndefinedByFgt, "sys #3, C7, C13, #1, x0"; // DC CVADP
    "ID_AA64ISAR1_EL1.APA", no_pauth(), Undefined, "mrs x0, S3_0_C2_C1_0"; // APIAKeyLo_EL1
    "ID_AA64ISAR1_EL1.API", no_pauth(), Undefined, "mrs x0, S3_0_C2_C1_2"; // APIBKeyLo_EL1
    "ID_AA64ISAR2_EL1.APA3", no_pauth(), Undefined, "mrs x0, S3_0_C2_C2_0"; // APDAKeyLo_EL1
    "ID_AA64ISAR2_EL1.PAC_frac", no_pauth(), Undefined, "mrs x0, S3_0_C2_C2_2"; // APDBKeyLo_EL1
    "ID_AA64ISAR1_EL1.GPA", no_pauth(), Undefined, "mrs x0, S3_0_C2_C3_0"; // APGAKeyLo_EL1
    "ID_AA64ISAR1_EL1.GPI", no_pauth(), Undefined, ".inst 0x9ac03000"; // PACGA X0, X0, X0
    "ID_AA64ISAR2_EL1.GPA3", no_pauth(), Undefined, "mrs x0, S3_0_C2_C3_1"; // APGAKeyHi_EL1
    "ID_AA64ISAR1_EL1.SPECRES", id!("id_aa64isar1_el1", 40) < 1, UndefinedByFgt, "sys #3, C7, C3, #4, x0"; // CFP RCTX
    "ID_AA64ISAR1_EL1.SPECRES", id!("id_aa64isar1_el1", 40) < 2, UndefinedByFgt, "sys #3, C7, C3, #6, x0"; // COSP RCTX
    "ID_AA64ISAR1_EL1.LS64", id!("id_aa64isar1_el1", 60) == 0, Undefined, ".inst 0xf83fd000"; // LD64B X0, [X0]
    "ID_AA64ISAR2_EL1.WFxT", id!("S3_0_C0_C6_2", 0) == 0, Nothing, ".inst 0xd503103f"; // WFIT XZR
    "ID_AA64ISAR2_EL1.MOPS", id!("S3_0_C0_C6_2", 16) == 0, Undefined, ".inst 0x19010440"; // CPYFP [X0]!, [X1]!, X2!
    "ID_AA64ISAR2_EL1.SYSREG_128", id!("S3_0_C0_C6_2", 32) == 0, Undefined, ".inst 0xd5782000"; // MRRS X0, X1, TTBR0_EL1
    "ID_AA64ISAR2_EL1.SYSINSTR_128", id!("S3_0_C0_C6_2", 36) == 0, Undefined, ".inst 0xd548873f"; // TLBIP VAE1, XZR, XZR
    "ID_AA64ISAR2_EL1.ATS1A", id!("S3_0_C0_C6_2", 60) == 0, Undefined, "sys #0, C7, C9, #2, x0"; // AT S1E1A
    "ID_AA64ISAR3_EL1.CPA", no_sctlr2(), Undefined, "mrs x0, S3_0_C1_C0_3"; // SCTLR2_EL1
    "ID_AA64ISAR3_EL1.PACM", id!("S3_0_C0_C6_3", 12) == 0, Nothing, "hint #39"; // PACM
    "ID_AA64MMFR1_EL1.LO", id!("id_aa64mmfr1_el1", 16) == 0, Undefined, "mrs x0, S3_0_C10_C4_0"; // LORSA_EL1
    "ID_AA64MMFR1_EL1.PAN", id!("id_aa64mmfr1_el1", 20) < 2, UndefinedByFgt, "sys #0, C7, C9, #0, x0"; // AT S1E1RP
    "ID_AA64MMFR3_EL1.TCRX", id!("id_aa64mmfr3_el1", 0) == 0, Undefined, "mrs x0, S3_0_C2_C0_3"; // TCR2_EL1
    "ID_AA64MMFR4_EL1.ASID2", id!("id_aa64mmfr3_el1", 0) == 0, Undefined, "mrs x0, S3_0_C2_C0_3"; // TCR2_EL1
    "ID_AA64MMFR3_EL1.SCTLRX", no_sctlr2(), Undefined, "mrs x0, S3_0_C1_C0_3"; // SCTLR2_EL1
    "ID_AA64MMFR3_EL1.S1PIE", id!("id_aa64mmfr3_el1", 8) == 0, Undefined, "mrs x0, S3_0_C10_C2_3"; // PIR_EL1
    "ID_AA64MMFR3_EL1.S1POE", id!("id_aa64mmfr3_el1", 16) == 0, Undefined, "mrs x0, S3_3_C10_C2_4"; // POR_EL0
    "ID_AA64MMFR3_EL1.AIE", id!("id_aa64mmfr3_el1", 24) == 0, Undefined, "mrs x0, S3_0_C10_C2_1"; // MAIR2_EL1
    "ID_AA64MMFR3_EL1.D128", id!("id_aa64mmfr3_el1", 32) == 0, Undefined, ".inst 0xd5782020"; // MRRS X0, X1, TTBR1_EL1
}

/// Bytes of a stub.
const SIZE: usize = 8;
/// CPACR_EL1: EL1 and EL0 may use FP, SVE and SME, as far as EL1 has a say.
const CPACR_ALL: u64 = 3 << 16 | 3 << 20 | 3 << 24;
const CPACR_FP: u64 = 3 << 20;

/// x0 and x1 for an instruction that takes an address.
fn registers(address: u64) -> [u64; 31] {
    let mut x = [0; 31];
    x[..2].copy_from_slice(&[address; 2]);
    x
}

/// Calls `f` with each instruction of a feature that is not there.
fn each_hidden(f: impl Fn(usize, &Closed) -> Outcome) -> Outcome {
    // What is left is then the answer to the instruction, not to CPACR_EL1.
    msr!("cpacr_el1", CPACR_ALL);
    let mut hidden = CLOSED.iter().enumerate().filter(|(_, closed)| (closed.hidden)());
    let outcome = hidden.try_for_each(|(n, closed)| f(n, closed));
    msr!("cpacr_el1", CPACR_FP);
    outcome
}

pub(super) fn closed_at_el1(machine: &Machine) -> Outcome {
    let fgt = machine.lists("fgt", "on");
    let count = core::cell::Cell::new(0);
    each_hidden(|n, closed| {
        let got = run(closed_el1, n, SIZE, mem::scratch(0));
        let undefined = got.is_err_and(|f| matches!(f.ec(), EC_UNKNOWN | EC_SYSREG));
        let right = match closed.effect {
            Effect::Undefined => undefined,
            Effect::UndefinedByFgt => undefined || !fgt && got.is_ok(),
            Effect::Zero => undefined || got == Ok(0),
            Effect::Nothing => undefined || got.is_ok(),
        };
        check!(right, "{} at EL1, instruction {n}: {got:x?}", closed.name);
        count.set(count.get() + 1);
        Ok(())
    })?;
    let least = if machine.lists("closed", "all") { CLOSED.len() } else { 41 };
    check!(!tagvisor() || count.get() >= least, "only {} instructions are hidden, not {least}", count.get());
    Ok(())
}

pub(super) fn closed_at_el0(machine: &Machine) -> Outcome {
    let fgt = machine.lists("fgt", "on");
    each_hidden(|n, closed| {
        let left = el0::run_at(place(closed_el0, n, SIZE), &registers(mmu::user(mem::scratch(0))));
        let undefined = matches!(left.ec(), EC_UNKNOWN | EC_SYSREG);
        let right = match closed.effect {
            Effect::Undefined | Effect::Zero => undefined,
            Effect::UndefinedByFgt => undefined || !fgt && left.ec() == EC_SVC,
            // SCTLR_EL1.nTWI may keep EL0 from waiting.
            Effect::Nothing => undefined || left.ec() == EC_SVC || left.ec() == 1,
        };
        check!(right, "{} at EL0, instruction {n}: EC {:#x}", closed.name, left.ec());
        Ok(())
    })
}

/// A VM that is not offered MTE cannot tag, though it sets all that a guest can set.
pub(super) fn tags_are_not_kept(_: &Machine) -> Outcome {
    if mte::level() >= 2 {
        skip!("the VM has MTE");
    }
    if !tagvisor() {
        skip!("the machine's own");
    }
    let at = mem::scratch(0);
    let tagged = at | 0x5 << 56;
    let sctlr = mrs!("sctlr_el1");
    // ATA and ATA0: where the CPU has no MTE they are RES0.
    msr!("sctlr_el1", sctlr | 0b11 << 42);
    let mut read = at;
    let fault = crate::rt::exception::expect_fault(|| {
        // SAFETY: the payload's own scratch page; STG and LDG, which may be undefined, touch no data.
        unsafe {
            core::arch::asm!(
                ".arch_extension memtag",
                "stg {tagged}, [{at}]",
                "ldg {read}, [{at}]",
                tagged = in(reg) tagged, at = in(reg) at, read = inout(reg) read,
                options(nostack)
            );
        }
    });
    let user = mmu::user(at);
    let left = el0::run(tag_el0, [user | 0x5 << 56, user, user, 0, 0, 0, 0, 0]);
    msr!("sctlr_el1", sctlr);
    check!(fault.is_none_or(|f| f.undefined()), "STG: {fault:x?}");
    check_eq!(read >> 56 & 0xf, 0, "a tag that was kept");
    check!(matches!(left.ec(), EC_SVC | EC_UNKNOWN), "STG at EL0: EC {:#x}", left.ec());
    check_eq!(left.x[2] >> 56 & 0xf, 0, "a tag that EL0 was left");
    Ok(())
}
