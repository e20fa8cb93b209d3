use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::string::String;

/// Every TLBI of EL1 and EL2 that the manual defines, without the 128-bit forms: name; op1, CRn, CRm,
/// op2 (C5.5).
#[rustfmt::skip]
const ALL: &[(&str, [u32; 4])] = &[
    ("ALLE1", [4, 8, 7, 4]), ("ALLE1IS", [4, 8, 3, 4]), ("ALLE1ISNXS", [4, 9, 3, 4]),
    ("ALLE1NXS", [4, 9, 7, 4]), ("ALLE1OS", [4, 8, 1, 4]), ("ALLE1OSNXS", [4, 9, 1, 4]),
    ("ALLE2", [4, 8, 7, 0]), ("ALLE2IS", [4, 8, 3, 0]), ("ALLE2ISNXS", [4, 9, 3, 0]),
    ("ALLE2NXS", [4, 9, 7, 0]), ("ALLE2OS", [4, 8, 1, 0]), ("ALLE2OSNXS", [4, 9, 1, 0]),
    ("ASIDE1", [0, 8, 7, 2]), ("ASIDE1IS", [0, 8, 3, 2]), ("ASIDE1ISNXS", [0, 9, 3, 2]),
    ("ASIDE1NXS", [0, 9, 7, 2]), ("ASIDE1OS", [0, 8, 1, 2]), ("ASIDE1OSNXS", [0, 9, 1, 2]),
    ("IPAS2E1", [4, 8, 4, 1]), ("IPAS2E1IS", [4, 8, 0, 1]), ("IPAS2E1ISNXS", [4, 9, 0, 1]),
    ("IPAS2E1NXS", [4, 9, 4, 1]), ("IPAS2E1OS", [4, 8, 4, 0]), ("IPAS2E1OSNXS", [4, 9, 4, 0]),
    ("IPAS2LE1", [4, 8, 4, 5]), ("IPAS2LE1IS", [4, 8, 0, 5]), ("IPAS2LE1ISNXS", [4, 9, 0, 5]),
    ("IPAS2LE1NXS", [4, 9, 4, 5]), ("IPAS2LE1OS", [4, 8, 4, 4]), ("IPAS2LE1OSNXS", [4, 9, 4, 4]),
    ("RIPAS2E1", [4, 8, 4, 2]), ("RIPAS2E1IS", [4, 8, 0, 2]), ("RIPAS2E1ISNXS", [4, 9, 0, 2]),
    ("RIPAS2E1NXS", [4, 9, 4, 2]), ("RIPAS2E1OS", [4, 8, 4, 3]), ("RIPAS2E1OSNXS", [4, 9, 4, 3]),
    ("RIPAS2LE1", [4, 8, 4, 6]), ("RIPAS2LE1IS", [4, 8, 0, 6]), ("RIPAS2LE1ISNXS", [4, 9, 0, 6]),
    ("RIPAS2LE1NXS", [4, 9, 4, 6]), ("RIPAS2LE1OS", [4, 8, 4, 7]), ("RIPAS2LE1OSNXS", [4, 9, 4, 7]),
    ("RVAAE1", [0, 8, 6, 3]), ("RVAAE1IS", [0, 8, 2, 3]), ("RVAAE1ISNXS", [0, 9, 2, 3]),
    ("RVAAE1NXS", [0, 9, 6, 3]), ("RVAAE1OS", [0, 8, 5, 3]), ("RVAAE1OSNXS", [0, 9, 5, 3]),
    ("RVAALE1", [0, 8, 6, 7]), ("RVAALE1IS", [0, 8, 2, 7]), ("RVAALE1ISNXS", [0, 9, 2, 7]),
    ("RVAALE1NXS", [0, 9, 6, 7]), ("RVAALE1OS", [0, 8, 5, 7]), ("RVAALE1OSNXS", [0, 9, 5, 7]),
    ("RVAE1", [0, 8, 6, 1]), ("RVAE1IS", [0, 8, 2, 1]), ("RVAE1ISNXS", [0, 9, 2, 1]),
    ("RVAE1NXS", [0, 9, 6, 1]), ("RVAE1OS", [0, 8, 5, 1]), ("RVAE1OSNXS", [0, 9, 5, 1]),
    ("RVAE2", [4, 8, 6, 1]), ("RVAE2IS", [4, 8, 2, 1]), ("RVAE2ISNXS", [4, 9, 2, 1]),
    ("RVAE2NXS", [4, 9, 6, 1]), ("RVAE2OS", [4, 8, 5, 1]), ("RVAE2OSNXS", [4, 9, 5, 1]),
    ("RVALE1", [0, 8, 6, 5]), ("RVALE1IS", [0, 8, 2, 5]), ("RVALE1ISNXS", [0, 9, 2, 5]),
    ("RVALE1NXS", [0, 9, 6, 5]), ("RVALE1OS", [0, 8, 5, 5]), ("RVALE1OSNXS", [0, 9, 5, 5]),
    ("RVALE2", [4, 8, 6, 5]), ("RVALE2IS", [4, 8, 2, 5]), ("RVALE2ISNXS", [4, 9, 2, 5]),
    ("RVALE2NXS", [4, 9, 6, 5]), ("RVALE2OS", [4, 8, 5, 5]), ("RVALE2OSNXS", [4, 9, 5, 5]),
    ("VAAE1", [0, 8, 7, 3]), ("VAAE1IS", [0, 8, 3, 3]), ("VAAE1ISNXS", [0, 9, 3, 3]),
    ("VAAE1NXS", [0, 9, 7, 3]), ("VAAE1OS", [0, 8, 1, 3]), ("VAAE1OSNXS", [0, 9, 1, 3]),
    ("VAALE1", [0, 8, 7, 7]), ("VAALE1IS", [0, 8, 3, 7]), ("VAALE1ISNXS", [0, 9, 3, 7]),
    ("VAALE1NXS", [0, 9, 7, 7]), ("VAALE1OS", [0, 8, 1, 7]), ("VAALE1OSNXS", [0, 9, 1, 7]),
    ("VAE1", [0, 8, 7, 1]), ("VAE1IS", [0, 8, 3, 1]), ("VAE1ISNXS", [0, 9, 3, 1]),
    ("VAE1NXS", [0, 9, 7, 1]), ("VAE1OS", [0, 8, 1, 1]), ("VAE1OSNXS", [0, 9, 1, 1]),
    ("VAE2", [4, 8, 7, 1]), ("VAE2IS", [4, 8, 3, 1]), ("VAE2ISNXS", [4, 9, 3, 1]),
    ("VAE2NXS", [4, 9, 7, 1]), ("VAE2OS", [4, 8, 1, 1]), ("VAE2OSNXS", [4, 9, 1, 1]),
    ("VALE1", [0, 8, 7, 5]), ("VALE1IS", [0, 8, 3, 5]), ("VALE1ISNXS", [0, 9, 3, 5]),
    ("VALE1NXS", [0, 9, 7, 5]), ("VALE1OS", [0, 8, 1, 5]), ("VALE1OSNXS", [0, 9, 1, 5]),
    ("VALE2", [4, 8, 7, 5]), ("VALE2IS", [4, 8, 3, 5]), ("VALE2ISNXS", [4, 9, 3, 5]),
    ("VALE2NXS", [4, 9, 7, 5]), ("VALE2OS", [4, 8, 1, 5]), ("VALE2OSNXS", [4, 9, 1, 5]),
    ("VMALLE1", [0, 8, 7, 0]), ("VMALLE1IS", [0, 8, 3, 0]), ("VMALLE1ISNXS", [0, 9, 3, 0]),
    ("VMALLE1NXS", [0, 9, 7, 0]), ("VMALLE1OS", [0, 8, 1, 0]), ("VMALLE1OSNXS", [0, 9, 1, 0]),
    ("VMALLS12E1", [4, 8, 7, 6]), ("VMALLS12E1IS", [4, 8, 3, 6]), ("VMALLS12E1ISNXS", [4, 9, 3, 6]),
    ("VMALLS12E1NXS", [4, 9, 7, 6]), ("VMALLS12E1OS", [4, 8, 1, 6]), ("VMALLS12E1OSNXS", [4, 9, 1, 6]),
    ("VMALLWS2E1", [4, 8, 6, 2]), ("VMALLWS2E1IS", [4, 8, 2, 2]), ("VMALLWS2E1ISNXS", [4, 9, 2, 2]),
    ("VMALLWS2E1NXS", [4, 9, 6, 2]), ("VMALLWS2E1OS", [4, 8, 5, 2]), ("VMALLWS2E1OSNXS", [4, 9, 5, 2]),
];

