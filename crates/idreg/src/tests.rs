//! The ID registers that QEMU 11.1.3 was measured to have, and properties of the rules.

use std::format;
use std::vec::Vec;

use proptest::prelude::*;
use trap::inject::Exception;
use trap::{SysReg, SysregAccess};

use crate::check::{Unexplained, check, explained};
use crate::closing::{cptr, hcr, mdcr};
use crate::table::{ENTRIES, rows};
use crate::*;

mod closing;
mod documents;
mod drafts;
mod heterogeneous;
mod maintenance;
mod oracle;
mod race;

const MTE: Features = Features { mte: true, sve: false, nested: None };
const PLAIN: Features = Features { mte: false, sve: false, nested: None };

fn traps(host: &HostIds, features: &Features) -> TrapConfig {
    Draft::new(host, features).traps_on(host)
}

fn ids(values: &[(Reg, u64)]) -> HostIds {
    let mut features = [0; FEATURE_REGISTERS];
    for (reg, value) in values {
        features[*reg as usize] = *value;
    }
    HostIds {
        features,
        midr: 0xf0510,
        revidr: 0,
        aidr: 0,
        ctr: 0xb444_c004,
        dczid: 4,
        gmid: 6,
        pmcr: 0x4101_3000,
        sve_lengths: 0,
    }
}

/// `-cpu max`, mte=on.
fn max() -> HostIds {
    let mut ids = ids(&[
        (Reg::Pfr0, 0x1301_0011_2111_0222),
        (Reg::Pfr1, 0x0010_1010_1200_0321),
        (Reg::Pfr2, 0x0000_0001_0000_0111),
        (Reg::Zfr0, 0x0110_1101_0121_0022),
        (Reg::Smfr0, 0x92f1_5fff_7180_0001),
        (Reg::Fpfr0, 0xfc00_0003),
        (Reg::Dfr0, 0x1000_0000_1030_560a),
        (Reg::Isar0, 0x1221_1111_1031_2120),
        (Reg::Isar1, 0x0111_2111_1021_1502),
        (Reg::Isar2, 0x1120_0000_0011_0012),
        (Reg::Isar3, 0x1000_0010),
        (Reg::Mmfr0, 0x2100_0323_1020_1126),
        (Reg::Mmfr1, 0x0110_1120_1031_2122),
        (Reg::Mmfr2, 0x1221_0111_1201_1011),
        (Reg::Mmfr3, 0x1000_0000_1100_1111),
        (Reg::Mmfr4, 0x0000_0000_0000_0100),
    ]);
    // AArch32: ID_PFR0_EL1 and ID_ISAR0_EL1.
    ids.sve_lengths = 0xffff;
    ids.features[0] = 0x2101_0131;
    ids.features[8] = 0x0210_1110;
    ids
}

/// `-cpu neoverse-n2`, as far as it was measured.
fn n2() -> HostIds {
    HostIds {
        midr: 0x410f_d493,
        gmid: 4,
        sve_lengths: 1,
        ..ids(&[
            (Reg::Pfr0, 0x1201_1111_2111_1112),
            (Reg::Pfr1, 0x221),
            (Reg::Dfr0, 0x0000_0000_1030_5609),
            (Reg::Isar1, 0x0011_1111_1021_1502),
            (Reg::Mmfr0, 0x0000_0222_0010_1125),
            (Reg::Mmfr1, 0x0000_0000_1021_2122),
            (Reg::Mmfr2, 0x1221_0111_1210_1011),
        ])
    }
}

