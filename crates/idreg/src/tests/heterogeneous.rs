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

/// A CPU that came up late has to have all that was counted on.
#[test]
fn late_cpus() {
    let all = machine(&[max(), n2()]);
    assert_eq!(all.lack_of(&max()), None);
    assert_eq!(all.lack_of(&n2()), None);
    let mut less = n2();
    less.features[Reg::Isar0 as usize] = 0;
    less.features[Reg::Pfr1 as usize] &= !0xf00;
    let lack = Lack { reg: Reg::Pfr1, lsb: 8, expected: 2, has: 0 };
    assert_eq!(all.lack_of(&less), Some(lack));
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
        max().lack_of(&HostIds { ctr: max().ctr & !(1 << 28), ..max() }).map(|l| l.reg),
        Some(Reg::Ctr)
    );
}

proptest! {
    /// The combination lacks nothing on any CPU that it was made of.
    #[test]
    fn combination_holds_everywhere(a in any_ids(), b in any_ids(), c in any_ids()) {
        let all = machine(&[a, b, c]);
        for cpu in [&a, &b, &c] {
            prop_assert_eq!(all.lack_of(cpu), None);
        }
    }
}
