//! Hypercalls of control VMs about tags: faults, lazy memory.

use super::call::results;
use super::control::{code, target};
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::Resume;
use crate::vm::Vm;
use crate::vm::lazy::Change;
use abi::hypercall::{ALL_REGIONS, Error, FaultDecision};
use addr::{BLOCK_2M, Ipa, IpaRange, PAGE_SIZE};
use manifest::Tags;
use tags::lazy::Size;

/// Units that one TAG_DEMOTE looks at, and that it turns back.
const LOOK: usize = 512;
const TURN: usize = 16;

/// FAULT_INFO.
pub(super) fn fault_info(vcpu: &mut Vcpu, local: &Local, id: u64, of: u64) -> Option<Resume> {
    let last = target(vcpu, local, id).and_then(|vm| {
        let of = usize::try_from(of).map_err(|_| Error::Invalid)?;
        let (record, count) = vm.faults.lock().last(of).ok_or(Error::Invalid)?;
        Ok((record.ok_or(Error::Empty)?, count))
    });
    match last {
        Ok((r, count)) => {
            let decision = r.decision.map_or(0, |d| d as u64);
            let region = r.region as u64;
            let access = r.access as u64;
            results(vcpu, &[0, r.state as u64, r.pc, r.va, r.ipa, region, access, decision, r.esr, count])
        }
        Err(e) => results(vcpu, &[code(e)]),
    }
}

/// FAULT_DECIDE.
pub(super) fn fault_decide(vcpu: &Vcpu, local: &Local, id: u64, of: u64, decision: u64) -> u64 {
    let decided = target(vcpu, local, id).and_then(|vm| {
        let decision = FaultDecision::from_number(decision).ok_or(Error::Invalid)?;
        vm.decide_fault(usize::try_from(of).map_err(|_| Error::Invalid)?, decision)
    });
    decided.map_or_else(code, |()| 0)
}

/// TAG_STATS.
pub(super) fn stats(vcpu: &mut Vcpu, local: &Local, id: u64, region: u64) -> Option<Resume> {
    match target(vcpu, local, id) {
        Ok(vm) if region == ALL_REGIONS => results(vcpu, &of_vm(vm)),
        Ok(vm) => match of_region(vm, usize::try_from(region).unwrap_or(usize::MAX)) {
            Some(stats) => results(vcpu, &stats),
            None => results(vcpu, &[code(Error::Invalid)]),
        },
        Err(e) => results(vcpu, &[code(e)]),
    }
}

fn of_vm(vm: &Vm) -> [u64; 8] {
    let map = vm.map.lock();
    let ledger = &map.lazy.ledger;
    let pages = ledger.size().pages();
    let (counts, quota) = (ledger.counts(), ledger.quota());
    [
        0,
        vm.spec.regions.len() as u64,
        pages,
        quota.map_or(u64::MAX, |units| units.saturating_mul(pages)),
        counts.used.saturating_mul(pages),
        counts.promoted.saturating_mul(pages),
        counts.demoted.saturating_mul(pages),
        counts.refused,
    ]
}

fn of_region(vm: &Vm, number: usize) -> Option<[u64; 9]> {
    let region = vm.spec.regions.get(number)?;
    let size = region.ipa.size() / PAGE_SIZE;
    let map = vm.map.lock();
    let tagged = match (vm.spec.mte, region.tags) {
        (false, _) | (true, Tags::None) => 0,
        (true, Tags::Backed) => size,
        // Without NoTagAccess it is like backed memory, and no ledger knows of it.
        (true, Tags::Lazy) => map.lazy.ledger.tagged(region.ipa.start()).unwrap_or(size),
    };
    drop(map);
    let faults = vm.faults.lock().of_region(number);
    let kind = match region.tags {
        Tags::Backed => 0,
        Tags::None => 1,
        Tags::Lazy => 2,
    };
    let start = region.ipa.start().get();
    Some([0, start, size, kind, tagged, faults.stopped, faults.injected, faults.reported, faults.tag_writes])
}

/// TAG_QUOTA.
pub(super) fn quota(vcpu: &mut Vcpu, local: &Local, id: u64, pages: u64) -> Option<Resume> {
    let before = target(vcpu, local, id).and_then(|vm| {
        let mut map = vm.map.lock();
        let before =
            map.lazy.ledger.quota().map_or(u64::MAX, |q| q.saturating_mul(map.lazy.ledger.size().pages()));
        map.lazy.ledger.set_quota(pages).ok_or(Error::Invalid)?;
        Ok(before)
    });
    match before {
        Ok(pages) => results(vcpu, &[0, pages]),
        Err(e) => results(vcpu, &[code(e)]),
    }
}

/// TAG_DEMOTE.
pub(super) fn demote(vcpu: &mut Vcpu, local: &Local, id: u64, ipa: u64, bytes: u64) -> Option<Resume> {
    let done = target(vcpu, local, id).and_then(|vm| demote_some(vm, ipa, bytes));
    match done {
        Ok((bytes, pages)) => results(vcpu, &[0, bytes, pages]),
        Err(e) => results(vcpu, &[code(e)]),
    }
}

/// Bytes done and pages turned back.
fn demote_some(vm: &Vm, ipa: u64, bytes: u64) -> Result<(u64, u64), Error> {
    let range = IpaRange::new(Ipa::new(ipa), bytes).ok_or(Error::Invalid)?;
    let mut map = vm.map.lock();
    let unit = map.lazy.ledger.size();
    let inside = map.lazy.ledger.regions().any(|r| r.contains_range(&range));
    if !range.is_aligned(unit.bytes()) || !inside {
        return Err(Error::Invalid);
    }
    let (mut at, mut turned) = (range.start(), 0);
    for _ in 0..if unit == Size::Block { 1 } else { TURN } {
        let left = range.end().offset_from(at).and_then(|left| IpaRange::new(at, left));
        let (found, end) = map.lazy.ledger.first_tagged(left.ok_or(Error::Invalid)?, LOOK / TURN);
        at = end;
        let Some(found) = found else { continue };
        match map.demote(found.start()) {
            Change::Done(_) => turned += unit.pages(),
            // A part of a large unit: the next call goes on with it.
            Change::Underway => break,
            Change::Refused => return Err(Error::Invalid),
        }
        at = found.end();
    }
    Ok((at.offset_from(range.start()).unwrap_or(0), turned))
}

const _: () = assert!(Size::Block.bytes() == BLOCK_2M);