#[test]
fn entries_are_in_order() {
    assert_eq!(check_tables(), Ok(()));
    assert!(rows().map(|r| r.entry).eq(ENTRIES));
    let broken = |edit: fn(&mut Vec<Entry>)| {
        let mut t = ENTRIES.to_vec();
        edit(&mut t);
        check(&t, 1)
    };
    assert!(matches!(broken(|t| t.swap(3, 4)), Err(TableError::Order(..))));
    assert!(matches!(broken(|t| t[1].field.lsb = 3), Err(TableError::Order(..))));
    assert!(matches!(broken(|t| t.insert(2, t[2])), Err(TableError::Order(..))));
    assert!(matches!(broken(|t| t[0].field.width = 0), Err(TableError::Width(..))));
    assert!(matches!(broken(|t| t[0].field.width = 9), Err(TableError::Width(..))));
    assert!(matches!(broken(|t| t[15].field.width = 5), Err(TableError::Width(..))));
    assert!(matches!(broken(|t| t[15].field.lsb = 255), Err(TableError::Width(..))));
    assert!(matches!(broken(|t| t[0].field.absent = 16), Err(TableError::Value(..))));
    assert!(matches!(broken(|t| t[0].offer = Offer::Value(16)), Err(TableError::Value(..))));
    assert!(matches!(broken(|t| t[0].offer = Offer::AtMost(16)), Err(TableError::Value(..))));
    assert!(matches!(broken(|t| t[7].how = How::Nothing), Err(TableError::NotClosed(Reg::Pfr0, 28))));
    // A field that cannot say "not implemented" where the machine has it; on machines with 0 only.
    let crc = ENTRIES.iter().position(|e| e.reg == Reg::Isar0 && e.field.lsb == 16).unwrap();
    let mut t = ENTRIES.to_vec();
    t[crc].field.absent = 1;
    assert_eq!([1, 5].map(|step| check(&t, step)), [Err(TableError::Limit(Reg::Isar0, 16)); 2]);
    let sentence = format!("{}", TableError::Order(Reg::Pfr1, 28));
    assert_eq!(
        sentence,
        "the table of ID registers is wrong: register S3_0_C0_C4_1, bit 28, is out of order"
    );
}

#[test]
fn rows_are_explained() {
    let all: Vec<Row> = rows().copied().collect();
    assert_eq!(explained(&all), Ok(()));
    let broken = |edit: fn(&mut Vec<Row>)| {
        let mut t = all.clone();
        edit(&mut t);
        explained(&t)
    };
    assert_eq!(broken(|t| t[7].closed = Closed::Trap("")), Err(Unexplained("RAS")));
    assert_eq!(broken(|t| t[7].closed = Closed::Partly("by", "")), Err(Unexplained("RAS")));
    assert_eq!(broken(|t| t[0].why = ""), Err(Unexplained("EL0")));
}

/// Each row's name and position against another reading of the manual.
#[test]
fn oracle_of_fields() {
    for row in rows() {
        // The oracle has no ID_AA64DFR2_EL1 and ID_AA64ZFR0_EL1.
        let entry = row.entry;
        if !matches!(entry.reg, Reg::Dfr2 | Reg::Zfr0 | Reg::Ctr) {
            let name = format!("{}_SHIFT", row.name.to_ascii_uppercase());
            assert!(oracle::FIELDS.contains(&(entry.reg, name.as_str(), entry.field.lsb.into())), "{row:?}");
        }
    }
}

#[test]
fn guest_of_max() {
    let g = GuestIds::new(&max(), &MTE);
    for (reg, expected) in [
        (Reg::Pfr0, 0x1101_0000_0111_0011),
        (Reg::Pfr1, 0x321),
        (Reg::Pfr2, 0x110),
        (Reg::Zfr0, 0),
        (Reg::Smfr0, 0),
        (Reg::Fpfr0, 0),
        (Reg::Dfr0, 0x0000_00f0_1030_500a),
        (Reg::Dfr1, 0),
        (Reg::Isar0, 0x1221_1111_1031_2120),
        (Reg::Isar1, 0x0111_2111_1021_1502),
        (Reg::Isar2, 0x0120_0000_0010_0010),
        (Reg::Isar3, 0x1000_0010),
        (Reg::Mmfr0, 0x1000_0111_0010_0125),
        (Reg::Mmfr1, 0x0110_1020_0030_2002),
        (Reg::Mmfr2, 0x1021_0011_1000_0011),
        (Reg::Mmfr3, 0x1000_0000_0000_0000),
        (Reg::Mmfr4, 0),
    ] {
        assert_eq!(g.read(reg as usize), expected, "{reg:?}");
    }
    // AArch32 registers and reserved encodings read as zero.
    for index in (0..24).chain([27, 30, 44, 55, REGISTERS, usize::MAX]) {
        assert_eq!(g.read(index), 0);
    }
    let others = [index::MIDR, index::CTR, index::DCZID, index::GMID, index::MPIDR];
    assert_eq!(others.map(|i| g.read(i.into())), [0xf0510, 0xb444_c004, 4, 6, 1 << 31]);
    assert!(g.ids());
    let plain = GuestIds::new(&max(), &PLAIN);
    assert_eq!(plain.read(Reg::Pfr1 as usize), 0x021);
    assert_eq!(plain.read(Reg::Pfr2 as usize), 0);
    assert_eq!(plain.read(index::GMID.into()), 0);
}

