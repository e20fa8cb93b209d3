//! Copies of data: MEMORY_COPY, DEVICE_COPY, DEBUG_COPY.

use super::{Progress, answer, copied, to_guest};
use crate::arch::copy::bytes_mut;
use crate::arch::timer;
use crate::cpu::Local;
use crate::vcpu::apply::Resume;
use crate::vcpu::{Vcpu, request};
use crate::vm::Vm;
use crate::vm::reach::{Purpose, Reached};
use abi::hypercall::{CopyEnd, Error};
use addr::{PAGE_SIZE, Va};
use tags::copy::{DataCopy, Direction};
use vmsa::walk::{self, Privilege};

/// Bytes of one call.
const DATA_BYTES: u64 = 40 << 10;
/// How old a vCPU's registers may be when an address is translated by them, in microseconds.
const FRESH: u64 = 100_000;

/// MEMORY_COPY and DEVICE_COPY.
#[inline(never)]
pub(in crate::exit) fn data(vcpu: &mut Vcpu, local: &Local, purpose: Purpose) -> Option<Resume> {
    let x = |n| vcpu.regs.get(n);
    let progress = copied(vcpu, local).and_then(|held| {
        let vm = held.0;
        let copy = DataCopy::new(x(2), x(3), x(4), x(5)).ok_or(Error::Invalid)?;
        let copy_all = || {
            steps(&copy, DATA_BYTES, |offset, most| {
                let at = copy.start.saturating_add(offset);
                piece(vm, vcpu.vm, at, copy.buffer.saturating_add(offset), most, copy.direction, purpose)
            })
        };
        Ok(match (copy.direction, purpose) {
            (Direction::ToGuest, Purpose::Whole) => to_guest(copy_all),
            // What a device, or the caller, has written into memory its owner publishes before it executes
            // that.
            (Direction::FromGuest, _) | (Direction::ToGuest, Purpose::Device | Purpose::Buffer) => copy_all(),
        })
    });
    answer(vcpu, progress)
}

/// Calls `f` with an offset and how much to do there at most, until all is done, or `most`, or it fails.
fn steps(copy: &DataCopy, most: u64, mut f: impl FnMut(u64, u64) -> Reached) -> Progress {
    let (all, mut done) = (copy.length.min(most), 0);
    while done < all {
        let step = f(done, (all - done).min(PAGE_SIZE));
        done += step.done as u64;
        if step.end != CopyEnd::Complete {
            return Progress { done, end: step.end, used: done };
        }
    }
    let end = if done < copy.length { CopyEnd::More } else { CopyEnd::Complete };
    Progress { done, end, used: done }
}

/// Copies at most a page of data.
fn piece(
    vm: &Vm,
    caller: &Vm,
    guest: u64,
    buffer: u64,
    most: u64,
    direction: Direction,
    purpose: Purpose,
) -> Reached {
    let mut page = [0_u64; PAGE_SIZE as usize / 8];
    let page = bytes_mut(&mut page).get_mut(..most as usize).unwrap_or(&mut []);
    let (source, from) = match direction {
        Direction::FromGuest => (vm.read(guest, page, purpose), caller),
        Direction::ToGuest => (caller.read(buffer, page, Purpose::Buffer), vm),
    };
    let ready = page.get(..source.done).unwrap_or(&[]);
    let target = match direction {
        Direction::FromGuest => from.write(buffer, ready, Purpose::Buffer),
        Direction::ToGuest => from.write(guest, ready, purpose),
    };
    if target.end == CopyEnd::Complete { source } else { target }
}

/// DEBUG_COPY.
#[inline(never)]
pub(in crate::exit) fn debug(vcpu: &mut Vcpu, local: &Local) -> Option<Resume> {
    let x = |n| vcpu.regs.get(n);
    let progress = copied(vcpu, local).and_then(|held| {
        let vm = held.0;
        if !vm.spec.debug {
            return Err(Error::Denied);
        }
        // EL1's registers may be those of a guest's guest, behind a stage 2 of the VM's own.
        if vm.spec.nested.is_some() {
            return Err(Error::NotSupported);
        }
        let of = usize::try_from(x(2)).map_err(|_| Error::Invalid)?;
        let shared = vm.vcpus.get(of).ok_or(Error::Invalid)?;
        let copy = DataCopy::new(x(3), x(4), x(5), x(6)).ok_or(Error::Invalid)?;
        // The registers are the vCPU's CPU's to read.
        let now = timer::now();
        let fresh = |at: u64| now.saturating_sub(at) / (timer::frequency() / 1_000_000).max(1) < FRESH;
        let Some((_, regime)) = shared.take_regime().filter(|(at, _)| fresh(*at)) else {
            vm.ask(of, request::REGIME, false);
            return Err(Error::Busy);
        };
        let copy_all = || {
            steps(&copy, DATA_BYTES / 2, |offset, most| {
                let va = copy.start.saturating_add(offset);
                let access = walk::Access::Read;
                let Ok(at) = walk::translate(vm, &regime, Va::new(va), Privilege::El1, access) else {
                    return Reached { done: 0, end: CopyEnd::Unmapped };
                };
                let most = most.min(PAGE_SIZE - va % PAGE_SIZE);
                let buffer = copy.buffer.saturating_add(offset);
                piece(vm, vcpu.vm, at.ipa.get(), buffer, most, copy.direction, Purpose::Whole)
            })
        };
        Ok(match copy.direction {
            Direction::FromGuest => copy_all(),
            Direction::ToGuest => to_guest(copy_all),
        })
    });
    answer(vcpu, progress)
}
