//! The dirty log, and data with tags for a VM that moves: DIRTY_LOG, MIGRATE_COPY.

use super::{LOOK_PAGES, Progress, answer, copied, ipa, to_guest};
use crate::arch::copy::{bytes, bytes_mut};
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::Resume;
use crate::vm::Vm;
use crate::vm::reach::Purpose;
use abi::hypercall::{COPY_DIRTY, COPY_FROM_GUEST, CopyEnd, DirtyOp, Error};
use addr::{Canonical, Ipa, IpaRange, PAGE_SIZE};
use tags::copy::{PageTags, Record, is_zero};
use tags::dirty::WORD_PAGES;

/// Pages of data and tags of one call.
const MIGRATE_PAGES: u64 = 12;

/// DIRTY_LOG.
#[inline(never)]
pub(in crate::exit) fn dirty_log(vcpu: &mut Vcpu, local: &Local) -> Option<Resume> {
    let x = |n| vcpu.regs.get(n);
    let progress = copied(vcpu, local).and_then(|held| {
        let vm = held.0;
        let op = DirtyOp::from_number(x(2)).ok_or(Error::Invalid)?;
        if op == DirtyOp::Stop {
            vm.map.lock().dirty.stop();
            return Ok(Progress::NONE);
        }
        let range = IpaRange::new(Ipa::new(x(3)), x(4)).filter(|r| r.is_aligned(PAGE_SIZE));
        let range = range.filter(|range| vm.map.lock().dirty.covers(range)).ok_or(Error::Invalid)?;
        let size = range.size();
        let more = |done| if done < size { CopyEnd::More } else { CopyEnd::Complete };
        let clear = match op {
            DirtyOp::Start => {
                let done = vm.dirty_start(&range);
                return Ok(Progress { done, end: more(done), used: 0 });
            }
            DirtyOp::Stop | DirtyOp::Get => false,
            DirtyOp::GetAndClear => true,
        };
        if !vm.map.lock().dirty.is_on() {
            return Err(Error::Busy);
        }
        // Before anything is cleared: the answer will be read, or nothing is lost.
        let mut words = [0_u64; 256];
        let most = (size / PAGE_SIZE).div_ceil(WORD_PAGES).min(words.len() as u64) as usize;
        let wanted = words.get_mut(..most).unwrap_or(&mut []);
        let there = vcpu.vm.read(x(5), bytes_mut(wanted), Purpose::Buffer);
        let there =
            if there.end == CopyEnd::Complete { vcpu.vm.write_check(x(5), most * 8) } else { there.end };
        if there != CopyEnd::Complete {
            return Ok(Progress { end: there, ..Progress::NONE });
        }
        let got = vm.dirty_get(&range, wanted, clear);
        let ready = bytes(wanted).get(..got * 8).unwrap_or(&[]);
        let written = vcpu.vm.write(x(5), ready, Purpose::Buffer);
        if written.end != CopyEnd::Complete {
            // It began to move meanwhile.
            if clear {
                vm.dirty_put_back(&range, wanted.get(..got).unwrap_or(&[]));
            }
            return Ok(Progress { end: written.end, ..Progress::NONE });
        }
        let done = (got as u64 * WORD_PAGES * PAGE_SIZE).min(size);
        Ok(Progress { done, end: more(done), used: ready.len() as u64 })
    });
    answer(vcpu, progress)
}

/// MIGRATE_COPY.
#[inline(never)]
pub(in crate::exit) fn migrate(vcpu: &mut Vcpu, local: &Local) -> Option<Resume> {
    let x = |n| vcpu.regs.get(n);
    let progress = copied(vcpu, local).and_then(|held| {
        let vm = held.0;
        let (range, space, flags) = (IpaRange::new(Ipa::new(x(2)), x(3)), x(5), x(6));
        let range = range.filter(|r| r.is_aligned(PAGE_SIZE)).ok_or(Error::Invalid)?;
        if x(4).checked_add(space).is_none() || flags & !(COPY_FROM_GUEST | COPY_DIRTY) != 0 {
            return Err(Error::Invalid);
        }
        match (flags & COPY_FROM_GUEST != 0, flags & COPY_DIRTY != 0) {
            (true, dirty) => Ok(migrate_from(vm, vcpu.vm, &range, x(4), space, dirty)),
            (false, false) => Ok(to_guest(|| migrate_to(vm, vcpu.vm, &range, x(4), space))),
            (false, true) => Err(Error::Invalid),
        }
    });
    answer(vcpu, progress)
}

