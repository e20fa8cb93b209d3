//! Machines whose CPUs differ, with invented values.

use super::*;

/// A little core: less of some features, other sizes.
fn little() -> HostIds {
    HostIds { midr: 0x411f_d050, dczid: 3, gmid: 4, ctr: 0x8444_8003, ..n2() }
}

fn machine(cpus: &[HostIds]) -> HostIds {
    let (first, rest) = cpus.split_first().unwrap();
    rest.iter().fold(*first, |mut all, cpu| {
        all.combine(cpu);
        all
    })
}

/// Features are those of all CPUs, wherever a VM runs; sizes those of its own.
#[test]
fn features_of_all_sizes_of_its_own() {
    let cpus = [max(), max(), little(), little()];
    let all = machine(&cpus);
    let on = |list: &[usize]| all.on_cpus(true, list.iter().map(|&i| (i, &cpus[i])));
    let (big, small) = (on(&[0, 1]).unwrap(), on(&[2, 3]).unwrap());
    assert_eq!(big.features, small.features);
    assert_eq!((big.midr, big.dczid, big.gmid), (max().midr, 4, 6));
    assert_eq!((small.midr, small.dczid, small.gmid), (0x411f_d050, 3, 4));
    // Line sizes are the CPU's own; IDC and DIC hold on all CPUs or not at all.
    assert_eq!((big.ctr & 0xf_000f, small.ctr & 0xf_000f), (0x4_0004, 0x4_0003));
    assert_eq!((big.ctr >> 28 & 3, small.ctr >> 28 & 3), (0, 0));
    assert_eq!(big.ctr >> 31, 1, "RES1");
    assert!(GuestIds::new(&big, &MTE).has_mte());
    assert_eq!(GuestIds::new(&big, &MTE).field(Reg::Pfr1, 8), 2, "the lesser MTE");
}

#[test]
fn other_sizes_are_not_mixed() {
    let cpus = [max(), HostIds { dczid: 5, ..max() }, HostIds { gmid: 4, ..max() }, little()];
    let all = machine(&cpus);
    let mixed = |mte, list: &[usize]| all.on_cpus(mte, list.iter().map(|&i| (i, &cpus[i]))).map(|_| ());
    let dczid = Mixed { register: index::DCZID, cpus: (0, 1), values: (4, 5) };
    assert_eq!(mixed(true, &[0, 0, 1]), Err(dczid));
    assert_eq!(mixed(true, &[0, 2]), Err(Mixed { register: index::GMID, cpus: (0, 2), values: (6, 4) }));
    assert_eq!(mixed(false, &[0, 2]), Ok(()), "a VM without MTE does not see GMID_EL1");
    let lines = [max(), HostIds { ctr: max().ctr ^ 1 << 16, ..max() }];
    let e = machine(&lines).on_cpus(false, lines.iter().enumerate()).unwrap_err();
    assert_eq!((e.name(), e.cpus), ("the sizes in CTR_EL0", (0, 1)));
    assert_eq!((dczid.name(), Mixed { register: index::GMID, ..dczid }.name()), ("DCZID_EL0", "GMID_EL1"));
    assert_eq!(mixed(true, &[3]), Ok(()));
    assert_eq!(mixed(true, &[]), Ok(()));
}