const EVERYTHING: Offered = Offered { outer: true, range: true, nxs: true, ttl: true };
const VHE: Host = Host { e2h: true, tge: false };
const NVHE: Host = Host { e2h: false, tge: false };

fn reg([op1, crn, crm, op2]: [u32; 4]) -> SysReg {
    SysReg::new(1, op1, crn, crm, op2)
}

fn named(name: &str) -> SysReg {
    let found = ALL.iter().find(|(n, _)| *n == name);
    reg(found.unwrap_or_else(|| panic!("no TLBI {name}")).1)
}

fn decode(name: &str, x: u64) -> Option<Tlbi> {
    Tlbi::decode(named(name), x, VHE, EVERYTHING)
}

/// What the name says, read independently of the encoding.
fn by_name(name: &str) -> Option<(String, Offered)> {
    let mut needs = Offered::default();
    let mut stem = name;
    if let Some(rest) = stem.strip_suffix("NXS") {
        (stem, needs.nxs) = (rest, true);
    }
    if let Some(rest) = stem.strip_suffix("OS") {
        (stem, needs.outer) = (rest, true);
    } else if let Some(rest) = stem.strip_suffix("IS") {
        stem = rest;
    }
    if let Some(rest) = stem.strip_prefix('R') {
        (stem, needs.range) = (rest, true);
    }
    // FEAT_TLBIW is not offered.
    (!stem.starts_with("VMALLWS2")).then(|| (stem.replace("LE", "E"), needs))
}

