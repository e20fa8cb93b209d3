//! Cache maintenance: the instructions, and the only place with them but the entry code, which runs before
//! there is Rust. Which of them, in which order and for whom, is `cmo`'s.

use super::sysreg::{instruction, mrs, operation};
use addr::Va;
use cmo::{CacheOps, Content, How, Kind, Line, LineSize, Lines, Point};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// log2 of the smallest lines of all CPUs that are up. Relaxed: a CPU adds its own while it is brought up,
/// and nobody writes for a guest before all are.
static DATA_LINE: AtomicU8 = AtomicU8::new(u8::MAX);
static TAG_LINE: AtomicU8 = AtomicU8::new(u8::MAX);

/// Whether guests can reach write-back memory past the caches. Relaxed: written once, before there are guests.
static BYPASSED: AtomicBool = AtomicBool::new(true);

/// Stage 2 forces the types of guests' memory on all CPUs (FEAT_S2FWB): their accesses are cached whatever
/// their stage 1 says.
pub(crate) fn guests_are_cached() {
    BYPASSED.store(false, Ordering::Relaxed);
}

/// Adds this CPU's line sizes to those that maintenance has to reach. Needs the MMU on.
pub(crate) fn join() {
    let own = Lines::from_ctr(mrs!("ctr_el0"));
    DATA_LINE.fetch_min(own.data.log2(), Ordering::Relaxed);
    TAG_LINE.fetch_min(own.tags.log2(), Ordering::Relaxed);
}

/// The caches as this CPU reaches them.
struct Caches;

impl CacheOps for Caches {
    fn lines(&self) -> Lines {
        let joined = Lines {
            data: LineSize::from_log2(DATA_LINE.load(Ordering::Relaxed)),
            tags: LineSize::from_log2(TAG_LINE.load(Ordering::Relaxed)),
        };
        Lines::from_ctr(mrs!("ctr_el0")).combine(joined)
    }

    #[inline(always)]
    fn guests_bypass(&self) -> bool {
        BYPASSED.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn clean_invalidate_line(&mut self, line: Va) {
        operation!("dc civac", line.get());
    }

    #[inline(always)]
    fn clean_invalidate_tags_line(&mut self, line: Va) {
        // DC CIGDVAC.
        operation!("sys #3, c7, c14, #5", line.get());
    }

    fn maintain_line(&mut self, line: Va, what: Line) {
        let va = line.get();
        // Tag forms, and those to the points of persistence, as the assembler takes them without features.
        match (what.how, what.content) {
            // No invalidation drops changes here.
            (How::Invalidate | How::CleanInvalidate, Content::Data) => operation!("dc civac", va),
            (How::Invalidate | How::CleanInvalidate, Content::Tags) => operation!("sys #3, c7, c14, #3", va),
            (How::Invalidate | How::CleanInvalidate, Content::Both) => operation!("sys #3, c7, c14, #5", va),
            (How::Clean(Point::Unification), Content::Data) => operation!("dc cvau", va),
            (How::Clean(Point::Coherency), Content::Data) => operation!("dc cvac", va),
            // No tag form ends at the point of unification.
            (How::Clean(Point::Unification | Point::Coherency), Content::Tags) => {
                operation!("sys #3, c7, c10, #3", va);
            }
            (How::Clean(Point::Unification | Point::Coherency), Content::Both) => {
                operation!("sys #3, c7, c10, #5", va);
            }
            (How::Clean(Point::Persistence), Content::Data) => operation!("sys #3, c7, c12, #1", va),
            (How::Clean(Point::Persistence), Content::Tags) => operation!("sys #3, c7, c12, #3", va),
            (How::Clean(Point::Persistence), Content::Both) => operation!("sys #3, c7, c12, #5", va),
            (How::Clean(Point::DeepPersistence), Content::Data) => operation!("sys #3, c7, c13, #1", va),
            (How::Clean(Point::DeepPersistence), Content::Tags) => operation!("sys #3, c7, c13, #3", va),
            (How::Clean(Point::DeepPersistence), Content::Both) => operation!("sys #3, c7, c13, #5", va),
        }
    }

    fn farthest(&self) -> Point {
        match mrs!("id_aa64isar1_el1") & 0xf {
            0 => Point::Coherency,
            1 => Point::Persistence,
            _ => Point::DeepPersistence,
        }
    }

    #[inline(always)]
    fn invalidate_line(&mut self, line: Va) {
        operation!("dc ivac", line.get());
    }

    #[inline(always)]
    fn invalidate_instructions(&mut self) {
        instruction!("ic ialluis");
    }

    #[inline(always)]
    fn complete(&mut self) {
        instruction!("dsb sy");
    }

    #[inline(always)]
    fn synchronize(&mut self) {
        instruction!("isb");
    }
}

/// Has `write` write `size` bytes at `va`, mapped as `kind`, so that guests see them past the caches.
pub(crate) fn fill<R>(va: Va, size: u64, kind: Kind, write: impl FnOnce() -> R) -> R {
    cmo::fill(&mut Caches, va, size, kind, write)
}

/// Has `access` read, or change by one atomic access, `size` bytes at `va` of a guest that runs, mapped as
/// `kind`.
#[inline(always)]
pub(crate) fn access<R>(va: Va, size: u64, kind: Kind, access: impl FnOnce() -> R) -> R {
    cmo::access(&mut Caches, va, size, kind, access)
}

/// Makes `size` bytes at `va` readable past the caches: by a CPU whose MMU is off, this one included.
pub(crate) fn publish_uncached(va: Va, size: u64) {
    cmo::publish_uncached(&mut Caches, va, size);
}

/// Cleans and invalidates `size` bytes at `va`, mapped as `kind`.
pub(crate) fn clean_invalidate(va: Va, size: u64, kind: Kind) {
    cmo::clean_invalidate(&mut Caches, va, size, kind);
}

/// Does to the line at `va`, mapped as `kind`, what a guest asks for.
pub(crate) fn maintain(va: Va, kind: Kind, line: Line) {
    cmo::maintain(&mut Caches, va, kind, line);
}

/// All CPUs forget the instructions in their caches: before a VM's first one.
pub(crate) fn publish_instructions() {
    cmo::publish_instructions(&mut Caches);
}

/// Has `write` replace memory of a guest that runs; if it `wrote` something, all CPUs forget the instructions
/// in their caches.
pub(crate) fn replace<R>(write: impl FnOnce() -> R, wrote: impl FnOnce(&R) -> bool) -> R {
    cmo::replace(&mut Caches, write, wrote)
}

/// Forgets stale lines over what this CPU wrote with its MMU off, right before that goes on.
///
/// # Safety
/// `size` bytes at `va` must have been written with the MMU off only, since they were last cleaned: what
/// the caches hold of them is lost.
pub(crate) unsafe fn before_mmu_on(va: Va, size: u64) {
    cmo::before_mmu_on(&mut Caches, va, size);
}
