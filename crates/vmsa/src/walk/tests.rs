//! Tables laid out by hand, and random paths through all granules and sizes.

use std::collections::HashMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use Access::{Execute, Read, Write};
use FaultKind::{AccessFlag, AddressSize, Permission, TableRead, Translation as NotMapped};
use Privilege::{El0, El1};

#[derive(Default)]
struct Memory(HashMap<u64, u64>);

impl GuestMemory for Memory {
    fn read_u64(&self, ipa: Ipa<Canonical>) -> Option<u64> {
        assert!(ipa.is_aligned(8));
        // Tables lie below 1 GiB; what was not written there is zero.
        (ipa.get() < 1 << 30).then(|| self.0.get(&ipa.get()).copied().unwrap_or(0))
    }
}

const AF: u64 = 1 << 10;
const USER: u64 = 1 << 6;
const RO: u64 = 1 << 7;
const UXN: u64 = 1 << 54;
const PXN: u64 = 1 << 53;

/// 48-bit halves of 4 KiB granule, IPS 40 bits, MMU on.
fn regime() -> Regime {
    Regime {
        tcr: 16 | 16 << 16 | 0b10 << 30 | 2 << 32,
        ttbr0: 0x1_0000,
        ttbr1: 0x1_0000,
        sctlr: 1,
        mair: 0x0444_f0ff,
        pan: false,
        el2: false,
    }
}

/// Tables at 0x10000 to 0x13000; `leaf` maps VA 0x1000 of each half at level 3.
fn one_page(leaf: u64) -> Memory {
    let mut memory = Memory::default();
    memory.0.insert(0x1_0000, 0x1_1003);
    memory.0.insert(0x1_1000, 0x1_2003);
    memory.0.insert(0x1_2000, 0x1_3003);
    memory.0.insert(0x1_3008, leaf);
    memory
}

fn go(
    memory: &Memory,
    regime: &Regime,
    va: u64,
    who: Privilege,
    how: Access,
) -> Result<u64, (FaultKind, u8)> {
    translate(memory, regime, Va::new(va), who, how).map(|t| t.ipa.get()).map_err(|f| (f.kind, f.level))
}

#[test]
fn a_page_with_its_attributes() {
    let memory = one_page(0x4000_5000 | AF | 1 << 2 | 0b11);
    let found = translate(&memory, &regime(), Va::new(0x1abc), El1, Write).unwrap();
    let permissions = Permissions { read: true, write: true, exec: true };
    let ipa = Ipa::new(0x4000_5abc);
    assert_eq!(found, Translation { ipa, memory: 0xf0, shareability: 0, permissions, level: 3 });
    assert_eq!(go(&memory, &regime(), 0xffff_0000_0000_1abc, El1, Read), Ok(0x4000_5abc));
    assert_eq!(go(&memory, &regime(), 0x1abc, El0, Read), Err((Permission, 3)));
    assert_eq!(go(&memory, &regime(), 0x2abc, El1, Read), Err((NotMapped, 3)));
}

/// Leaf bits, table bits, change of regime, and what EL1 and EL0 may do, as `rwx`.
#[test]
#[rustfmt::skip]
fn permissions_by_row() {
    let (wxn, epan) = (1_u64 << 19, 1_u64 << 57);
    let (table_ro, table_no_el0, table_uxn, table_pxn) = (1_u64 << 62, 1_u64 << 61, 1_u64 << 60, 1_u64 << 59);
    let rows: &[(u64, u64, u64, bool, &str, &str)] = &[
        (0,                0,            0,    false, "rwx", "--x"),
        (RO,               0,            0,    false, "r-x", "--x"),
        (USER,             0,            0,    false, "rw-", "rwx"),
        (USER | RO,        0,            0,    false, "r-x", "r-x"),
        (USER | UXN,       0,            0,    false, "rw-", "rw-"),
        (PXN | UXN,        0,            0,    false, "rw-", "---"),
        (0,                0,            wxn,  false, "rw-", "--x"),
        (USER,             0,            wxn,  false, "rw-", "rw-"),
        (USER | RO,        0,            wxn,  false, "r-x", "r-x"),
        (USER | RO,        0,            0,    true,  "--x", "r-x"),
        (UXN,              0,            0,    true,  "rwx", "---"),
        (RO,               0,            0,    true,  "r-x", "--x"),
        (RO,               0,            epan, true,  "--x", "--x"),
        (USER,             table_ro,     0,    false, "r-x", "r-x"),
        (USER,             table_no_el0, 0,    false, "rwx", "--x"),
        (USER | RO,        table_uxn,    0,    false, "r-x", "r--"),
        (USER | RO,        table_pxn,    0,    false, "r--", "r-x"),
    ];
    for &(bits, table, sctlr, pan, el1, el0) in rows {
        let mut memory = one_page(0x5000 | AF | bits | 0b11);
        *memory.0.get_mut(&0x1_1000).unwrap() |= table;
        let regime = Regime { sctlr: 1 | sctlr, pan, ..regime() };
        for (who, rights) in [(El1, el1), (El0, el0)] {
            for (how, letter) in [(Read, 'r'), (Write, 'w'), (Execute, 'x')] {
                let expected = if rights.contains(letter) { Ok(0x5000) } else { Err((Permission, 3)) };
                assert_eq!(go(&memory, &regime, 0x1000, who, how), expected, "{bits:#x} {table:#x} {sctlr:#x} {pan} {who:?} {how:?}");
            }
        }
        // HPD0: tables take nothing away.
        if table != 0 {
            let flat = Regime { tcr: regime.tcr | 1 << 41, ..regime };
            let plain = one_page(0x5000 | AF | bits | 0b11);
            for (who, how) in [(El1, Write), (El0, Read), (El0, Execute), (El1, Execute)] {
                assert_eq!(go(&memory, &flat, 0x1000, who, how), go(&plain, &regime, 0x1000, who, how));
            }
        }
    }
}

