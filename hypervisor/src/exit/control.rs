//! Hypercalls of control VMs: the life of other VMs.

use super::call::results;
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::Resume;
use crate::vm::Vm;
use abi::hypercall::{self, Error, StopCause};
use core::sync::atomic::Ordering;
use manifest::Control;
use vdev::smccc::signed;

pub(super) const fn code(e: Error) -> u64 {
    signed(e as i64)
}

/// Whether the caller is a control VM at all.
fn is_control(vcpu: &Vcpu) -> bool {
    vcpu.vm.spec.control != Control::None
}

/// The VM that x1 names, if the caller may control it.
pub(super) fn target(vcpu: &Vcpu, local: &Local, id: u64) -> Result<&'static Vm, Error> {
    if !is_control(vcpu) {
        return Err(Error::Denied);
    }
    let id = usize::try_from(id).map_err(|_| Error::Invalid)?;
    let vm = local.machine.vms.get(id).ok_or(Error::Invalid)?;
    if vcpu.vm.controls(id) { Ok(vm) } else { Err(Error::Denied) }
}

/// VM_LIST.
pub(super) fn list(vcpu: &mut Vcpu, local: &Local, first: u64) -> Option<Resume> {
    if !is_control(vcpu) {
        return results(vcpu, &[code(Error::Denied)]);
    }
    let count = local.machine.vms.len();
    let bitmap = (0..64u64)
        .filter(|bit| {
            let id = first.checked_add(*bit).and_then(|id| usize::try_from(id).ok());
            id.is_some_and(|id| id < count && vcpu.vm.controls(id))
        })
        .fold(0u64, |map, bit| map | 1u64.wrapping_shl(bit as u32));
    results(vcpu, &[0, count as u64, bitmap])
}

/// VM_INFO.
pub(super) fn info(vcpu: &mut Vcpu, local: &Local, id: u64) -> Option<Resume> {
    let about = if id == hypercall::SELF { Ok(vcpu.vm) } else { target(vcpu, local, id) };
    match about {
        Ok(vm) => {
            let mut name = [0; 16];
            for (to, from) in name.iter_mut().zip(vm.spec.name.bytes()) {
                *to = from;
            }
            let name = u128::from_le_bytes(name);
            let state = vm.life.lock().state as u64;
            let ram = vm.backing.iter().filter(|b| b.prepared_at_start).flat_map(|b| &b.pieces);
            let ram = ram.map(|p| p.size()).sum();
            let starts = vm.starts.load(Ordering::Relaxed);
            let exits = vm.vcpus.iter().map(|vcpu| vcpu.exits.without_interrupts()).sum();
            let vcpus = vm.vcpus.len() as u64;
            results(vcpu, &[0, state, name as u64, (name >> 64) as u64, vcpus, starts, ram, exits])
        }
        Err(e) => results(vcpu, &[code(e)]),
    }
}

fn done(result: Result<(), Error>) -> u64 {
    result.map_or_else(code, |()| 0)
}

/// VM_START. What is invalid may also be the VM's ID registers: x1 says which rule they break.
pub(super) fn start(vcpu: &mut Vcpu, local: &Local, id: u64) -> Option<Resume> {
    let vm = match target(vcpu, local, id) {
        Ok(vm) => vm,
        Err(e) => return results(vcpu, &[code(e), 0]),
    };
    let rule = || vm.freeze_identity().err().map_or(0, |rule| rule as u64);
    match vm.request_start() {
        Ok(()) => results(vcpu, &[0]),
        Err(e) => results(vcpu, &[code(e), rule()]),
    }
}

/// VM_STOP.
pub(super) fn stop(vcpu: &Vcpu, local: &Local, id: u64) -> u64 {
    done(target(vcpu, local, id).and_then(|vm| {
        let stopping = vm.request_stop(StopCause::Request, false);
        if stopping { Ok(()) } else { Err(Error::Busy) }
    }))
}

/// VM_RESTART.
pub(super) fn restart(vcpu: &Vcpu, local: &Local, id: u64) -> u64 {
    done(target(vcpu, local, id).and_then(|vm| vm.request_restart(StopCause::Request)))
}

/// EVENT_NEXT.
pub(super) fn event_next(vcpu: &mut Vcpu) -> Option<Resume> {
    if !is_control(vcpu) {
        return results(vcpu, &[code(Error::Denied)]);
    }
    let next = vcpu.vm.events.lock().next();
    match next {
        Some((event, lost)) => results(vcpu, &[0, event.kind as u64, event.vm as u64, event.detail, lost]),
        None => results(vcpu, &[code(Error::Empty)]),
    }
}
