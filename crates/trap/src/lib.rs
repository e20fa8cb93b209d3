//! From an exception syndrome to the reason of a guest exit.
//!
//! [`decode`] turns ESR_EL2, and FAR_EL2 and HPFAR_EL2 where the exception class defines them, into
//! an [`Exit`]. It is total: every 64-bit value is some exit. [`SError`] does the same for the
//! asynchronous syndromes, and [`inject`] is the way back: the state in which a guest starts to
//! handle an exception that the hypervisor hands to it.
//!
//! "Arm" is the Arm Architecture Reference Manual for A-profile (DDI 0487); field positions are those
//! of its ESR_EL2 page. The structures keep the syndrome and extract on demand, so that a decoded
//! exit costs its consumer only what it looks at.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod abort;
mod bits;
pub mod inject;
mod serror;
mod sysreg;

pub use abort::{AccessSize, DataAbort, FaultKind, InstructionAbort, Level, TagAccess, TagFault, fault_ipa};
pub use serror::{Consequence, SError, SErrorKind};
pub use sysreg::{SysReg, SysregAccess};

use bits::{bit, field};

/// The fault address registers, read only for the exception classes that define them: each read is
/// an exit of its own when the hypervisor runs as a guest.
pub trait FaultRegisters {
    /// FAR_EL2.
    fn far(&self) -> u64;
    /// HPFAR_EL2.
    fn hpfar(&self) -> u64;
}

/// Exception classes, ESR_EL2.EC (Arm, ESR_EL2).
pub mod class {
    /// Unknown reason.
    pub const UNKNOWN: u8 = 0x00;
    /// WFI, WFE, WFIT or WFET.
    pub const WFX: u8 = 0x01;
    /// Advanced SIMD or floating point trapped by CPTR_EL2.
    pub const FP: u8 = 0x07;
    /// AArch32 VMRS of an ID register.
    pub const VMRS_A32: u8 = 0x08;
    /// Pointer authentication, HCR_EL2.API is 0.
    pub const PAUTH: u8 = 0x09;
    /// LD64B or the ST64B family.
    pub const LS64: u8 = 0x0a;
    /// Branch target exception.
    pub const BTI: u8 = 0x0d;
    /// Illegal execution state.
    pub const ILLEGAL_STATE: u8 = 0x0e;
    /// HVC in AArch64 state.
    pub const HVC: u8 = 0x16;
    /// SMC in AArch64 state, trapped by HCR_EL2.TSC.
    pub const SMC: u8 = 0x17;
    /// MSR, MRS or system instruction.
    pub const SYSREG: u8 = 0x18;
    /// SVE trapped by CPTR_EL2.
    pub const SVE: u8 = 0x19;
    /// ERET, ERETAA or ERETAB, trapped by HCR_EL2.NV.
    pub const ERET: u8 = 0x1a;
    /// SVC: comes to EL2 only where HFGITR_EL2 traps it for a guest hypervisor.
    pub const SVC: u8 = 0x15;
    /// SME trapped by CPTR_EL2.
    pub const SME: u8 = 0x1d;
    /// Instruction abort from a lower level.
    pub const INSTRUCTION_ABORT: u8 = 0x20;
    /// Instruction abort from the same level.
    pub const INSTRUCTION_ABORT_SAME: u8 = 0x21;
    /// PC alignment.
    pub const PC_ALIGNMENT: u8 = 0x22;
    /// Data abort from a lower level.
    pub const DATA_ABORT: u8 = 0x24;
    /// Data abort from the same level.
    pub const DATA_ABORT_SAME: u8 = 0x25;
    /// SP alignment.
    pub const SP_ALIGNMENT: u8 = 0x26;
    /// Memory copy or set exception.
    pub const MOPS: u8 = 0x27;
    /// Guarded control stack.
    pub const GCS: u8 = 0x2d;
    /// SError.
    pub const SERROR: u8 = 0x2f;
    /// Breakpoint from a lower level.
    pub const BREAKPOINT: u8 = 0x30;
    /// Software step from a lower level.
    pub const STEP: u8 = 0x32;
    /// Watchpoint from a lower level.
    pub const WATCHPOINT: u8 = 0x34;
    /// BRK in AArch64 state.
    pub const BRK: u8 = 0x3c;
}

