//! Each instruction, each kind of answer, and the attributes against the manual's tables.

use super::*;
use crate::stage2::tests::{Memory, OFFERED};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

const VHE: Host = Host { e2h: true, tge: false };
const HOST: Host = Host { e2h: true, tge: true };

fn reg(op1: u32, crm: u32, op2: u32) -> SysReg {
    SysReg::new(1, op1, 7, crm, op2)
}

/// Name, op1, CRm, op2; regime, both stages, EL0, write, PAN (C5.4).
#[rustfmt::skip]
const ALL: [(&str, [u32; 3], Stage1, [bool; 4]); 12] = [
    ("S1E1R", [0, 8, 0], Stage1::El1, [false, false, false, false]),
    ("S1E1W", [0, 8, 1], Stage1::El1, [false, false, true, false]),
    ("S1E0R", [0, 8, 2], Stage1::El1, [false, true, false, false]),
    ("S1E0W", [0, 8, 3], Stage1::El1, [false, true, true, false]),
    ("S1E1RP", [0, 9, 0], Stage1::El1, [false, false, false, true]),
    ("S1E1WP", [0, 9, 1], Stage1::El1, [false, false, true, true]),
    ("S1E2R", [4, 8, 0], Stage1::El2, [false, false, false, false]),
    ("S1E2W", [4, 8, 1], Stage1::El2, [false, false, true, false]),
    ("S12E1R", [4, 8, 4], Stage1::El1, [true, false, false, false]),
    ("S12E1W", [4, 8, 5], Stage1::El1, [true, false, true, false]),
    ("S12E0R", [4, 8, 6], Stage1::El1, [true, true, false, false]),
    ("S12E0W", [4, 8, 7], Stage1::El1, [true, true, true, false]),
];

#[test]
fn every_instruction() {
    for (name, [op1, crm, op2], stage1, [both, el0, write, pan]) in ALL {
        let privilege = if el0 { Privilege::El0 } else { Privilege::El1 };
        let expected = At { stage1, both, privilege, write, pan };
        assert_eq!(At::decode(reg(op1, crm, op2), VHE), Some(expected), "{name}");
        // With E2H and TGE all mean the host's own regime, and there is no stage 2.
        let host = At { stage1: Stage1::El2, both: false, ..expected };
        assert_eq!(At::decode(reg(op1, crm, op2), HOST), Some(host), "{name}");
    }
    let known: BTreeSet<_> = ALL.iter().map(|(_, [a, b, c], ..)| reg(*a, *b, *c)).collect();
    for op1 in 0..8 {
        for (crn, crm, op2) in (0..16).flat_map(|n| (0..16).flat_map(move |m| (0..8).map(move |o| (n, m, o))))
        {
            let one = SysReg::new(1, op1, crn, crm, op2);
            assert_eq!(At::decode(one, VHE).is_some(), known.contains(&one), "{one}");
        }
    }
}

const AF: u64 = 1 << 10;

/// Stage 1: 39 bits, 4 KiB, root at L2's 0x1000, next at 0x2000 and 0x3000. MAIR: 0xff, 0xf0, 0x44, 0x04.
fn regime() -> Regime {
    let tcr = 25 | 25 << 16 | 0b10 << 30 | 5 << 32;
    Regime { tcr, ttbr0: 0x1000, ttbr1: 0x1000, sctlr: 1, mair: 0x0444_f0ff, pan: false, el2: false }
}

/// Stage 2: 39 bits, 4 KiB, from level 1 at L1's 0x1_0000, where L2's pages 0 to 15 are at 0x8_0000 and on.
const STAGE2: Registers =
    Registers { vttbr: 0x1_0000, vtcr: 25 | 1 << 6 | 5 << 16, big_endian: false, fwb: true };

const RW: u64 = 0b11 << 6 | 0b11 << 8 | AF | 0b11;

