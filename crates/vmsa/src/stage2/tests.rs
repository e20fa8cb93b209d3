//! The builder against a model that knows pages only, and the shapes against the manual's rules.

use std::collections::BTreeMap;
use std::vec::Vec;

use addr::{BLOCK_1G, BLOCK_2M, IpaRange};
use proptest::prelude::*;

use super::*;
use crate::attr::S2Memory::{self, DeviceNGnRE, NonCacheable, WriteBack, WriteBackNoTag};
use crate::fake::{Fake, Recorder};
use crate::memory::{Flush, Unused};

type Vm = Stage2<Canonical>;

const FEATURES: S2Features = S2Features { fwb: true, mte_perm: true };
const RAM: S2Attr = S2Attr::rwx(WriteBack);
const PA_BITS: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn vm(ipa_bits: u8) -> (Fake, Vm) {
    let mut mem = Fake::default();
    let vm = Vm::new(&mut mem, Geometry::new(ipa_bits, 48).unwrap(), FEATURES).unwrap();
    (mem, vm)
}

#[test]
fn geometry_of_every_size() {
    for pa_bits in PA_BITS {
        for ipa_bits in 0..=64 {
            let Some(g) = Geometry::new(ipa_bits, pa_bits) else {
                assert!(!(25..=48).contains(&ipa_bits) || ipa_bits > pa_bits);
                continue;
            };
            assert!((25..=48).contains(&ipa_bits) && ipa_bits <= pa_bits);
            // The pseudocode's AArch64.S2InvalidSL and AArch64.S2InconsistentSL for 4 KiB.
            let levels_below = 3 - g.start_level() as u8;
            let least = levels_below * 9 + 12 + 1;
            assert!((least..=least + 12).contains(&ipa_bits), "{g:?}");
            assert!(g.start_level() != Level::Zero || pa_bits >= 44, "{g:?}");
            // The root covers the space and not more, in at most 16 tables.
            let covered = g.root_tables() as u64 * 512 * g.start_level().size();
            assert!(covered >= 1 << ipa_bits, "{g:?}");
            assert!(g.root_tables() == 1 || covered == 1 << ipa_bits, "{g:?}");
            assert!(g.root_tables() <= 16);
            let vtcr = g.vtcr(true);
            assert_eq!(64 - (vtcr & 0x3f), u64::from(ipa_bits));
            assert_eq!(2 - (vtcr >> 6 & 3), g.start_level() as u64);
            assert_eq!(
                vtcr >> 16 & 7,
                [0, 1, 2, 3, 4, 5, 5][PA_BITS.iter().position(|&b| b == pa_bits).unwrap()]
            );
            assert_eq!(vtcr & !(0xff | 7 << 16), 1 << 31 | 1 << 19 | 0x3500);
            assert_eq!(g.vtcr(false), vtcr & !(1 << 19));
        }
        assert_eq!(Geometry::new(32, pa_bits + 1), None);
    }
}

#[test]
fn smallest_size() {
    for (end, bits) in
        [(0, 25), (1, 25), (1 << 25, 25), ((1 << 25) + 1, 26), (0x8000_0000, 31), (u64::MAX, 64)]
    {
        assert_eq!(Geometry::ipa_bits_for(Ipa::new(end)), bits, "{end:#x}");
    }
}

#[test]
fn root_is_in_vttbr() {
    let (mem, vm) = vm(43);
    assert_eq!((mem.tables(), vm.geometry().root_tables()), (16, 16));
    assert!(vm.root().is_aligned(16 * 4096));
    assert_eq!(vm.vttbr(0xabcd), 0xabcd << 48 | vm.root().get());
}

#[test]
fn a_gigabyte_fits_in_four_tables() {
    for (pa, level, most) in [(BLOCK_1G, Level::One, 3), (BLOCK_1G + BLOCK_2M, Level::Two, 4)] {
        let (mut mem, mut vm) = vm(Geometry::ipa_bits_for(Ipa::new(0x8000_0000)));
        let map =
            [(range(0x0900_0000, 0x3000), Pa::new(0x0900_0000)), (range(0x4000_0000, BLOCK_1G), Pa::new(pa))];
        for (ipa, pa) in map {
            vm.map(&mut mem, &mut Unused, ipa, pa, RAM).unwrap();
        }
        assert_eq!(mem.tables(), most);
        assert_eq!(tables_needed(vm.geometry(), map.map(|(ipa, pa)| (ipa, pa, false))), most);
        // A table for each of the 512 blocks of 2 MiB, and the one that holds these.
        let split = map.map(|(ipa, pa)| (ipa, pa, true));
        assert_eq!(tables_needed(vm.geometry(), split), 4 + 512);
        let (at, attr, found) = vm.walk(&mem, Ipa::new(0x7fff_fff8)).unwrap();
        assert_eq!((at, attr, found), (Pa::new(pa + BLOCK_1G - 8), RAM, level));
        vm.destroy(&mut mem);
        assert_eq!(mem.tables(), 0);
    }
}