#[test]
fn every_instruction_means_what_its_name_says() {
    let x = 0x0042_0000_0000_0123 | 1 << 46;
    for (name, encoding) in ALL {
        let decoded = Tlbi::decode(reg(*encoding), x, VHE, EVERYTHING);
        let Some((stem, needs)) = by_name(name) else {
            assert_eq!(decoded, None, "{name}");
            continue;
        };
        let asid = Some(0x42);
        let (first, count) = (0x123, if needs.range { 2 } else { 1 });
        let pages = |asid| Stage1::Pages(Pages { first, count, stride: 1, asid });
        let expected = match stem.as_str() {
            "ALLE1" => Tlbi::AllVmids,
            "VMALLS12E1" => Tlbi::Vmid,
            // VMALLE1 has lost an L to the stem.
            "VMALE1" => Tlbi::Stage1(Regime::El1, Stage1::All),
            "ALE1" => Tlbi::AllVmids,
            "ALE2" => Tlbi::Stage1(Regime::El2, Stage1::All),
            "ASIDE1" => Tlbi::Stage1(Regime::El1, Stage1::Asid(0x42)),
            "VAE1" => Tlbi::Stage1(Regime::El1, pages(asid)),
            "VAAE1" => Tlbi::Stage1(Regime::El1, pages(None)),
            "VAE2" => Tlbi::Stage1(Regime::El2, pages(asid)),
            "IPAS2E1" => {
                let extent = if needs.range { Extent::Bytes(0x2000) } else { Extent::Leaf };
                Tlbi::Stage2(Stage2 { start: Ipa::new(0x12_3000), extent })
            }
            other => panic!("{name}: {other}"),
        };
        assert_eq!(decoded, Some(expected), "{name}");
    }
}