/// Each CPU closes what it has itself and the VM does not see, whatever the others have.
#[test]
fn each_cpu_closes_what_it_has() {
    // The one has FEAT_FGT, FEAT_HCX, FEAT_NMI, SPE, LORegions and tags; the other none of these, but the
    // activity monitors and MPAM.
    let rich = {
        let mut cpu = max();
        cpu.features[Reg::Dfr0 as usize] |= 1 << 32 | 1 << 40 | 1 << 4;
        cpu
    };
    let poor = {
        let mut cpu = n2();
        cpu.features[Reg::Pfr1 as usize] = 0x21;
        cpu.features[Reg::Pfr0 as usize] |= 1 << 40;
        cpu.features[Reg::Mmfr1 as usize] &= !(0xf << 16);
        HostIds { gmid: 0, pmcr: 0x1000, ..cpu }
    };
    let cpus = [rich, poor];
    let all = machine(&cpus);
    let vm = all.on_cpus(false, cpus.iter().enumerate()).unwrap();
    let draft = Draft::new(&vm, &PLAIN);
    let [big, small] = cpus.map(|cpu| draft.traps_on(&cpu));
    assert_eq!((all.field(Reg::Mmfr0, 56), big.fgt, small.fgt), (0, FgtLevel::Fgt, FgtLevel::None));
    assert_eq!((big.hcrx.is_some(), small.hcrx), (true, None));
    assert_eq!((big.hcr & hcr::TLOR, small.hcr & hcr::TLOR), (hcr::TLOR, 0));
    assert_eq!((big.hcr & hcr::TID5, small.hcr & hcr::TID5), (hcr::TID5, 0));
    assert_eq!((big.mdcr & mdcr::TPMS, small.mdcr & mdcr::TPMS), (mdcr::TPMS, 0));
    assert_eq!((big.mdcr & mdcr::TTRF, small.mdcr & mdcr::TTRF), (mdcr::TTRF, 0));
    assert_eq!((big.mdcr & 0x1f, small.mdcr & 0x1f), (6, 2), "counters");
    assert_eq!((big.cptr & cptr::TTA, small.cptr & cptr::TTA), (cptr::TTA, 0));
    assert_eq!((big.cptr & cptr::TAM, small.cptr & cptr::TAM), (0, cptr::TAM));
    assert_eq!((big.mpam2.is_some(), small.mpam2.is_some()), (false, true));
    // Instructions of the one CPU that the VM does not see, because the other lacks them.
    use crate::closing::hfgitr::*;
    assert_eq!(all.field(Reg::Isar0, 56), 0, "the little one has no TLBI of ranges");
    assert_eq!(big.hfgitr & (TLBI_OS | TLBI_RANGE), TLBI_OS | TLBI_RANGE);
    // Maintenance by trap, where it is to trap.
    let with = [big, small].map(TrapConfig::with_maintenance);
    assert_eq!(with.map(|t| t.hcr & hcr::TPCP), [0, hcr::TPCP]);
}

/// A CPU that keeps no tag takes MTE from all, and GMID_EL1 still traps on those that have it.
#[test]
fn tags_kept_by_some() {
    let cpus = [max(), max()];
    let mut all = machine(&cpus);
    all.limit(Reg::Pfr1, 8, 1);
    let draft = Draft::new(&all.on_cpus(true, cpus.iter().enumerate()).unwrap(), &MTE);
    assert!(!draft.ids().has_mte());
    for cpu in &cpus {
        assert_eq!(draft.traps_on(cpu).hcr & (hcr::ATA | hcr::TID5), hcr::TID5);
    }
}

/// CPUs that each make sense make sense together, for each VM and as the limit of what may be asked for.
#[test]
fn combinations_are_cpus() {
    let no_async = {
        let mut cpu = n2();
        cpu.features[Reg::Pfr1 as usize] |= 0xf << 40;
        cpu
    };
    let no_tags = {
        let mut cpu = little();
        cpu.features[Reg::Pfr1 as usize] = 0x121;
        HostIds { gmid: 0, sve_lengths: 0b10, ..cpu }
    };
    let other_keys = {
        let mut cpu = max();
        cpu.features[Reg::Isar1 as usize] ^= 1 << 8;
        cpu
    };
    let all = [max(), n2(), little(), no_async, no_tags, other_keys];
    for picked in 1_usize..1 << all.len() {
        let cpus: Vec<HostIds> =
            all.iter().enumerate().filter(|(n, _)| picked >> n & 1 != 0).map(|(_, cpu)| *cpu).collect();
        let host = machine(&cpus);
        for (mte, sve) in [(false, false), (true, false), (false, true), (true, true)] {
            let draft = Draft::new(&host, &Features { mte, sve, nested: None });
            assert_eq!(draft.check_consistency(40), Ok(()), "{picked:#b} MTE {mte} SVE {sve}");
            // And what it has, each of them has: its traps need no more.
            for cpu in &cpus {
                let traps = draft.traps_on(cpu);
                assert!(traps.hcr & hcr::ATA == 0 || cpu.field(Reg::Pfr1, 8) >= 2);
                assert!(traps.hcr & hcr::API == 0 || cpu.has_pauth());
                assert!(traps.cptr & cptr::TZ != 0 || cpu.has_sve());
                assert_eq!(traps.hcrx.is_some(), cpu.has_hcx());
            }
        }
    }
}

