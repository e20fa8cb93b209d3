//! The preparation and the sweep of random VMs.

use addr::{BLOCK_2M, Canonical, Ipa, IpaRange, PAGE_SIZE, Pa, PaRange, Va};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use crate::recorder::{Did, Recorder};
use crate::*;

/// A VM for the preparation.
#[derive(Clone, Debug)]
struct Vm {
    regions: Vec<(IpaRange, Vec<PaRange>, Kind, bool)>,
    items: Vec<Item>,
}

impl Contents for Vm {
    fn region(&self, n: usize) -> Option<Region<'_>> {
        let (ipa, pieces, kind, owned) = self.regions.get(n)?;
        Some(Region { ipa: *ipa, pieces, kind: *kind, owned: *owned })
    }

    fn item(&self, n: usize) -> Option<Item> {
        self.items.get(n).copied()
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::WriteBack), Just(Kind::Tagged), Just(Kind::NonCacheable)]
}

/// Regions of pieces with gaps, at IPAs that follow each other; items anywhere in the owned ones, some
/// across the border of two. Under Miri few and small ones, which may have a whole block all the same.
fn vms() -> impl Strategy<Value = Vm> {
    let (most, pages) = if cfg!(miri) { (2, 700) } else { (4, 1300) };
    let piece = (0_u64..600, prop_oneof![1_u64..8, 1_u64..pages]);
    let region = (proptest::collection::vec(piece, 0..most), kinds(), any::<bool>());
    let items = proptest::collection::vec((any::<u64>(), prop_oneof![Just(0), 1_u64..300_000]), 0..=most);
    (proptest::collection::vec(region, 0..=most), items).prop_map(|(regions, items)| {
        let (mut pa, mut ipa) = (0x4000_0000, 0x8000_0000);
        let regions: Vec<_> = regions
            .into_iter()
            .map(|(pieces, kind, owned)| {
                let pieces: Vec<_> = pieces
                    .into_iter()
                    .map(|(gap, pages)| {
                        let piece = PaRange::new(Pa::new(pa + gap * PAGE_SIZE), pages * PAGE_SIZE).unwrap();
                        pa = piece.end().get();
                        piece
                    })
                    .collect();
                let size = pieces.iter().map(PaRange::size).sum();
                let range = IpaRange::new(Ipa::new(ipa), size).unwrap();
                ipa += size;
                (range, pieces, kind, owned)
            })
            .collect();
        // An item starts in an owned region and ends where owned memory ends at the latest.
        let owned: Vec<_> = regions.iter().filter(|r| r.3 && r.0.size() > 0).map(|r| r.0).collect();
        let items = items
            .into_iter()
            .filter_map(|(at, size)| {
                let first = (at % owned.len().max(1) as u64) as usize;
                let at = owned.get(first)?.start().get() + at / 16 % owned[first].size();
                let mut end = owned[first].end();
                for next in &owned[first + 1..] {
                    end = if next.start() == end { next.end() } else { end };
                }
                Some(Item { at: Ipa::new(at), size: size.min(end.get() - at) })
            })
            .collect();
        Vm { regions, items }
    })
}

/// Where an IPA of the VM is in physical memory.
fn translate(vm: &Vm, ipa: u64) -> u64 {
    let (range, pieces, ..) = vm.regions.iter().find(|r| r.0.contains(Ipa::new(ipa))).unwrap();
    let mut offset = ipa - range.start().get();
    for piece in pieces {
        if offset < piece.size() {
            return piece.start().get() + offset;
        }
        offset -= piece.size();
    }
    panic!("no memory behind {ipa:#x}");
}

/// All steps of a preparation.
fn run(vm: &Vm) -> Vec<Work> {
    let mut at = Preparation::new();
    let mut works = Vec::new();
    while !at.is_done() {
        let (work, next) = at.step(vm);
        assert_ne!(next, at, "no progress");
        works.push(work);
        at = next;
    }
    assert_eq!(at.step(vm), (Work::Nothing, at));
    works
}

