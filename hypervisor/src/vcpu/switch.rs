//! Another vCPU takes the CPU: the state that lives in the hardware while a vCPU is resident.

use super::Vcpu;
use crate::arch::gic::HardwareListRegisters;
use crate::arch::{fp, gic, timer, tlb, traps};
use crate::cpu::Local;
use crate::lock::Hot;
use crate::nested;
use manifest::layout::{PTIMER_INTID, VTIMER_INTID};
use vgic::PhysIntids;

/// PPIs that are forwarded to the vCPU in residence: their physical active state is its.
const FORWARDED: [u32; 2] = [VTIMER_INTID, PTIMER_INTID];

impl Vcpu {
    /// Takes the vCPU out of the hardware.
    pub(crate) fn unload(&mut self, local: &Local) {
        if self.nested.is_some() {
            self.unload_nested(local);
        }
        self.virtual_serror = traps::pending_virtual_serror();
        self.el1.save();
        if local.host.mte {
            self.mte.save();
        }
        if local.host.pauth {
            self.pauth.save();
        }
        self.timers.save();
        self.take_out_interface(local);
        for intid in FORWARDED {
            local.redistributor.set_active(intid, false);
        }
        gic::complete();
    }

    /// Puts the vCPU into the hardware. `neighbour`: another vCPU of the same VM ran here since this
    /// one did, so the TLB holds its translations under the same VMID and ASIDs.
    ///
    /// # Safety
    /// The vCPU must be entered next, on this CPU, with nobody else resident.
    pub(crate) unsafe fn load(&mut self, local: &Local, neighbour: bool, fp_loaded: bool) {
        let stage2 = &self.vm.stage2;
        let vmid = local.take_vmid(self.vm.id);
        // SAFETY: the VM's own tables; the VMID is no other's.
        unsafe { tlb::set_stage2(stage2.root | u64::from(vmid) << 48, stage2.vtcr) };
        if neighbour {
            tlb::flush_local_stage1();
        }
        let traps = self.traps.as_ref();
        let traps = traps.unwrap_or_else(|| panic!("VM {} runs with open ID registers", self.vm.id));
        // SAFETY: this vCPU is entered next; so for all that follow.
        unsafe { traps::load(traps, local.midr, idreg::vmpidr(self.id as u8), self.virtual_serror) };
        self.fp.found(fp_loaded);
        fp::set_cptr(traps.cptr, self.fp.traps());
        // SAFETY: as above.
        unsafe { self.el1.load() };
        if local.host.mte {
            // SAFETY: as above, and the CPU has FEAT_MTE2.
            unsafe { self.mte.load() };
        }
        if local.host.pauth {
            // SAFETY: as above, and the CPU has FEAT_PAuth.
            unsafe { self.pauth.load() };
        }
        // SAFETY: as above.
        unsafe { self.put_in_interface(local) };
        let model = self.vm.vgic.lock();
        let active = FORWARDED.map(|intid| model.pending_hw_active(self.id, intid));
        drop(model);
        for (intid, active) in FORWARDED.into_iter().zip(active) {
            local.redistributor.set_active(intid, active);
        }
        gic::complete();
        // SAFETY: as above. Last: a timer that is due fires from here on.
        unsafe { self.timers.load(self.counter_offset()) };
        if self.nested.is_some() {
            // SAFETY: as above; all that the states have in common is loaded.
            unsafe { self.load_nested(local) };
        }
    }

    /// Takes the virtual CPU interface out of the hardware: for another vCPU, or for a guest of this one's.
    #[inline(never)]
    pub(crate) fn take_out_interface(&mut self, local: &Local) {
        let changes = self.vm.vgic.lock().unload(self.id, &mut HardwareListRegisters);
        self.vgic.save(local.host.vgic.active_priority_registers);
        deactivate(changes.deactivate, local);
        self.vm.kick(changes.kick, None);
    }