#[test]
fn access_flag_and_dirty_state() {
    let clean = one_page(0x5000 | RO | 1 << 51 | 0b11);
    assert_eq!(go(&clean, &regime(), 0x1000, El1, Write), Err((AccessFlag, 3)));
    let ha = Regime { tcr: regime().tcr | 1 << 39, ..regime() };
    assert_eq!(go(&clean, &ha, 0x1000, El1, Read), Ok(0x5000));
    assert_eq!(go(&clean, &ha, 0x1000, El1, Write), Err((Permission, 3)));
    let hd = Regime { tcr: ha.tcr | 1 << 40, ..ha };
    assert_eq!(go(&clean, &hd, 0x1000, El1, Write), Ok(0x5000));
}

#[test]
fn halves_and_their_borders() {
    let memory = one_page(0x5000 | AF | USER | RO | 0b11);
    let with = |tcr: u64| Regime { tcr: regime().tcr | tcr, ..regime() };
    let upper = 0xffff_0000_0000_1000;
    let hole = Err((NotMapped, 0));
    assert_eq!(go(&memory, &regime(), 0x0001_0000_0000_1000, El1, Read), hole);
    assert_eq!(go(&memory, &regime(), 0x0500_0000_0000_1000, El1, Read), hole);
    // TBI for each half, and TBID for fetches.
    assert_eq!(go(&memory, &with(1 << 37), 0x0500_0000_0000_1000, El1, Read), Ok(0x5000));
    assert_eq!(go(&memory, &with(1 << 37), 0x05ff_0000_0000_1000, El1, Read), hole, "bit 55 picks the half");
    assert_eq!(go(&memory, &with(1 << 38), 0x05ff_0000_0000_1000, El1, Read), Ok(0x5000));
    assert_eq!(go(&memory, &with(1 << 37 | 1 << 51), 0x0500_0000_0000_1000, El1, Execute), hole);
    // EPD0, EPD1; E0PD1 for EL0 only.
    assert_eq!(go(&memory, &with(1 << 7), 0x1000, El1, Read), hole);
    assert_eq!(go(&memory, &with(1 << 7), upper, El1, Read), Ok(0x5000));
    assert_eq!(go(&memory, &with(1 << 23), upper, El1, Read), hole);
    assert_eq!(go(&memory, &with(1 << 56), upper, El0, Read), hole);
    assert_eq!(go(&memory, &with(1 << 56), upper, El1, Read), Ok(0x5000));
}

#[test]
fn broken_tables() {
    let regime = regime();
    let mut memory = one_page(0x5000 | AF | 0b01);
    assert_eq!(go(&memory, &regime, 0x1000, El1, Read), Err((NotMapped, 3)), "reserved at level 3");
    memory.0.insert(0x1_0000, 0x5000 | AF | 0b01);
    assert_eq!(go(&memory, &regime, 0x1000, El1, Read), Err((NotMapped, 0)), "no block at level 0");
    memory.0.insert(0x1_0000, 0x8000_0003);
    assert_eq!(go(&memory, &regime, 0x1000, El1, Read), Err((TableRead(Ipa::new(0x8000_0000)), 1)));
    memory.0.insert(0x1_0000, 1 << 40 | 3);
    assert_eq!(go(&memory, &regime, 0x1000, El1, Read), Err((AddressSize, 0)));
    let far = Regime { ttbr0: 1 << 40, ..regime };
    assert_eq!(go(&memory, &far, 0x1000, El1, Read), Err((AddressSize, 0)));
}

