//! Exceptions that the hypervisor hands to EL1, and how it steps over an instruction.
//!
//! Pure: the caller gives the guest's state and gets the registers to write. Arm pseudocode,
//! AArch64.TakeException.

use crate::abort::Level;
use crate::bits::bit;
use crate::class;
use crate::sysreg::SysregAccess;

/// Bits of PSTATE where SPSR_ELx keeps them (Arm, SPSR_EL2).
pub mod pstate {
    /// N, Z, C, V.
    pub const NZCV: u64 = 0xf << 28;
    /// Tag check override.
    pub const TCO: u64 = 1 << 25;
    /// Data independent timing.
    pub const DIT: u64 = 1 << 24;
    /// Privileged access never.
    pub const PAN: u64 = 1 << 22;
    /// Software step.
    pub const SS: u64 = 1 << 21;
    /// All interrupts masked, superpriority ones included.
    pub const ALLINT: u64 = 1 << 13;
    /// Speculative store bypass safe.
    pub const SSBS: u64 = 1 << 12;
    /// Branch type.
    pub const BTYPE: u64 = 3 << 10;
    /// Debug, SError, IRQ and FIQ masks.
    pub const DAIF: u64 = 0xf << 6;
    /// AArch32 state.
    pub const NRW: u64 = 1 << 4;
    /// EL1 with its own stack pointer.
    pub const EL1H: u64 = 0b0101;
}

/// SCTLR_EL1.SPAN: 0 sets PSTATE.PAN on entry.
const SCTLR_SPAN: u64 = 1 << 23;
/// SCTLR_EL1.DSSBS: PSTATE.SSBS on entry.
const SCTLR_DSSBS: u64 = 1 << 44;
/// SCTLR_EL1.SPINTMASK: 0 sets PSTATE.ALLINT on entry.
const SCTLR_SPINTMASK: u64 = 1 << 62;
/// ESR_ELx.IL: a 32-bit instruction.
const IL: u64 = 1 << 25;

/// Which optional bits PSTATE has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PstateFeatures {
    /// FEAT_PAN.
    pub pan: bool,
    /// FEAT_SSBS.
    pub ssbs: bool,
    /// FEAT_MTE2, with tags given to this guest.
    pub mte: bool,
    /// FEAT_NMI, given to this guest.
    pub nmi: bool,
}

/// The state that an exception is taken from, and the EL1 registers that decide where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct El1Context {
    /// ELR_EL2: the preferred return address.
    pub pc: u64,
    /// SPSR_EL2.
    pub pstate: u64,
    /// VBAR_EL1.
    pub vbar: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// Optional bits of PSTATE.
    pub features: PstateFeatures,
}

/// The exception to take to EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// Undefined instruction: exception class 0.
    Undefined,
    /// A system register access reported as trapped (FEAT_IDST).
    Sysreg(SysregAccess),
    /// Synchronous external abort on data.
    DataAbort {
        /// FAR_EL1, or `None` where the hypervisor does not know it (FnV).
        va: Option<u64>,
        /// WnR.
        write: bool,
        /// CM; the architecture then wants WnR to be 1 as well.
        cm: bool,
        /// The stage-1 level whose descriptor could not be read.
        walk: Option<Level>,
    },
    /// Any data abort of cache maintenance, with CM and WnR.
    Maintenance {
        /// FAR_EL1: the instruction's register, exactly.
        va: u64,
        /// Fault status code (DFSC).
        status: u8,
    },
    /// Synchronous external abort on an instruction fetch.
    InstructionAbort {
        /// FAR_EL1, or `None` where the hypervisor does not know it (FnV).
        va: Option<u64>,
        /// The stage-1 level whose descriptor could not be read.
        walk: Option<Level>,
    },
}

impl Exception {
    /// The abort of an access whose walk cannot read, or update, the guest's table of `level`. `esr` is
    /// ESR_EL2, of an instruction or a data abort, and says what the access was; `va` is FAR_EL2.
    #[must_use]
    pub const fn on_walk(esr: u64, va: u64, level: Level) -> Self {
        let (va, walk) = (Some(va), Some(level));
        if esr >> 26 & 0x3f == class::INSTRUCTION_ABORT as u64 {
            return Self::InstructionAbort { va, walk };
        }
        Self::DataAbort { va, write: bit(esr, 6), cm: bit(esr, 8), walk }
    }
}

/// The registers after exception entry to EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// ELR_EL2: the guest's vector.
    pub pc: u64,
    /// SPSR_EL2: the guest's PSTATE in its handler.
    pub pstate: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1; `None` leaves it alone.
    pub far: Option<u64>,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
}