    /// Puts it back.
    ///
    /// # Safety
    /// The vCPU must be entered next.
    #[inline(never)]
    pub(crate) unsafe fn put_in_interface(&mut self, local: &Local) {
        // SAFETY: the caller's promise.
        unsafe { self.vgic.load(local.host.vgic.active_priority_registers) };
        let changes = self.vm.vgic.lock().load(self.id, &mut HardwareListRegisters);
        deactivate(changes.deactivate, local);
        self.vm.kick(changes.kick, None);
    }

    /// ICH_VMCR_EL2 and the active priorities of both groups, while the interface is out.
    pub(crate) fn interface_masks(&self) -> (u64, [&[u64; 4]; 2]) {
        self.vgic.masks()
    }

    /// It wants to use SVE: the next [`load_fp`](Self::load_fp) brings it.
    pub(crate) fn ask_for_sve(&mut self) {
        self.fp.ask_for_sve();
    }

    /// What traps (CPTR_EL2) as long as its registers are where they are.
    pub(crate) fn fp_traps(&self) -> u64 {
        self.fp.traps()
    }

    /// ZCR_EL1 of the context that runs: ZCR_EL2 for virtual EL2.
    pub(crate) fn zcr(&self) -> u64 {
        self.fp.zcr()
    }

    /// Writes it. The vCPU must be resident.
    pub(crate) fn set_zcr(&mut self, value: u64) {
        self.fp.set_zcr(value);
    }

    /// Another context: its ZCR_EL1, and a LEN that bounds it, made from the old one's ZCR_EL1, which is
    /// returned. The vCPU must be resident.
    pub(crate) fn swap_zcr(&mut self, value: u64, limit: impl FnOnce(u64) -> u64) -> u64 {
        self.fp.swap_zcr(value, limit)
    }

    /// Saves the FP registers, which are this vCPU's.
    pub(crate) fn save_fp(&mut self) {
        self.fp.save();
    }

    /// Loads the FP registers, which nobody's are in the hardware any more, and lets the guest use them;
    /// `cptr` is CPTR_EL2 as it was when they trapped.
    ///
    /// # Safety
    /// The vCPU must be entered next.
    pub(crate) unsafe fn load_fp(&mut self, cptr: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.fp.load() };
        let closed = self.fp.traps() | self.nested.as_ref().map_or(0, |nested| nested.closed_fp());
        fp::set_cptr(cptr & !(fp::TFP | fp::TZ), cptr & closed);
    }

    /// Takes back a timer interrupt whose line has fallen before the guest acknowledged it: the guest
    /// masked or moved its timer, which does not exit. To be asked before the guest reads pending
    /// state.
    pub(crate) fn sample_timers(&mut self, local: &Local) {
        if self.nested.is_some() {
            return nested::timers::update(self, local);
        }
        for (intid, level) in FORWARDED.into_iter().zip(timer::lines()) {
            if !level {
                let kick = self.vm.vgic.lock().set_line(self.id, intid, false);
                self.vm.kick(kick, Some(self.id));
            }
        }
    }

    /// Brings list registers and model together, as a kick or a maintenance interrupt asks.
    pub(crate) fn sync_interrupts(&mut self, local: &Local) {
        let changes = self.vm.vgic.lock_hot().sync(self.id, &mut HardwareListRegisters);
        deactivate(changes.deactivate, local);
        self.vm.kick(changes.kick, None);
    }
}

/// Deactivates physical interrupts that no guest will end any more.
#[inline(always)]
fn deactivate(intids: PhysIntids, local: &Local) {
    if !intids.is_empty() {
        deactivate_each(intids, local);
    }
}

#[cold]
fn deactivate_each(intids: PhysIntids, local: &Local) {
    for intid in intids.iter() {
        if intid < 32 {
            local.redistributor.set_active(intid, false);
        } else {
            gic::deactivate(intid);
        }
    }
}
