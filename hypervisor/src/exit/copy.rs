//! Hypercalls of control VMs that copy tags and memory. Arguments and formats are `tags::copy`'s, where the
//! memory is [`vm::reach`](crate::vm::reach)'s; here a call is cut into steps that fit one stay at EL2.

use super::call::results;
use super::control::{code, target};
use crate::arch::cache;
use crate::arch::copy::{bytes, bytes_mut};
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use crate::vcpu::apply::Resume;
use crate::vm::Vm;
use crate::vm::reach::{Purpose, Reached};
use abi::hypercall::{COPY_FROM_GUEST, CopyEnd, Error, MAP_TAGGED, VmState};
use addr::{Canonical, Ipa, IpaRange, PAGE_SIZE};
pub(super) use data::{data, debug};
pub(super) use log::{dirty_log, migrate};
use tags::copy::{
    Direction, GROUP, MAP_BYTES, PACKED_BYTES, PageTags, SPREAD_BYTES, TagCopy, gather, is_zero,
    packed_bytes, packed_offset, spread,
};
use tags::dirty::WORD_PAGES;

mod data;
mod log;

/// Pages of tags that are copied between two looks at the maps.
const BATCH: usize = 16;
/// Pages of tags of one call.
const TAG_PAGES: u64 = GROUP as u64;
/// Pages of one call that are only looked at.
const LOOK_PAGES: u64 = 256;
/// Pages of one call about which only the ledger is asked.
const ASK_PAGES: u64 = 1024;

/// How far a call came.
#[derive(Clone, Copy)]
struct Progress {
    /// Bytes of the guest's.
    done: u64,
    end: CopyEnd,
    /// Bytes of the buffer.
    used: u64,
}

impl Progress {
    const NONE: Self = Self { done: 0, end: CopyEnd::Complete, used: 0 };
}

/// The results of all copies: x0 is an error only if nothing was done.
fn answer(vcpu: &mut Vcpu, progress: Result<Progress, Error>) -> Option<Resume> {
    match progress {
        Ok(Progress { done, end, used }) => {
            let error = end.error().filter(|_| done == 0 && used == 0).map_or(0, code);
            results(vcpu, &[error, done, end as u64, used])
        }
        Err(e) => results(vcpu, &[code(e), 0, 0, 0]),
    }
}

