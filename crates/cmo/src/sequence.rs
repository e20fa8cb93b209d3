//! The sequences. None of them does anything, not even a barrier, for an empty range.

use addr::Va;

use crate::{CacheOps, Kind, Line};

/// Has `write` write to `size` bytes at `va`, which EL2 mapped as `kind`, so that a guest sees it
/// whatever its own memory types are: write-back memory is cleaned and invalidated afterwards, tags too.
///
/// Non-cacheable memory is cleaned and invalidated first: a line left from another use of the memory
/// could be written back over it later. No new one appears, as nobody maps it cacheable.
///
/// Where guests bypass the caches, a line that the range covers only in part is cleaned and invalidated
/// first: one that is older than what the guest stored past it would be written back with the new bytes.
pub fn fill<R>(ops: &mut impl CacheOps, va: Va, size: u64, kind: Kind, write: impl FnOnce() -> R) -> R {
    match kind {
        Kind::NonCacheable => publish_uncached(ops, va, size),
        Kind::WriteBack | Kind::Tagged => clean_ends(ops, va, size),
    }
    let result = write();
    match kind {
        Kind::WriteBack | Kind::Tagged => clean_invalidate(ops, va, size, kind),
        Kind::NonCacheable if size != 0 => ops.complete(),
        Kind::NonCacheable => {}
    }
    result
}

/// The lines of the first and the last byte, where guests bypass the caches. These are cleaned even if the
/// range begins or ends with one: another CPU's may be longer. Those between are all the range's.
#[inline(always)]
fn clean_ends(ops: &mut impl CacheOps, va: Va, size: u64) {
    if let (Some(behind_first), true) = (size.checked_sub(1), ops.guests_bypass()) {
        let last = Va::new(va.get().saturating_add(behind_first));
        let line = ops.lines().data.bytes();
        let (first, last) = (va.align_down(line), last.align_down(line));
        ops.clean_invalidate_line(first);
        if last != first {
            ops.clean_invalidate_line(last);
        }
        ops.complete();
    }
}

/// Has `access` read, or change by one atomic access, `size` bytes at `va` of a guest that runs, mapped as
/// `kind`: EL2 finds what the guest stored, past the caches too, and leaves no line there that would hide
/// the guest's next store from EL2, or be written back over it.
#[inline(always)]
pub fn access<R>(ops: &mut impl CacheOps, va: Va, size: u64, kind: Kind, access: impl FnOnce() -> R) -> R {
    let clean = match kind {
        Kind::WriteBack | Kind::Tagged => ops.guests_bypass(),
        // Nobody caches it.
        Kind::NonCacheable => false,
    };
    if !clean {
        return access();
    }
    // A line may be there again at once, by speculation, until the mapping is gone: so before, too.
    publish_uncached(ops, va, size);
    let result = access();
    publish_uncached(ops, va, size);
    result
}

/// Has `write` replace memory of a guest that runs, by any number of [`fill`]s, and lets all CPUs fetch what
/// is there now, once, if it `wrote` something: instructions may have been among it.
pub fn replace<R>(ops: &mut impl CacheOps, write: impl FnOnce() -> R, wrote: impl FnOnce(&R) -> bool) -> R {
    let result = write();
    if wrote(&result) {
        publish_instructions(ops);
    }
    result
}

/// Makes what was written to `size` bytes at `va` through the caches readable past them, by a CPU
/// whose MMU is off: cleans and invalidates to the point of coherency.
pub fn publish_uncached(ops: &mut impl CacheOps, va: Va, size: u64) {
    if size == 0 {
        return;
    }
    // Maintenance by VA follows this CPU's writes to the same line without a barrier (D7.5.9).
    ops.lines().data.each(va, size, |line| ops.clean_invalidate_line(line));
    ops.complete();
}

fn clean_invalidate_tags(ops: &mut impl CacheOps, va: Va, size: u64) {
    if size == 0 {
        return;
    }
    ops.lines().tags.each(va, size, |line| ops.clean_invalidate_tags_line(line));
    ops.complete();
}

/// Cleans and invalidates `size` bytes at `va`, which EL2 mapped as `kind`, to the point of coherency.
pub fn clean_invalidate(ops: &mut impl CacheOps, va: Va, size: u64, kind: Kind) {
    match kind {
        Kind::WriteBack | Kind::NonCacheable => publish_uncached(ops, va, size),
        Kind::Tagged => clean_invalidate_tags(ops, va, size),
    }
}

/// Does to the line at `va`, an alias of a guest's that EL2 mapped as `kind`, what the guest asks for. It
/// is complete when this returns: the alias may go.
pub fn maintain(ops: &mut impl CacheOps, va: Va, kind: Kind, line: Line) {
    if let Some(line) = line.on(kind, || ops.farthest()) {
        ops.maintain_line(va, line);
        ops.complete();
    }
}

/// Lets all CPUs fetch the instructions that were published before.
pub fn publish_instructions(ops: &mut impl CacheOps) {
    // A fetch between the invalidation and the end of cleaning would bring old instructions back.
    ops.complete();
    ops.invalidate_instructions();
    ops.complete();
    ops.synchronize();
}

/// Before this CPU's MMU and caches go on: forgets stale lines over `size` bytes at `va`, all of which
/// it wrote, or may have written, with its MMU off.
///
/// A line that the range covers only in part may hold somebody else's changes: it is cleaned as well.
pub fn before_mmu_on(ops: &mut impl CacheOps, va: Va, size: u64) {
    let Some(behind_first) = size.checked_sub(1) else { return };
    // The writes were Device accesses, which maintenance does not wait for.
    ops.complete();
    let line_size = ops.lines().data;
    let last = va.get().saturating_add(behind_first);
    let end_of = |line: Va| line.get() | line_size.bytes().wrapping_sub(1);
    line_size.each(va, size, |line| {
        if line < va || end_of(line) > last {
            ops.clean_invalidate_line(line);
        } else {
            ops.invalidate_line(line);
        }
    });
    ops.complete();
}
