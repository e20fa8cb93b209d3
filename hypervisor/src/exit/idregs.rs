//! Hypercalls of control VMs: the ID registers of other VMs.

use super::call::results;
use super::control::{code, target};
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::Resume;
use crate::vm::Vm;
use abi::hypercall::{Error, IdregBound};
use idreg::{Bound, Denied, from_encoding, index_of};

/// x1 of IDREG_SET if no field is to blame.
const NO_FIELD: u64 = 64;

/// The VM, and the register's index in its table.
fn register(vcpu: &Vcpu, local: &Local, vm: u64, encoding: u64) -> Result<(&'static Vm, u8), Error> {
    let vm = target(vcpu, local, vm)?;
    let index = from_encoding(encoding).and_then(index_of).and_then(|index| u8::try_from(index).ok());
    Ok((vm, index.ok_or(Error::Invalid)?))
}

/// IDREG_GET.
pub(super) fn get(vcpu: &mut Vcpu, local: &Local, vm: u64, encoding: u64) -> Option<Resume> {
    match register(vcpu, local, vm, encoding) {
        Ok((vm, index)) => results(vcpu, &[0, vm.id_register(index.into())]),
        Err(e) => results(vcpu, &[code(e)]),
    }
}

/// IDREG_MASK. x3 is reserved.
pub(super) fn mask(vcpu: &mut Vcpu, local: &Local, vm: u64, encoding: u64, x3: u64) -> Option<Resume> {
    match register(vcpu, local, vm, encoding) {
        Ok((vm, index)) if x3 == 0 => results(vcpu, &[0, vm.id_mask(index)]),
        Ok(_) => results(vcpu, &[code(Error::Invalid)]),
        Err(e) => results(vcpu, &[code(e)]),
    }
}

/// IDREG_SET.
pub(super) fn set(vcpu: &mut Vcpu, local: &Local, vm: u64, encoding: u64, value: u64) -> Option<Resume> {
    let (vm, index) = match register(vcpu, local, vm, encoding) {
        Ok(found) => found,
        Err(e) => return results(vcpu, &[code(e), NO_FIELD]),
    };
    match vm.set_id_register(index, value) {
        Ok(()) => results(vcpu, &[0]),
        Err(Denied::Frozen) => results(vcpu, &[code(Error::Busy), NO_FIELD]),
        Err(Denied::Wrong(refused)) => {
            let bound = match refused.bound {
                Bound::Only => IdregBound::Only,
                Bound::AtMost => IdregBound::AtMost,
                Bound::AtLeast => IdregBound::AtLeast,
                Bound::OrAbsent => IdregBound::OrAbsent,
            };
            let error = code(Error::Invalid);
            results(vcpu, &[error, refused.lsb.into(), refused.asked, refused.allowed, bound as u64])
        }
    }
}
