//! The pool against a model of L1's tables, the VM's own map, and TLBs that forget only what they are
//! told to.

use super::*;
use addr::{BLOCK_1G, BLOCK_2M};
use core::cell::Cell;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;
use vmsa::attr::{Exec, S2Attr, S2Memory};
use vmsa::descriptor::{ADDRESS, Kind, Level, kind};

use super::key::VS;
use crate::attributes::{Attributes, Own, compose};
use crate::stage2::tests::OFFERED;
use crate::stage2::{Leaf, Registers};

mod work;

/// Frames from here on.
const BASE: u64 = 0x7000_0000;

#[derive(Default)]
struct Frames {
    words: Vec<u64>,
    /// Descriptors looked at, and written.
    read: Cell<usize>,
    written: usize,
}

impl TableMemory for Frames {
    fn read(&self, entry: Pa) -> u64 {
        assert!(entry.get() >= BASE && entry.is_aligned(8));
        self.read.set(self.read.get() + 1);
        self.words.get((entry.get() - BASE) as usize / 8).copied().unwrap_or(0)
    }
    fn write(&mut self, entry: Pa, descriptor: u64) {
        assert!(entry.get() >= BASE && entry.is_aligned(8));
        self.written += 1;
        let index = (entry.get() - BASE) as usize / 8;
        if self.words.len() <= index {
            self.words.resize(index + 1, 0);
        }
        self.words[index] = descriptor;
    }
    fn zero(&mut self, table: Pa) {
        let first = ((table.get() - BASE) as usize / 8).min(self.words.len());
        let end = (first + 512).min(self.words.len());
        self.words[first..end].fill(0);
    }
}

/// TLBs that hold every leaf that they could have seen: slot, start, size, descriptor.
#[derive(Default)]
struct Model {
    held: BTreeSet<(usize, u64, u64, u64)>,
    flushes: usize,
    whole: Vec<usize>,
}

impl Tlbs for Model {
    fn flush(&mut self, slot: usize, flush: Flush<Ipa<Nested>>) {
        self.flushes += 1;
        let (start, end) = (flush.start.get(), flush.end.get());
        self.held.retain(|(s, at, size, _)| *s != slot || *at >= end || at + size <= start);
    }
    fn flush_all(&mut self, slot: usize) {
        self.whole.push(slot);
        self.held.retain(|(s, ..)| *s != slot);
    }
    fn publish(&mut self) {}
}

struct Vm {
    shadows: Shadows,
    mem: Frames,
    tlbs: Model,
}

/// What L1 allows: everything.
const ALL: Attributes =
    Attributes { memory: S2Memory::WriteBack, read: true, write: true, exec: Exec::All, reserved: false };
const ATTR: S2Attr = S2Attr::rwx(S2Memory::WriteBack);

impl Vm {
    fn new(slots: usize, tables: usize, records: usize) -> Self {
        Self::with_pa_bits(slots, tables, records, 48)
    }

    fn with_pa_bits(slots: usize, tables: usize, records: usize, pa_bits: u8) -> Self {
        let config = Config {
            slots,
            memory: Pa::new(BASE),
            tables,
            records,
            vmid16: true,
            pa_bits,
            features: S2Features { fwb: true, mte_perm: true },
        };
        let shadows = Shadows::new(config).unwrap();
        Self { shadows, mem: Frames::default(), tlbs: Model::default() }
    }

    fn attach(&mut self, key: Key) -> usize {
        self.shadows.attach(&mut self.mem, &mut self.tlbs, key).unwrap()
    }

    /// A fault at `ipa`, which L1 maps to `canonical` by a leaf of `leaf` bytes, and the VM to the same
    /// plus 64 GiB in blocks of `own`.
    fn fault(&mut self, slot: usize, ipa: u64, canonical: u64, leaf: u64, own: u64) {
        let leaf = Leaf {
            output: Ipa::new(canonical),
            level: 3,
            size: leaf,
            attributes: ALL,
            clean: false,
            descriptor: 0,
        };
        let own = Own { pa: Pa::new(canonical + (64 << 30)), attr: ATTR, size: own };
        let mapping = compose(Ipa::new(ipa), &leaf, &own).unwrap();
        let generation = self.shadows.generation();
        self.shadows.map(&mut self.mem, &mut self.tlbs, slot, &mapping, generation).unwrap();
        self.fill_tlbs();
    }

