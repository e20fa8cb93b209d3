//! The dirty log of a VM: `tags::dirty` says what is in it, stage 2 sees the stores.
//!
//! All of it happens under `vm.map`. While the log is on, memory of kind `ram` that is clean is write-
//! protected. A store there faults (a tag store needs write permission like any other), is noted, and the
//! page becomes writable. What is still protected when the log is off becomes writable at its next store.

use super::Vm;
use super::map::{Access, GuestMap};
use super::reach::page;
use crate::arch::translate::{self, For};
use crate::exit::{Outcome, abort};
use crate::vcpu::Vcpu;
use crate::vcpu::apply::Resume;
use addr::{BLOCK_2M, Canonical, Ipa, IpaRange, PAGE_SIZE};
use manifest::{RegionKind, RegionSpec, VmSpec};
use tags::dirty::WORD_PAGES;
use trap::DataAbort;

/// Bytes that one call protects at most, of memory that may be mapped page by page.
const PROTECT_STEP: u64 = 2 * BLOCK_2M;
/// Words of the log that one call looks at, and of which it protects pages again.
const LOOK: usize = 256;
const PROTECT_WORDS: usize = 12;

impl GuestMap {
    /// Has the log cover the VM's own memory, if some VM controls it. Not of one with virtual EL2: stores of
    /// its L2 go through shadows, which the log does not see.
    pub(super) fn cover(&mut self, spec: &VmSpec, controlled: bool) {
        if controlled && spec.nested.is_none() {
            let own = |r: &&RegionSpec| matches!(r.kind, RegionKind::Ram | RegionKind::ReadOnly { .. });
            spec.regions.iter().filter(own).for_each(|r| self.dirty.add(r.ipa));
        }
    }

    /// Makes the page of `ipa` clean before it is copied; whether it was dirty.
    pub(super) fn dirty_take(&mut self, ipa: Ipa<Canonical>) -> bool {
        let page = page(ipa);
        if !self.dirty.is_on() || !self.dirty.covers(&page) {
            return false;
        }
        // What is on the move is not mapped now, and protected when it is again.
        if self.allows(ipa, Access::Write) || self.lazy.ledger.is_broken(ipa) {
            self.protect(page);
        }
        self.dirty.clear(ipa)
    }

    /// A store that the log forbids is noted, and allowed from now on.
    fn log_store(&mut self, ipa: Ipa<Canonical>, region: &IpaRange) {
        self.dirty.mark(ipa);
        let range = if self.dirty.is_on() { page(ipa) } else { around(ipa, region) };
        let changed = self.set_writable(range, true);
        assert!(changed.is_ok(), "no table to log a store to {ipa}");
    }

    /// Stores to this range of one region fault from now on.
    fn protect(&mut self, range: IpaRange) {
        let mut at = range.start();
        while let Some(left) = range.end().offset_from(at).filter(|left| *left != 0) {
            // Large units of lazy memory may be on the move, one by one; small ones never are by now.
            let unit = self.lazy.ledger.unit(at).filter(|unit| unit.size() == BLOCK_2M);
            let end = unit.map_or(left, |unit| unit.end().get() - at.get());
            let Some(part) = IpaRange::new(at, left.min(end)) else { break };
            let changed = self.set_writable(part, false);
            assert!(changed.is_ok(), "no table to protect {at}");
            at = part.end();
        }
    }
}

impl Vm {
    /// Protects and clears some of `range`, which the log covers; says how many bytes.
    pub(crate) fn dirty_start(&self, range: &IpaRange) -> u64 {
        let mut map = self.map.lock();
        map.dirty.start();
        let size = range.size().min(PROTECT_STEP - range.start().get() % BLOCK_2M);
        let Some(now) = IpaRange::new(range.start(), size) else { return 0 };
        map.protect(now);
        let mut at = now.start();
        while at < now.end() {
            map.dirty.word(at, (now.end().get() - at.get()) / PAGE_SIZE, true);
            let Some(next) = at.checked_add(WORD_PAGES * PAGE_SIZE) else { break };
            at = next;
        }
        size
    }