#[test]
fn errors_change_nothing() {
    let (mut mem, mut vm) = vm(32);
    vm.map(&mut mem, &mut Unused, range(0x4000_0000, BLOCK_2M), Pa::new(0), RAM).unwrap();
    let before = mem.snapshot();
    let tables = mem.tables();
    let mut map =
        |mem: &mut Fake, start, size, pa, attr| vm.plan_map(mem, range(start, size), Pa::new(pa), attr).err();
    assert_eq!(map(&mut mem, 0x3fff_f000, 0x2000, 0, RAM), Some(MapError::Mapped(Ipa::new(0x4000_0000))));
    assert_eq!(map(&mut mem, 0x401f_f000, 0x2000, 0, RAM), Some(MapError::Mapped(Ipa::new(0x401f_f000))));
    assert_eq!(map(&mut mem, 0x1800, 0x1000, 0, RAM), Some(MapError::Misaligned));
    assert_eq!(map(&mut mem, 0x1000, 0x1800, 0, RAM), Some(MapError::Misaligned));
    assert_eq!(map(&mut mem, 0x1000, 0x1000, 8, RAM), Some(MapError::Misaligned));
    assert_eq!(map(&mut mem, 0xffff_f000, 0x2000, 0, RAM), Some(MapError::InputTooHigh));
    assert_eq!(map(&mut mem, 0, 0x2000, 0xffff_ffff_f000, RAM), Some(MapError::OutputTooHigh));
    mem.limit = Some(1);
    assert_eq!(map(&mut mem, 0x801f_f000, 0x2000, 0, RAM), Some(MapError::OutOfTables));
    assert_eq!(mem.limit, Some(1), "all were given back");
    mem.limit = None;
    let hole = range(0x4000_0000, 2 * BLOCK_2M);
    let error = vm.plan_protect(&mut mem, hole, RAM).err();
    assert_eq!(error, Some(MapError::Unmapped(Ipa::new(0x4020_0000))));
    // A plan that is dropped is as if it had never been.
    let plan = vm.plan_map(&mut mem, range(0x8000_0000, 0x1000), Pa::new(0), RAM).unwrap();
    assert_eq!(plan.tables(), 2);
    drop(plan);
    assert_eq!((mem.snapshot(), mem.tables()), (before, tables));
}

#[test]
fn no_tag_needs_mte_perm() {
    let mut mem = Fake::default();
    let features = S2Features { fwb: false, mte_perm: false };
    let mut vm = Vm::new(&mut mem, Geometry::new(32, 40).unwrap(), features).unwrap();
    let attr = S2Attr::rwx(WriteBackNoTag);
    let error = vm.map(&mut mem, &mut Unused, range(0, 0x1000), Pa::new(0), attr);
    assert_eq!(error, Err(MapError::Attr(crate::attr::AttrError::NoMtePerm)));
}

#[test]
fn split_and_join_break_before_make() {
    let (mut mem, mut vm) = vm(32);
    let block = range(0x4000_0000, BLOCK_1G);
    let mut tlb = Recorder::default();
    vm.map(&mut mem, &mut tlb, block, Pa::new(BLOCK_1G), RAM).unwrap();
    assert_eq!((tlb.flushes.len(), tlb.published), (0, 1), "nothing was there");

    // One page of a 1 GiB block: the block breaks once, the rest is built unseen.
    let page = range(0x4020_1000, 0x1000);
    vm.protect(&mut mem, &mut tlb, page, S2Attr::rx(WriteBack)).unwrap();
    let whole = Flush { start: 0x4000_0000, end: 0x8000_0000, level: Level::One };
    assert_eq!(tlb.flushes, [whole]);
    assert_eq!(mem.tables(), 3);
    assert_eq!(vm.walk(&mem, Ipa::new(0x4000_0000)).unwrap().2, Level::Two);
    let (pa, attr, level) = vm.walk(&mem, Ipa::new(0x4020_1234)).unwrap();
    assert_eq!((pa, attr, level), (Pa::new(0x4020_1234), S2Attr::rx(WriteBack), Level::Three));

    // Permissions come back in place, then the tables join in one more step.
    tlb.flushes.clear();
    vm.protect(&mut mem, &mut tlb, page, RAM).unwrap();
    assert_eq!(tlb.flushes, [Flush { level: Level::Three, ..whole }]);
    assert_eq!(vm.walk(&mem, Ipa::new(0x4020_1234)).unwrap().2, Level::One);
    assert_eq!((mem.tables(), mem.broken_rules), (1, 0));
}

