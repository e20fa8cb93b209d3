//! Hypercalls of control VMs about tags: faults, lazy memory.

use super::call::results;
use super::control::{code, target};
use crate::arch::copy;
use crate::cpu::Local;
use crate::mem::window;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::Resume;
use crate::vm::Vm;
use crate::vm::lazy::Change;
use crate::vm::reach::Purpose;
use abi::hypercall::{ALL_REGIONS, CopyEnd, DEMOTE_SAVE, Error, FaultDecision};
use addr::{BLOCK_2M, Ipa, IpaRange, PAGE_SIZE};
use manifest::Tags;
use tags::copy::{PACKED_BYTES, PageTags};
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

fn of_vm(vm: &Vm) -> [u64; 12] {
    let faults = vm.faults.lock().of_all();
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
        faults.stopped,
        faults.injected,
        faults.reported,
        faults.tag_writes,
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
pub(super) fn demote(vcpu: &mut Vcpu, local: &Local) -> Option<Resume> {
    let x = |n| vcpu.regs.get(n);
    let done = target(vcpu, local, x(1)).and_then(|vm| {
        let range = IpaRange::new(Ipa::new(x(2)), x(3)).ok_or(Error::Invalid)?;
        match x(4) {
            0 => demote_some(vm, &range, None),
            DEMOTE_SAVE => demote_and_save(vm, vcpu.vm, &range, x(5)),
            _ => Err(Error::Invalid),
        }
    });
    match done {
        Ok((bytes, pages)) => results(vcpu, &[0, bytes, pages]),
        Err(e) => results(vcpu, &[code(e)]),
    }
}

/// The tags that one call takes away: each page's number in the range, and its tags.
type Saved = [(u64, PageTags); TURN];

fn demote_and_save(vm: &Vm, caller: &Vm, range: &IpaRange, buffer: u64) -> Result<(u64, u64), Error> {
    // What is taken away is nowhere else until it is written: that must not fail.
    let space = (range.size() / PAGE_SIZE).checked_mul(PACKED_BYTES).ok_or(Error::Invalid)?;
    if !caller.is_fixed_buffer(buffer, space) {
        return Err(Error::Fault);
    }
    let mut saved: Saved = [(0, [0; 16]); TURN];
    let (bytes, pages) = demote_some(vm, range, Some(&mut saved))?;
    for (page, tags) in saved.iter().take(pages as usize) {
        let to = buffer.saturating_add(page.saturating_mul(PACKED_BYTES));
        let written = caller.write(to, copy::bytes(tags), Purpose::Buffer);
        assert!(written.end == CopyEnd::Complete, "memory of {} went away", caller.spec.name);
    }
    Ok((bytes, pages))
}

/// Bytes done and pages turned back.
fn demote_some(vm: &Vm, range: &IpaRange, mut saved: Option<&mut Saved>) -> Result<(u64, u64), Error> {
    let mut map = vm.map.lock();
    let unit = map.lazy.ledger.size();
    let inside = map.lazy.ledger.regions().any(|r| r.contains_range(range));
    // A large unit changes in steps, between which its tags would be lost.
    if !range.is_aligned(unit.bytes()) || !inside || (unit == Size::Block && saved.is_some()) {
        return Err(Error::Invalid);
    }
    let (mut at, mut turned) = (range.start(), 0);
    // Each is looked for in all shadows of a VM that hosts guests.
    for _ in 0..if unit == Size::Block || vm.nested.is_some() { 1 } else { TURN } {
        let left = range.end().offset_from(at).and_then(|left| IpaRange::new(at, left));
        let (found, end) = map.lazy.ledger.first_tagged(left.ok_or(Error::Invalid)?, LOOK / TURN);
        at = end;
        let Some(found) = found else { continue };
        let tags = map.leaf(found.start()).map(|leaf| leaf.pa);
        match map.demote(found.start()) {
            Change::Done(_) => {}
            // A part of a large unit: the next call goes on with it.
            Change::Underway => break,
            Change::Refused => return Err(Error::Invalid),
        }
        // The guest reaches these tags no more, and as long as the map is locked, nobody zeroes them.
        if let Some((page, to)) = saved.as_mut().and_then(|saved| saved.get_mut(turned as usize)) {
            *page = found.start().offset_from(range.start()).unwrap_or(0) / PAGE_SIZE;
            let loaded = tags.and_then(|pa| window::load_tags(pa, core::slice::from_mut(to)));
            assert!(loaded.is_some(), "no window for a VM's tags");
        }
        turned += unit.pages();
        at = found.end();
    }
    Ok((at.offset_from(range.start()).unwrap_or(0), turned))
}

const _: () = assert!(Size::Block.bytes() == BLOCK_2M);