/// VMs are where all CPUs reach.
#[test]
fn addresses_of_all() {
    let mut short = max();
    short.features[Reg::Mmfr0 as usize] = max().get(Reg::Mmfr0) & !0xf | 2;
    assert_eq!([max().address_bits(), short.address_bits()], [48, 40]);
    assert_eq!(machine(&[max(), short]).address_bits(), 40);
}

/// Stage 2 is one for all CPUs of a VM, so forced attributes are, too; CTR_EL0 is read natively on the
/// CPU that has what the VM sees.
#[test]
fn one_stage_2_and_one_ctr() {
    let mut old = max();
    old.features[Reg::Mmfr2 as usize] &= !(0xf << 40);
    old.ctr &= !(1 << 28);
    let cpus = [max(), old];
    let vm = machine(&cpus).on_cpus(false, cpus.iter().enumerate()).unwrap();
    let draft = Draft::new(&vm, &PLAIN);
    let hcrs = cpus.map(|cpu| draft.traps_on(&cpu).hcr);
    assert_eq!(hcrs.map(|h| h & hcr::FWB), [0, 0]);
    assert_eq!(hcrs.map(|h| h & (hcr::TID2 | hcr::TID4)), [hcr::TID2, hcr::TID4]);
}

/// A CPU has to have all that was counted on when its VMs were built.
#[test]
fn late_cpus() {
    let all = machine(&[max(), n2()]);
    assert_eq!(all.lack_of(&max()), None);
    assert_eq!(all.lack_of(&HostIds { gmid: 6, sve_lengths: 0xffff, ..n2() }), None);
    let mut less = n2();
    less.features[Reg::Isar0 as usize] = 0;
    less.features[Reg::Pfr1 as usize] &= !0xf00;
    let lack = Lack { register: Reg::Pfr1 as u8, lsb: 8, expected: 2, has: 0 };
    assert_eq!(all.lack_of(&less), Some(lack));
    assert_eq!(format!("{lack}"), "S3_0_C0_C4_1 bit 8 is 0x0, but VMs were offered 0x2");
    // Signed fields, and fields where more is worse.
    let mut no_fp = max();
    no_fp.features[Reg::Pfr0 as usize] |= 0xf << 16;
    assert_eq!(all.lack_of(&no_fp).map(|l| (l.lsb, l.expected, l.has)), Some((16, 1, 0xf)));
    let mut hazard = max();
    hazard.features[Reg::Mmfr1 as usize] |= 1 << 24;
    assert_eq!(max().lack_of(&hazard).map(|l| l.lsb), Some(24));
    let mut other_keys = max();
    other_keys.features[Reg::Isar1 as usize] ^= 1 << 8;
    assert_eq!(max().lack_of(&other_keys).map(|l| l.lsb), Some(8));
    assert_eq!(
        max().lack_of(&HostIds { ctr: max().ctr & !(1 << 28), ..max() }).map(|l| l.register),
        Some(index::CTR)
    );
    // Sizes are what they were, vectors no shorter.
    for (register, other) in [
        (index::DCZID, HostIds { dczid: 3, ..max() }),
        (index::GMID, HostIds { gmid: 4, ..max() }),
        (index::CTR, HostIds { ctr: max().ctr ^ 1 << 16, ..max() }),
        (Reg::Zfr0 as u8, HostIds { sve_lengths: 0xff, ..max() }),
    ] {
        assert_eq!(max().lack_of(&other).map(|l| l.register), Some(register));
    }
    let more = HostIds { sve_lengths: 0xffff, ..max() };
    assert_eq!(HostIds { sve_lengths: 1, ..max() }.lack_of(&more), None);
}

proptest! {
    /// The combination lacks nothing on any CPU that it was made of.
    #[test]
    fn combination_holds_everywhere(a in any_ids(), b in any_ids(), c in any_ids()) {
        // Sizes are not combined.
        let [b, c] = [b, c].map(|ids| HostIds { dczid: a.dczid, gmid: a.gmid, ctr: a.ctr, ..ids });
        let all = machine(&[a, b, c]);
        for cpu in [&a, &b, &c] {
            prop_assert_eq!(all.lack_of(cpu), None);
        }
    }
}