/// L1's memory: `leaf1` maps L2's VA 0x5000, `leaf2` L2's page 9.
fn machine(leaf1: u64, leaf2: u64) -> Memory {
    let memory = Memory::new();
    for page in 0..16 {
        memory.set(0x3_0000 + 8 * page, (0x8_0000 + (page << 12)) | 0b0110 << 2 | RW);
    }
    memory.set(0x1_0000, 0x2_0003);
    memory.set(0x2_0000, 0x3_0003);
    memory.set(0x3_0000 + 8 * 9, leaf2);
    memory.set(0x8_1000, 0x2003);
    memory.set(0x8_2000, 0x3003);
    memory.set(0x8_3000 + 8 * 5, leaf1);
    memory
}

fn ask(memory: &Memory, name: &str, registers: Option<&Registers>) -> u64 {
    let (_, [op1, crm, op2], ..) = ALL.iter().find(|(n, ..)| *n == name).unwrap();
    let at = At::decode(reg(*op1, *crm, *op2), VHE).unwrap();
    let second = registers.map(|registers| Second { registers, offered: &OFFERED, protected: false });
    at.answer(memory, &regime(), second, Va::new(0x5678))
}

const LEAF1: u64 = 0x9000 | AF | 1 << 6 | 0b11 << 8 | 0b11;
const LEAF2: u64 = 0x4000_9000 | 0b0110 << 2 | RW;

#[test]
fn stage_1_gives_l2s_address_and_both_l1s() {
    let memory = machine(LEAF1, LEAF2);
    assert_eq!(ask(&memory, "S1E1R", Some(&STAGE2)), 0xff << 56 | 0x9000 | 0b11 << 7 | RES1);
    assert_eq!(ask(&memory, "S12E1R", Some(&STAGE2)), 0xff << 56 | 0x4000_9000 | 0b11 << 7 | RES1);
    assert_eq!(ask(&memory, "S12E0W", Some(&STAGE2)), 0xff << 56 | 0x4000_9000 | 0b11 << 7 | RES1);
}

#[test]
fn without_stage_2_both_are_stage_1() {
    // L2's addresses are L1's: the tables lie there.
    let memory = machine(LEAF1, LEAF2);
    for (from, to) in [(0x8_1000, 0x1000), (0x8_2000, 0x2000), (0x8_3028, 0x3028)] {
        memory.set(to, memory.get(from));
    }
    assert_eq!(ask(&memory, "S12E1R", None), 0xff << 56 | 0x9000 | 0b11 << 7 | RES1);
}

#[test]
fn a_read_only_leaf_of_l1_fails_a_write_in_stage_2() {
    // docs/testing.md, M21: F = 1, S = 1, FST permission with L1's level.
    let memory = machine(LEAF1, LEAF2 & !(1 << 7));
    assert_eq!(ask(&memory, "S12E1W", Some(&STAGE2)), RES1 | S | 0x0f << 1 | F);
    assert_eq!(ask(&memory, "S12E1R", Some(&STAGE2)) & F, 0);
    // Stage 1 alone does not see it.
    assert_eq!(ask(&memory, "S1E1W", Some(&STAGE2)) & F, 0);
    // Hardware would let a clean page turn dirty; AT does not.
    let hd = Registers { vtcr: STAGE2.vtcr | 0b11 << 21, ..STAGE2 };
    let memory = machine(LEAF1, LEAF2 & !(1 << 7) | 1 << 51);
    assert_eq!(ask(&memory, "S12E1W", Some(&hd)) & F, 0);
    assert_eq!(memory.get(0x3_0000 + 8 * 9) & 1 << 7, 0);
}

