//! The walker against a naive one on tables that say anything, and each fault by name.

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::vec::Vec;
use vmsa::attr::{Exec, S2Memory};

mod naive;
pub(crate) use naive::Memory;
use naive::{Verdict, naive};

pub(crate) const OFFERED: Offered = Offered {
    pa_bits: 48,
    granule4: true,
    granule16: true,
    granule64: true,
    small: true,
    access_flag: true,
    dirty_state: true,
    xnx: true,
    mte_perm: true,
};

fn real(memory: &Memory, registers: &Registers, offered: &Offered, ipa: u64, write: bool) -> Verdict {
    match walk(memory, registers, offered, Ipa::new(ipa), write) {
        Ok(leaf) => {
            let raw = |a: &Attributes| u64::from(a.read) << 6 | u64::from(a.write) << 7;
            Ok((leaf.output.get(), leaf.level, leaf.size, raw(&leaf.attributes)))
        }
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::Retry) => panic!("nobody races"),
    }
}

prop_compose! {
    fn any_registers()(t0sz in 14_u64..42, sl0 in 0_u64..4, tg in 0_u64..4, ps in 0_u64..8, flags in 0_u64..4,
                       base in any::<u64>(), base_bits in 30_u32..49, big_endian: bool, fwb: bool) -> Registers {
        let vtcr = t0sz | sl0 << 6 | tg << 14 | ps << 16 | flags << 21;
        Registers { vttbr: base & ((1 << base_bits) - 1), vtcr, big_endian, fwb }
    }
}

prop_compose! {
    fn any_offer()(pa in prop::sample::select(std::vec![36_u8, 40, 42, 44, 48]), bits in 0_u32..128) -> Offered {
        let bit = |n: u32| bits >> n & 1 == 0;
        Offered { pa_bits: pa, granule4: bit(0), granule16: bit(1), granule64: bit(2), small: bit(3),
                  access_flag: bit(4), dirty_state: bit(5), xnx: bit(6), mte_perm: true }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 2048 }))]
    #[test]
    fn agrees_with_a_naive_walker(
        registers in any_registers(), offered in any_offer(), seed in 1_u64..,
        limit in prop::sample::select(std::vec![1_u64 << 36, 1 << 47, 1 << 48]),
        addresses in prop::collection::vec((any::<u64>(), 10_u32..64, any::<bool>()), 16),
    ) {
        let ours = Memory { seed, limit, ..Memory::new() };
        let theirs = ours.clone();
        for (address, shift, write) in addresses {
            let ipa = address >> shift;
            let found = real(&ours, &registers, &offered, ipa, write);
            let expected = naive(&theirs, &registers, &offered, ipa, write);
            let expected = expected.map(|(at, level, size, raw)| (at, level, size, raw & 0xc0));
            prop_assert_eq!(found, expected, "{:#x}", ipa);
            prop_assert_eq!(&*ours.words.borrow(), &*theirs.words.borrow());
        }
    }
}

#[test]
fn the_property_is_not_vacuous() {
    // Of the verdicts that random tables give, every kind occurs.
    let mut seen = BTreeMap::new();
    for seed in 1..4000_u64 {
        let memory = Memory { seed, limit: 1 << 40, ..Memory::new() };
        let vtcr =
            [24 | 1 << 6, 20 | 2 << 6, 24 | 1 << 6 | 2 << 14, 24 | 1 << 6 | 1 << 14][seed as usize % 4];
        let registers =
            Registers { vttbr: 0, vtcr: vtcr | 4 << 16 | (seed & 8) << 18, ..Registers::default() };
        let kind = match real(&memory, &registers, &OFFERED, seed << 22, seed & 16 != 0) {
            Ok((_, level, ..)) => (0, level),
            Err(Fault { kind, level }) => (1 + kind as u8, level),
        };
        *seen.entry(kind).or_insert(0) += 1;
    }
    for level in 1..4 {
        for kind in [0, 1 + FaultKind::Translation as u8, 1 + FaultKind::AddressSize as u8] {
            assert!(seen.contains_key(&(kind, level)), "{kind} at {level}: {seen:?}");
        }
        assert!(seen.contains_key(&(1 + FaultKind::AccessFlag as u8, level)), "{seen:?}");
    }
    assert!(seen.keys().any(|(kind, _)| *kind == 1 + FaultKind::External as u8), "{seen:?}");
}