#[test]
fn what_the_id_registers_hide_is_undefined() {
    for (name, encoding) in ALL {
        let Some((_, needs)) = by_name(name) else { continue };
        for bits in 0..8 {
            let offered =
                Offered { outer: bits & 1 != 0, range: bits & 2 != 0, nxs: bits & 4 != 0, ttl: true };
            let enough = (offered.outer || !needs.outer)
                && (offered.range || !needs.range)
                && (offered.nxs || !needs.nxs);
            let decoded = Tlbi::decode(reg(*encoding), 0, VHE, offered);
            assert_eq!(decoded.is_some(), enough, "{name} {offered:?}");
        }
    }
}

#[test]
fn all_other_encodings_are_undefined() {
    let known: BTreeSet<_> = ALL.iter().filter(|(n, _)| by_name(n).is_some()).map(|(_, e)| reg(*e)).collect();
    let mut defined = 0;
    for op1 in 0..8 {
        for crn in 0..16 {
            for crm in 0..16 {
                for op2 in 0..8 {
                    let one = SysReg::new(1, op1, crn, crm, op2);
                    let decoded = Tlbi::decode(one, 0, VHE, EVERYTHING).is_some();
                    assert_eq!(decoded, known.contains(&one), "{one}");
                    defined += usize::from(decoded);
                }
            }
        }
    }
    assert_eq!(defined, known.len());
}

#[test]
fn el1_instructions_mean_the_host_regime_with_e2h_and_tge() {
    for name in ["VMALLE1IS", "VAE1", "ASIDE1OS", "RVAALE1IS"] {
        for (e2h, tge) in [(false, false), (false, true), (true, false), (true, true)] {
            let host = Host { e2h, tge };
            let Some(Tlbi::Stage1(regime, _)) = Tlbi::decode(named(name), 0, host, EVERYTHING) else {
                panic!("{name}")
            };
            assert_eq!(regime == Regime::El2, e2h && tge, "{name} {host:?}");
        }
    }
}

#[test]
fn el2_without_e2h_has_no_asid() {
    let x = 0x42 << 48 | 7;
    let pages = Pages { first: 7, count: 1, stride: 1, asid: None };
    let decoded = Tlbi::decode(named("VAE2IS"), x, NVHE, EVERYTHING);
    assert_eq!(decoded, Some(Tlbi::Stage1(Regime::El2, Stage1::Pages(pages))));
}

#[test]
fn a_level_hint_sets_the_span() {
    // docs/testing.md, M3: a hint of level 2 over 4 KiB leaves spans 2 MiB.
    let hint = |ttl: u64, ipa: u64| decode("IPAS2E1IS", ttl << 44 | ipa >> 12);
    let span =
        |start, bytes| Some(Tlbi::Stage2(Stage2 { start: Ipa::new(start), extent: Extent::Bytes(bytes) }));
    assert_eq!(hint(0b01_10, 0x4020_3000), span(0x4020_0000, 2 << 20));
    assert_eq!(hint(0b01_01, 0x4020_3000), span(0x4000_0000, 1 << 30));
    assert_eq!(hint(0b01_11, 0x4020_3000), span(0x4020_3000, 4096));
    assert_eq!(hint(0b10_11, 0x4020_7000), span(0x4020_4000, 16 << 10));
    assert_eq!(hint(0b10_10, 0x4320_7000), span(0x4200_0000, 32 << 20));
    assert_eq!(hint(0b11_11, 0x4020_7000), span(0x4020_0000, 64 << 10));
    assert_eq!(hint(0b11_10, 0x6020_7000), span(0x6000_0000, 512 << 20));
    // No hint, level 0, and levels that have no blocks.
    for ttl in [0, 1, 2, 3, 0b0100, 0b1000, 0b1001, 0b1100, 0b1101] {
        let leaf = Stage2 { start: Ipa::new(0x4020_3000), extent: Extent::Leaf };
        assert_eq!(hint(ttl, 0x4020_3000), Some(Tlbi::Stage2(leaf)), "{ttl:#b}");
    }
}