#[test]
fn faults_say_which_stage_and_whether_on_a_walk() {
    // Stage 1: nothing mapped at level 3; permission for EL0.
    let memory = machine(0, LEAF2);
    assert_eq!(ask(&memory, "S12E1R", Some(&STAGE2)), RES1 | 0x07 << 1 | F);
    let memory = machine(LEAF1 & !(1 << 6), LEAF2);
    assert_eq!(ask(&memory, "S1E0R", Some(&STAGE2)), RES1 | 0x0f << 1 | F);
    // Stage 2: nothing mapped at level 3.
    let memory = machine(LEAF1, 0);
    assert_eq!(ask(&memory, "S12E1R", Some(&STAGE2)), RES1 | S | 0x07 << 1 | F);
    // Stage 2, for the table of level 2, for stage 1 alone too.
    let memory = machine(LEAF1, LEAF2);
    memory.set(0x3_0000 + 8 * 2, 0);
    for name in ["S1E1R", "S12E1R"] {
        assert_eq!(ask(&memory, name, Some(&STAGE2)), RES1 | S | PTW | 0x07 << 1 | F);
    }
    // The access flag is not set: that is left open, and the same answer as the hardware's.
    let ha = Registers { vtcr: STAGE2.vtcr | 1 << 21, ..STAGE2 };
    let memory = machine(LEAF1, LEAF2 & !AF);
    assert_eq!(ask(&memory, "S12E1R", Some(&ha)) & F, 0);
    assert_eq!(memory.get(0x3_0000 + 8 * 9) & AF, 0);
    assert_eq!(ask(&memory, "S12E1R", Some(&STAGE2)), RES1 | S | 0x0b << 1 | F);
}

#[test]
fn no_tag_access_shows_as_an_attribute_of_its_own() {
    // PAR_EL1.ATTR: 0xE0 instead of 0xF0, and only if stage 1 says Tagged.
    let tagged = LEAF1 | 1 << 2;
    let no_tag = LEAF2 | 0b1110 << 2;
    let attr = |leaf1, leaf2| ask(&machine(leaf1, leaf2), "S12E1R", Some(&STAGE2)) >> 56;
    assert_eq!([attr(tagged, LEAF2), attr(tagged, no_tag), attr(LEAF1, no_tag)], [0xf0, 0xe0, 0xff]);
    assert_eq!(ask(&machine(tagged, no_tag), "S1E1R", Some(&STAGE2)) >> 56, 0xf0);
}

#[test]
fn l1s_own_tables() {
    let memory = Memory::new();
    memory.set(0x1000, 0x2003);
    memory.set(0x2000, 0x3003);
    memory.set(0x3028, 0x4000_9000 | AF | 0b11 << 8 | 0b11);
    let at = At::decode(reg(4, 8, 1), Host::default()).unwrap();
    let el2 = Regime { el2: true, ..regime() };
    let answer = at.answer(&memory, &el2, None, Va::new(0x5678));
    assert_eq!(answer, 0xff << 56 | 0x4000_9000 | 0b11 << 7 | RES1);
    assert_eq!(at.answer(&memory, &el2, None, Va::new(0x6678)), RES1 | 0x07 << 1 | F);
}

/// HCR_EL2.PTW: a table of L2's in what L1 maps as a device is a permission fault on the walk, at L1's level.
#[test]
fn protected_walks_read_no_device() {
    let answer = |device: bool, protected, name| {
        let memory = machine(LEAF1, LEAF2);
        if device {
            memory.set(0x3_0000 + 8 * 2, 0x8_2000 | 0b0001 << 2 | RW);
        }
        let (_, [op1, crm, op2], ..) = ALL.iter().find(|(n, ..)| *n == name).unwrap();
        let second = Second { registers: &STAGE2, offered: &OFFERED, protected };
        At::decode(reg(*op1, *crm, *op2), VHE).unwrap().answer(
            &memory,
            &regime(),
            Some(second),
            Va::new(0x5678),
        )
    };
    for name in ["S1E1R", "S12E1W"] {
        assert_eq!(answer(true, true, name), RES1 | S | PTW | 0x0f << 1 | F, "{name}");
        assert_eq!([answer(true, false, name) & F, answer(false, true, name) & F], [0, 0], "{name}");
    }
}