/// A VM that a call copies. As long as it lives, a start of the VM waits before it prepares its memory:
/// nothing that is copied reaches a life that began meanwhile.
struct Copied(&'static Vm);

impl Drop for Copied {
    fn drop(&mut self) {
        self.0.life.lock().copies -= 1;
    }
}

/// The VM that x1 names, for a copy; not while its memory is prepared.
fn copied(vcpu: &Vcpu, local: &Local) -> Result<Copied, Error> {
    let vm = target(vcpu, local, vcpu.regs.get(1))?;
    let mut life = vm.life.lock();
    if life.state == VmState::Starting {
        return Err(Error::Busy);
    }
    life.copies += 1;
    Ok(Copied(vm))
}

/// Has `write` copy to a guest, which may execute what it finds: a debugger sets breakpoints so.
fn to_guest(write: impl FnOnce() -> Progress) -> Progress {
    cache::replace(write, |progress| progress.done != 0)
}

fn ipa(base: Ipa<Canonical>, offset: u64) -> Ipa<Canonical> {
    Ipa::new(base.get().saturating_add(offset))
}

/// TAGS_COPY.
#[inline(never)]
pub(super) fn tags(vcpu: &mut Vcpu, local: &Local) -> Option<Resume> {
    let x = |n| vcpu.regs.get(n);
    let progress = copied(vcpu, local).and_then(|held| {
        let vm = held.0;
        let copy = TagCopy::new(x(2), x(3), x(4), x(5), [x(6), x(7)]).filter(|_| vm.spec.mte);
        let copy = copy.ok_or(Error::Invalid)?;
        Ok(match (copy.packed, copy.direction) {
            (false, direction) => tags_as_bytes(vm, vcpu.vm, &copy, direction),
            (true, Direction::FromGuest) => tags_to_packed(vm, vcpu.vm, &copy),
            (true, Direction::ToGuest) => tags_from_packed(vm, vcpu.vm, &copy),
        })
    });
    answer(vcpu, progress)
}

/// Loads the tags of some pages, as many as there are.
fn load(vm: &Vm, at: Ipa<Canonical>, to: &mut [PageTags]) -> Reached {
    let mut map = vm.map.lock();
    vm.load_tags(&mut map, at, to)
}

/// Stores the tags of some pages.
fn store(vm: &Vm, at: Ipa<Canonical>, from: &[PageTags]) -> Reached {
    let mut map = vm.map.lock();
    vm.store_tags(&mut map, at, from, false)
}

/// Tags on their way between two VMs.
struct Bounce {
    tags: [PageTags; BATCH],
    wide: [[u64; 2]; 16 * BATCH],
}

/// One byte for each tag, in batches.
fn tags_as_bytes(vm: &Vm, caller: &Vm, copy: &TagCopy, direction: Direction) -> Progress {
    let pages = copy.range.size() / PAGE_SIZE;
    let most = pages.min(TAG_PAGES);
    let mut bounce = Bounce { tags: [[0; 16]; BATCH], wide: [[0; 2]; 16 * BATCH] };
    let mut done = 0;
    while done < most {
        let now = (most - done).min(BATCH as u64) as usize;
        let (guest, buffer) =
            (ipa(copy.range.start(), done * PAGE_SIZE), ipa(copy.buffer, done * SPREAD_BYTES));
        let step = match direction {
            Direction::FromGuest => bounce.from(vm, caller, guest, buffer, now),
            Direction::ToGuest => bounce.to(vm, caller, guest, buffer, now),
        };
        done += step.done as u64;
        if step.end != CopyEnd::Complete {
            return Progress { done: done * PAGE_SIZE, end: step.end, used: done * SPREAD_BYTES };
        }
    }
    let end = if done < pages { CopyEnd::More } else { CopyEnd::Complete };
    Progress { done: done * PAGE_SIZE, end, used: done * SPREAD_BYTES }
}

impl Bounce {
    fn from(
        &mut self,
        vm: &Vm,
        caller: &Vm,
        guest: Ipa<Canonical>,
        buffer: Ipa<Canonical>,
        pages: usize,
    ) -> Reached {
        let loaded = load(vm, guest, self.tags.get_mut(..pages).unwrap_or(&mut []));
        for (to, from) in self.wide.iter_mut().zip(self.tags.as_flattened()) {
            *to = spread(*from);
        }
        let size = loaded.done * SPREAD_BYTES as usize;
        let ready = bytes(self.wide.as_flattened()).get(..size).unwrap_or(&[]);
        let written = caller.write(buffer.get(), ready, Purpose::Buffer);
        if written.end == CopyEnd::Complete {
            return loaded;
        }
        Reached { done: written.done / SPREAD_BYTES as usize, end: written.end }
    }

    fn to(
        &mut self,
        vm: &Vm,
        caller: &Vm,
        guest: Ipa<Canonical>,
        buffer: Ipa<Canonical>,
        pages: usize,
    ) -> Reached {
        let size = pages * SPREAD_BYTES as usize;
        let wanted = bytes_mut(self.wide.as_flattened_mut()).get_mut(..size).unwrap_or(&mut []);
        let read = caller.read(buffer.get(), wanted, Purpose::Buffer);
        for (to, from) in self.tags.as_flattened_mut().iter_mut().zip(&self.wide) {
            *to = gather(*from);
        }
        let whole = read.done / SPREAD_BYTES as usize;
        let stored = store(vm, guest, self.tags.get(..whole).unwrap_or(&[]));
        if stored.end != CopyEnd::Complete || read.end == CopyEnd::Complete {
            return stored;
        }
        // The buffer ends within a page: of that page no tag stays, neither an old one nor a new one.
        store(vm, ipa(guest, whole as u64 * PAGE_SIZE), &[[0; 16]]);
        Reached { done: whole, end: read.end }
    }
}

/// A packed group from the guest: pages with tags as they come, the map in front of them last.
fn tags_to_packed(vm: &Vm, caller: &Vm, copy: &TagCopy) -> Progress {
    let pages = copy.range.size() / PAGE_SIZE;
    let most = pages.min(TAG_PAGES);
    let (mut done, mut map) = (0, 0_u64);
    let mut end = CopyEnd::Complete;
    while done < most && end == CopyEnd::Complete {
        let mut tags = [[0; 16]; BATCH];
        let now = (most - done).min(BATCH as u64) as usize;
        let loaded =
            load(vm, ipa(copy.range.start(), done * PAGE_SIZE), tags.get_mut(..now).unwrap_or(&mut []));
        end = loaded.end;
        for page in tags.iter().take(loaded.done) {
            if !is_zero(page) {
                let at = ipa(copy.buffer, packed_bytes(map));
                let written = caller.write(at.get(), bytes(page), Purpose::Buffer);
                if written.end != CopyEnd::Complete {
                    end = written.end;
                    break;
                }
                map |= 1_u64.unbounded_shl(done as u32);
            }
            done += 1;
        }
    }
    if done == 0 {
        return Progress { end, ..Progress::NONE };
    }
    let head = caller.write(copy.buffer.get(), bytes(&[map]), Purpose::Buffer);
    if head.end != CopyEnd::Complete {
        return Progress { end: head.end, ..Progress::NONE };
    }
    if end == CopyEnd::Complete && done < pages {
        end = CopyEnd::More;
    }
    Progress { done: done * PAGE_SIZE, end, used: packed_bytes(map) }
}

/// A packed group to the guest.
fn tags_from_packed(vm: &Vm, caller: &Vm, copy: &TagCopy) -> Progress {
    let pages = copy.range.size() / PAGE_SIZE;
    let most = pages.min(TAG_PAGES);
    let mut map = [0];
    let head = caller.read(copy.buffer.get(), bytes_mut(&mut map), Purpose::Buffer);
    let [map] = map;
    if pages == 0 || head.end != CopyEnd::Complete {
        return Progress { end: if pages == 0 { CopyEnd::Complete } else { head.end }, ..Progress::NONE };
    }
    // Bits behind the range mean nothing.
    let map = map & u64::MAX.unbounded_shr(GROUP as u32 - most as u32);
    let (mut done, mut used) = (0, MAP_BYTES);
    let mut tags = [[0; 16]; BATCH];
    while done < most {
        // In batches: pages with tags are read one by one, up to where the buffer ends.
        let now = (most - done).min(BATCH as u64) as usize;
        let (mut ready, mut end) = (0, CopyEnd::Complete);
        for page in tags.iter_mut().take(now) {
            *page = [0; 16];
            if let Some(offset) = packed_offset(map, done as usize + ready) {
                let read = caller.read(ipa(copy.buffer, offset).get(), bytes_mut(page), Purpose::Buffer);
                if read.end != CopyEnd::Complete {
                    *page = [0; 16];
                    end = read.end;
                    break;
                }
                used = offset + PACKED_BYTES;
            }
            ready += 1;
        }
        // A page that ends nowhere has no tags afterwards.
        let half = usize::from(end != CopyEnd::Complete);
        let stored =
            store(vm, ipa(copy.range.start(), done * PAGE_SIZE), tags.get(..ready + half).unwrap_or(&[]));
        done += stored.done.min(ready) as u64;
        if end == CopyEnd::Complete || stored.done < ready {
            end = stored.end;
        }
        if end != CopyEnd::Complete {
            return Progress { done: done * PAGE_SIZE, end, used: if done == 0 { 0 } else { used } };
        }
    }
    let end = if done < pages { CopyEnd::More } else { CopyEnd::Complete };
    Progress { done: done * PAGE_SIZE, end, used }
}

/// TAGS_MAP.
#[inline(never)]
pub(super) fn tags_map(vcpu: &mut Vcpu, local: &Local) -> Option<Resume> {
    let x = |n| vcpu.regs.get(n);
    let progress = copied(vcpu, local).and_then(|held| {
        let vm = held.0;
        let range = TagCopy::new(x(2), x(3), x(4), COPY_FROM_GUEST, [0; 2]).filter(|_| vm.spec.mte);
        let range = range.filter(|_| x(5) & !MAP_TAGGED == 0).ok_or(Error::Invalid)?.range;
        let mut words = [0_u64; (ASK_PAGES / WORD_PAGES) as usize];
        let (done, mut end) = if x(5) & MAP_TAGGED != 0 {
            map_of_tagged(vm, &range, &mut words)
        } else {
            map_of_tags(vm, &range, &mut words)
        };
        let ready = bytes(&words).get(..done.div_ceil(8) as usize).unwrap_or(&[]);
        let written = vcpu.vm.write(x(4), ready, Purpose::Buffer);
        if written.end != CopyEnd::Complete {
            return Ok(Progress { end: written.end, ..Progress::NONE });
        }
        if end == CopyEnd::Complete && done < range.size() / PAGE_SIZE {
            end = CopyEnd::More;
        }
        Ok(Progress { done: done * PAGE_SIZE, end, used: ready.len() as u64 })
    });
    answer(vcpu, progress)
}

/// A bit for each page that has a tag other than 0; how many pages were looked at, and what ended that.
fn map_of_tags(vm: &Vm, range: &IpaRange, words: &mut [u64]) -> (u64, CopyEnd) {
    let (pages, mut done) = ((range.size() / PAGE_SIZE).min(LOOK_PAGES), 0);
    let mut tags = [[0; 16]; BATCH];
    while done < pages {
        let now = (pages - done).min(BATCH as u64) as usize;
        let loaded = load(vm, ipa(range.start(), done * PAGE_SIZE), tags.get_mut(..now).unwrap_or(&mut []));
        for page in tags.iter().take(loaded.done) {
            if let Some(word) = words.get_mut((done / WORD_PAGES) as usize) {
                *word |= u64::from(!is_zero(page)).unbounded_shl((done % WORD_PAGES) as u32);
            }
            done += 1;
        }
        if loaded.end != CopyEnd::Complete {
            return (done, loaded.end);
        }
    }
    (done, CopyEnd::Complete)
}

/// The same for each page that the guest may have tagged.
fn map_of_tagged(vm: &Vm, range: &IpaRange, words: &mut [u64]) -> (u64, CopyEnd) {
    let (pages, mut done) = ((range.size() / PAGE_SIZE).min(ASK_PAGES), 0);
    while done < pages {
        let used = done % WORD_PAGES;
        let now = (pages - done).min(WORD_PAGES - used);
        let found = vm.tagged_pages(&vm.map.lock(), ipa(range.start(), done * PAGE_SIZE), now);
        let (bits, some) = match found {
            Ok(found) => found,
            Err(end) => return (done, end),
        };
        if let Some(word) = words.get_mut((done / WORD_PAGES) as usize) {
            *word |= bits.unbounded_shl(used as u32);
        }
        done += some;
    }
    (done, CopyEnd::Complete)
}