fn chunk_of(work: &Work) -> Option<Chunk> {
    match work {
        Work::Zero(chunk) | Work::Copy { to: chunk, .. } => Some(*chunk),
        Work::Misplaced { .. } | Work::PublishInstructions | Work::Nothing => None,
    }
}

proptest! {
    #[test]
    fn all_is_zeroed_once_then_filled_then_fetched(vm in vms()) {
        let works = run(&vm);
        // The order: zeroing, copying, one publication of instructions as the last step.
        let rank = |work: &Work| match work {
            Work::Zero(_) => 0,
            Work::Copy { .. } => 1,
            Work::PublishInstructions => 2,
            Work::Misplaced { .. } | Work::Nothing => 9,
        };
        prop_assert!(works.windows(2).all(|w| rank(&w[0]) <= rank(&w[1])), "{works:?}");
        prop_assert_eq!(works.iter().filter(|w| rank(w) == 2).count(), 1);
        prop_assert!(works.iter().all(|w| rank(w) < 9));

        // Each page that the VM owns is zeroed once, as its region's kind, and no other page.
        let mut pages = BTreeMap::new();
        for (_, pieces, kind, owned) in &vm.regions {
            for piece in pieces.iter().filter(|_| *owned) {
                for page in 0..piece.size() / PAGE_SIZE {
                    pages.insert(piece.start().get() + page * PAGE_SIZE, *kind);
                }
            }
        }
        let all: Vec<_> = vm.regions.iter().flat_map(|r| &r.1).copied().collect();
        let mut left = pages.clone();
        for chunk in works.iter().filter_map(chunk_of) {
            let (start, end) = (chunk.memory.start().get(), chunk.memory.end().get());
            prop_assert!(start < end && start / BLOCK_2M == (end - 1) / BLOCK_2M, "{chunk:?}");
            prop_assert!(end - start <= 256 << 10);
            // What a window has to map for it is all of the same piece.
            let unit = if start / PAGE_SIZE == (end - 1) / PAGE_SIZE { PAGE_SIZE } else { BLOCK_2M };
            let window = PaRange::new(Pa::new(start / unit * unit), unit).unwrap();
            prop_assert!(all.iter().any(|piece| piece.contains_range(&window)), "{chunk:?}");
            prop_assert_eq!(all.iter().filter(|piece| piece.contains_range(&chunk.memory)).count(), 1);
            prop_assert_eq!(pages.get(&(start & !(PAGE_SIZE - 1))), Some(&chunk.kind));
        }
        for work in &works {
            if let Work::Zero(chunk) = work {
                prop_assert!(chunk.memory.is_aligned(PAGE_SIZE));
                for page in 0..chunk.memory.size() / PAGE_SIZE {
                    let page = chunk.memory.start().get() + page * PAGE_SIZE;
                    prop_assert_eq!(left.remove(&page), Some(chunk.kind), "{:#x}", page);
                }
            }
        }
        prop_assert!(left.is_empty(), "not zeroed: {left:x?}");

        // Each item is copied from its first byte to its last, to where the VM sees it.
        let mut copied = vec![0_u64; vm.items.len()];
        for work in &works {
            if let Work::Copy { item, from, to } = work {
                prop_assert_eq!(*from, copied[*item]);
                let size = to.memory.size();
                for byte in [0, size - 1] {
                    let ipa = vm.items[*item].at.get() + from + byte;
                    prop_assert_eq!(to.memory.start().get() + byte, translate(&vm, ipa));
                }
                prop_assert!(size <= 64 << 10);
                copied[*item] += size;
            }
        }
        let sizes: Vec<_> = vm.items.iter().map(|item| item.size).collect();
        prop_assert_eq!(copied, sizes);
    }

    #[test]
    fn all_that_is_written_is_cleaned_before_instructions_are_fetched(vm in vms()) {
        let did = RefCell::default();
        // Large lines keep the record short.
        let mut ops = Recorder::new(11, 10, &did);
        let mut to_clean = BTreeMap::new();
        for work in run(&vm) {
            match chunk_of(&work) {
                Some(Chunk { memory, kind }) => {
                    // The window is at the physical address here.
                    let va = Va::new(memory.start().get());
                    let before = did.borrow().len();
                    fill(&mut ops, va, memory.size(), kind, || did.borrow_mut().push(Did::Wrote));
                    // Non-cacheable memory has nothing to clean when it was written.
                    if kind != Kind::NonCacheable {
                        let line = if kind == Kind::Tagged { ops.lines.tags } else { ops.lines.data };
                        line.each(va, memory.size(), |line| {
                            to_clean.insert(line.get(), (kind, before));
                        });
                    }
                }
                None => publish_instructions(&mut ops),
            }
        }
        let did = did.into_inner();
        // For each line that was written, its last cleaning comes after the write.
        let mut cleaned = BTreeMap::new();
        for (when, did) in did.iter().enumerate() {
            match did {
                Did::CleanInvalidate(line) => cleaned.insert(*line, (Kind::WriteBack, when)),
                Did::CleanInvalidateTags(line) => cleaned.insert(*line, (Kind::Tagged, when)),
                Did::Wrote | Did::Invalidate(_) | Did::Maintain(..) | Did::InvalidateInstructions | Did::Complete
                | Did::Synchronize => None,
            };
        }
        let last_write = did.iter().rposition(|d| *d == Did::Wrote);
        let instructions = did.iter().position(|d| *d == Did::InvalidateInstructions).unwrap();
        prop_assert!(last_write.is_none_or(|write| write < instructions));
        prop_assert_eq!(&did[instructions..], &[Did::InvalidateInstructions, Did::Complete, Did::Synchronize]);
        for (line, (kind, before)) in &to_clean {
            let (how, when) = cleaned.get(line).copied().unwrap();
            prop_assert!(how == *kind && *before < when && when < instructions, "{line:#x}");
        }
        // Between a write and the next there is its cleaning, complete.
        let writes: Vec<_> = did.iter().enumerate().filter(|(_, d)| **d == Did::Wrote).collect();
        for pair in writes.windows(2) {
            let between = &did[pair[0].0 + 1..pair[1].0];
            prop_assert!(between.contains(&Did::Complete), "{between:?}");
        }
    }
}