#[test]
fn pan_counts_where_the_instruction_says_so() {
    let memory = machine(LEAF1, LEAF2);
    let regime = Regime { pan: true, ..regime() };
    let second = Some(Second { registers: &STAGE2, offered: &OFFERED, protected: false });
    let answer = |crm| {
        let at = At::decode(reg(0, crm, 0), VHE).unwrap();
        at.answer(&memory, &regime, second, Va::new(0x5678)) & F
    };
    assert_eq!([answer(8), answer(9)], [0, F]);
}

/// Attributes of both stages, by the manual's words rather than by bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cache {
    Non,
    Through,
    Back,
}

fn cache(nibble: u8) -> Cache {
    match nibble {
        0b0100 => Cache::Non,
        0b0000..=0b0011 | 0b1000..=0b1011 => Cache::Through,
        _ => Cache::Back,
    }
}

fn combined(first: u8, mem_attr: u64, fwb: bool) -> u8 {
    let registers = Registers { fwb, ..STAGE2 };
    combine(first, mem_attr << 2, Second { registers: &registers, offered: &OFFERED, protected: false })
}

#[test]
fn without_fwb_the_weaker_cacheability_wins() {
    let normal: Vec<u8> = (0x10..=0xff).filter(|a| a & 0xf != 0).collect();
    for first in normal {
        for (mem_attr, outer, inner) in [
            (0b0101, Cache::Non, Cache::Non),
            (0b0110, Cache::Non, Cache::Through),
            (0b0111, Cache::Non, Cache::Back),
            (0b1001, Cache::Through, Cache::Non),
            (0b1010, Cache::Through, Cache::Through),
            (0b1101, Cache::Back, Cache::Non),
            (0b1111, Cache::Back, Cache::Back),
        ] {
            let found = combined(first, mem_attr, false);
            assert_eq!(cache(found >> 4), cache(first >> 4).min(outer), "{first:#x} {mem_attr:#b}");
            assert_eq!(cache(found & 0xf), cache(first & 0xf).min(inner), "{first:#x} {mem_attr:#b}");
        }
    }
}

#[test]
fn device_memory_is_the_strictest_of_both() {
    for fwb in [false, true] {
        for mem_attr in 0..4 {
            assert_eq!(combined(0xff, mem_attr, fwb), (mem_attr as u8) << 2);
            assert_eq!(combined(TAGGED, mem_attr, fwb), (mem_attr as u8) << 2);
            for device in [0x00, 0x04, 0x08, 0x0c] {
                assert_eq!(combined(device, mem_attr, fwb), device.min((mem_attr as u8) << 2));
            }
        }
        assert_eq!(combined(0x04, 0b0101, fwb), 0x04);
    }
    assert_eq!(combined(0x04, 0b1111, false), 0x04);
    // Forced write-back, whatever stage 1 says.
    assert_eq!([combined(0x04, 0b0110, true), combined(0x44, 0b0110, true)], [0xff, 0xff]);
    assert_eq!(combined(0x04, 0b0111, true), 0x04);
}

proptest! {
    /// Whatever tables and registers say, there is an answer.
    #[test]
    fn total(which in 0_usize..12, va: u64, leaf1: u64, leaf2: u64, vtcr: u64, fwb: bool, e2h: bool, tge: bool) {
        let (_, [op1, crm, op2], ..) = ALL[which];
        let at = At::decode(reg(op1, crm, op2), Host { e2h, tge }).unwrap();
        let memory = machine(leaf1 | 1, leaf2 | 1);
        for registers in [STAGE2, Registers { vtcr, fwb, ..STAGE2 }] {
            let second = Some(Second { registers: &registers, offered: &OFFERED, protected: false });
            for va in [va, 0x5000 | va & 0xfff] {
                let par = at.answer(&memory, &regime(), second, Va::new(va));
                prop_assert!(par & RES1 != 0);
                prop_assert!(par & F == 0 || par & !(RES1 | S | PTW | 0x7f) == 0);
            }
        }
    }
}
