//! Emulated devices: which one an IPA means, and its access.

use crate::cpu::Local;
use crate::lock::Hot;
use crate::vcpu::Vcpu;
use addr::{Canonical, Ipa};
use manifest::layout::{GICD, GICR, GICR_STRIDE, UART};
use trap::{AccessSize, DataAbort};
use vgic::Access;

/// Registers of the distributor or an SGI frame that show or change pending, active or enable
/// state: the list registers must be folded into the model first (IHI 0069 12.9, 12.11).
const fn shows_state(offset: u32, write: bool) -> bool {
    matches!(offset, 0x200..0x400) || write && matches!(offset, 0x100..0x200)
}

const fn access(size: AccessSize) -> Access {
    match size {
        AccessSize::Byte => Access::Byte,
        AccessSize::Half => Access::Half,
        AccessSize::Word => Access::Word,
        AccessSize::Double => Access::Double,
    }
}

/// Carries out a load or store of one register at `ipa`; false if no device is there.
#[inline(always)]
pub(crate) fn emulate(vcpu: &mut Vcpu, local: &mut Local, abort: &DataAbort, ipa: Ipa<Canonical>) -> bool {
    if GICD.contains(ipa) {
        let offset = (ipa.get() - GICD.start().get()) as u32;
        distributor(vcpu, local, abort, offset);
    } else if GICR.contains(ipa) {
        return redistributor(vcpu, local, abort, ipa.get() - GICR.start().get());
    } else if UART.contains(ipa) {
        uart(vcpu, abort, (ipa.get() - UART.start().get()) as u32);
    } else {
        return false;
    }
    true
}

#[inline(always)]
fn distributor(vcpu: &mut Vcpu, local: &mut Local, abort: &DataAbort, offset: u32) {
    let write = abort.write();
    if shows_state(offset, write) {
        vcpu.sync_interrupts(local);
    }
    let size = access(abort.size());
    let mut vgic = vcpu.vm.vgic.lock_hot();
    if write {
        let kick = vgic.dist_write(vcpu.id, offset, size, abort.truncate(vcpu.regs.get(abort.rt())));
        drop(vgic);
        vcpu.vm.kick(kick, Some(vcpu.id));
    } else {
        let value = vgic.dist_read(vcpu.id, offset, size);
        drop(vgic);
        vcpu.regs.set(abort.rt(), abort.extend(value));
    }
}

#[inline(never)]
fn redistributor(vcpu: &mut Vcpu, local: &mut Local, abort: &DataAbort, offset: u64) -> bool {
    let target = (offset / GICR_STRIDE) as usize;
    if target >= vcpu.vm.vcpus.len() {
        return false;
    }
    let offset = (offset % GICR_STRIDE) as u32;
    let write = abort.write();
    if target == vcpu.id && offset.checked_sub(0x1_0000).is_some_and(|o| shows_state(o, write)) {
        vcpu.sample_timers(local);
        vcpu.sync_interrupts(local);
    }
    let size = access(abort.size());
    let mut vgic = vcpu.vm.vgic.lock_hot();
    if write {
        let kick = vgic.redist_write(target, offset, size, abort.truncate(vcpu.regs.get(abort.rt())));
        drop(vgic);
        vcpu.vm.kick(kick, Some(vcpu.id));
    } else {
        let value = vgic.redist_read(target, offset, size);
        drop(vgic);
        vcpu.regs.set(abort.rt(), abort.extend(value));
    }
    true
}

#[inline(never)]
fn uart(vcpu: &mut Vcpu, abort: &DataAbort, offset: u32) {
    let kick = if abort.write() {
        vcpu.vm.uart_write(offset, abort.truncate(vcpu.regs.get(abort.rt())) as u32)
    } else {
        let (value, kick) = vcpu.vm.uart_read(offset);
        vcpu.regs.set(abort.rt(), abort.extend(u64::from(value)));
        kick
    };
    vcpu.vm.kick(kick, Some(vcpu.id));
}