    fn tlbi(&mut self, vmid: u16, start: u64, extent: Extent) {
        let what = Stage2 { start: Ipa::new(start), extent };
        self.shadows.invalidate(&mut self.mem, &mut self.tlbs, vmid, what);
    }

    fn lose(&mut self, start: u64, size: u64) {
        let range = Range::<Ipa<Canonical>>::new(Ipa::new(start), size).unwrap();
        self.shadows.forget_canonical(&mut self.mem, &mut self.tlbs, range);
    }

    /// What shadow `slot` says of `ipa`: L1's physical address.
    fn look(&self, slot: usize, ipa: u64) -> Option<u64> {
        let (leaf, level) = self.shadows.slots[slot].tree.leaf_at(&self.mem, ipa)?;
        Some((leaf & ADDRESS) + ipa % level.size() - (64 << 30))
    }

    /// All leaves: slot, start, size, descriptor.
    fn leaves(&self) -> BTreeSet<(usize, u64, u64, u64)> {
        let mut all = BTreeSet::new();
        for (index, slot) in self.shadows.slots.iter().enumerate() {
            let mut at = 0;
            let (mut table, mut level, mut stack) = (slot.tree.root(), level_of(&slot.vtcr), Vec::new());
            let mut i = 0;
            loop {
                if i == 512 {
                    let Some(top) = stack.pop() else { break };
                    (table, level, i, at) = top;
                    continue;
                }
                let descriptor = self.mem.read(Pa::new(table.get() + 8 * i));
                let here = at + i * level.size();
                i += 1;
                match kind(descriptor, level) {
                    Kind::Invalid => {}
                    Kind::Leaf => assert!(all.insert((index, here, level.size(), descriptor))),
                    Kind::Table(next) => {
                        stack.push((table, level, i, at));
                        (table, level, i, at) = (next, level.next().unwrap(), 0, here);
                    }
                }
            }
        }
        all
    }

    fn fill_tlbs(&mut self) {
        self.tlbs.held.extend(self.leaves());
    }
}

fn level_of(vtcr: &u64) -> Level {
    [Level::Two, Level::One, Level::Zero, Level::Three][(*vtcr >> 6) as usize & 3]
}

/// VTTBR with VMID and base; VTCR for 39 bits in 4 KiB pages.
fn key(vmid: u64, base: u64) -> Key {
    key_with(vmid, base, 25 | 1 << 6 | 5 << 16)
}

fn key_with(vmid: u64, base: u64, vtcr: u64) -> Key {
    let registers = Registers { vttbr: vmid << 48 | base, vtcr: vtcr | VS, ..Registers::default() };
    Key::new(registers, true, &OFFERED, true)
}

fn off(vmid: u64) -> Key {
    Key::new(
        Registers { vttbr: vmid << 48 | 0x5000, vtcr: VS, ..Registers::default() },
        false,
        &OFFERED,
        true,
    )
}

#[test]
fn a_tlbi_hits_every_stage_2_with_that_vmid() {
    // docs/testing.md, M1: two L2s with one VMID and different BADDR; a third with another VMID stays.
    let mut vm = Vm::new(4, 64, 64);
    let slots = [key(3, 0x1000), key(3, 0x2000), key(4, 0x1000)].map(|key| vm.attach(key));
    for slot in slots {
        vm.fault(slot, 0x5000, 0x8000_5000, 4096, 4096);
    }
    vm.tlbi(3, 0x5000, Extent::Leaf);
    assert_eq!(slots.map(|slot| vm.look(slot, 0x5000).is_some()), [false, false, true]);
    assert_eq!(vm.tlbs.held, vm.leaves());
}

#[test]
fn a_tlbi_without_a_hint_removes_all_pieces_of_l1s_block() {
    // docs/testing.md, M2: L1 has 2 MiB, the VM 4 KiB: all 512 go, whichever is named, also one that was
    // never touched; pages beside the block stay.
    for named in [0x20_0000, 0x20_3000, 0x3f_f000] {
        let mut vm = Vm::new(2, 64, 2048);
        let slot = vm.attach(key(1, 0x1000));
        for page in (0x20_0000..0x40_0000).step_by(4096).filter(|page| *page != 0x20_3000) {
            vm.fault(slot, page, 0x8000_0000 + page, BLOCK_2M, 4096);
        }
        vm.fault(slot, 0x1f_f000, 0x9000_0000, 4096, 4096);
        vm.fault(slot, 0x40_0000, 0x9000_1000, 4096, 4096);
        vm.tlbi(1, named, Extent::Leaf);
        assert_eq!(vm.leaves().len(), 2);
        assert_eq!(vm.tlbs.held, vm.leaves());
    }
}

