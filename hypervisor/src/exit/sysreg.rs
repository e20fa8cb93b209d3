//! Trapped system registers and system instructions.

use super::{Outcome, maintenance};
use crate::arch::ids;
use crate::cpu::Local;
use crate::lock::Hot;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use cmo::{Line, Operation};
use idreg::{CacheRegister, DebugRegister, ICC_SRE, Policy, index, policy, refusal};
use trap::inject::Exception;
use trap::{SysReg, SysregAccess};

/// MRS or MSR.
#[inline(always)]
pub(crate) fn access(vcpu: &mut Vcpu, local: &mut Local, access: SysregAccess) -> Outcome {
    vcpu.shared.exits.sysregs.bump();
    if access.read
        && let Some(index) = access.reg.id_index()
    {
        vcpu.regs.set(access.rt, vcpu.ids.read(index));
        return Ok(Resume::Next);
    }
    match access.reg {
        SysReg::ICC_SGI1R_EL1 if !access.read => {
            send_sgi(vcpu, access, true);
            Ok(Resume::Next)
        }
        _ => other(vcpu, local, access),
    }
}

#[inline(always)]
fn send_sgi(vcpu: &mut Vcpu, access: SysregAccess, group1: bool) {
    let value = vcpu.regs.get(access.rt);
    let kick = vcpu.vm.vgic.lock_hot().sgi(vcpu.id, value, group1);
    vcpu.vm.kick(kick, Some(vcpu.id));
}

/// Everything rarer.
#[inline(never)]
fn other(vcpu: &mut Vcpu, local: &mut Local, access: SysregAccess) -> Outcome {
    let written = vcpu.regs.get(access.rt);
    let value = match policy(access.reg) {
        // ID registers cannot be written.
        Policy::Feature(index) if access.read => vcpu.ids.read(index),
        // The core's, as VPIDR_EL2 shows its MIDR_EL1.
        Policy::Revidr if access.read => ids::revidr(),
        Policy::Aidr if access.read => ids::aidr(),
        Policy::Cache(CacheRegister::Ctr) if access.read => vcpu.ids.read(index::CTR.into()),
        Policy::Cache(CacheRegister::Clidr) if access.read => vcpu.ids.read(index::CLIDR.into()),
        Policy::Cache(CacheRegister::Ccsidr) if access.read => vcpu.ids.read(index::CCSIDR.into()),
        Policy::Cache(CacheRegister::Csselr) => {
            if !access.read {
                vcpu.csselr = written;
            }
            vcpu.csselr
        }
        Policy::Sgi1 if !access.read => {
            send_sgi(vcpu, access, true);
            0
        }
        Policy::Sgi0 if !access.read => {
            send_sgi(vcpu, access, false);
            0
        }
        Policy::Debug(register) => debug(vcpu, register, access.read, written),
        Policy::RazWi => 0,
        Policy::Sre => ICC_SRE,
        Policy::Undefined if access.reg == SysReg::ICC_DIR_EL1 && !access.read => {
            deactivate(vcpu, local, written);
            0
        }
        Policy::Feature(_)
        | Policy::Revidr
        | Policy::Aidr
        | Policy::Cache(CacheRegister::Ctr | CacheRegister::Clidr | CacheRegister::Ccsidr)
        | Policy::Sgi1
        | Policy::Sgi0
        | Policy::Undefined => {
            return Err(match refusal(access, vcpu.ids.ids()) {
                Exception::Sysreg(access) => GuestFault::Sysreg(access),
                Exception::Undefined
                | Exception::DataAbort { .. }
                | Exception::Maintenance { .. }
                | Exception::InstructionAbort { .. } => GuestFault::Undefined,
            });
        }
    };
    if access.read {
        vcpu.regs.set(access.rt, value);
    }
    Ok(Resume::Next)
}

/// MDSCR_EL1 and the OS lock remember; nothing else of the debug hardware is there.
fn debug(vcpu: &mut Vcpu, register: DebugRegister, read: bool, written: u64) -> u64 {
    /// OSLSR_EL1.OSLM: the lock is implemented.
    const IMPLEMENTED: u64 = 1 << 3;
    match register {
        DebugRegister::Mdscr => {
            if !read {
                vcpu.mdscr = written;
            }
            vcpu.mdscr
        }
        DebugRegister::Oslar => {
            vcpu.os_lock = written & 1 != 0;
            0
        }
        DebugRegister::Oslsr => IMPLEMENTED | u64::from(vcpu.os_lock) << 1,
    }
}

/// ICC_DIR_EL1, which traps while an active interrupt is not in a list register.
fn deactivate(vcpu: &mut Vcpu, local: &mut Local, intid: u64) {
    vcpu.sync_interrupts(local);
    let kick = vcpu.vm.vgic.lock().deactivate(vcpu.id, intid as u32 & 0xff_ffff);
    vcpu.vm.kick(kick, Some(vcpu.id));
}

/// A trapped system instruction: cache maintenance; all else is undefined.
#[inline(never)]
pub(crate) fn instruction(vcpu: &mut Vcpu, local: &Local, access: SysregAccess) -> Outcome {
    vcpu.shared.exits.sysregs.bump();
    if access.reg == SysReg::DC_IVAC && !access.read {
        // What a guest with read-only memory may do line by line.
        return maintenance::trapped(vcpu, local, access, Operation::Line(Line::INVALIDATE));
    }
    rare_instruction(vcpu, local, access)
}

#[cold]
#[inline(never)]
fn rare_instruction(vcpu: &mut Vcpu, local: &Local, access: SysregAccess) -> Outcome {
    match Operation::from_encoding(access.reg) {
        Some(operation) if !access.read && vcpu.ids.has_instruction(access.reg) => {
            maintenance::trapped(vcpu, local, access, operation)
        }
        Some(_) | None => Err(GuestFault::Undefined),
    }
}
