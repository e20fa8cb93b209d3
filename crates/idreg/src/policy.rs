//! What becomes of a trapped MRS or MSR.
//!
//! Debug registers are trapped (MDCR_EL2.TDA, TDOSA): MDSCR_EL1 and the OS lock keep what is written,
//! breakpoints and watchpoints read as zero. A guest finds its debug hardware mute.

use trap::inject::Exception;
use trap::{SysReg, SysregAccess};

/// A register of the invented cache hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheRegister {
    /// CTR_EL0.
    Ctr,
    /// CLIDR_EL1.
    Clidr,
    /// CCSIDR_EL1.
    Ccsidr,
    /// CSSELR_EL1: keeps what is written.
    Csselr,
}

/// A debug register that keeps what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DebugRegister {
    /// MDSCR_EL1.
    Mdscr,
    /// OSLAR_EL1: writes the lock.
    Oslar,
    /// OSLSR_EL1: reads the lock.
    Oslsr,
}

/// ICC_SRE_EL1 of all VMs: system registers (SRE), no bypass (DFB, DIB). Where GICs have a legacy mode, the
/// register is the CPU's, and one VM could take the system registers from the others.
pub const ICC_SRE: u64 = 0b111;

/// How a trapped register behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// A feature ID register: reads the VM's table at this index.
    Feature(usize),
    /// REVIDR_EL1.
    Revidr,
    /// AIDR_EL1.
    Aidr,
    /// A register of the cache hierarchy.
    Cache(CacheRegister),
    /// A write requests a software generated interrupt (ICC_SGI1R_EL1).
    Sgi1,
    /// As `Sgi1`, for ICC_SGI0R_EL1 and ICC_ASGI1R_EL1: with one Security state both send SGIs of group 0 only
    /// (IHI 0069H 12.1.10).
    Sgi0,
    /// A debug register with memory.
    Debug(DebugRegister),
    /// Reads as zero, ignores writes.
    RazWi,
    /// ICC_SRE_EL1: reads as [`ICC_SRE`], ignores writes.
    Sre,
    /// UNDEFINED; [`refusal`] is the exception.
    Undefined,
}

/// The behaviour of `reg`, where a trap of [`TrapConfig`](crate::TrapConfig) caught it. Everything
/// without a rule is UNDEFINED: what is hidden, and what does not exist.
#[inline]
#[must_use]
pub fn policy(reg: SysReg) -> Policy {
    if let Some(index) = reg.id_index() {
        return Policy::Feature(index);
    }
    match reg {
        SysReg::ICC_SGI1R_EL1 => Policy::Sgi1,
        SysReg::ICC_SGI0R_EL1 | SysReg::ICC_ASGI1R_EL1 => Policy::Sgi0,
        SysReg::ICC_SRE_EL1 => Policy::Sre,
        SysReg::REVIDR_EL1 => Policy::Revidr,
        SysReg::AIDR_EL1 => Policy::Aidr,
        SysReg::CTR_EL0 => Policy::Cache(CacheRegister::Ctr),
        SysReg::CLIDR_EL1 => Policy::Cache(CacheRegister::Clidr),
        SysReg::CCSIDR_EL1 => Policy::Cache(CacheRegister::Ccsidr),
        SysReg::CSSELR_EL1 => Policy::Cache(CacheRegister::Csselr),
        SysReg::ACTLR_EL1 => Policy::RazWi,
        // The record selector exists, with no records: reads as absent.
        SysReg::ERRIDR_EL1 | SysReg::ERRSELR_EL1 => Policy::RazWi,
        _ if is_error_record(reg) => Policy::RazWi,
        _ if reg.op0() == 2 => debug(reg),
        _ => Policy::Undefined,
    }
}

/// ERXGSR_EL1 and CRm 4 and 5 of the RAS registers: the selected error record.
const fn is_error_record(reg: SysReg) -> bool {
    reg.op0() == 3
        && reg.op1() == 0
        && reg.crn() == 5
        && match (reg.crm(), reg.op2()) {
            (3, 2) | (4, 0..=6) | (5, 0..=3) => true,
            (_, _) => false,
        }
}

/// op0 2: debug, and trace, which no guest has.
fn debug(reg: SysReg) -> Policy {
    match reg {
        SysReg::MDSCR_EL1 => Policy::Debug(DebugRegister::Mdscr),
        SysReg::OSLAR_EL1 => Policy::Debug(DebugRegister::Oslar),
        SysReg::OSLSR_EL1 => Policy::Debug(DebugRegister::Oslsr),
        SysReg::MDCCINT_EL1
        | SysReg::MDCCSR_EL0
        | SysReg::DBGDTR_EL0
        | SysReg::DBGDTRRX_EL0
        | SysReg::OSDTRRX_EL1
        | SysReg::OSDTRTX_EL1
        | SysReg::OSECCR_EL1
        | SysReg::MDRAR_EL1
        | SysReg::OSDLR_EL1
        | SysReg::DBGPRCR_EL1
        | SysReg::DBGCLAIMSET_EL1
        | SysReg::DBGCLAIMCLR_EL1
        | SysReg::DBGAUTHSTATUS_EL1 => Policy::RazWi,
        // DBGBVR, DBGBCR, DBGWVR, DBGWCR: CRm is the number.
        _ if reg.op1() == 0 && reg.crn() == 0 && (4..=7).contains(&reg.op2()) => Policy::RazWi,
        _ => Policy::Undefined,
    }
}

/// The exception for an access that is refused. With FEAT_IDST, reads in the space of feature ID
/// registers (op0 3, op1 0, 1 or 3, CRn 0, CRm 0 to 7) are reported as trapped (Arm, FEAT_IDST).
#[must_use]
pub fn refusal(access: SysregAccess, ids: bool) -> Exception {
    let reg = access.reg;
    let id_space = reg.op0() == 3 && matches!(reg.op1(), 0 | 1 | 3) && reg.crn() == 0 && reg.crm() <= 7;
    if ids && access.read && id_space { Exception::Sysreg(access) } else { Exception::Undefined }
}