#[test]
fn a_tlbi_without_a_hint_removes_one_page_of_l1s() {
    let mut vm = Vm::new(2, 64, 2048);
    let slot = vm.attach(key(1, 0x1000));
    for page in 0..16 {
        vm.fault(slot, page << 12, 0x8000_0000 + (page << 12), 4096, BLOCK_2M);
    }
    vm.tlbi(1, 0x3000, Extent::Leaf);
    assert_eq!(vm.leaves().len(), 15);
    // An absent page: nothing else goes.
    vm.tlbi(1, 0x10_0000, Extent::Leaf);
    assert_eq!(vm.leaves().len(), 15);
}

#[test]
fn a_hint_or_range_spans_what_it_says() {
    // docs/testing.md, M3: 4 KiB leaves and a hint of level 2.
    let mut vm = Vm::new(2, 64, 2048);
    let slot = vm.attach(key(1, 0x1000));
    for page in (0..0x60_0000).step_by(0x8_0000) {
        vm.fault(slot, page, 0x8000_0000 + page, 4096, BLOCK_2M);
    }
    vm.tlbi(1, 0x20_0000, Extent::Bytes(BLOCK_2M));
    assert_eq!(vm.leaves().len(), 8);
    vm.tlbi(1, 0x8_0000, Extent::Bytes(0x10_0000));
    assert_eq!(vm.leaves().len(), 6);
}

#[test]
fn a_range_that_ends_in_l1s_block_takes_all_of_it() {
    let mut vm = Vm::new(2, 64, 2048);
    let slot = vm.attach(key(1, 0x1000));
    for page in [0x20_0000, 0x3f_0000] {
        vm.fault(slot, page, 0x8000_0000 + page, BLOCK_2M, 4096);
    }
    vm.tlbi(1, 0x1f_f000, Extent::Bytes(0x2000));
    assert_eq!(vm.leaves().len(), 0);
}

#[test]
fn pages_of_16_and_64_kib_go_whole() {
    for (tg, page) in [(2, 16 << 10), (1, 64 << 10)] {
        let mut vm = Vm::new(2, 64, 2048);
        let slot = vm.attach(key_with(1, 0x1_0000, 25 | 1 << 6 | tg << 14 | 5 << 16));
        // The VM has 4 KiB there: the pieces come one by one, and the last one never.
        for at in (0..2 * page - 4096).step_by(4096) {
            vm.fault(slot, at, 0x8000_0000 + at, page, 4096);
        }
        vm.tlbi(1, page, Extent::Leaf);
        assert_eq!(vm.leaves().len() as u64, page / 4096);
        vm.tlbi(1, page - 4096, Extent::Leaf);
        assert_eq!(vm.leaves().len(), 0);
        // With blocks one fault maps the page whole.
        vm.fault(slot, 0x4000, 0x8000_4000, page, BLOCK_2M);
        assert_eq!(vm.leaves().len() as u64, page / 4096);
    }
}

#[test]
fn blocks_of_2_mib_and_1_gib_are_one_leaf() {
    let mut vm = Vm::new(2, 64, 64);
    let slot = vm.attach(key(1, 0x1000));
    vm.fault(slot, 0x4_4020_5678, 0x1_0020_5678, BLOCK_2M, BLOCK_1G);
    vm.fault(slot, 0x5_4020_5678, 0x2_0020_5678, BLOCK_1G, BLOCK_1G);
    let sizes: Vec<u64> = vm.leaves().iter().map(|(_, _, size, _)| *size).collect();
    assert_eq!(sizes, [BLOCK_2M, BLOCK_1G]);
    assert_eq!(vm.look(slot, 0x5_7fff_ffff), Some(0x2_3fff_ffff));
    // L1 invalidates one address of it.
    vm.tlbi(1, 0x5_5555_5000, Extent::Leaf);
    assert_eq!(vm.leaves().len(), 1);
}