fn migrate_from(
    vm: &Vm,
    caller: &Vm,
    range: &IpaRange,
    buffer: u64,
    space: u64,
    only_dirty: bool,
) -> Progress {
    let (pages, mut done, mut used, mut copied) = (range.size() / PAGE_SIZE, 0, 0, 0);
    let mut end = CopyEnd::Complete;
    while done < pages && end == CopyEnd::Complete {
        if copied == MIGRATE_PAGES || done == LOOK_PAGES {
            end = CopyEnd::More;
            break;
        }
        // A page is made clean only when its record will fit.
        if space - used < Record::LONGEST {
            end = if used == 0 { CopyEnd::Buffer } else { CopyEnd::More };
            break;
        }
        let at = ipa(range.start(), done * PAGE_SIZE);
        match record_from(vm, caller, at, buffer + used, only_dirty) {
            Ok(0) => {}
            Ok(bytes) => (used, copied) = (used + bytes, copied + 1),
            Err(why) => end = why,
        }
        done += u64::from(end == CopyEnd::Complete);
    }
    Progress { done: done * PAGE_SIZE, end, used }
}

/// Writes a page's record; returns its size, or 0 if the page is not wanted.
fn record_from(vm: &Vm, caller: &Vm, at: Ipa<Canonical>, to: u64, only_dirty: bool) -> Result<u64, CopyEnd> {
    let mut record = [0_u64; (Record::LONGEST / 8) as usize];
    let mut tags: PageTags = [0; 16];
    // Stores behind this dirty the page again.
    let data = record.get_mut(1..513).unwrap_or(&mut []);
    let Some(dirty) = vm.page_with_tags(at, data, &mut tags, only_dirty)? else { return Ok(0) };
    let head = Record { ipa: at, tags: !is_zero(&tags) };
    if let [first, .., _] = record.as_mut_slice() {
        *first = head.to_word();
    }
    if let Some(behind) = record.get_mut(513..) {
        behind.copy_from_slice(&tags);
    }
    let ready = bytes(&record).get(..head.bytes() as usize).unwrap_or(&[]);
    let written = caller.write(to, ready, Purpose::Buffer);
    if written.end == CopyEnd::Complete {
        return Ok(head.bytes());
    }
    // Nobody has it.
    if dirty {
        vm.map.lock().dirty.mark(at);
    }
    Err(written.end)
}

fn migrate_to(vm: &Vm, caller: &Vm, range: &IpaRange, buffer: u64, space: u64) -> Progress {
    let mut progress = Progress::NONE;
    for _ in 0..MIGRATE_PAGES {
        if progress.used == space {
            return progress;
        }
        match record_to(vm, caller, range, buffer + progress.used, space - progress.used) {
            Ok(bytes) => {
                progress.used += bytes;
                progress.done += PAGE_SIZE;
            }
            Err(end) => return Progress { end, ..progress },
        }
    }
    let end = if progress.used == space { CopyEnd::Complete } else { CopyEnd::More };
    Progress { end, ..progress }
}

/// Reads one record and stores its page; returns the record's size.
fn record_to(vm: &Vm, caller: &Vm, range: &IpaRange, from: u64, space: u64) -> Result<u64, CopyEnd> {
    let mut record = [0_u64; (Record::LONGEST / 8) as usize];
    let fetch = |part: &mut [u8], at: u64| {
        let read = caller.read(at, part, Purpose::Buffer);
        if read.end == CopyEnd::Complete { Ok(()) } else { Err(read.end) }
    };
    if space < Record::HEADER {
        return Err(CopyEnd::Stream);
    }
    fetch(bytes_mut(record.get_mut(..1).unwrap_or(&mut [])), from)?;
    let head = record.first().and_then(|word| Record::from_word(*word));
    let head =
        head.filter(|head| range.contains(head.ipa) && head.bytes() <= space).ok_or(CopyEnd::Stream)?;
    let words = (head.bytes() / 8) as usize;
    fetch(bytes_mut(record.get_mut(1..words).unwrap_or(&mut [])), from + Record::HEADER)?;
    let tags = record.get(513..).and_then(|t| t.first_chunk::<16>()).ok_or(CopyEnd::Stream)?;
    // Without tags in the record, the array behind the data is as it began: zero.
    let data = bytes(&record).get(8..8 + PAGE_SIZE as usize).unwrap_or(&[]);
    vm.set_page_with_tags(head.ipa, data, tags)?;
    Ok(head.bytes())
}
