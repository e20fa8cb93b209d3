//! Interrupts of a vCPU with virtual EL2: L0's for L1, and L1's for L2.
//!
//! In vEL2, and in L2 as long as L1 does not claim interrupts (IMO, FMO), the list registers are L0's,
//! as for any vCPU. In L2 with IMO or FMO they are L1's, from the page. What L0 has for L1 then waits
//! in the model, and takes L2 back to vEL2 as an IRQ as soon as L1's CPU interface would signal it.
//! L1's maintenance interrupt is a line of L0's model, whose level follows from the page.

use super::take;
use crate::arch::nested as hw;
use crate::cpu::Local;
use crate::vcpu::{Vcpu, request};
use ::nested::{lists, page};
use manifest::layout::MAINTENANCE_INTID;

/// Whether the list registers of the hardware are L1's.
pub(super) fn are_l1s(vcpu: &Vcpu) -> bool {
    vcpu.nested.as_ref().is_some_and(|n| n.lists_loaded)
}

/// Interrupts for the vCPU may have changed, or an SError is pending for it: brings L0's list registers in line, or lets L1 take them
/// from L2.
pub(crate) fn sync(vcpu: &mut Vcpu, local: &Local) {
    super::serror::deliver(vcpu, local);
    // They were taken out in the middle of an exit, for what is as for any VM.
    load(vcpu, local);
    if are_l1s(vcpu) { interrupt_l2(vcpu, local) } else { vcpu.sync_interrupts(local) }
}

/// The vCPU has entered L2, or become resident: L1's list registers go in if it is their turn. PC and
/// PSTATE are final.
pub(super) fn entered(vcpu: &mut Vcpu, local: &Local) {
    load(vcpu, local);
    if are_l1s(vcpu) {
        interrupt_l2(vcpu, local);
    }
}

/// What follows is as for any VM, and may want the list registers to be L0's: L1's go in again on the
/// way into the guest.
pub(super) fn lend(vcpu: &mut Vcpu, local: &Local) {
    if are_l1s(vcpu) {
        unload(vcpu, local);
        vcpu.vm.ask(vcpu.id, request::INTERRUPT, true);
    }
}

fn load(vcpu: &mut Vcpu, local: &Local) {
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    if nested.lists_loaded || !nested.in_l2 || !nested.hcr().owns_interrupts() {
        return;
    }
    nested.lists_loaded = true;
    vcpu.take_out_interface(local);
    if let Some(nested) = &vcpu.nested {
        // SAFETY: the vCPU is entered next, in L2; its own list registers are out.
        unsafe { hw::load_lists(&nested.page, &local.host.vgic) };
    }
}

/// Takes L1's list registers out, if they are in, and puts L0's back.
pub(super) fn unload(vcpu: &mut Vcpu, local: &Local) {
    if !are_l1s(vcpu) {
        return;
    }
    fold(vcpu);
    if let Some(nested) = vcpu.nested.as_deref_mut() {
        hw::unload_lists(&nested.page, &local.host.vgic);
        nested.lists_loaded = false;
    }
    // SAFETY: the vCPU is resident, and entered next or taken out.
    unsafe { vcpu.put_in_interface(local) };
}

/// Brings L1's list registers up to date with what L2 did, ends what L2 ended, and raises or lowers
/// L1's maintenance interrupt.
fn fold(vcpu: &mut Vcpu) {
    let Some(nested) = &vcpu.nested else { return };
    let (vm, id) = (vcpu.vm, vcpu.id);
    hw::fold_lists(&nested.page, &interface(), |intid| {
        let kick = vm.vgic.lock().deactivate(id, intid);
        vm.kick(kick, Some(id));
    });
    set_maintenance_line(vcpu);
}

/// The line of L1's maintenance interrupt follows the page.
pub(super) fn set_maintenance_line(vcpu: &mut Vcpu) {
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    let level = nested.misr() != 0;
    if nested.timers.maintenance != level {
        nested.timers.maintenance = level;
        let kick = vcpu.vm.vgic.lock().set_line(vcpu.id, MAINTENANCE_INTID, level);
        vcpu.vm.kick(kick, Some(vcpu.id));
    }
}

fn interface() -> crate::arch::gic::VirtualInterface {
    crate::arch::gic::virtual_interface()
}

impl super::Nested {
    /// L1's list registers.
    pub(super) fn list_registers(&self) -> impl Iterator<Item = u64> {
        let count = usize::from(interface().list_registers);
        (0..count).map(|n| self.page.get(page::ICH_LR0_EL2 + n))
    }

    /// ICH_MISR_EL2 while vEL2 runs; 0 while the virtual CPU interface is off.
    pub(super) fn misr(&self) -> u64 {
        let hcr = self.page.get(page::ICH_HCR_EL2);
        if hcr & lists::ich_hcr::EN == 0 {
            return 0;
        }
        lists::misr(self.list_registers(), hcr, self.page.get(page::ICH_VMCR_EL2))
    }
}

/// The physical maintenance interrupt came.
pub(crate) fn maintain(vcpu: &mut Vcpu, local: &Local) {
    if are_l1s(vcpu) {
        fold(vcpu);
        // What L2 has ended may have been its timer's: is the line still high?
        super::timers::update(vcpu, local);
        // Whatever it is: an interrupt that stays would keep the CPU.
        if hw::is_maintenance_due() {
            hw::mute_lists();
        }
        return interrupt_l2(vcpu, local);
    }
    // The end of one of L1's level-sensitive interrupts: is its line still high?
    super::timers::update(vcpu, local);
    set_maintenance_line(vcpu);
    vcpu.sync_interrupts(local);
}

/// Takes L2 back to vEL2 if L1 has an interrupt to take.
fn interrupt_l2(vcpu: &mut Vcpu, local: &Local) {
    // VENG0 and VENG1: what L1 does not let in hides nothing.
    let (vmcr, active) = vcpu.interface_masks();
    let Some(best) = vcpu.vm.vgic.lock().most_urgent(vcpu.id, vmcr & 3) else { return };
    let running = lists::running_priority(active, local.host.vgic.active_priority_registers);
    if lists::would_signal(best.priority, best.group1, vmcr, running) {
        take::interrupt(vcpu, local, best.group1);
    }
}