#[test]
fn five_stage_2s_share_two_places() {
    // docs/testing.md, M10: each sees its own data, and no table is lost: a thousand turns with few tables.
    let mut vm = Vm::new(2, 8, 64);
    for turn in 0..1000_u64 {
        let who = turn * 7 % 5;
        let slot = vm.attach(key(who, 0x1000 * (who + 1)));
        assert_eq!(vm.look(slot, 0x5000), None);
        vm.fault(slot, 0x5000, 0x8000_0000 + (who << 20), 4096, 4096);
        vm.fault(slot, 0x4000_0000, 0x9000_0000 + (who << 20), 4096, 4096);
        assert_eq!(vm.look(slot, 0x5000), Some(0x8000_0000 + (who << 20)));
        vm.shadows.detach(slot);
        // Another vCPU with the same registers finds what is there.
        let again = vm.attach(key(who, 0x1000 * (who + 1)));
        assert_eq!((again, vm.look(slot, 0x5000).is_some()), (slot, true));
        vm.shadows.detach(again);
        // And now for a stage 2 that is recycled at once.
        let other = vm.attach(key(100 + turn, 0));
        assert_eq!(vm.look(other, 0x5000), None);
        vm.shadows.detach(other);
        assert_eq!(vm.tlbs.held, vm.leaves());
    }
}

#[test]
fn no_place_while_all_are_in_use() {
    let mut vm = Vm::new(2, 8, 64);
    let slots = [key(1, 0x1000), key(2, 0x1000)].map(|key| vm.attach(key));
    assert_eq!(vm.shadows.attach(&mut vm.mem, &mut vm.tlbs, key(3, 0x1000)), None);
    vm.shadows.detach(slots[0]);
    assert_eq!(vm.attach(key(3, 0x1000)), slots[0]);
    assert_eq!(vm.shadows.key(slots[0]).unwrap().vmid(), 3);
}

#[test]
fn stage_2_off_has_a_place_of_its_own() {
    // docs/testing.md, M11: VM 1, 0, 1.
    let mut vm = Vm::new(3, 8, 64);
    let on = vm.attach(key(1, 0x1000));
    vm.fault(on, 0x5000, 0x8000_0000, 4096, 4096);
    vm.shadows.detach(on);
    let flat = vm.attach(off(1));
    assert_ne!(flat, on);
    assert_eq!(vm.shadows.loaded(flat).unwrap().root, None);
    vm.shadows.detach(flat);
    assert_eq!(vm.attach(key(1, 0x1000)), on);
    assert_eq!(vm.look(on, 0x5000), Some(0x8000_0000));
    assert_eq!(vm.shadows.of_vmid(1).collect::<Vec<_>>(), [on, flat]);
    // What the VM loses leaves the TLBs of those without stage 2 too.
    vm.tlbs.whole.clear();
    vm.lose(0x4000_0000, 4096);
    assert_eq!(vm.tlbs.whole, [flat]);
}

#[test]
fn a_page_that_the_vm_loses_leaves_all_shadows() {
    // docs/testing.md, M12: one page of L1's, in three shadows at two addresses each: all gone, and nothing
    // else.
    let mut vm = Vm::new(4, 64, 256);
    let slots = [key(1, 0x1000), key(2, 0x2000), key(2, 0x3000)].map(|key| vm.attach(key));
    for slot in slots {
        for ipa in [0x5000, 0x4000_9000] {
            vm.fault(slot, ipa, 0x8000_3000, 4096, 4096);
            vm.fault(slot, ipa + 0x1000, 0x8000_4000, 4096, 4096);
        }
    }
    vm.lose(0x8000_3000, 4096);
    for slot in slots {
        for ipa in [0x5000, 0x4000_9000] {
            assert_eq!(vm.look(slot, ipa), None);
            assert_eq!(vm.look(slot, ipa + 0x1000), Some(0x8000_4000));
        }
    }
    assert_eq!(vm.tlbs.held, vm.leaves());
}