#[test]
fn memory_type_changes_break_first() {
    let (mut mem, mut vm) = vm(32);
    let pages = range(0x4000_1000, 0x5000);
    vm.map(&mut mem, &mut Unused, pages, Pa::new(0x1000), RAM).unwrap();
    let mut tlb = Recorder::default();
    vm.protect(&mut mem, &mut tlb, pages, S2Attr::rwx(WriteBackNoTag)).unwrap();
    let flush = Flush { start: 0x4000_1000, end: 0x4000_6000, level: Level::Three };
    assert_eq!((tlb.flushes.as_slice(), tlb.published, mem.broken_rules), (&[flush][..], 1, 0));
    vm.protect(&mut mem, &mut tlb, pages, S2Attr::rwx(WriteBackNoTag)).unwrap();
    assert_eq!(tlb.flushes.len(), 1, "nothing changed");
}

/// One random step.
#[derive(Clone, Debug)]
enum Op {
    Map(u64, u64, u64, S2Attr),
    Protect(u64, u64, S2Attr),
    Unmap(u64, u64),
}

/// Start and length in pages: within a window of 8 MiB around a 1 GiB border, often 2 MiB-aligned.
#[test]
fn one_property_of_a_leaf_at_a_time() {
    let (mut mem, mut vm) = vm(36);
    let block = range(0x4000_0000, BLOCK_2M);
    vm.map(&mut mem, &mut Unused, block, Pa::new(0x8000_0000), S2Attr::rwx(WriteBackNoTag)).unwrap();
    let mut tlb = Recorder::default();
    let page = range(0x4000_3000, 0x1000);
    // A page that must not be written stays so when its block gets tags, and the block stays split.
    vm.plan_writable(&mut mem, page, false).unwrap().commit(&mut tlb);
    vm.plan_retype(&mut mem, block, WriteBack).unwrap().commit(&mut tlb);
    let at = |mem: &Fake, vm: &Vm, ipa| vm.walk(mem, Ipa::new(ipa)).unwrap();
    assert_eq!(at(&mem, &vm, 0x4000_3000), (Pa::new(0x8000_3000), S2Attr::rx(WriteBack), Level::Three));
    assert_eq!(at(&mem, &vm, 0x4000_4000), (Pa::new(0x8000_4000), RAM, Level::Three));
    vm.plan_writable(&mut mem, page, true).unwrap().commit(&mut tlb);
    assert_eq!(at(&mem, &vm, 0x4000_3000), (Pa::new(0x8000_3000), RAM, Level::Two));
    assert_eq!(mem.broken_rules, 0);
    assert!(vm.plan_retype(&mut mem, range(0x4020_0000, 0x1000), WriteBack).is_err());
    assert!(vm.plan_writable(&mut mem, range(0x4020_0000, 0x1000), true).is_err());
}

#[test]
#[cfg_attr(miri, ignore = "a million reads of tables")]
fn pages_one_by_one_until_they_join() {
    let (mut mem, mut vm) = vm(36);
    let block = range(0x4000_0000, BLOCK_2M);
    vm.map(&mut mem, &mut Unused, block, Pa::new(0x8000_0000), S2Attr::rwx(WriteBackNoTag)).unwrap();
    let mut tlb = Recorder::default();
    let at = |mem: &Fake, vm: &Vm, n: u64| vm.walk(mem, Ipa::new(0x4000_0000 + n * 4096)).unwrap();
    // In an order that leaves the neighbours for last.
    let order = (0..512_u64).map(|n| n * 7 % 512);
    for (count, n) in (1..).zip(order.clone()) {
        vm.retype(&mut mem, &mut tlb, range(0x4000_0000 + n * 4096, 4096), WriteBack).unwrap();
        let level = if count == 512 { Level::Two } else { Level::Three };
        assert_eq!(at(&mem, &vm, n), (Pa::new(0x8000_0000 + n * 4096), RAM, level));
    }
    for n in order {
        let flushes = tlb.flushes.len();
        vm.retype(&mut mem, &mut tlb, range(0x4000_0000 + n * 4096, 4096), WriteBackNoTag).unwrap();
        assert_eq!(at(&mem, &vm, n).1, S2Attr::rwx(WriteBackNoTag));
        assert!(tlb.flushes.len() > flushes);
    }
    assert_eq!(at(&mem, &vm, 9).2, Level::Two);
    assert_eq!((mem.broken_rules, mem.tables()), (0, 2));
}