/// The leaf of an IPA, as stage 2 would have it: a block where all of one is in the same piece of memory
/// and as aligned as its IPAs, else a page. `None` for every `hole`th page.
fn leaf(vm: &Vm, hole: u64, ipa: Ipa<Canonical>) -> Option<(PaRange, Kind)> {
    let (range, pieces, kind, _) = vm.regions.iter().find(|r| r.0.contains(ipa)).unwrap();
    if hole != 0 && (ipa.get() / PAGE_SIZE).is_multiple_of(hole) {
        return None;
    }
    let pa = Pa::new(translate(vm, ipa.get()));
    let piece = pieces.iter().find(|piece| piece.contains(pa)).unwrap();
    let block = PaRange::new(pa.align_down(BLOCK_2M), BLOCK_2M).unwrap();
    let first = ipa.align_down(BLOCK_2M);
    let aligned = pa.get() % BLOCK_2M == ipa.get() % BLOCK_2M && range.contains(first);
    let whole = aligned && hole == 0 && piece.contains_range(&block);
    let page = PaRange::new(pa.align_down(PAGE_SIZE), PAGE_SIZE).unwrap();
    Some((if whole { block } else { page }, *kind))
}

proptest! {
    /// Set and way: each page that is mapped and may be in a cache once, in short steps.
    #[test]
    fn a_sweep_reaches_all_cacheable_memory_once(vm in vms(), hole in prop_oneof![Just(0_u64), 2_u64..200]) {
        let mut pages = BTreeMap::new();
        for (range, _, kind, _) in vm.regions.iter().filter(|r| r.2 != Kind::NonCacheable) {
            for ipa in (range.start().get()..range.end().get()).step_by(PAGE_SIZE as usize) {
                if leaf(&vm, hole, Ipa::new(ipa)).is_some() {
                    pages.insert(translate(&vm, ipa), *kind);
                }
            }
        }
        let mut sweep = Sweep::default();
        let mut steps = 0;
        let region = |n: usize| vm.regions.get(n).map(|r| r.0);
        while let Some((chunk, next)) = sweep.step(region, |ipa| leaf(&vm, hole, ipa)) {
            if let Some(Chunk { memory, kind }) = chunk {
                prop_assert!(memory.size() <= 64 << 10 && memory.is_aligned(PAGE_SIZE));
                let (first, last) = (memory.start().get(), memory.end().get() - 1);
                prop_assert!(first / BLOCK_2M == last / BLOCK_2M);
                for page in (first..last).step_by(PAGE_SIZE as usize) {
                    prop_assert_eq!(pages.remove(&page), Some(kind), "{:#x}", page);
                }
            }
            prop_assert_ne!(next, sweep, "no progress");
            sweep = next;
            steps += 1;
        }
        prop_assert!(pages.is_empty(), "not swept: {pages:x?}");
        prop_assert!(steps < 100_000);
    }
}