#[test]
fn big_endian_tables() {
    let mut memory = one_page(0x5000 | AF | 0b11);
    memory.0.values_mut().for_each(|v| *v = v.swap_bytes());
    let big = Regime { sctlr: 1 | 1 << 25, ..regime() };
    assert_eq!(go(&memory, &big, 0x1000, El1, Read), Ok(0x5000));
}

#[test]
fn contiguous_pages_need_nothing_special() {
    let memory = one_page(0x5000 | AF | 1 << 52 | 0b11);
    assert_eq!(go(&memory, &regime(), 0x1000, El1, Read), Ok(0x5000));
}

#[test]
fn mmu_off() {
    let off = Regime { sctlr: 0, tcr: 1 << 37, ..regime() };
    let found = translate(&Memory::default(), &off, Va::new(0x0500_0000_4000_0004), El0, Write).unwrap();
    assert_eq!((found.ipa, found.memory), (Ipa::new(0x4000_0004), 0));
    let cached = Regime { sctlr: 1 << 12, ..off };
    assert_eq!(translate(&Memory::default(), &cached, Va::new(0), El1, Execute).unwrap().memory, 0xaa);
    assert_eq!(go(&Memory::default(), &off, 1 << 48, El1, Read), Err((AddressSize, 0)));
}

#[test]
fn status_codes() {
    let code = |kind: FaultKind, level| Stage1Fault { kind, level }.status_code();
    assert_eq!([code(AddressSize, 1), code(NotMapped, 0), code(AccessFlag, 3)], [0x01, 0x04, 0x0b]);
    assert_eq!([code(Permission, 2), code(TableRead(Ipa::new(0)), 3)], [0x0e, 0x17]);
}

proptest! {
    /// Lays out a path of tables for one address, by the index fields of D8.2.7 to D8.2.9 written
    /// down as tables, and expects the walk to follow it.
    #[test]
    fn all_granules_and_sizes(
        granule in 0_usize..3, bits in 18_u32..=48, upper: bool, seed: u64, leaf_up in 0_usize..2, output: u64,
    ) {
        // Lowest index bit of levels 0 to 3; TG0 and TG1.
        let (shifts, tg0, tg1) = [
            ([39, 30, 21, 12], 0b00, 0b10),
            ([47, 36, 25, 14], 0b10, 0b01),
            ([64, 42, 29, 16], 0b01, 0b11),
        ][granule];
        let start = (0..4).find(|&level| shifts[level] < bits).unwrap();
        let mut leaf_level = 3 - leaf_up;
        if leaf_level < start {
            leaf_level = 3;
        }
        let inside = seed & ((1 << bits) - 1);
        let va = if upper { inside | !((1 << bits) - 1) } else { inside };
        let mut memory = Memory::default();
        let mut top = bits;
        for (level, &shift) in shifts.iter().enumerate().take(leaf_level + 1).skip(start) {
            let table = 0x10_0000 * (level as u64 + 1);
            let index = (inside & ((1 << top) - 1)) >> shift;
            let next = 0x10_0000 * (level as u64 + 2);
            let output = output & 0xff_ffff_ffff & !((1 << shift) - 1);
            let descriptor = match level == leaf_level {
                true => output | AF | if level == 3 { 0b11 } else { 0b01 },
                false => next | 0b11,
            };
            memory.0.insert(table + index * 8, descriptor);
            top = shift;
        }
        let size = u64::from(64 - bits);
        let root = (0x10_0000 * (start as u64 + 1)) | 1;
        let regime = match upper {
            false => Regime { tcr: size | tg0 << 14 | 2 << 32, ttbr0: root, ttbr1: 0, ..regime() },
            true => Regime { tcr: size << 16 | tg1 << 30 | 2 << 32, ttbr1: root, ttbr0: 0, ..regime() },
        };
        let offset = (1 << shifts[leaf_level]) - 1;
        let expected = output & 0xff_ffff_ffff & !offset | va & offset;
        prop_assert_eq!(go(&memory, &regime, va, El1, Read), Ok(expected));
    }

    /// Whatever registers and tables say, the walk ends with an answer.
    #[test]
    fn total(tcr: u64, sctlr: u64, ttbr: u64, va: u64, word: u64, pan: bool) {
        struct Same(u64);
        impl GuestMemory for Same {
            fn read_u64(&self, ipa: Ipa<Canonical>) -> Option<u64> {
                assert!(ipa.is_aligned(8));
                Some(self.0)
            }
        }
        let regime = Regime { tcr, sctlr: sctlr | 1, ttbr0: ttbr, ttbr1: ttbr, mair: 0, pan, el2: pan };
        for word in [word, word | 1, word | 3, word & !0xff | 0b01] {
            for access in [Read, Write, Execute] {
                let _ = translate(&Same(word), &regime, Va::new(va), El0, access);
            }
        }
    }
}