fn pages() -> impl Strategy<Value = (u64, u64)> {
    let aligned = (0_u64..4, 1_u64..4).prop_map(|(start, n)| (start * 512, n * 512));
    prop_oneof![aligned, (0_u64..2048, 1_u64..700), (0_u64..2048, 1_u64..4)]
        .prop_map(|(start, n)| (start, n.min(2048 - start)))
}

fn attrs() -> impl Strategy<Value = S2Attr> {
    let memory: Vec<S2Memory> = [WriteBack, WriteBack, WriteBackNoTag, NonCacheable, DeviceNGnRE].into();
    (proptest::sample::select(memory), any::<bool>()).prop_map(|(memory, write)| S2Attr {
        memory,
        read: true,
        write,
        exec: crate::attr::Exec::All,
    })
}

fn op() -> impl Strategy<Value = Op> {
    // Mostly the identity, so that neighbours are contiguous and can join.
    let shift = prop_oneof![4 => Just(0_u64), 1 => Just(512), 1 => Just(1)];
    prop_oneof![
        (pages(), shift, attrs()).prop_map(|((start, n), shift, attr)| Op::Map(start, n, shift, attr)),
        (pages(), attrs()).prop_map(|((start, n), attr)| Op::Protect(start, n, attr)),
        pages().prop_map(|(start, n)| Op::Unmap(start, n)),
    ]
}

const BASE: u64 = BLOCK_1G - 2 * BLOCK_2M;

fn page_range(start: u64, n: u64) -> IpaRange {
    range(BASE + start * 4096, n * 4096)
}

/// IPA page to physical page and attributes.
type Model = BTreeMap<u64, (u64, S2Attr)>;

/// Applies `op` to the model; the error is the IPA page that forbids it.
fn apply(model: &mut Model, op: &Op) -> Result<(), u64> {
    match *op {
        Op::Map(start, n, shift, attr) => {
            if let Some(page) = (start..start + n).find(|page| model.contains_key(page)) {
                return Err(page);
            }
            model.extend((start..start + n).map(|page| (page, (page + shift, attr))));
        }
        Op::Protect(start, n, attr) => {
            if let Some(page) = (start..start + n).find(|page| !model.contains_key(page)) {
                return Err(page);
            }
            for page in start..start + n {
                model.get_mut(&page).unwrap().1 = attr;
            }
        }
        Op::Unmap(start, n) => model.retain(|page, _| !(start..start + n).contains(page)),
    }
    Ok(())
}

/// A second walker, written from D8.2 without the builder's code: levels 1 to 3 of a 32-bit space.
fn naive_walk(mem: &Fake, root: u64, ipa: u64) -> Option<(u64, u64)> {
    let l1 = mem.read(Pa::new(root + (ipa >> 30) * 8));
    if l1 & 3 == 1 {
        return Some((l1 & 0xffff_c000_0000 | ipa & 0x3fff_ffff, l1));
    }
    if l1 & 3 == 0 {
        return None;
    }
    let l2 = mem.read(Pa::new((l1 & 0xffff_ffff_f000) + (ipa >> 21 & 511) * 8));
    if l2 & 3 == 1 {
        return Some((l2 & 0xffff_ffe0_0000 | ipa & 0x1f_ffff, l2));
    }
    if l2 & 3 == 0 {
        return None;
    }
    let l3 = mem.read(Pa::new((l2 & 0xffff_ffff_f000) + (ipa >> 12 & 511) * 8));
    (l3 & 3 == 3).then_some((l3 & 0xffff_ffff_f000 | ipa & 0xfff, l3))
}

/// Walks every page of the window and compares; blocks must be used where a protect left one.
fn compare(mem: &Fake, vm: &Vm, model: &Model) -> Result<(), TestCaseError> {
    for page in (0..2048).step_by(if cfg!(miri) { 61 } else { 1 }) {
        let ipa = BASE + page * 4096 + 0xabc;
        let found = vm.walk(mem, Ipa::new(ipa)).map(|(pa, attr, _)| (pa.get(), attr));
        let expected = model.get(&page).map(|&(to, attr)| (BASE + to * 4096 + 0xabc, attr));
        prop_assert_eq!(found, expected, "page {}", page);
        let naive =
            naive_walk(mem, vm.root().get(), ipa).map(|(pa, d)| (pa, S2Attr::decode(d, FEATURES).unwrap()));
        prop_assert_eq!(naive, expected);
    }
    Ok(())
}

