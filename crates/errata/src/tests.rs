//! Synthetic MIDRs.

use std::collections::BTreeSet;
use std::string::ToString;

use proptest::prelude::*;

use crate::mitigation::{
    Answer, Answers, Speculation, history_branches, workaround_1, workaround_2, workaround_3,
};
use crate::table::{ROWS, part};
use crate::*;

fn midr(implementer: u8, part: u16, variant: u64, revision: u64) -> Midr {
    Midr::new(u64::from(implementer) << 24 | variant << 20 | 0xf << 16 | u64::from(part) << 4 | revision)
}

const W: fn(Workarounds, Workarounds) -> Workarounds = Workarounds::union;

#[test]
fn fields() {
    let n2 = Midr::new(0x410f_d493);
    assert_eq!((n2.implementer(), n2.part(), n2.revision()), (part::ARM, part::N2, 0x03));
    assert_eq!(Midr::new(0x411f_d462).revision(), 0x12);
    assert_eq!(Midr::new(u64::MAX).revision(), 0xff);
}

#[test]
fn cores() {
    use Workarounds as X;
    let both = W(X::REPEAT_TLBI, X::SSBS_BARRIER);
    for (core, variant, revision, expected) in [
        (part::A510, 0, 2, W(X::NO_HARDWARE_DIRTY, X::REPEAT_TLBI)),
        (part::A510, 0, 3, X::REPEAT_TLBI),
        (part::A510, 1, 1, X::REPEAT_TLBI),
        (part::A510, 1, 2, X::NONE),
        (part::A520, 0, 1, X::NONE),
        (part::A710, 2, 1, W(both, X::NO_FWB)),
        (part::X2, 2, 0, W(both, X::NO_FWB)),
        (part::N2, 0, 2, W(both, X::NO_FWB)),
        (part::N2, 0, 3, both),
        (part::A715, 1, 3, W(X::SSBS_BARRIER, X::BREAK_BEFORE_NO_EXEC)),
        (part::A720, 0, 2, X::SSBS_BARRIER),
        (part::X3, 1, 1, W(both, X::NO_FWB)),
        (part::X3, 1, 2, both),
        (part::V2, 0, 1, W(both, X::NO_FWB)),
        (part::V2, 0, 2, both),
        (part::X4, 0, 3, both),
        (part::X925, 0, 1, both),
        (part::V3, 0, 2, both),
        (part::N3, 0, 1, X::SSBS_BARRIER),
    ] {
        let cpu = midr(part::ARM, core, variant, revision);
        assert_eq!(workarounds(cpu), expected, "{core:#x} r{variant}p{revision}");
        assert_eq!(workarounds(midr(0x51, core, variant, revision)), X::NONE);
    }
    assert_eq!(workarounds(midr(part::MICROSOFT, part::N2, 0, 0)), both);
    // QEMU's max, and its neoverse-n2.
    assert!(workarounds(Midr::new(0xf0510)).is_empty());
    assert_eq!(workarounds(Midr::new(0x410f_d493)), both);
}

#[test]
fn rows_are_sorted_and_unique() {
    let key = |r: &Row| (r.cpus.part, r.erratum, r.cpus.implementer);
    assert!(ROWS.windows(2).all(|w| key(&w[0]) < key(&w[1])));
    let keys: BTreeSet<_> = ROWS.iter().map(key).collect();
    assert_eq!(keys.len(), ROWS.len());
    assert!(ROWS.iter().all(|r| r.cpus.from <= r.cpus.to && !r.why.is_empty() && !r.workaround.is_empty()));
}

#[test]
fn sets() {
    let both = Workarounds::REPEAT_TLBI.union(Workarounds::NO_FWB);
    assert!(both.contains(Workarounds::NO_FWB) && !both.contains(Workarounds::SSBS_BARRIER));
    assert!(both.contains(Workarounds::NONE) && Workarounds::default().is_empty());
}

#[test]
fn sets_are_numbers_and_names() {
    let all = ROWS.iter().fold(Workarounds::NONE, |set, row| set.union(row.workaround));
    assert_eq!((Workarounds::from_bits(all.bits()), Workarounds::from_bits(u32::MAX)), (all, all));
    let n2 = workarounds(midr(part::ARM, part::N2, 0, 0));
    assert_eq!(n2.to_string(), "repeat TLBI, barrier after SSBS, no FWB");
    assert_eq!(all.to_string().split(", ").count(), all.bits().count_ones() as usize);
    assert_eq!(Workarounds::NONE.to_string(), "none");
}