#[test]
fn the_level_at_which_a_walk_aborts() {
    let level =
        |memory: &Memory, regime: &Regime, how| lookups(memory, regime, Va::new(0x1abc), El1, how).level;
    // A table of each level beyond the memory that the fake has.
    for (entry, wanted) in [(None, 0), (Some(0x1_0000), 1), (Some(0x1_1000), 2), (Some(0x1_2000), 3)] {
        let mut memory = one_page(0x4000_5000 | AF | 0b11);
        let mut regime = regime();
        match entry {
            Some(at) => drop(memory.0.insert(at, 0x8000_0003)),
            None => regime.ttbr0 = 0x8000_0000,
        }
        for how in [Read, Write, Execute] {
            assert_eq!(level(&memory, &regime, how), wanted);
        }
    }
    // The access flag or the dirty state of a page and of a block, to be set by hardware (HA, HD).
    let mut regime = regime();
    regime.tcr |= 0b11 << 39;
    assert_eq!(level(&one_page(0x4000_5003), &regime, Read), 3);
    assert_eq!(level(&one_page(0x4000_5003 | AF | RO | 1 << 51), &regime, Write), 3);
    let mut block = one_page(0);
    block.0.insert(0x1_2000, 0x4000_0001);
    assert_eq!(level(&block, &regime, Read), 2);
    // And which descriptors it looked at, from there back.
    let entries = |memory: &Memory, regime: &Regime| {
        lookups(memory, regime, Va::new(0x1abc), El1, Read)
            .entries
            .into_iter()
            .flatten()
            .map(Ipa::get)
            .collect()
    };
    let none: Vec<u64> = entries(&one_page(0), &Regime { sctlr: 0, ..regime });
    assert_eq!(none, [], "MMU off");
    let some: Vec<u64> = entries(&block, &regime);
    assert_eq!(some.first(), Some(&0x1_2000));
    let all: Vec<u64> = entries(&one_page(0x4000_5003), &regime);
    assert_eq!((all.len(), all.first()), (some.len() + 1, Some(&0x1_3008)));
    assert_eq!(all.get(1..), Some(some.as_slice()));
}

#[test]
fn el2_has_one_range_and_one_privilege() {
    // TCR_EL2: 39 bits, 4 KiB, PS of 40 bits, TBI.
    let regime = Regime { tcr: el2_tcr(25 | 2 << 16 | 1 << 20), el2: true, ..regime() };
    assert_eq!(regime.tcr, 25 | 1 << 23 | 2 << 32 | 1 << 37);
    let mut memory = Memory::default();
    memory.0.insert(0x1_0000, 0x1_2003);
    memory.0.insert(0x1_2000, 0x1_3003);
    // AP[1] is RES1 there and gives EL0 nothing; bit 53 means nothing, bit 54 is XN.
    memory.0.insert(0x1_3008, 0x4000_5000 | AF | 1 << 6 | PXN | 0b11);
    assert_eq!(go(&memory, &regime, 0x1abc, El1, Write), Ok(0x4000_5abc));
    assert_eq!(go(&memory, &regime, 0x1abc, El1, Execute), Ok(0x4000_5abc));
    assert_eq!(go(&memory, &Regime { pan: true, ..regime }, 0x1abc, El1, Read), Ok(0x4000_5abc));
    // The top byte is ignored, and bit 55 selects nothing.
    assert_eq!(go(&memory, &regime, 0x5a00_0000_0000_1abc, El1, Read), Ok(0x4000_5abc));
    assert_eq!(go(&memory, &regime, 0xffff_ffff_ffff_1abc, El1, Read), Err((NotMapped, 0)));
    memory.0.insert(0x1_3008, 0x4000_5000 | AF | UXN | 0b11);
    assert_eq!(go(&memory, &regime, 0x1abc, El1, Execute), Err((Permission, 3)));
    memory.0.insert(0x1_3008, 0x4000_5000 | AF | RO | 0b11);
    assert_eq!(go(&memory, &regime, 0x1abc, El1, Write), Err((Permission, 3)));
    memory.0.insert(0x1_2000, 0x1_3003 | 1 << 60);
    assert_eq!(go(&memory, &regime, 0x1abc, El1, Execute), Err((Permission, 3)));
    // Every field of TCR_EL2 with a counterpart: T0SZ to TG0, PS, TBI, HA, HD, HPD, TBID, TCMA.
    let fields = 0xff3f | 0b111 << 16 | 1 << 20 | 0b11 << 21 | 1 << 24 | 1 << 29 | 1 << 30;
    let moved = 0xff3f | 0b111 << 32 | 1 << 37 | 0b11 << 39 | 1 << 41 | 1 << 51 | 1 << 57 | 1 << 23;
    assert_eq!((el2_tcr(fields), el2_tcr(!fields)), (moved, 1 << 23));
}
