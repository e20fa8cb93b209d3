//! Emulated devices: which one an IPA means, and its access.

use crate::arch::{syndrome, timer};
use crate::cpu::Local;
use crate::lock::Hot;
use crate::vcpu::{Vcpu, request};
use addr::{Canonical, Ipa};
use manifest::layout::{GICD, GICR, GICR_STRIDE, UART};
use trap::{AccessSize, DataAbort};
use vgic::{Access, Kick};

/// Registers of the distributor or an SGI frame that show or change pending, active or enable
/// state: the list registers must be folded into the model first (IHI 0069 12.9, 12.11).
const fn shows_state(offset: u32, write: bool) -> bool {
    matches!(offset, 0x200..0x400) || write && matches!(offset, 0x100..0x200)
}

/// Registers that show pending and active state, of which list registers of other vCPUs may have more.
const fn shows_more(offset: u32, write: bool) -> bool {
    !write && matches!(offset, 0x200..0x400)
}

/// Whether what `holders` did with interrupts in their list registers is in the model. They are asked to put it
/// there; until they have, the guest repeats the access, for a second at most: then they do not run.
#[cold]
#[inline(never)]
fn have_folded(vcpu: &mut Vcpu, holders: Kick) -> bool {
    let (now, here) = (timer::now(), syndrome::elr());
    let since = match vcpu.awaits_folds {
        Some((at, since)) if at == here => since,
        _ => now,
    };
    let mut all = true;
    for holder in holders {
        if !vcpu.vm.vcpus.get(holder).is_none_or(|shared| shared.has_folded(since)) {
            vcpu.vm.ask(holder, request::FOLD, false);
            all = false;
        }
    }
    let done = all || now.saturating_sub(since) > timer::frequency();
    vcpu.repeats = !done;
    vcpu.awaits_folds = if done { None } else { Some((here, since)) };
    done
}

const fn access(size: AccessSize) -> Access {
    match size {
        AccessSize::Byte => Access::Byte,
        AccessSize::Half => Access::Half,
        AccessSize::Word => Access::Word,
        AccessSize::Double => Access::Double,
    }
}

/// Carries out a load or store of one register at `ipa`; false if no device is there, or if the guest has to
/// repeat the access ([`Vcpu::repeats`]).
#[inline(always)]
pub(crate) fn emulate(vcpu: &mut Vcpu, local: &mut Local, abort: &DataAbort, ipa: Ipa<Canonical>) -> bool {
    if GICD.contains(ipa) {
        let offset = (ipa.get() - GICD.start().get()) as u32;
        return distributor(vcpu, local, abort, offset);
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
fn distributor(vcpu: &mut Vcpu, local: &mut Local, abort: &DataAbort, offset: u32) -> bool {
    let write = abort.write();
    if shows_state(offset, write) {
        vcpu.sync_interrupts(local);
        if shows_more(offset, write) {
            let holders = vcpu.vm.vgic.lock().dist_holders(vcpu.id, offset);
            if !have_folded(vcpu, holders) {
                return false;
            }
        }
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
    true
}

#[inline(never)]
fn redistributor(vcpu: &mut Vcpu, local: &mut Local, abort: &DataAbort, offset: u64) -> bool {
    let target = (offset / GICR_STRIDE) as usize;
    if target >= vcpu.vm.vcpus.len() {
        return false;
    }
    let offset = (offset % GICR_STRIDE) as u32;
    let write = abort.write();
    if let Some(of_interrupts) = offset.checked_sub(0x1_0000) {
        if target == vcpu.id && shows_state(of_interrupts, write) {
            vcpu.sample_timers(local);
            vcpu.sync_interrupts(local);
        }
        if target != vcpu.id && shows_more(of_interrupts, write) {
            let holders = vcpu.vm.vgic.lock().redist_holders(vcpu.id, target);
            if !have_folded(vcpu, holders) {
                return false;
            }
        }
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
