//! EL2 registers that trap: L0 keeps them, or writes the EL1 register that plays them.

use super::{Nested, lists, sve, timers};
use crate::arch::nested as hw;
use crate::cpu::Local;
use crate::exit::Outcome;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use ::nested::registers::{Register, is_el2, lookup};
use ::nested::{controls, format, lists as lr};
use trap::SysregAccess;

/// ICC_SRE_EL2: system registers, no bypass, EL1 may use them; all fixed.
const ICC_SRE: u64 = 0xf;
/// ICH_VTR_EL2: GICv4 is absent (nV4), so are locally generated SErrors (SEIS) and direct injection
/// (DVIM); priorities and identifiers are the machine's.
const VTR_KEPT: u64 = 0x7 << 29 | 0x7 << 26 | 0x7 << 23 | 1 << 21 | 1 << 19 | 0x1f;
const VTR_NV4: u64 = 1 << 20;

/// An access of vEL2's to a register of EL2, or to a timer of L2's; `None` for all others.
pub(super) fn access(vcpu: &mut Vcpu, local: &Local, access: SysregAccess) -> Option<Outcome> {
    let vhe = vcpu.nested.as_ref()?.vhe;
    let Some(register) = lookup(access.reg, vhe) else {
        return is_el2(access.reg).then_some(Err(GuestFault::Undefined));
    };
    if register == Register::Zcr {
        return Some(sve::access(vcpu, local, access));
    }
    if access.read {
        let nested = vcpu.nested.as_deref()?;
        let value = read(nested, register)?;
        vcpu.regs.set(access.rt, value);
    } else {
        let value = vcpu.regs.get(access.rt);
        write(vcpu, local, register, value);
    }
    if register == Register::IchMisr {
        lists::set_maintenance_line(vcpu);
    }
    Some(Ok(Resume::Next))
}

fn read(nested: &Nested, register: Register) -> Option<u64> {
    let own_format = !nested.vhe;
    let collect = |test: fn(u64) -> bool| {
        let bits = nested.list_registers().enumerate();
        bits.fold(0, |all, (n, value)| all | u64::from(test(value)) << n)
    };
    Some(match register {
        Register::Sctlr if own_format => nested.regs.sctlr,
        Register::Sctlr => hw::sctlr(),
        Register::Tcr if own_format => nested.regs.tcr,
        Register::Tcr => hw::tcr(),
        Register::Ttbr0 if own_format => nested.regs.ttbr0,
        Register::Ttbr0 => hw::ttbr0(),
        Register::Cptr => nested.own_cptr(),
        Register::Ttbr1 => hw::ttbr1(),
        Register::Mair => hw::mair(),
        Register::Amair => hw::amair(),
        Register::Vbar => hw::vbar(),
        Register::Afsr0 => hw::afsr0(),
        Register::Afsr1 => hw::afsr1(),
        Register::Contextidr => hw::contextidr(),
        Register::Hpfar => nested.regs.hpfar,
        Register::Mdcr => nested.regs.mdcr,
        Register::Cnthctl if own_format => nested.regs.cnthctl,
        Register::Cnthctl => nested.regs.cnthctl & !CNTKCTL | hw::cntkctl() & CNTKCTL,
        Register::CntkctlEl12 => nested.other_cntkctl,
        Register::RazWi | Register::Zcr => 0,
        Register::IccSre => ICC_SRE,
        Register::IchVtr => hw::vtr() & VTR_KEPT | VTR_NV4,
        Register::IchMisr => nested.misr(),
        Register::IchEisr => collect(lr::owes_eoi),
        Register::IchElrsr => collect(lr::is_free),
        Register::Timer(which, part) => timers::read(nested, which, part),
    })
}

impl Nested {
    /// L1's CPTR_EL2 while vEL2 runs.
    pub(super) fn own_cptr(&self) -> u64 {
        controls::cptr(self.regs.cptr, hw::cpacr(), self.vhe)
    }
}

/// Bits of CNTHCTL_EL2 with E2H 1 that are CNTKCTL_EL1's too: EL0's accesses, and the event stream.
const CNTKCTL: u64 = 0x2_03ff;

fn write(vcpu: &mut Vcpu, local: &Local, register: Register, value: u64) {
    if let Register::Timer(which, part) = register {
        return timers::write(vcpu, local, which, part, value);
    }
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    let own_format = !nested.vhe;
    match register {
        Register::Sctlr => {
            nested.regs.sctlr = value;
            let real = if own_format { format::sctlr(value) } else { value };
            // SAFETY: the resident vCPU is in vEL2; so for all that follow.
            unsafe { hw::set_sctlr(real) };
        }
        Register::Tcr => {
            nested.regs.tcr = value;
            let real = if own_format { format::tcr(value) } else { value };
            // SAFETY: as above.
            unsafe { hw::set_tcr(real) };
        }
        Register::Ttbr0 => {
            nested.regs.ttbr0 = value;
            let real = if own_format { format::ttbr0(value) } else { value };
            // SAFETY: as above.
            unsafe { hw::set_ttbr0(real) };
        }
        Register::Cptr => {
            nested.regs.cptr = value;
            let real = if own_format { format::cpacr(value) } else { controls::cpacr(value) };
            // SAFETY: as above.
            unsafe { hw::set_cpacr(real) };
        }
        // SAFETY: as above.
        Register::Ttbr1 => unsafe { hw::set_ttbr1(value) },
        // SAFETY: as above.
        Register::Mair => unsafe { hw::set_mair(value) },
        // SAFETY: as above.
        Register::Amair => unsafe { hw::set_amair(value) },
        // SAFETY: as above.
        Register::Vbar => unsafe { hw::set_vbar(value) },
        // SAFETY: as above.
        Register::Afsr0 => unsafe { hw::set_afsr0(value) },
        // SAFETY: as above.
        Register::Afsr1 => unsafe { hw::set_afsr1(value) },
        // SAFETY: as above.
        Register::Contextidr => unsafe { hw::set_contextidr(value) },
        Register::Hpfar => nested.regs.hpfar = value,
        Register::Mdcr => nested.regs.mdcr = value,
        Register::Cnthctl => {
            nested.regs.cnthctl = value;
            if !own_format {
                // SAFETY: as above.
                unsafe { hw::set_cntkctl(value & CNTKCTL) };
            }
        }
        Register::CntkctlEl12 => nested.other_cntkctl = value,
        Register::RazWi
        | Register::Zcr
        | Register::IccSre
        | Register::IchVtr
        | Register::IchMisr
        | Register::IchEisr
        | Register::IchElrsr
        | Register::Timer(..) => {}
    }
}