#[test]
fn a_hint_that_is_not_offered_is_none() {
    let offered = Offered { ttl: false, ..EVERYTHING };
    let decoded = Tlbi::decode(named("IPAS2LE1"), 0b0110 << 44 | 0x40203, VHE, offered);
    let leaf = Stage2 { start: Ipa::new(0x4020_3000), extent: Extent::Leaf };
    assert_eq!(decoded, Some(Tlbi::Stage2(leaf)));
}

#[test]
fn ranges_follow_granule_scale_and_number() {
    let range = |tg: u64, scale: u64, num: u64, base: u64| match decode(
        "RIPAS2E1IS",
        tg << 46 | scale << 44 | num << 39 | 0b10 << 37 | base,
    ) {
        Some(Tlbi::Stage2(Stage2 { start, extent: Extent::Bytes(bytes) })) => (start.get(), bytes),
        other => panic!("{other:?}"),
    };
    assert_eq!(range(1, 0, 0, 0x40000), (0x4000_0000, 2 * 4096));
    assert_eq!(range(1, 1, 31, 0x40000), (0x4000_0000, 32 * 64 * 4096));
    assert_eq!(range(2, 0, 1, 0x10000), (0x4000_0000, 4 * (16 << 10)));
    assert_eq!(range(3, 0, 0, 0x4000), (0x4000_0000, 2 * (64 << 10)));
    // TG = 0 is reserved and counts as the largest.
    assert_eq!(range(0, 0, 0, 0x4000), (0x4000_0000, 2 * (64 << 10)));
    // The end of the address space cuts.
    assert_eq!(range(1, 3, 31, 0xf_ffff_ffff), (0xffff_ffff_f000, 4096));
}

#[test]
fn a_range_of_virtual_addresses_is_signed() {
    let x = 1 << 46 | 0x1f_ffff_fff0;
    let Some(Tlbi::Stage1(_, Stage1::Pages(pages))) = decode("RVAAE1IS", x) else { panic!() };
    assert_eq!(pages, Pages { first: 0xfff_ffff_fff0, count: 2, stride: 1, asid: None });
}

proptest! {
    #[test]
    fn spans_stay_inside_the_address_space(
        (op1, crn, crm, op2) in (0_u32..8, 8_u32..10, 0_u32..16, 0_u32..8), x: u64, e2h: bool, tge: bool,
    ) {
        let reg = SysReg::new(1, op1, crn, crm, op2);
        match Tlbi::decode(reg, x, Host { e2h, tge }, EVERYTHING) {
            Some(Tlbi::Stage2(Stage2 { start, extent })) => {
                prop_assert!(start.is_aligned(4096));
                if let Extent::Bytes(bytes) = extent {
                    prop_assert!(bytes > 0 && bytes % 4096 == 0);
                    prop_assert!(start.get() + bytes <= 1 << 48);
                }
            }
            Some(Tlbi::Stage1(_, Stage1::Pages(pages))) => {
                prop_assert!(pages.first < 1 << 44 && pages.count >= 1 && pages.count <= 1 << 21);
            }
            Some(Tlbi::Stage1(_, Stage1::All | Stage1::Asid(_)) | Tlbi::AllVmids | Tlbi::Vmid) | None => {}
        }
    }
}

#[test]
fn what_is_offered_is_what_the_id_registers_say() {
    assert_eq!(Offered::from_ids(2 << 56, 1 << 56, 1 << 48), EVERYTHING);
    let outer = Offered { outer: true, ..Offered::default() };
    assert_eq!(Offered::from_ids(1 << 56, 0, 0), outer);
    assert_eq!(Offered::from_ids(0, 0, 0), Offered::default());
}
