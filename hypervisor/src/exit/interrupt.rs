//! Physical interrupts: kicks, timers of the guest in residence, EL2's own timer, the console,
//! devices given to VMs.

use crate::arch::{cpu, gic, timer};
use crate::console;
use crate::cpu::Local;
use crate::dev::gic::KICK;
use crate::lock::Hot;
use crate::nested;
use crate::panic;
use crate::vcpu::Vcpu;
use manifest::layout::{PTIMER_INTID, VTIMER_INTID};

/// EL2's physical timer (PPI 10).
pub(crate) const HYP_TIMER: u32 = 26;
/// The GIC maintenance interrupt (PPI 9).
pub(crate) const MAINTENANCE: u32 = 25;

/// An interrupt took the guest off the CPU; true if the scheduler has to look.
#[inline(always)]
pub(crate) fn handle(vcpu: &mut Vcpu, local: &mut Local) -> bool {
    vcpu.shared.exits.interrupts.bump();
    let Some(intid) = gic::acknowledge() else { return false };
    gic::drop_priority(intid);
    match intid {
        KICK => {
            gic::deactivate(intid);
            // What was asked of this vCPU is seen at the hazard test.
            if panic::panicking() || console::is_closed() {
                cpu::halt();
            }
            local.shared.take_reschedule()
        }
        VTIMER_INTID | PTIMER_INTID => {
            // Stays active until the guest's own EOI, through the list register, ends it.
            let kick = vcpu.vm.vgic.lock_hot().hw_fired(vcpu.id, intid);
            vcpu.vm.kick(kick, Some(vcpu.id));
            false
        }
        MAINTENANCE => {
            vcpu.sync_interrupts(local);
            gic::complete();
            gic::deactivate(intid);
            false
        }
        other => device(local, other),
    }
}

/// Interrupts while no guest runs on this CPU. `resident`: the vCPU whose timers are in the hardware.
pub(crate) fn poll(local: &mut Local, mut resident: Option<&mut Vcpu>) {
    while let Some(intid) = gic::acknowledge() {
        gic::drop_priority(intid);
        match intid {
            VTIMER_INTID | PTIMER_INTID => match resident.as_deref_mut() {
                Some(vcpu) if vcpu.nested.is_some() => {
                    nested::timers::fired(vcpu, local, intid);
                }
                Some(vcpu) => {
                    let kick = vcpu.vm.vgic.lock_hot().hw_fired(vcpu.id, intid);
                    // The scheduler looks at its requests next.
                    vcpu.vm.kick(kick, Some(vcpu.id));
                }
                None => gic::deactivate(intid),
            },
            MAINTENANCE => {
                // The line is a level: what raised it must be gone before it is deactivated.
                match resident.as_deref_mut() {
                    Some(vcpu) if vcpu.nested.is_some() => nested::lists::maintain(vcpu, local),
                    Some(vcpu) => vcpu.sync_interrupts(local),
                    None => {}
                }
                gic::complete();
                gic::deactivate(intid);
            }
            other => {
                others(local, other);
            }
        }
    }
}

/// Interrupts that are not the vCPU's in residence, whose priority is dropped; true if the scheduler has
/// to look.
#[inline(never)]
pub(crate) fn others(local: &mut Local, intid: u32) -> bool {
    if intid != KICK {
        return device(local, intid);
    }
    gic::deactivate(intid);
    if panic::panicking() || console::is_closed() {
        cpu::halt();
    }
    local.shared.take_reschedule()
}

/// Interrupts that have nothing to do with the vCPU in residence.
#[inline(never)]
fn device(local: &mut Local, intid: u32) -> bool {
    if intid == HYP_TIMER {
        timer::set_alarm(None);
        gic::deactivate(intid);
        console::service();
        return true;
    }
    if Some(intid) == local.machine.uart_intid {
        console::interrupt();
        gic::deactivate(intid);
        return true;
    }
    for vm in &local.machine.vms {
        if let Some((_, guest)) = vm.forwarded.iter().find(|(physical, _)| *physical == intid) {
            let kick = vm.vgic.lock().hw_fired(0, *guest);
            vm.kick(kick, None);
            return true;
        }
    }
    // Nobody's: it was never enabled, or belongs to nobody any more.
    gic::deactivate(intid);
    false
}
