//! From vEL2 to L2 and back, and in and out of the CPU.

use super::Nested;
use crate::arch::nested as hw;
use crate::arch::nested::Controls;
use crate::arch::{fp, traps, vectors};
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use ::nested::controls::hcr;
use ::nested::fine::FineTraps;
use ::nested::stage2::Registers;
use ::nested::{controls, page};
use idreg::TrapConfig;

/// The vCPU, which is resident and in vEL2, enters L2. Interrupts are the caller's to look at.
pub(super) fn to_l2(vcpu: &mut Vcpu, local: &Local) {
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    // SAFETY: the vCPU is entered next; controls and stage 2 follow.
    unsafe { nested.el2.enter_l2(&nested.page) };
    nested.in_l2 = true;
    nested.swap_rest(local.host.mte);
    let pending = traps::pending_virtual_serror();
    nested.virtual_serror = pending;
    let (registers, on) = nested.stage2();
    super::sve::to_l2(vcpu);
    super::timers::swap(vcpu, local);
    // SAFETY: the vCPU is entered next, in L2.
    unsafe { vcpu.load_l2(local, registers, on) };
    // SAFETY: as above.
    unsafe { apply(vcpu, local) };
    if pending != 0 {
        super::serror::enter_l2(vcpu);
    }
}

/// The vCPU, which is resident and in L2, is back in vEL2.
pub(super) fn to_vel2(vcpu: &mut Vcpu, local: &Local) {
    super::lists::unload(vcpu, local);
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    nested.keep_virtual_serror();
    // SAFETY: the vCPU is entered next; controls and stage 2 follow.
    unsafe { nested.el2.leave_l2(&nested.page) };
    nested.in_l2 = false;
    nested.swap_rest(local.host.mte);
    super::sve::to_vel2(vcpu);
    super::timers::swap(vcpu, local);
    // SAFETY: the vCPU is entered next, in vEL2.
    unsafe { vcpu.load_vel2(local) };
    // SAFETY: as above.
    unsafe { apply(vcpu, local) };
}

impl Nested {
    /// Lets WFE trap, so that a vCPU that polls gives way, or not. In L2, L1 may want it as well.
    pub(crate) fn set_wfe_traps(&mut self, contended: bool) {
        self.gives_way = contended;
        traps::set_wfe_traps(contended || self.in_l2 && self.hcr().has(hcr::TWE));
    }

    fn wfe_trap(&self) -> u64 {
        if self.gives_way { hcr::TWE } else { 0 }
    }

    /// What has no slot, or a rule of its own.
    fn swap_rest(&mut self, mte: bool) {
        if self.vhe {
            // Without VHE CNTKCTL_EL1 is L2's in both contexts.
            self.other_cntkctl = hw::swap_cntkctl(self.other_cntkctl);
        }
        if mte {
            if self.in_l2 {
                self.other_tfsr = hw::swap_tfsr(self.page.get(page::TFSR_EL1));
            } else {
                self.page.set(page::TFSR_EL1, hw::swap_tfsr(self.other_tfsr));
            }
        }
    }

    /// Fine-grained traps of the context that is current: in L2, those of either hypervisor.
    ///
    /// # Safety
    /// The vCPU must be entered next.
    unsafe fn load_fine(&mut self, base: &TrapConfig) {
        let l1 = if self.in_l2 { self.fine() } else { FineTraps::default() };
        if l1.is_clear() && !self.fine_loaded {
            return;
        }
        self.fine_loaded = !l1.is_clear();
        let l0 = FineTraps {
            read: base.hfgrtr,
            write: base.hfgwtr,
            instruction: base.hfgitr,
            debug_read: base.hdfgrtr,
            debug_write: base.hdfgwtr,
        };
        // SAFETY: the caller's promise; a VM with fine-grained traps is on CPUs with them.
        unsafe { hw::set_fine_traps(&l0.or(l1)) };
    }