/// Whether all 512 pages from `block * 512` could be one block.
fn uniform(model: &Model, block: u64) -> bool {
    let first = block * 512;
    let Some(&(to, attr)) = model.get(&first) else { return false };
    to % 512 == 0 && (0..512).all(|i| model.get(&(first + i)) == Some(&(to + i, attr)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 96 }))]

    #[test]
    fn builder_matches_a_model_of_pages(ops in proptest::collection::vec(op(), 1..if cfg!(miri) { 3 } else { 12 })) {
        let (mut mem, mut vm) = vm(32);
        let mut model = Model::new();
        for op in ops {
            let mut tlb = Recorder::default();
            let before = model.clone();
            let expected = apply(&mut model, &op);
            let result = match op {
                Op::Map(start, n, shift, attr) => {
                    let pa = Pa::new(BASE + (start + shift) * 4096);
                    vm.map(&mut mem, &mut tlb, page_range(start, n), pa, attr)
                }
                Op::Protect(start, n, attr) => vm.protect(&mut mem, &mut tlb, page_range(start, n), attr),
                Op::Unmap(start, n) => vm.unmap(&mut mem, &mut tlb, page_range(start, n)),
            };
            let page = |ipa: Ipa<Canonical>| (ipa.get() - BASE) / 4096;
            let culprit = match result {
                Ok(()) => Ok(()),
                Err(MapError::Mapped(ipa) | MapError::Unmapped(ipa)) => Err(page(ipa)),
                Err(other) => panic!("{other:?}"),
            };
            prop_assert_eq!(culprit, expected);
            compare(&mem, &vm, &model)?;
            // Every page whose old translation is gone was flushed.
            for (page, old) in &before {
                let ipa = BASE + page * 4096;
                prop_assert!(
                    model.get(page) == Some(old)
                        || tlb.flushes.iter().any(|f| f.start <= ipa && ipa < f.end),
                    "stale page {}", page
                );
            }
            prop_assert!(tlb.flushes.len() <= 2);
            // Blocks wherever the change could make them.
            for block in 0..4 {
                let touched = match op {
                    Op::Map(start, n, ..) => start <= block * 512 && block * 512 + 512 <= start + n,
                    Op::Protect(start, n, _) => start < block * 512 + 512 && block * 512 < start + n,
                    Op::Unmap(..) => false,
                };
                if touched && expected.is_ok() && uniform(&model, block) {
                    let level = vm.walk(&mem, Ipa::new(BASE + block * BLOCK_2M)).unwrap().2;
                    prop_assert_eq!(level, Level::Two);
                }
            }
        }
        prop_assert_eq!(mem.broken_rules, 0);
        vm.unmap(&mut mem, &mut Unused, range(0, 1 << 32)).unwrap();
        prop_assert_eq!(mem.tables(), 1);
        vm.destroy(&mut mem);
        prop_assert_eq!(mem.tables(), 0);
    }

    #[test]
    fn budget_is_exact(
        ipa_bits in 32_u8..=48,
        map in proptest::collection::vec((0_u64..200, 1..if cfg!(miri) { 60 } else { 1500_u64 }, 0_u64..4), 1..8),
    ) {
        let (mut mem, mut vm) = vm(ipa_bits);
        let mut at = 0x0800_0000;
        let mut ranges = Vec::new();
        for (gap, n, shift) in map {
            at += gap * 4096;
            // Some at equal offsets within a block, some not.
            let pa = at + if shift == 0 { 0 } else { shift * 4096 };
            ranges.push((range(at, n * 4096), Pa::new(pa), false));
            at += n * 4096;
        }
        let needed = tables_needed(vm.geometry(), ranges.iter().copied());
        for (ipa, pa, _) in &ranges {
            vm.map(&mut mem, &mut Unused, *ipa, *pa, RAM).unwrap();
        }
        prop_assert_eq!(mem.tables(), needed);
        // With the budget for it, every page can have attributes of its own.
        let split = tables_needed(vm.geometry(), ranges.iter().map(|(ipa, pa, _)| (*ipa, *pa, true)));
        mem.limit = Some(split - needed);
        for (ipa, ..) in &ranges {
            for at in (ipa.start().get()..ipa.end().get()).step_by(0x2000) {
                vm.protect(&mut mem, &mut Recorder::default(), range(at, 4096), S2Attr::rx(WriteBack)).unwrap();
            }
        }
        prop_assert_eq!(mem.broken_rules, 0);
        ranges.reverse();
        prop_assert!(tables_needed(vm.geometry(), ranges) >= needed);
    }
}