#[test]
fn a_sweep_of_odd_leaves_ends() {
    let range = IpaRange::new(Ipa::new(0x1000), 0x3000).unwrap();
    let region = |n: usize| (n == 0).then_some(range);
    // A leaf without a size, and one that reaches beyond the region.
    let empty = PaRange::new(Pa::new(0x4000_0000), 0).unwrap();
    let large = PaRange::new(Pa::new(0x4000_0000), BLOCK_2M).unwrap();
    for memory in [empty, large] {
        let mut sweep = Sweep::default();
        let mut bytes = 0;
        for _ in 0..1000 {
            let Some((chunk, next)) = sweep.step(region, |_| Some((memory, Kind::Tagged))) else { break };
            bytes += chunk.map_or(0, |c| c.memory.size());
            sweep = next;
        }
        assert_eq!(bytes, memory.size().min(0x3000));
        assert_eq!(sweep.step(region, |_| None), None);
    }
}

#[test]
fn an_item_outside_owned_memory_is_named() {
    let range = |start: u64, size: u64| IpaRange::new(Ipa::new(start), size).unwrap();
    let memory = PaRange::new(Pa::new(0x4000_0000), 0x2000).unwrap();
    let region = |owned| (range(0x1000, 0x2000), vec![memory], Kind::WriteBack, owned);
    for (vm, copies) in [
        (Vm { regions: vec![region(true)], items: vec![Item { at: Ipa::new(0x2800), size: 0x801 }] }, 1),
        (Vm { regions: vec![region(false)], items: vec![Item { at: Ipa::new(0x1000), size: 1 }] }, 0),
        (Vm { regions: vec![], items: vec![Item { at: Ipa::new(u64::MAX), size: 2 }] }, 0),
    ] {
        let mut at = Preparation::new();
        let mut copied = 0;
        loop {
            let (work, next) = at.step(&vm);
            match work {
                Work::Misplaced { item } => {
                    // There is no way past it.
                    assert_eq!((item, next.step(&vm)), (0, (work, next)), "{vm:?}");
                    break;
                }
                Work::Copy { .. } => copied += 1,
                Work::Zero(_) => {}
                Work::PublishInstructions | Work::Nothing => panic!("{vm:?}"),
            }
            at = next;
        }
        assert_eq!(copied, copies);
    }
}

#[test]
fn chunks_cover_a_range() {
    let memory = PaRange::new(Pa::new(0x401f_f000), 0x20_2000).unwrap();
    let all: Vec<_> = chunks(memory, Kind::Tagged).collect();
    assert_eq!(all.first().unwrap().memory, PaRange::new(Pa::new(0x401f_f000), PAGE_SIZE).unwrap());
    assert!(all.windows(2).all(|w| w[0].memory.end() == w[1].memory.start()));
    assert_eq!(all.last().unwrap().memory.end(), memory.end());
    assert!(all.iter().all(|chunk| chunk.kind == Kind::Tagged));
    // Pages outside of the whole block, 256 KiB inside.
    let sizes: Vec<_> = all.iter().map(|chunk| chunk.memory.size()).collect();
    assert_eq!(sizes, [vec![PAGE_SIZE], vec![256 << 10; 8], vec![PAGE_SIZE]].concat());
    assert_eq!(chunks(PaRange::new(Pa::new(0), 0).unwrap(), Kind::WriteBack).count(), 0);
}