/// Which wait instruction was trapped (ISS.TI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// WFI.
    Interrupt,
    /// WFE.
    Event,
    /// WFIT.
    InterruptTimeout,
    /// WFET.
    EventTimeout,
}

/// A trapped WFI, WFE, WFIT or WFET. The preferred return address is the instruction itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Which instruction.
    pub kind: WaitKind,
    /// The register that holds the deadline as a value of CNTVCT_EL0, for the forms with a timeout.
    pub deadline: Option<u8>,
}

/// Which exception return was trapped (ISS.ERET, ISS.ERETA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EretKind {
    /// ERET.
    Plain,
    /// ERETAA.
    KeyA,
    /// ERETAB.
    KeyB,
}

/// A debug exception that MDCR_EL2.TDE routes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugException {
    /// Hardware breakpoint.
    Breakpoint,
    /// Software step.
    Step,
    /// Watchpoint.
    Watchpoint {
        /// The watched address.
        va: addr::Va,
    },
    /// BRK with its immediate.
    Brk {
        /// The comment field.
        imm: u16,
    },
}

/// Why a guest stopped running: a synchronous exception from EL1 or EL0 that was taken to EL2.
///
/// Unless a variant says otherwise, ELR_EL2 is the address of the instruction that is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// HVC; ELR_EL2 is already the next instruction.
    Hvc {
        /// The immediate.
        imm: u16,
    },
    /// SMC trapped by HCR_EL2.TSC; ELR_EL2 is the SMC itself.
    Smc {
        /// The immediate.
        imm: u16,
    },
    /// MRS or MSR of a system register.
    Sysreg(SysregAccess),
    /// A trapped system instruction: cache or TLB maintenance, address translation, or MSR
    /// (immediate).
    SystemInstruction(SysregAccess),
    /// A data abort that is not a [`TagFault`].
    DataAbort(DataAbort),
    /// An instruction abort.
    InstructionAbort(InstructionAbort),
    /// An access to tags, or a tag-checked access, where stage 2 says NoTagAccess.
    TagFault(TagFault),
    /// WFI and its relatives.
    Wfx(Wait),
    /// Floating point or Advanced SIMD while CPTR_EL2 traps it.
    Fp,
    /// SVE while CPTR_EL2 traps it.
    Sve,
    /// SME while CPTR_EL2 traps it; the detail is ISS.SMTC.
    Sme {
        /// ISS.SMTC.
        reason: u8,
    },
    /// A pointer authentication instruction while HCR_EL2.API is 0.
    PAuth,
    /// An exception return while HCR_EL2.NV is 1.
    Eret(EretKind),
    /// Branch target exception.
    Bti,
    /// Illegal execution state.
    IllegalState,
    /// Misaligned PC.
    PcAlignment {
        /// The misaligned address.
        va: addr::Va,
    },
    /// Misaligned SP.
    SpAlignment,
    /// A debug exception.
    Debug(DebugException),
    /// An exception class of AArch32 state.
    AArch32 {
        /// ESR_EL2.EC.
        ec: u8,
    },
    /// Memory copy or set exception: the instruction met the algorithm option of another CPU.
    MopsFault,
    /// Guarded control stack exception.
    Gcs,
    /// LD64B or the ST64B family while HCRX_EL2 traps it.
    Ls64,
    /// Any other class: reserved, or of a feature whose exceptions are not routed here.
    Unknown {
        /// ESR_EL2.EC.
        ec: u8,
        /// All of ESR_EL2.
        esr: u64,
    },
}

/// The exception class of a syndrome.
#[inline(always)]
#[must_use]
pub const fn exception_class(esr: u64) -> u8 {
    field(esr, 26, 6) as u8
}