#[test]
fn guest_of_n2() {
    let g = GuestIds::new(&n2(), &MTE);
    assert_eq!(g.read(Reg::Pfr1 as usize), 0x221);
    assert_eq!(g.read(Reg::Pfr2 as usize), 0);
    assert_eq!(g.read(Reg::Mmfr0 as usize) & 0xf, 5);
    assert_eq!(g.read(Reg::Mmfr2 as usize), 0x1021_0011_1010_0011);
    assert!(!n2().has_mte_perm() && max().has_mte_perm() && n2().has_fwb());
}

/// QEMU with mte=off shows MTE 1, MTEX and PFR2 all the same: nothing of it reaches a guest.
#[test]
fn machine_without_mte() {
    let mut host = max();
    host.features[Reg::Pfr1 as usize] = 0x0010_1010_1200_0121;
    host.gmid = 0;
    let g = GuestIds::new(&host, &MTE);
    let gmid = g.read(index::GMID.into());
    assert_eq!((g.read(Reg::Pfr1 as usize), g.read(Reg::Pfr2 as usize), gmid), (0x021, 0, 0));
    assert_eq!(traps(&host, &MTE).hcr & (hcr::ATA | hcr::TID5), 0);
    assert!(!host.has_mte_perm());
}

/// MTE 2 without asynchronous faults: MTE_frac 0 would promise them.
#[test]
fn mte_frac() {
    let mut host = n2();
    host.features[Reg::Pfr1 as usize] |= 0xf << 40;
    assert_eq!(GuestIds::new(&host, &MTE).read(Reg::Pfr1 as usize), 0x0f00_0000_0221);
    assert_eq!(GuestIds::new(&host, &PLAIN).read(Reg::Pfr1 as usize), 0x021);
    let mut both = max();
    both.gmid = 4;
    both.combine(&host);
    assert_eq!(GuestIds::new(&both, &MTE).read(Reg::Pfr1 as usize), 0x0f00_0000_0221);
}

#[test]
fn signed_fields() {
    let named = |name| rows().find(|r| r.name == name).unwrap().entry.field;
    let fp = named("FP");
    assert_eq!((fp.safe(0xf, 0), fp.safe(0, 0xf), fp.safe(1, 0)), (0xf, 0xf, 0));
    let key = named("APA");
    assert_eq!((key.safe(5, 5), key.safe(5, 4)), (5, 0));
    let cwg = crate::cache::CTR.iter().find(|f| f.lsb == 24).unwrap();
    assert_eq!((cwg.safe(4, 0), cwg.safe(4, 5)), (0, 5));
}

#[test]
fn different_cpus() {
    let mut both = max();
    both.combine(&n2());
    assert_eq!((both.midr, both.gmid, both.has_mte()), (0xf0510, 6, true));
    assert!(!both.has_hcx() && both.has_fwb());
    let mut ctr = max();
    ctr.ctr = 0x3_8444_8004;
    ctr.combine(&max());
    assert_eq!(ctr.ctr, 0x8444_8004, "VIPT, no IDC, no DIC");
    both.combine(&HostIds { gmid: 0, ..max() });
    assert!(!both.has_mte());
}