#[test]
fn answers_of_several_cpus() {
    use Answer::{Needed, NotRequired, Unaffected, Unknown};
    // Strongest first: each wins over those behind it.
    let order = [Needed, Unknown, Unaffected, NotRequired];
    for (i, a) in order.into_iter().enumerate() {
        for (j, b) in order.into_iter().enumerate() {
            assert_eq!(a.combine(b), order[i.min(j)]);
        }
    }
    let little = Answers { workaround_1: Unaffected, workaround_2: NotRequired, workaround_3: Unaffected };
    let big = Answers { workaround_1: Needed, workaround_2: Needed, workaround_3: Needed };
    let old = Speculation { csv2: 0, ssbs: 0, ecbhb: 0 };
    assert_eq!(little.combine(big).for_guests(old), big);
    assert_eq!(Answers::UNKNOWN.for_guests(old), Answers::UNKNOWN);
    // Neoverse N2: CSV2 is 1, SSBS 2, no ECBHB; firmware has the call against branch history.
    let n2 = Answers { workaround_1: Unaffected, workaround_2: Unknown, workaround_3: Needed };
    assert_eq!(big.for_guests(Speculation { csv2: 1, ssbs: 2, ecbhb: 0 }), n2);
    let new = Answers { workaround_1: Unaffected, workaround_2: Unknown, workaround_3: Unaffected };
    assert_eq!(Answers::UNKNOWN.for_guests(Speculation { csv2: 3, ssbs: 2, ecbhb: 1 }), new);
}

#[test]
fn answers() {
    use Answer::{Needed, NotRequired, Unaffected, Unknown};
    for (x0, firmware) in
        [(0, Needed), (1, Unaffected), (-1, Unknown), (-2, NotRequired), (i64::MIN, Unknown)]
    {
        assert_eq!(Answer::from_firmware(x0), firmware);
        assert_eq!(workaround_1(1, firmware), Unaffected);
        assert_eq!(workaround_2(2, firmware), Unknown);
        assert_eq!(workaround_2(0, firmware), firmware);
        assert_eq!(workaround_3(3, 0, firmware), Unaffected);
        assert_eq!(workaround_3(0, 1, firmware), Unaffected);
        let known = if firmware == NotRequired { Unknown } else { firmware };
        assert_eq!((workaround_1(0, firmware), workaround_3(2, 0, firmware)), (known, known));
    }
    assert_eq!(NotRequired as i64, -2);
}

#[test]
fn history() {
    for (core, branches) in
        [(part::N2, 32), (part::X2, 32), (part::A715, 38), (part::V2, 132), (part::A510, 0), (part::V3, 0)]
    {
        assert_eq!(history_branches(midr(part::ARM, core, 0, 0), 1, 0), branches);
    }
    assert_eq!(history_branches(midr(part::MICROSOFT, part::N2, 0, 0), 2, 0), 32);
    assert_eq!(history_branches(midr(part::MICROSOFT, part::X3, 0, 0), 1, 0), 0);
    // FEAT_CSV2_3, FEAT_ECBHB.
    assert_eq!(history_branches(midr(part::ARM, part::V2, 0, 0), 3, 0), 0);
    assert_eq!(history_branches(midr(part::ARM, part::V2, 0, 0), 1, 1), 0);
}

proptest! {
    /// Only implementer, part, variant and revision matter, and each row affects just its own range.
    #[test]
    fn ranges(value: u64, index in 0..ROWS.len(), variant in 0u64..16, revision in 0u64..16) {
        let row = &ROWS[index];
        let cpu = midr(row.cpus.implementer, row.cpus.part, variant, revision);
        let inside = (row.cpus.from..=row.cpus.to).contains(&cpu.revision());
        prop_assert_eq!(row.cpus.contains(cpu), inside);
        prop_assert!(!inside || workarounds(cpu).contains(row.workaround));
        let other = Midr::new(value);
        prop_assert_eq!(workarounds(other), workarounds(Midr::new(value ^ (0xf << 16) ^ (0xff << 40))));
    }
}
