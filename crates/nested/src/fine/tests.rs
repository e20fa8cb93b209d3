use super::*;
use arm_sysregs::el2::registers as r;
use proptest::prelude::*;
use std::vec::Vec;

/// Rows `register,name,bit,access,op0,op1,CRn,CRm,op2` of all accesses that a bit traps whose feature a VM may
/// have, from the accessors of the architecture; of numbered registers the first.
const TRAPS: &str = include_str!("../../tests/fine.csv");

/// Bits of features that no VM has: all with the other polarity, whose names begin with N, among them.
const HIDDEN: &[&str] =
    &["N", "SCXTNUM", "LOR", "OSDLR", "PM", "TRB", "TRC", "TRF", "ERXPFG", "ATS1E1A", "COSPRCTX", "PSBCSYNC"];

/// Name and number of each bit of a register, as another source has them.
fn bits(register: &str) -> Vec<(&'static str, u32)> {
    fn all<T: bitflags::Flags<Bits = u64>>() -> Vec<(&'static str, u32)> {
        T::FLAGS.iter().map(|flag| (flag.name(), flag.value().bits().trailing_zeros())).collect()
    }
    match register {
        "HFGRTR_EL2" => all::<r::HfgrtrEl2>(),
        "HFGWTR_EL2" => all::<r::HfgwtrEl2>(),
        "HFGITR_EL2" => all::<r::HfgitrEl2>(),
        "HDFGRTR_EL2" => all::<r::HdfgrtrEl2>(),
        "HDFGWTR_EL2" => all::<r::HdfgwtrEl2>(),
        _ => panic!("{register}"),
    }
}

/// The field of [`FineTraps`] that a register is, and whether it traps reads.
fn place<'a>(register: &str, traps: &'a mut FineTraps) -> (&'a mut u64, bool) {
    match register {
        "HFGRTR_EL2" => (&mut traps.read, true),
        "HFGWTR_EL2" => (&mut traps.write, false),
        "HFGITR_EL2" => (&mut traps.instruction, false),
        "HDFGRTR_EL2" => (&mut traps.debug_read, true),
        "HDFGWTR_EL2" => (&mut traps.debug_write, false),
        _ => panic!("{register}"),
    }
}

const REGISTERS: [&str; 5] = ["HFGRTR_EL2", "HFGWTR_EL2", "HFGITR_EL2", "HDFGRTR_EL2", "HDFGWTR_EL2"];

fn traps() -> impl Iterator<Item = (&'static str, u32, SysReg)> {
    TRAPS.lines().map(|line| {
        let f: Vec<&str> = line.split(',').collect();
        let n = |i: usize| f[i].parse().unwrap();
        let bit = bits(f[0]).iter().find(|bit| bit.0.eq_ignore_ascii_case(f[1])).unwrap().1;
        assert_eq!(bit, n(2), "{line}");
        (f[0], bit, SysReg::new(n(4), n(5), n(6), n(7), n(8)))
    })
}

#[test]
fn each_access_is_claimed_by_its_bit_and_no_other() {
    for (register, bit, reg) in traps() {
        let mut one = FineTraps::default();
        let (field, read) = place(register, &mut one);
        *field = 1 << bit;
        let access = SysregAccess { reg, rt: 0, read };
        assert!(one.claim(access, false), "{reg} by {register} {bit}");
        assert_eq!(one.and(FineTraps::ALL), one, "{register} {bit} is offered");
        let ones = !0;
        let mut others =
            FineTraps { read: ones, write: ones, instruction: ones, debug_read: ones, debug_write: ones };
        *place(register, &mut others).0 = !(1 << bit);
        assert!(!others.claim(access, false), "{reg} by others than {register} {bit}");
    }
}

#[test]
fn every_bit_has_a_row_or_is_hidden() {
    for register in REGISTERS {
        let mut all = FineTraps::ALL;
        let offered = *place(register, &mut all).0;
        let mut defined = 0;
        for (name, bit) in bits(register) {
            let upper = name.to_ascii_uppercase();
            let hidden = HIDDEN.iter().any(|stem| upper.starts_with(stem));
            assert_ne!(offered >> bit & 1 != 0, hidden, "{register}.{name}");
            defined |= 1 << bit;
        }
        assert_eq!(offered & !defined, 0, "{register} has such bits");
    }
}

#[test]
fn every_row_is_a_trap_of_the_architecture() {
    let known: Vec<u32> = traps().map(|(.., reg)| row_of(reg).unwrap().0).collect();
    assert!(ROWS.iter().all(|row| known.contains(&(row >> 16))));
    assert_eq!(ROWS.len(), UNSORTED.len());
    for (name, group, bit) in NAMES {
        let register = ["HFGRTR_EL2", "HFGITR_EL2", "HDFGRTR_EL2"][*group as usize];
        let same = |r: &str| bits(r).iter().any(|b| b.0.eq_ignore_ascii_case(name) && b.1 == *bit);
        assert!(same(register) || same("HDFGWTR_EL2"), "{name}");
    }
}

#[test]
fn numbers_and_nxs() {
    let traps = FineTraps { debug_read: 1, instruction: 1 << 43, ..FineTraps::default() };
    let access = |reg, read| SysregAccess { reg, rt: 0, read };
    for n in 0..16 {
        assert!(traps.claim(access(SysReg::new(2, 0, 0, n, 5), true), false), "DBGBCR{n}_EL1");
    }
    let (plain, nxs) = (SysReg::new(1, 0, 8, 7, 1), SysReg::new(1, 0, 9, 7, 1));
    assert!(traps.claim(access(plain, false), true) && traps.claim(access(nxs, false), false));
    assert!(!traps.claim(access(nxs, false), true), "TLBI VAE1NXS");
}

#[test]
fn what_a_vm_has_not_is_not_offered() {
    let without = FineTraps::offered(false, 1 << 48);
    assert_eq!(without.read, FineTraps::ALL.read & !0x1f0);
    assert_eq!(without.instruction, FineTraps::ALL.instruction & !(1 << 48));
    assert_eq!(FineTraps::offered(true, 0), FineTraps::ALL);
}

proptest! {
    #[test]
    fn nothing_is_claimed_by_none(op0 in 0u32..4, op1 in 0u32..8, crn in 0u32..16, crm in 0u32..16, op2 in 0u32..8, read: bool) {
        let access = SysregAccess { reg: SysReg::new(op0, op1, crn, crm, op2), rt: 0, read };
        prop_assert!(!FineTraps::default().claim(access, false));
    }
}