    /// The dirty pages of `range`, a bit each, as many words as `to` has at most; with `clear`, they are
    /// protected first. Says how many words.
    pub(crate) fn dirty_get(&self, range: &IpaRange, to: &mut [u64], clear: bool) -> usize {
        let mut map = self.map.lock();
        let (mut words, mut protected) = (0, 0);
        for (word, n) in to.iter_mut().take(LOOK).zip(0..) {
            let Some(at) = range.start().checked_add(n * WORD_PAGES * PAGE_SIZE) else { break };
            let Some(left) = range.end().offset_from(at).filter(|left| *left != 0) else { break };
            if protected == PROTECT_WORDS {
                break;
            }
            let count = (left / PAGE_SIZE).min(WORD_PAGES);
            *word = map.dirty.word(at, count, false);
            if clear && *word != 0 {
                // Protected, then clean: a store before is in this answer, one behind in the next.
                if let Some(pages) = IpaRange::new(at, count * PAGE_SIZE) {
                    map.protect(pages);
                }
                map.dirty.word(at, count, true);
                protected += 1;
            }
            words += 1;
        }
        words
    }

    /// The pages that [`dirty_get`](Self::dirty_get) cleared are dirty still: nobody has learnt of them.
    pub(crate) fn dirty_put_back(&self, range: &IpaRange, words: &[u64]) {
        let mut map = self.map.lock();
        for (word, n) in words.iter().zip(0..) {
            for bit in (0..WORD_PAGES).filter(|bit| word >> bit & 1 != 0) {
                let at = range.start().checked_add((n * WORD_PAGES + bit) * PAGE_SIZE);
                at.into_iter().for_each(|at| map.dirty.mark(at));
            }
        }
    }
}

/// A store, or a walk that sets a flag in a table, that stage 2 forbids: if it is the log that forbids it,
/// the page is dirty, and the guest repeats the access.
#[cold]
#[inline(never)]
pub(crate) fn store(vcpu: &Vcpu, abort: &DataAbort) -> Option<Outcome> {
    let vm = vcpu.vm;
    // Cache maintenance is no store, whatever its fault says; but its walk may be one. VMs with virtual EL2
    // are not logged, and an address of L2's is not the VM's.
    if vm.spec.nested.is_some() || !(abort.s1ptw() || abort.write()) {
        return None;
    }
    // HPFAR_EL2 is valid for a walk only.
    let ipa = match abort.ipa.filter(|_| abort.s1ptw()) {
        Some(ipa) => ipa,
        None => match translate::guest_ipa(abort.va, For::exited(true)) {
            Ok(ipa) => ipa,
            Err(why) => return Some(abort::without_address(vcpu, abort.va, why)),
        },
    };
    let region = logged(vm, ipa)?;
    let mut map = vm.map.lock();
    if !map.allows(ipa, Access::Write) {
        map.log_store(ipa, &region.ipa);
    }
    Some(Ok(Resume::Here))
}

/// A walk that sets a flag in the table entry at `ipa`, for an instruction that trapped before it: whether
/// it was the log that forbade it. `map` is that of the VM.
pub(crate) fn table_update(vm: &Vm, map: &mut GuestMap, ipa: Ipa<Canonical>) -> bool {
    let region = logged(vm, ipa).filter(|_| vm.spec.nested.is_none());
    let Some(region) = region.filter(|_| map.allows(ipa, Access::Read) && !map.allows(ipa, Access::Write))
    else {
        return false;
    };
    map.log_store(ipa, &region.ipa);
    true
}

/// The region at `ipa`, if the log may have protected it.
fn logged(vm: &Vm, ipa: Ipa<Canonical>) -> Option<&RegionSpec> {
    vm.region(ipa).ok().filter(|region| matches!(region.kind, RegionKind::Ram))
}

/// The 2 MiB around `ipa`, as far as they are in `region`.
fn around(ipa: Ipa<Canonical>, region: &IpaRange) -> IpaRange {
    let start = ipa.align_down(BLOCK_2M).max(region.start());
    let end =
        ipa.align_down(BLOCK_2M).checked_add(BLOCK_2M).map_or(region.end(), |end| end.min(region.end()));
    end.offset_from(start).and_then(|size| IpaRange::new(start, size)).unwrap_or_else(|| page(ipa))
}