/// Takes `exception` from `source` to EL1.
#[must_use]
pub fn enter_el1(source: &El1Context, exception: Exception) -> Entry {
    let from_el0 = source.pstate & (pstate::NRW | 0b1100) != 0b0100;
    let (esr, far) = syndrome(exception, from_el0);
    Entry {
        pc: (source.vbar & !0x7ff).wrapping_add(vector_offset(source.pstate)),
        pstate: entry_pstate(source),
        esr,
        far,
        elr: source.pc,
        spsr: source.pstate,
    }
}

/// Offset of the synchronous vector (Arm, D1.4.1, "Exception vectors").
const fn vector_offset(from: u64) -> u64 {
    if from & pstate::NRW != 0 {
        0x600
    } else {
        match from & 0b1111 {
            0b0101 => 0x200,
            0b0100 => 0x000,
            _ => 0x400,
        }
    }
}

/// PSTATE in the handler. IL, SS, UAO and BTYPE become 0, and so does every bit that belongs to a
/// feature which no guest has.
fn entry_pstate(source: &El1Context) -> u64 {
    let features = source.features;
    let mut new = source.pstate & (pstate::NZCV | pstate::DIT | pstate::PAN) | pstate::DAIF | pstate::EL1H;
    if source.pstate & pstate::NRW != 0 {
        // AArch32 keeps DIT in bit 21 of its SPSR, where AArch64 has SS (Arm, SPSR_EL2).
        new &= !pstate::DIT;
        if source.pstate & pstate::SS != 0 {
            new |= pstate::DIT;
        }
    }
    if features.pan && source.sctlr & SCTLR_SPAN == 0 {
        new |= pstate::PAN;
    }
    if features.ssbs && source.sctlr & SCTLR_DSSBS != 0 {
        new |= pstate::SSBS;
    }
    if features.mte {
        new |= pstate::TCO;
    }
    if features.nmi && source.sctlr & SCTLR_SPINTMASK == 0 {
        new |= pstate::ALLINT;
    }
    new
}

/// ESR_EL1 and FAR_EL1. IL is 1 for every one of these (Arm, ESR_EL1.IL), S1PTW is 0 because the
/// guest has one stage only.
fn syndrome(exception: Exception, from_el0: bool) -> (u64, Option<u64>) {
    let esr = |ec: u8, iss: u64| u64::from(ec) << 26 | IL | iss;
    match exception {
        Exception::Undefined => (esr(class::UNKNOWN, 0), None),
        Exception::Sysreg(access) => (esr(class::SYSREG, access.iss()), None),
        Exception::DataAbort { va, write, cm, walk } => {
            let ec = if from_el0 { class::DATA_ABORT } else { class::DATA_ABORT_SAME };
            let iss = external_abort(va, walk) | u64::from(cm) << 8 | u64::from(write || cm) << 6;
            (esr(ec, iss), va)
        }
        Exception::Maintenance { va, status } => {
            let ec = if from_el0 { class::DATA_ABORT } else { class::DATA_ABORT_SAME };
            (esr(ec, 1 << 8 | 1 << 6 | u64::from(status & 0x3f)), Some(va))
        }
        Exception::InstructionAbort { va, walk } => {
            let ec = if from_el0 { class::INSTRUCTION_ABORT } else { class::INSTRUCTION_ABORT_SAME };
            (esr(ec, external_abort(va, walk)), va)
        }
    }
}

/// FnV and the fault status code of a synchronous external abort.
fn external_abort(va: Option<u64>, walk: Option<Level>) -> u64 {
    let fsc = match walk {
        None => 0x10,
        Some(Level::MinusTwo) => 0x12,
        Some(Level::MinusOne) => 0x13,
        Some(Level::L0) => 0x14,
        Some(Level::L1) => 0x15,
        Some(Level::L2) => 0x16,
        Some(Level::L3) => 0x17,
    };
    // FnV exists only for the code 0x10: on a walk FAR is always valid.
    fsc | u64::from(va.is_none() && walk.is_none()) << 10
}

/// PC and PSTATE behind an instruction that the hypervisor carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stepped {
    /// ELR_EL2.
    pub pc: u64,
    /// SPSR_EL2.
    pub pstate: u64,
}

/// Steps over the instruction at `pc`, as executing it would have: BTYPE becomes 0, and so does SS,
/// so that a guest that steps itself sees its step exception once, behind this instruction. `il` is
/// ESR_EL2.IL.
#[inline(always)]
#[must_use]
pub const fn step_over(pc: u64, pstate: u64, il: bool) -> Stepped {
    Stepped { pc: pc.wrapping_add(if il { 4 } else { 2 }), pstate: pstate & !(pstate::SS | pstate::BTYPE) }
}