/// 40 bits, 4 KiB, start at level 1 with two tables at 0x10000, output 48 bits.
const PLAIN: Registers =
    Registers { vttbr: 7 << 48 | 0x1_0000, vtcr: 24 | 1 << 6 | 5 << 16, big_endian: false, fwb: false };

const RWX: u64 = 0b1111 << 2 | 0b11 << 6 | 0b11 << 8 | AF;

/// Level 1 table, level 2 table at 0x20000, level 3 table at 0x30000.
fn three_levels() -> Memory {
    let memory = Memory::new();
    memory.set(0x1_0000, 0x2_0003);
    memory.set(0x2_0000, 0x3_0003);
    memory.set(0x3_0000 + 8 * 5, 0x8000_0000 | RWX | 0b11);
    memory
}

fn fault(memory: &Memory, registers: &Registers, ipa: u64) -> (FaultKind, u8) {
    match walk(memory, registers, &OFFERED, Ipa::new(ipa), false) {
        Err(Stop::Fault(fault)) => (fault.kind, fault.level),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_and_its_attributes() {
    let leaf = walk(&three_levels(), &PLAIN, &OFFERED, Ipa::new(0x5123), false).unwrap();
    assert_eq!((leaf.output, leaf.level, leaf.size), (Ipa::new(0x8000_0123), 3, 4096));
    let all =
        Attributes { memory: S2Memory::WriteBack, read: true, write: true, exec: Exec::All, reserved: false };
    assert_eq!(leaf.attributes, all);
}

#[test]
fn a_permission_fault_has_the_level_of_l1s_table() {
    // docs/testing.md, M4: R is cleared, and after the TLBI the fault goes to L1 with L1's level.
    let memory = three_levels();
    memory.set(0x2_0008, 0x4020_0000 | RWX & !(1 << 6) | 0b01);
    let leaf = walk(&memory, &PLAIN, &OFFERED, Ipa::new(0x20_0000), false).unwrap();
    let denied = leaf.check(Access::Read).unwrap_err();
    assert_eq!((denied.kind, denied.level, denied.status_code()), (FaultKind::Permission, 2, 0x0e));
    assert_eq!(leaf.check(Access::Write), Ok(()));
}

#[test]
fn a_clear_access_flag_faults_or_is_set() {
    // docs/testing.md, M6.
    let memory = three_levels();
    let at = 0x3_0000 + 8 * 5;
    memory.set(at, memory.get(at) & !AF);
    assert_eq!(fault(&memory, &PLAIN, 0x5000), (FaultKind::AccessFlag, 3));
    assert_eq!(memory.get(at) & AF, 0);
    let ha = Registers { vtcr: PLAIN.vtcr | 1 << 21, ..PLAIN };
    walk(&memory, &ha, &OFFERED, Ipa::new(0x5000), false).unwrap();
    assert_eq!(memory.get(at), 0x8000_0000 | RWX | 0b11);
    // Not offered: HA is RES0.
    memory.set(at, memory.get(at) & !AF);
    let without = Offered { access_flag: false, ..OFFERED };
    let stopped = walk(&memory, &ha, &without, Ipa::new(0x5000), false).unwrap_err();
    assert_eq!(stopped, Stop::Fault(Fault { kind: FaultKind::AccessFlag, level: 3 }));
}

#[test]
fn a_racing_store_of_l1_is_not_lost() {
    // docs/testing.md, M6: L1 moves the page while the access flag is set: the walk sees the new page, and
    // the flag is set in L1's descriptor, not in the old one.
    let memory = three_levels();
    let at = 0x3_0000 + 8 * 5;
    memory.set(at, memory.get(at) & !AF);
    memory.rival.borrow_mut().push(0x9000_0000 | RWX & !AF | 0b11);
    let ha = Registers { vtcr: PLAIN.vtcr | 1 << 21, ..PLAIN };
    let leaf = walk(&memory, &ha, &OFFERED, Ipa::new(0x5000), false).unwrap();
    assert_eq!(leaf.output, Ipa::new(0x9000_0000));
    assert_eq!(memory.get(at), 0x9000_0000 | RWX | 0b11);
    // One that never stops is not waited for.
    memory.set(at, memory.get(at) & !AF);
    let endless = (0..8).map(|i| (0xa000_0000 + (i << 12)) | RWX & !AF | 0b11);
    memory.rival.borrow_mut().extend(endless);
    assert_eq!(walk(&memory, &ha, &OFFERED, Ipa::new(0x5000), false), Err(Stop::Retry));
}

#[test]
fn a_clean_page_turns_dirty_by_a_write_only() {
    let memory = three_levels();
    let at = 0x3_0000 + 8 * 5;
    memory.set(at, memory.get(at) & !WRITE | DBM);
    let hd = Registers { vtcr: PLAIN.vtcr | 0b11 << 21, ..PLAIN };
    let leaf = walk(&memory, &hd, &OFFERED, Ipa::new(0x5000), false).unwrap();
    assert!(!leaf.attributes.write && memory.get(at) & WRITE == 0);
    let leaf = walk(&memory, &hd, &OFFERED, Ipa::new(0x5000), true).unwrap();
    assert!(leaf.attributes.write && memory.get(at) & WRITE != 0);
}

#[test]
fn a_table_beyond_the_output_size_is_an_address_size_fault() {
    // docs/testing.md, M7: the base is at level 0, other tables at the level that names them.
    let memory = three_levels();
    let small = Registers { vttbr: 1 << 36 | 0x1_0000, vtcr: 24 | 1 << 6 | 1 << 16, ..PLAIN };
    assert_eq!(fault(&memory, &small, 0x5000), (FaultKind::AddressSize, 0));
    memory.set(0x2_0000, 1 << 36 | 0x3_0003);
    let small = Registers { vtcr: 24 | 1 << 6 | 1 << 16, ..PLAIN };
    assert_eq!(fault(&memory, &small, 0x5000), (FaultKind::AddressSize, 2));
    // A size above what is offered is no larger than that.
    let offered = Offered { pa_bits: 36, ..OFFERED };
    let narrow = Registers { vtcr: 28 | 1 << 6 | 5 << 16, ..PLAIN };
    let stopped = walk(&memory, &narrow, &offered, Ipa::new(0x5000), false).unwrap_err();
    assert_eq!(stopped, Stop::Fault(Fault { kind: FaultKind::AddressSize, level: 2 }));
}

#[test]
fn a_block_where_none_may_be_is_a_translation_fault() {
    // docs/testing.md, M8: at level 0, and at level 3, where it is reserved.
    let memory = Memory::new();
    memory.set(0x1_0000, 0x4000_0000 | RWX | 0b01);
    let from_zero = Registers { vtcr: 20 | 2 << 6 | 5 << 16, ..PLAIN };
    assert_eq!(fault(&memory, &from_zero, 0), (FaultKind::Translation, 0));
    let memory = three_levels();
    memory.set(0x3_0028, memory.get(0x3_0028) & !0b10);
    assert_eq!(fault(&memory, &PLAIN, 0x5000), (FaultKind::Translation, 3));
    // 16 and 64 KiB have no blocks at level 1.
    for tg in [1, 2] {
        let memory = Memory::new();
        memory.set(0x1_0000, 0x4000_0000 | RWX | 0b01);
        let registers = Registers { vtcr: 16 | 2 << 6 | tg << 14 | 5 << 16, ..PLAIN };
        assert_eq!(fault(&memory, &registers, 0), (FaultKind::Translation, 1), "{tg}");
    }
}

#[test]
fn big_endian_tables() {
    // docs/testing.md, M9, with an update of the access flag.
    let little = three_levels();
    let big = Memory::new();
    for (at, word) in little.words.borrow().iter() {
        big.set(*at, (if *at == 0x3_0028 { word & !AF } else { *word }).swap_bytes());
    }
    let registers = Registers { big_endian: true, vtcr: PLAIN.vtcr | 1 << 21, ..PLAIN };
    let leaf = walk(&big, &registers, &OFFERED, Ipa::new(0x5008), false).unwrap();
    assert_eq!(leaf.output, Ipa::new(0x8000_0008));
    assert_eq!(big.get(0x3_0028), little.get(0x3_0028).swap_bytes());
    assert_eq!(fault(&big, &PLAIN, 0x5000).0, FaultKind::Translation);
}

#[test]
fn absent_tables_are_external_aborts_on_the_walk() {
    let memory = three_levels();
    memory.set(0x1_0000, 0x7_0000_0003);
    let memory = Memory { limit: 1 << 32, ..memory };
    assert_eq!(fault(&memory, &PLAIN, 0x5000), (FaultKind::External, 2));
    assert_eq!(Fault { kind: FaultKind::External, level: 2 }.status_code(), 0x16);
}

#[test]
fn concatenated_root_tables() {
    // 43 bits from level 1: sixteen tables; the root is aligned to all of them.
    let registers = Registers { vttbr: 0xf_f000, vtcr: 21 | 1 << 6 | 5 << 16, ..PLAIN };
    let memory = Memory::new();
    let last = 0xf_0000 + 8 * ((1 << 13) - 1);
    memory.set(last, 0x40_0000_0000 | RWX | 0b01);
    let leaf = walk(&memory, &registers, &OFFERED, Ipa::new((1 << 43) - 1), false).unwrap();
    assert_eq!((leaf.level, leaf.size), (1, 1 << 30));
    // 44 bits are too many for level 1, and 30 too few.
    for t0sz in [20, 34] {
        let registers = Registers { vtcr: t0sz | 1 << 6 | 5 << 16, ..registers };
        assert_eq!(fault(&memory, &registers, 0), (FaultKind::Translation, 0), "{t0sz}");
    }
}

#[test]
fn runs_of_pages_make_blocks_of_2_mib() {
    let contiguous = RWX | CONTIGUOUS | 0b11;
    // 64 KiB granule, 42 bits, start at level 2; 32 pages of 64 KiB.
    let memory = Memory::new();
    memory.set(0x1_0000, 0x2_0003);
    memory.set(0x2_0000 + 8 * 33, 0x4021_0000 | contiguous);
    let registers = Registers { vtcr: 22 | 1 << 6 | 1 << 14 | 5 << 16, ..PLAIN };
    let leaf = walk(&memory, &registers, &OFFERED, Ipa::new(0x21_0000), false).unwrap();
    assert_eq!((leaf.output.get(), leaf.size), (0x4021_0000, 2 << 20));
    // Out of step: each page for itself.
    memory.set(0x2_0000 + 8 * 33, 0x4022_0000 | contiguous);
    let leaf = walk(&memory, &registers, &OFFERED, Ipa::new(0x21_0000), false).unwrap();
    assert_eq!(leaf.size, 64 << 10);
}

#[test]
fn reserved_granules_are_the_largest_offered() {
    for (tg, offered, bits) in [
        (0, OFFERED, 12),
        (2, OFFERED, 14),
        (1, OFFERED, 16),
        (3, OFFERED, 16),
        (3, Offered { granule64: false, ..OFFERED }, 14),
        (0, Offered { granule4: false, ..OFFERED }, 16),
        (1, Offered { granule64: false, granule16: false, ..OFFERED }, 12),
    ] {
        assert_eq!(granule(tg << 14, &offered), bits);
    }
}

#[test]
fn what_is_offered_is_what_the_id_registers_say() {
    let offered = |mmfr0| Offered::from_ids([mmfr0, 0x1000_0002, 0x1000_0000], 1);
    // 48 bits; TGran4_2, 64_2 and 16_2: yes.
    assert_eq!(offered(0x222_0000_0005), OFFERED);
    // As stage 1: 4 KiB yes (0), 64 KiB no (15), 16 KiB no (0); 40 bits.
    let found = offered(0x0f00_0002);
    let expected = Offered { pa_bits: 40, granule16: false, granule64: false, ..OFFERED };
    assert_eq!(found, expected);
    // 1 is no, whatever stage 1 has.
    let found = offered(0x111_0010_0005);
    assert!(!found.granule4 && !found.granule16 && !found.granule64);
    let nothing = Offered::from_ids([0x111_0000_0000, 0, 0], 0);
    let bits = [nothing.small, nothing.access_flag, nothing.dirty_state, nothing.xnx, nothing.mte_perm];
    assert_eq!((nothing.pa_bits, bits), (32, [false; 5]));
    let flag_only = Offered::from_ids([5, 1, 0], 0);
    assert!(flag_only.access_flag && !flag_only.dirty_state);
}