/// EC and IL together, for an instruction of 32 bits.
const fn wide(class: u8) -> u32 {
    (class as u32) << 1 | 1
}

const HVC: u32 = wide(class::HVC);
const DATA_ABORT: u32 = wide(class::DATA_ABORT);
const SYSREG: u32 = wide(class::SYSREG);

/// Decodes the syndrome of a synchronous exception from a lower exception level.
///
/// The three classes that a busy guest causes are tested first, together with IL: the compiler merges
/// tests of EC alone into the jump table of the other classes, seven instructions more on each exit.
#[inline(always)]
pub fn decode(esr: u64, regs: &impl FaultRegisters) -> Exit {
    match esr as u32 >> 25 {
        HVC => Exit::Hvc { imm: esr as u16 },
        DATA_ABORT => abort::decode_data(esr, regs),
        SYSREG => {
            let access = SysregAccess::new(esr);
            // Op0[1] separates registers (2, 3) from instructions (0, 1).
            if bit(esr, 21) { Exit::Sysreg(access) } else { Exit::SystemInstruction(access) }
        }
        _ => decode_rare(esr, regs),
    }
}

#[inline(always)]
fn decode_rare(esr: u64, regs: &impl FaultRegisters) -> Exit {
    core::hint::cold_path();
    let imm = esr as u16;
    match exception_class(esr) {
        class::SMC => Exit::Smc { imm },
        class::WFX => Exit::Wfx(decode_wait(esr)),
        class::FP => Exit::Fp,
        class::INSTRUCTION_ABORT => Exit::InstructionAbort(InstructionAbort::new(esr, regs)),
        class::SVE => Exit::Sve,
        class::SME => Exit::Sme { reason: field(esr, 0, 3) as u8 },
        class::PAUTH => Exit::PAuth,
        class::ERET => Exit::Eret(match field(esr, 0, 2) {
            0b10 => EretKind::KeyA,
            0b11 => EretKind::KeyB,
            // ERETA is RES0 for a plain ERET.
            _ => EretKind::Plain,
        }),
        class::BTI => Exit::Bti,
        class::ILLEGAL_STATE => Exit::IllegalState,
        class::PC_ALIGNMENT => Exit::PcAlignment { va: addr::Va::new(regs.far()) },
        class::SP_ALIGNMENT => Exit::SpAlignment,
        class::BREAKPOINT => Exit::Debug(DebugException::Breakpoint),
        class::STEP => Exit::Debug(DebugException::Step),
        class::WATCHPOINT => Exit::Debug(DebugException::Watchpoint { va: addr::Va::new(regs.far()) }),
        class::BRK => Exit::Debug(DebugException::Brk { imm }),
        class::MOPS => Exit::MopsFault,
        class::GCS => Exit::Gcs,
        // EC 0x0a also reports other undefined instructions; the LD64B family has ISS 0, 1 and 2.
        class::LS64 if field(esr, 0, 25) <= 2 => Exit::Ls64,
        // CP15, CP14, VMRS; SVC, HVC, SMC; FP exception; BKPT and vector catch; and the data abort
        // of a 16-bit instruction (IL is 0).
        ec
        @ (0x03..=0x06 | class::VMRS_A32 | 0x0c | 0x11..=0x13 | 0x28 | 0x38 | 0x3a | class::DATA_ABORT) => {
            Exit::AArch32 { ec }
        }
        ec => Exit::Unknown { ec, esr },
    }
}

fn decode_wait(esr: u64) -> Wait {
    let kind = match field(esr, 0, 2) {
        0b00 => WaitKind::Interrupt,
        0b01 => WaitKind::Event,
        0b10 => WaitKind::InterruptTimeout,
        _ => WaitKind::EventTimeout,
    };
    let timed = matches!(kind, WaitKind::InterruptTimeout | WaitKind::EventTimeout);
    // ISS.RN is valid only where ISS.RV says so.
    let deadline = (timed && bit(esr, 2)).then_some(field(esr, 5, 5) as u8);
    Wait { kind, deadline }
}

#[cfg(test)]
mod tests;