    /// L1's stage 2 for L2, and whether it is on. L2 is what runs.
    fn stage2(&self) -> (Registers, bool) {
        const EE: u64 = 1 << 25;
        let sctlr = if self.vhe { self.el2.sctlr } else { self.regs.sctlr };
        let registers = Registers {
            vttbr: self.page.get(page::VTTBR_EL2),
            vtcr: self.page.get(page::VTCR_EL2),
            big_endian: sctlr & EE != 0,
            fwb: self.hcr().has(hcr::FWB),
        };
        (registers, self.hcr().has(hcr::VM | hcr::DC))
    }

    /// The hardware clears HCR_EL2.VSE when L2 takes its virtual SError: L1 sees that.
    fn keep_virtual_serror(&mut self) {
        const VSE: u64 = controls::hcr::VSE;
        let hcr = self.page.get(page::HCR_EL2);
        if self.hcr().for_l2(0) & VSE != 0 {
            self.page.set(page::HCR_EL2, hcr & !VSE | traps::pending_virtual_serror());
        }
        if self.virtual_serror != 0 {
            self.leave_l2_with_serror();
        }
    }
}

/// Writes the EL2 registers of the context that is current.
///
/// # Safety
/// The vCPU must be entered next, and its EL1 registers must be those of that context.
unsafe fn apply(vcpu: &mut Vcpu, local: &Local) {
    let fp_traps = vcpu.fp_traps();
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    let Some(base) = vcpu.traps.as_ref() else { return };
    let vhe = nested.vhe;
    // SAFETY: the caller's promise.
    unsafe { nested.load_fine(base) };
    let values = if nested.in_l2 {
        let l1 = nested.hcr();
        let cptr = controls::cptr_for_l2(base.cptr, nested.cptr(), vhe);
        fp::set_cptr(cptr, fp_traps);
        Controls {
            hcr: l1.for_l2(base.hcr | nested.wfe_trap()),
            mdcr: controls::mdcr_for_l2(base.mdcr, nested.regs.mdcr),
            cnthctl: nested.cnthctl(),
            hcrx: base.hcrx.map(|hcrx| hcrx | nested.hcrx()),
            vpidr: nested.page.get(page::VPIDR_EL2),
            vmpidr: nested.page.get(page::VMPIDR_EL2) | 1 << 31,
        }
    } else {
        fp::set_cptr(base.cptr, fp_traps);
        Controls {
            hcr: controls::for_vel2(base.hcr | nested.wfe_trap(), vhe) | nested.virtual_serror,
            mdcr: base.mdcr,
            cnthctl: controls::cnthctl_for_vel2(vhe, super::timers::ecv()),
            hcrx: base.hcrx,
            vpidr: local.midr,
            vmpidr: idreg::vmpidr(vcpu.id as u8),
        }
    };
    // SAFETY: the caller's promise.
    unsafe { values.load() };
}

impl Vcpu {
    /// Before the rest of the vCPU is taken out of the hardware: what L2 has in places that are L1's
    /// otherwise.
    pub(crate) fn unload_nested(&mut self, local: &Local) {
        vectors::install();
        super::timers::release(self, local);
        super::lists::unload(self, local);
        if let Some(nested) = self.nested.as_deref_mut()
            && nested.in_l2
        {
            nested.keep_virtual_serror();
        }
    }

    /// After the rest of the vCPU is in the hardware.
    ///
    /// # Safety
    /// The vCPU must be entered next, on this CPU, with nobody else resident.
    pub(crate) unsafe fn load_nested(&mut self, local: &Local) {
        let Some(nested) = self.nested.as_deref_mut() else { return };
        let in_l2 = nested.in_l2;
        if !in_l2 {
            nested.virtual_serror = traps::pending_virtual_serror();
        }
        let pending = in_l2 && nested.virtual_serror != 0;
        vectors::install_nested();
        nested.fine_loaded = false;
        nested.load_physical_offset();
        // SAFETY: the page lives as long as the vCPU, which is entered next.
        unsafe { nested.page.install() };
        // SAFETY: it is what runs next.
        unsafe { self.reload_l2(local) };
        // SAFETY: the EL1 registers that were loaded are those of the context.
        unsafe { apply(self, local) };
        if pending {
            super::serror::enter_l2(self);
        }
        super::lists::entered(self, local);
    }
}