#[test]
fn a_page_out_of_the_middle_of_a_block_takes_the_block() {
    let mut vm = Vm::new(2, 64, 256);
    let slot = vm.attach(key(1, 0x1000));
    for (at, size) in [(0, BLOCK_1G), (BLOCK_1G, BLOCK_2M), (2 * BLOCK_1G, 64 << 10)] {
        vm.fault(slot, at, 0x8000_0000 + at, size, BLOCK_1G);
        assert!(vm.look(slot, at + 0x7000).is_some());
        vm.lose(0x8000_7000 + at, 4096);
        assert_eq!(vm.leaves().len(), 0);
    }
    // Much at once is found as well.
    vm.fault(slot, 0x5000, 0x8000_5000, 4096, 4096);
    vm.lose(0x4000_0000, 4 * BLOCK_1G);
    assert_eq!(vm.leaves().len(), 0);
}

#[test]
fn many_pages_at_once_cost_no_more_than_all() {
    let mut vm = Vm::new(2, 64, 256);
    let slot = vm.attach(key(1, 0x1000));
    for page in 0..100 {
        vm.fault(slot, page << 12, 0x8000_0000 + (page << 12), 4096, 4096);
    }
    vm.fault(slot, 0x4000_0000, 0x9000_0000, 4096, 4096);
    let before = vm.tlbs.flushes;
    vm.lose(0x8000_0000, 32 << 12);
    assert_eq!((vm.leaves().len(), vm.tlbs.flushes - before), (69, 32));
    vm.lose(0x8000_0000, 100 << 12);
    assert_eq!((vm.leaves().len(), vm.tlbs.flushes - before), (0, 32));
    assert_eq!(vm.tlbs.held, vm.leaves());
}

#[test]
fn records_are_bounded() {
    // Sixteen records, a hundred pages: the oldest mappings go, and what remains is still found.
    let mut vm = Vm::new(2, 64, 16);
    let slot = vm.attach(key(1, 0x1000));
    for page in 0..100 {
        vm.fault(slot, page << 12, 0x8000_0000 + (page << 12), 4096, 4096);
    }
    assert_eq!(vm.leaves().len(), 16);
    vm.lose(0x8000_0000, 100 << 12);
    assert_eq!(vm.leaves().len(), 0);
}

#[test]
fn an_outdated_translation_is_not_mapped() {
    let mut vm = Vm::new(2, 64, 16);
    let slot = vm.attach(key(1, 0x1000));
    let generation = vm.shadows.generation();
    vm.tlbi(9, 0, Extent::Leaf);
    let mapping = Mapping {
        nested: Range::<Ipa<Nested>>::new(Ipa::new(0x1000), 4096).unwrap(),
        canonical: Ipa::new(0x1000),
        pa: Pa::new(0x1000),
        attr: ATTR,
        leaf: 4096,
    };
    let refused = vm.shadows.map(&mut vm.mem, &mut vm.tlbs, slot, &mapping, generation);
    assert_eq!(refused, Err(Refused::Outdated));
}

#[test]
fn cnp_and_meaningless_bits_do_not_make_a_stage_2() {
    let with = |vttbr: u64, vtcr: u64| {
        Key::new(Registers { vttbr, vtcr, ..Registers::default() }, true, &OFFERED, true)
    };
    assert_eq!(with(3 << 48 | 0x1000, VS | 25), with(3 << 48 | 0x1001, VS | 25 | 1 << 31 | 0x3f << 8));
    assert_ne!(with(3 << 48 | 0x1000, VS | 25), with(3 << 48 | 0x1000, VS | 24));
    // Eight bits of VMID without VTCR_EL2.VS, or if that is not offered.
    assert_eq!(guest_vmid(0x1203 << 48, 0, true), 3);
    assert_eq!(guest_vmid(0x1203 << 48, VS, false), 3);
    assert_eq!(guest_vmid(0x1203 << 48, VS, true), 0x1203);
}

/// L1's map, by 1 GiB of L2's addresses: leaves of 1 GiB, 2 MiB, 4 KiB. Each stage 2 shifts it.
fn l1_leaf(ipa: u64) -> u64 {
    [BLOCK_1G, BLOCK_2M, PAGE_SIZE, BLOCK_2M][(ipa / BLOCK_1G) as usize % 4]
}

/// The VM's, by 1 GiB of L1's.
fn own_leaf(canonical: u64) -> u64 {
    [BLOCK_1G, PAGE_SIZE, BLOCK_2M][(canonical / BLOCK_1G) as usize % 3]
}