#[test]
fn limits() {
    let mut host = max();
    host.limit(Reg::Mmfr2, 40, 0);
    host.limit(Reg::Pfr2, 0, 0);
    host.limit(Reg::Mmfr1, 0, 1);
    host.limit(Reg::Mmfr1, 16, 9);
    assert!(!host.has_fwb() && !host.has_mte_perm() && host.has_mte());
    assert_eq!(traps(&host, &MTE).hcr & hcr::FWB, 0);
    assert_eq!(host.get(Reg::Mmfr1), max().get(Reg::Mmfr1) - 1);
}

#[test]
fn caches() {
    let clidr = |host: &HostIds, features| GuestIds::new(host, features).read(index::CLIDR.into());
    assert_eq!((clidr(&max(), &PLAIN), clidr(&max(), &MTE)), (0x0100_0004, 0x4_0100_0004));
    assert_eq!(GuestIds::new(&max(), &PLAIN).read(index::CCSIDR.into()), 2);
    let mut old = max();
    old.ctr &= !(1 << 28);
    assert_eq!((clidr(&old, &PLAIN), clidr(&old, &MTE)), (0x0a20_0023, 0x10_0a20_0023));
    assert_eq!((vmpidr(0), vmpidr(15)), (0x8000_0000, 0x8000_000f));
}

#[test]
fn policies() {
    for (reg, expected) in [
        (SysReg::new(3, 0, 0, 4, 0), Policy::Feature(24)),
        (SysReg::new(3, 0, 0, 7, 7), Policy::Feature(55)),
        (SysReg::ICC_SGI1R_EL1, Policy::Sgi1),
        (SysReg::ICC_SGI0R_EL1, Policy::Sgi0),
        (SysReg::ICC_ASGI1R_EL1, Policy::Sgi0),
        (SysReg::ICC_SRE_EL1, Policy::Sre),
        (SysReg::REVIDR_EL1, Policy::Revidr),
        (SysReg::CTR_EL0, Policy::Cache(CacheRegister::Ctr)),
        (SysReg::CSSELR_EL1, Policy::Cache(CacheRegister::Csselr)),
        (SysReg::ACTLR_EL1, Policy::RazWi),
        (SysReg::ERRIDR_EL1, Policy::RazWi),
        (SysReg::ERXMISC3_EL1, Policy::RazWi),
        (SysReg::ERXPFGCDN_EL1, Policy::RazWi),
        (SysReg::new(3, 0, 5, 4, 7), Policy::Undefined),
        (SysReg::MDSCR_EL1, Policy::Debug(DebugRegister::Mdscr)),
        (SysReg::OSLAR_EL1, Policy::Debug(DebugRegister::Oslar)),
        (SysReg::OSDLR_EL1, Policy::RazWi),
        (SysReg::new(2, 0, 0, 15, 5), Policy::RazWi),
        (SysReg::new(2, 0, 0, 0, 4), Policy::RazWi),
        (SysReg::new(2, 1, 0, 0, 4), Policy::Undefined),
        (SysReg::LORID_EL1, Policy::Undefined),
        (SysReg::GMID_EL1, Policy::Undefined),
        (SysReg::GCR_EL1, Policy::Undefined),
        (SysReg::PMCR_EL0, Policy::Undefined),
        (SysReg::TCR2_EL1, Policy::Undefined),
        (SysReg::new(3, 0, 15, 1, 0), Policy::Undefined),
    ] {
        assert_eq!(policy(reg), expected, "{reg}");
    }
}

#[test]
fn refusals() {
    let read = |reg| SysregAccess { reg, rt: 3, read: true };
    let gmid = read(SysReg::GMID_EL1);
    assert_eq!(refusal(gmid, true), Exception::Sysreg(gmid));
    assert_eq!(refusal(gmid, false), Exception::Undefined);
    assert_eq!(refusal(SysregAccess { read: false, ..gmid }, true), Exception::Undefined);
    assert_eq!(refusal(read(SysReg::LORID_EL1), true), Exception::Undefined);
}

fn any_ids() -> impl Strategy<Value = HostIds> {
    (proptest::array::uniform32(any::<u64>()), any::<[u64; 4]>()).prop_map(
        |(words, [ctr, dczid, gmid, pmcr])| {
            let mut host = HostIds { ctr, dczid, gmid, pmcr, ..max() };
            for (to, word) in host.features.iter_mut().skip(24).zip(words) {
                *to = word;
            }
            host
        },
    )
}

fn combined(a: &HostIds, b: &HostIds) -> HostIds {
    let mut c = *a;
    c.combine(b);
    c
}

proptest! {
    #[test]
    fn combine_is_a_meet(a in any_ids(), b in any_ids(), c in any_ids()) {
        // CTR_EL0 has bits that no field covers; sizes are those of the first.
        let (b, c) = (HostIds { dczid: a.dczid, gmid: a.gmid, ..b }, HostIds { dczid: a.dczid, gmid: a.gmid, ..c });
        prop_assert_eq!(combined(&a, &a).features, a.features);
        prop_assert_eq!(combined(&a, &b), combined(&b, &a));
        prop_assert_eq!(combined(&combined(&a, &b), &b), combined(&a, &b));
        prop_assert_eq!(combined(&combined(&a, &b), &c), combined(&a, &combined(&b, &c)));
    }

    /// What a guest is told never exceeds the machine, nor what each CPU of it has.
    #[test]
    fn guest_is_within_host(a in any_ids(), b in any_ids(), mte: bool) {
        let features = Features { mte, sve: false, nested: None };
        let both = combined(&a, &b);
        let guest = GuestIds::new(&both, &features);
        for row in rows() {
            let Entry { reg, field, offer, .. } = row.entry;
            let seen = field.get(guest.read(reg as usize));
            if matches!(offer, Offer::Value(_)) || seen == u64::from(field.absent) {
                continue;
            }
            for host in [&a, &b, &both] {
                prop_assert_eq!(field.safe(seen, field.get(host.get(reg))), seen, "{:?}", row);
            }
        }
    }

    /// Nothing outside the table's fields reaches a guest.
    #[test]
    fn unnamed_is_hidden(a in any_ids()) {
        let guest = GuestIds::new(&a, &MTE);
        for index in 0..FEATURE_REGISTERS {
            let named = ENTRIES.iter().filter(|e| e.reg as usize == index).fold(0, |m, e| m | e.field.mask());
            prop_assert_eq!(guest.read(index) & !named, 0);
        }
    }
}

#[test]
fn sve_is_what_all_cpus_have() {
    let with = |sve_lengths| HostIds { sve_lengths, ..max() };
    let both = |a, b| combined(&with(a), &with(b));
    // 128 to 512 bits; 128, 256, 512.
    let (narrow, powers) = (0b1111, 0b1011);
    assert_eq!(both(0xffff, narrow).sve_lengths, narrow);
    assert_eq!(both(0xffff, narrow).longest_vector(), 512);
    // They differ at 384 bits: of 512, a guest would see 384 on the one and 256 on the other.
    assert_eq!(both(narrow, powers).sve_lengths, 0b11);
    assert_eq!(both(powers, powers).longest_vector(), 512);
    assert!(both(powers, powers).has_vector(256) && !both(powers, powers).has_vector(384));
    assert_eq!((with(0xffff).longest_vector(), with(1).longest_vector()), (2048, 128));
    for bits in [0, 64, 129, 4096, u16::MAX] {
        assert!(!with(0xffff).has_vector(bits), "{bits}");
    }
    // A CPU without.
    let none = both(0xffff, 0);
    assert!(!none.has_sve() && with(1).has_sve());
    assert_eq!(none.longest_vector(), 0);

    let sve = Features { mte: false, sve: true, nested: None };
    let open = |host: &HostIds, features: &Features| {
        let ids = GuestIds::new(host, features);
        let cptr = TrapConfig::new(host, &ids, false).cptr;
        (ids.has_sve(), ids.read(Reg::Zfr0 as usize), cptr & cptr::TZ == 0)
    };
    assert_eq!(open(&max(), &sve), (true, 0x0110_1101_0121_0022, true));
    assert_eq!(open(&max(), &PLAIN), (false, 0, false));
    assert_eq!(open(&none, &sve), (false, 0, false));
    let nested = Features { nested: Some(crate::VirtualEl2::Vhe), ..sve };
    assert_eq!(open(&max(), &nested), open(&max(), &sve));
}