fn l1_map(stage2: u64, ipa: u64) -> u64 {
    ipa ^ (stage2 * BLOCK_1G)
}

#[derive(Clone, Debug)]
enum Op {
    Touch(u64, u64),
    Tlbi(u64, u64, Option<u64>),
    Lose(u64, u64),
    Vmid(u64),
    All,
}

/// Addresses with few distinct values, so that operations meet.
fn address() -> impl Strategy<Value = u64> {
    (0_u64..4, prop::sample::select(std::vec![0_u64, 1, 2, 255, 511]), 0_u64..4)
        .prop_map(|(g, m, p)| g * BLOCK_1G + m * BLOCK_2M + p * 127 * PAGE_SIZE)
}

fn op() -> impl Strategy<Value = Op> {
    let size = || prop::sample::select(std::vec![PAGE_SIZE, 3 * PAGE_SIZE, BLOCK_2M, 5 * BLOCK_2M, BLOCK_1G]);
    prop_oneof![
        12 => (0_u64..4, address()).prop_map(|(s, a)| Op::Touch(s, a)),
        4 => (0_u64..2, address(), prop::option::of(size())).prop_map(|(v, a, s)| Op::Tlbi(v, a, s)),
        2 => (address(), size()).prop_map(|(a, s)| Op::Lose(a, s)),
        1 => (0_u64..2).prop_map(Op::Vmid),
        1 => Just(Op::All),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 40 }))]
    /// Four stage 2s with two VMIDs in three places, few tables and few records: after each operation
    /// shadows hold nothing that was invalidated, only what L1 and the VM map, and TLBs nothing that
    /// shadows do not.
    #[test]
    fn shadows_are_caches(ops in prop::collection::vec(op(), 1..60)) {
        let mut vm = Vm::new(3, 12, 32);
        for op in ops {
            match op {
                Op::Touch(stage2, ipa) => {
                    let slot = vm.attach(key(stage2 % 2, 0x1000 << stage2));
                    let canonical = l1_map(stage2, ipa);
                    vm.fault(slot, ipa, canonical, l1_leaf(ipa), own_leaf(canonical));
                    prop_assert_eq!(vm.look(slot, ipa), Some(canonical));
                    vm.shadows.detach(slot);
                }
                Op::Tlbi(vmid, ipa, bytes) => {
                    vm.tlbi(vmid as u16, ipa, bytes.map_or(Extent::Leaf, Extent::Bytes));
                    let leaf = Span::around(ipa, l1_leaf(ipa));
                    let span = bytes.map_or(leaf, |bytes| Span { start: ipa, end: ipa + bytes });
                    for (slot, at, size, _) in vm.leaves() {
                        let hit = vm.shadows.key(slot).unwrap().vmid() == vmid as u16;
                        prop_assert!(!hit || at >= span.end || at + size <= span.start);
                    }
                }
                Op::Lose(canonical, size) => {
                    vm.lose(canonical, size);
                    for (_, _, bytes, leaf) in vm.leaves() {
                        let at = (leaf & ADDRESS) - (64 << 30);
                        prop_assert!(at >= canonical + size || at + bytes <= canonical);
                    }
                }
                Op::Vmid(vmid) => {
                    vm.shadows.forget_vmid(&mut vm.mem, &mut vm.tlbs, vmid as u16);
                    let slots: Vec<_> = vm.shadows.of_vmid(vmid as u16).collect();
                    prop_assert!(!vm.leaves().iter().any(|(slot, ..)| slots.contains(slot)));
                }
                Op::All => {
                    vm.shadows.forget_all(&mut vm.mem, &mut vm.tlbs);
                    prop_assert!(vm.leaves().is_empty());
                }
            }
            let leaves = vm.leaves();
            prop_assert!(vm.tlbs.held.is_subset(&leaves));
            vm.fill_tlbs();
            for (slot, at, size, leaf) in leaves {
                let base = vm.shadows.key(slot).unwrap().registers().vttbr;
                let stage2 = u64::from((base / 0x1000).trailing_zeros());
                let canonical = l1_map(stage2, at);
                prop_assert_eq!((leaf & ADDRESS) - (64 << 30), canonical);
                prop_assert!(size <= l1_leaf(at) && size <= own_leaf(canonical));
            }
        }
    }
}
