//! What a VM may be given, and what not.

use std::string::ToString;

use super::*;

fn draft(host: &HostIds, features: &Features) -> Draft {
    Draft::new(host, features)
}

fn row(name: &str) -> Row {
    // SVE has fields of the same names before those of the base instructions.
    *rows().filter(|row| row.name == name).last().unwrap()
}

/// Sets a field by name.
fn put(draft: &mut Draft, name: &str, value: u64) -> Result<(), Option<Refused>> {
    let Entry { reg, field, .. } = row(name).entry;
    draft.set_field(reg as u8, field.lsb, value)
}

fn refused(host: &HostIds, name: &str, value: u64) -> Refused {
    put(&mut draft(host, &MTE), name, value).unwrap_err().unwrap()
}

#[test]
fn lower_is_allowed_and_higher_is_not() {
    let mut d = draft(&max(), &MTE);
    for (name, value) in [("MTE", 2), ("Atomic", 0), ("PARange", 2), ("TLB", 1), ("DebugVer", 6)] {
        assert_eq!(put(&mut d, name, value), Ok(()), "{name}");
        let Entry { reg, field, .. } = row(name).entry;
        assert_eq!(field.get(d.ids().read(reg as usize)), value);
    }
    // Up again, as far as the limit.
    assert_eq!(put(&mut d, "MTE", 3), Ok(()));
    let e = refused(&max(), "MTE", 4);
    assert_eq!((e.register, e.lsb, e.asked, e.allowed, e.bound), (25, 8, 4, 3, Bound::AtMost));
    assert_eq!(e.to_string(), "asked 4, at most 3 allowed here");
    assert_eq!(e.register(), SysReg::new(3, 0, 0, 4, 1));
    assert_eq!(refused(&n2(), "MTE", 3).allowed, 2);
    assert_eq!(refused(&max(), "MTE", 300).allowed, 3, "does not fit the field");
}

#[test]
fn hidden_and_given_values_are_fixed() {
    for (name, value) in [("SME", 1), ("MPAM", 1), ("EL0", 2), ("GIC", 3), ("GIC", 0), ("DoubleLock", 0)] {
        let e = refused(&max(), name, value);
        assert_eq!(e.bound, Bound::Only, "{name}");
        assert!(e.to_string().contains(", only "), "{e}");
        assert_eq!(put(&mut draft(&max(), &MTE), name, e.allowed), Ok(()), "{name}");
    }
    // No such field.
    assert_eq!(draft(&max(), &MTE).set_field(25, 9, 0), Err(None));
    assert_eq!(draft(&max(), &MTE).set_field(27, 0, 0), Err(None));
    assert_eq!(draft(&max(), &MTE).set_field(255, 0, 0), Err(None));
}

/// All ones in a signed field is less than 0, not more.
#[test]
fn signed_fields_of_a_vm() {
    let mut d = draft(&max(), &MTE);
    assert_eq!(put(&mut d, "FP", 0xf), Ok(()));
    assert_eq!(put(&mut d, "TGran64", 0xf), Ok(()));
    let mut absent = max();
    absent.features[Reg::Pfr0 as usize] |= 0xf << 16;
    let e = refused(&absent, "FP", 0);
    assert_eq!((e.asked, e.allowed, e.bound), (0, 0xf, Bound::AtMost));
    let mut no_async = n2();
    no_async.features[Reg::Pfr1 as usize] |= 0xf << 40;
    assert_eq!(refused(&no_async, "MTE_frac", 0).allowed, 0xf);
}

#[test]
fn exact_fields_of_a_vm() {
    let mut d = draft(&max(), &MTE);
    assert_eq!(put(&mut d, "API", 5), Ok(()));
    assert_eq!(put(&mut d, "API", 0), Ok(()));
    let e = refused(&max(), "API", 4);
    assert_eq!(e.to_string(), "asked 4, only \"absent\" or 5 allowed here");
    // Of a hazard a VM may be told more than there is, not less.
    let mut hazard = max();
    hazard.features[Reg::Mmfr1 as usize] |= 1 << 24;
    assert_eq!(refused(&hazard, "SpecSEI", 0).bound, Bound::AtLeast);
    assert_eq!(put(&mut draft(&max(), &MTE), "SpecSEI", 1), Ok(()));
}

/// MTE 2 without asynchronous faults, lowered and raised again: MTE_frac goes along.
#[test]
fn mte_frac_follows_mte() {
    let mut no_async = n2();
    no_async.features[Reg::Pfr1 as usize] |= 0xf << 40;
    let frac = |d: &Draft| d.ids().read(25) >> 40 & 0xf;
    let mut d = draft(&no_async, &MTE);
    let whole = d.ids().read(25);
    assert_eq!((frac(&d), d.check_consistency(32)), (0xf, Ok(())));
    for mte in [1, 0] {
        assert_eq!(put(&mut d, "MTE", mte), Ok(()));
        assert_eq!((frac(&d), d.check_consistency(32)), (0, Ok(())), "MTE {mte}");
        // It says nothing now, and its 0 is no promise.
        assert_eq!(put(&mut d, "MTE_frac", 0), Ok(()));
        let lowered = d.ids().read(25);
        assert_eq!((d.set(25, lowered), frac(&d)), (Ok(()), 0), "what was read");
        assert_eq!((d.set(25, whole & !0xf00 | mte << 8), frac(&d)), (Ok(()), 0), "MTE alone lowered");
        assert_eq!(d.ids().read(25), lowered);
    }
    assert_eq!((put(&mut d, "MTE", 2), frac(&d)), (Ok(()), 0xf));
    assert_eq!(d.set(25, whole & !(0xf << 40)).unwrap_err().lsb, 40, "a promise");
    // Who asks for no asynchronous faults where there are some, gets none.
    let mut d = draft(&max(), &MTE);
    assert_eq!((put(&mut d, "MTE_frac", 0xf), put(&mut d, "MTE", 2), frac(&d)), (Ok(()), Ok(()), 0xf));
    assert_eq!(d.check_consistency(32), Ok(()));
    assert_eq!((put(&mut d, "MTE", 3), d.check_consistency(32)), (Ok(()), Err(Contradiction::MteFrac)));
}

/// Pointer authentication is offered by whole algorithms, of machines and of CPUs that differ.
#[test]
fn pauth_goes_by_algorithm() {
    let fields = |host: &HostIds| {
        let ids = GuestIds::new(host, &PLAIN);
        ["APA", "GPA", "API", "GPI", "APA3", "GPA3", "PAC_frac"].map(|name| {
            let Entry { reg, field, .. } = row(name).entry;
            field.get(ids.read(reg as usize))
        })
    };
    assert_eq!(fields(&max()), [0, 0, 5, 1, 0, 0, 0]);
    let mut half = max();
    half.features[Reg::Isar1 as usize] &= !(0xf << 28);
    half.features[Reg::Isar2 as usize] |= 1 << 24;
    assert_eq!(fields(&half), [0; 7]);
    assert!(!GuestIds::new(&half, &PLAIN).has_pauth());
    // The algorithms differ in strength: API is 5 and 4, GPI 1 on both.
    let mut other = max();
    other.features[Reg::Isar1 as usize] ^= 1 << 8;
    assert_eq!(fields(&combined(&max(), &other)), [0; 7]);
    for (name, value) in [("API", 0), ("GPI", 0)] {
        let mut d = draft(&max(), &PLAIN);
        assert_eq!(put(&mut d, name, value), Ok(()));
        assert_eq!(d.check_consistency(32), Err(Contradiction::PAuthHalf), "{name} alone");
    }
}

#[test]
fn whole_registers() {
    let mut d = draft(&max(), &MTE);
    let pfr1 = d.ids().read(25);
    // Two fields at once, or none.
    assert_eq!(d.set(25, pfr1 & !0xff0 | 0x210), Ok(()));
    let before = d.clone();
    assert_eq!(d.set(25, pfr1 | 0xf00).unwrap_err().lsb, 8);
    assert_eq!(d, before);
    // A bit outside all fields.
    let e = d.set(25, pfr1 | 1 << 20).unwrap_err();
    assert_eq!((e.lsb, e.asked, e.allowed, e.bound), (20, 1, 0, Bound::Only));
    // Hidden and reserved registers are 0.
    for register in [28, 27, 44, 55] {
        assert_eq!(d.set(register, 0), Ok(()));
        assert_eq!(d.set(register, 1).unwrap_err().register, register);
    }
    // AArch32 registers take anything and keep nothing.
    assert_eq!(d.set(8, 0x0210_1110), Ok(()));
    assert_eq!(d.ids().read(8), 0);
    // Not of the table.
    assert_eq!(d.set(200, 0), Ok(()));
    assert!(d.set(200, 1).is_err());
}

#[test]
fn identity_registers_are_fixed() {
    let mut d = draft(&max(), &MTE);
    for register in
        [index::MIDR, index::REVIDR, index::AIDR, index::DCZID, index::CCSIDR, index::GMID, index::MPIDR]
    {
        let value = d.ids().read(register.into());
        assert_eq!(d.set(register, value), Ok(()), "{register}");
        assert_eq!(d.set(register, value ^ 0x10).unwrap_err().bound, Bound::Only, "{register}");
        assert_eq!(d.mask(register), 0);
    }
}

#[test]
fn cache_type() {
    let mut d = draft(&max(), &PLAIN);
    let ctr = d.ids().ctr();
    assert_eq!(d.mask(index::CTR), 0b11 << 28 | 0b11 << 14);
    assert_eq!(d.traps_on(&max()).hcr & hcr::TID2, 0, "the hardware's own");
    assert_eq!(put(&mut d, "IDC", 0), Ok(()));
    assert_eq!(put(&mut d, "L1Ip", 2), Ok(()));
    assert_eq!(put(&mut d, "L1Ip", 1).unwrap_err().unwrap().bound, Bound::OrAbsent);
    assert_ne!(d.traps_on(&max()).hcr & hcr::TID2, 0);
    // Without IDC there must be something to clean on the way to the point of unification.
    assert_eq!(d.ids().read(index::CLIDR.into()), 0x0a20_0023);
    let clidr = d.ids().read(index::CLIDR.into());
    assert_eq!((d.set(index::CLIDR, clidr), d.set(index::CLIDR, 0x0100_0004).is_err()), (Ok(()), true));
    // Sizes of lines and blocks.
    assert_eq!(d.set(index::CTR, ctr ^ 1 << 16).unwrap_err().lsb, 16);
    assert_eq!(d.set(index::CTR, ctr), Ok(()));
    let other = HostIds { ctr: max().ctr & !(1 << 28), ..max() };
    let d = draft(&max(), &PLAIN);
    assert_eq!(d.traps_on(&max()).hcr & hcr::TID2, 0);
    assert_ne!(d.traps_on(&other).hcr & hcr::TID2, 0, "its CPUs differ, and this is not what it sees");
}

#[test]
fn masks() {
    let d = draft(&max(), &MTE);
    assert_eq!(d.mask(Reg::Pfr1 as u8), 0x0f00_0000_0fff);
    assert_eq!(d.mask(Reg::Pfr2 as u8), 0xff0);
    assert_eq!(draft(&max(), &PLAIN).mask(Reg::Pfr1 as u8), 0xff);
    assert_eq!((d.mask(28), d.mask(0), d.mask(255)), (0, 0, 0));
}

/// What a mask says is writable is, and nothing else.
#[test]
fn masks_are_true() {
    for host in [max(), n2()] {
        for row in rows() {
            let Entry { reg, field, .. } = row.entry;
            let d = draft(&host, &MTE);
            let writable = d.mask(reg as u8) & field.mask() != 0;
            let limit = field.get(d.ids().read(reg as usize));
            let other = |v: &u64| *v != limit && d.clone().set_field(reg as u8, field.lsb, *v).is_ok();
            assert_eq!((0..=field.ones()).any(|v| other(&v)), writable, "{}", row.name);
        }
    }
}

/// A feature that is lowered is closed by the same control as one that is hidden from all.
#[test]
fn lowered_features_are_closed() {
    let closed = |names: &[(&str, u64)]| {
        let mut d = draft(&max(), &MTE);
        for (name, value) in names {
            put(&mut d, name, *value).unwrap();
        }
        d.traps_on(&max())
    };
    let open = closed(&[]);
    let t = closed(&[("MTE", 1), ("MTEFAR", 0), ("MTESTOREONLY", 0)]);
    assert_eq!((t.hcr & hcr::ATA, t.hcr & hcr::TID5), (0, hcr::TID5));
    let t = closed(&[("API", 0), ("GPI", 0)]);
    assert_eq!(open.hcr & !t.hcr, hcr::API | hcr::APK);
    assert_eq!(closed(&[("FP", 0xf), ("AdvSIMD", 0xf)]).cptr, open.cptr | cptr::TFP);
    use crate::closing::hfgitr::*;
    for (name, value, bits) in [
        ("TLB", 1, TLBI_RANGE),
        ("TLB", 0, TLBI_RANGE | TLBI_OS),
        ("DPB", 1, DCCVADP),
        ("DPB", 0, DCCVADP | DCCVAP),
        ("SPECRES", 0, RCTX),
        ("PAN", 1, ATS1E1P),
    ] {
        assert_eq!(closed(&[(name, value)]).hfgitr ^ open.hfgitr, bits, "{name} {value}");
    }
    // A VM without MTE by its manifest and one that gave it up are closed alike.
    assert_eq!(closed(&[("MTE", 0), ("MTEFAR", 0), ("MTESTOREONLY", 0)]), traps(&max(), &PLAIN));
}

#[test]
fn instructions_of_lowered_features() {
    let mut d = draft(&max(), &MTE);
    let (cvap, cgdvap, cvadp) =
        (SysReg::new(1, 3, 7, 12, 1), SysReg::new(1, 3, 7, 12, 5), SysReg::new(1, 3, 7, 13, 1));
    let has = |d: &Draft| [cvap, cgdvap, cvadp].map(|i| d.ids().has_instruction(i));
    assert_eq!(has(&d), [true, true, true]);
    put(&mut d, "DPB", 1).unwrap();
    assert_eq!(has(&d), [true, true, false]);
    put(&mut d, "DPB", 0).unwrap();
    assert_eq!(has(&d), [false, false, false]);
    assert!(d.ids().has_instruction(SysReg::new(1, 3, 7, 14, 1)), "DC CIVAC");
}

#[test]
fn instruction_trap_bits() {
    use crate::closing::hfgitr;
    use arm_sysregs::el2::registers::HfgitrEl2 as R;
    let os = R::TLBIVMALLE1OS
        | R::TLBIVAE1OS
        | R::TLBIASIDE1OS
        | R::TLBIVAAE1OS
        | R::TLBIVALE1OS
        | R::TLBIVAALE1OS;
    let range = R::TLBIRVAE1OS | R::TLBIRVAAE1OS | R::TLBIRVALE1OS | R::TLBIRVAALE1OS;
    let range = range | R::TLBIRVAE1IS | R::TLBIRVAAE1IS | R::TLBIRVALE1IS | R::TLBIRVAALE1IS;
    let range = range | R::TLBIRVAE1 | R::TLBIRVAAE1 | R::TLBIRVALE1 | R::TLBIRVAALE1;
    assert_eq!((hfgitr::TLBI_OS, hfgitr::TLBI_RANGE), (os.bits(), range.bits()));
    assert_eq!((hfgitr::DCCVAP, hfgitr::DCCVADP), (R::DCCVAP.bits(), R::DCCVADP.bits()));
    assert_eq!(hfgitr::RCTX, (R::CFPRCTX | R::DVPRCTX | R::CPPRCTX).bits());
    assert_eq!(hfgitr::ATS1E1P, (R::ATS1E1RP | R::ATS1E1WP).bits());
    assert_eq!((hfgitr::COSPRCTX, hfgitr::ATS1E1A), (R::COSPRCTX.bits(), R::ATS1E1A.bits()));
}

/// One case for each rule, and that the sentence names the fields.
#[test]
fn contradictions() {
    use Contradiction::*;
    let found = |edits: &[(&str, u64)]| {
        let mut ids = GuestIds::new(&max(), &MTE);
        for (name, value) in edits {
            let Entry { reg, field, .. } = row(name).entry;
            let old = ids.read(reg as usize);
            ids.set(reg as usize, old & !field.mask() | field.place(*value));
        }
        crate::contradiction::contradiction(&ids, 32)
    };
    assert_eq!(found(&[]), None);
    for (edits, expected) in [
        (&[("FP", 0xf)][..], FpAdvSimd),
        (&[("FP", 0xf), ("AdvSIMD", 0xf)], VectorsWithoutFp),
        (&[("MTE_frac", 0xf)], MteFrac),
        (&[("MTE", 2), ("MTE_frac", 0xf), ("SHA1", 0)], Sha),
        (&[("MTE", 1)], MteExtensions),
        (&[("MTE", 0), ("MTEFAR", 0), ("MTESTOREONLY", 0), ("MTEX", 1)], MteExtensions),
        (&[("SVE", 1), ("FP", 0xf), ("AdvSIMD", 0xf)], VectorsWithoutFp),
        (&[("APA", 1)], PAuthAlgorithms),
        (&[("API", 0)], PAuthHalf),
        (&[("GPI", 0)], PAuthHalf),
        (&[("GPA", 1)], PAuthAlgorithms),
        (&[("API", 0), ("GPI", 0), ("PAC_frac", 1)], PAuthHalf),
        (&[("GPA3", 1), ("GPI", 1)], PAuthAlgorithms),
        (&[("FP", 0), ("AdvSIMD", 0)], FhmWithoutHalf),
        (&[("SHA2", 0)], Sha),
        (&[("SM4", 0)], Sm),
        (&[("DebugVer", 5)], Debug),
        (&[("CTX_CMPs", 6)], Debug),
        (&[("BRPs", 0)], Debug),
        (&[("TGran4", 0xf), ("TGran16", 0), ("TGran64", 0xf)], Granules),
    ] {
        assert_eq!(found(edits), Some(expected), "{edits:?}");
        assert!(expected.to_string().contains("ID_AA64"), "{expected}");
    }
    // Each alone of what needs FP.
    let without_fp = [(24, 0x00ff_0011), (40, 0), (41, 0), (42, 0), (43, 0), (49, 0)];
    for name in [
        "AES", "RDM", "JSCVT", "FCMA", "FRINTTS", "BF16", "I8MM", "RPRES", "LUT", "FAMINMAX", "LSFE",
        "FPRCVT", "AFP",
    ] {
        let mut ids = GuestIds::new(&max(), &PLAIN);
        without_fp.iter().for_each(|(register, value)| ids.set(*register, *value));
        assert_eq!(crate::contradiction::contradiction(&ids, 32), None);
        let Entry { reg, field, .. } = row(name).entry;
        ids.set(reg as usize, field.place(1));
        assert_eq!(crate::contradiction::contradiction(&ids, 32), Some(VectorsWithoutFp), "{name}");
    }
    // SVE and nothing else that needs FP.
    let mut ids = GuestIds::new(&max(), &MTE);
    for (register, value) in without_fp {
        ids.set(register, if register == 24 { value | 1 << 32 } else { value });
    }
    assert_eq!(crate::contradiction::contradiction(&ids, 32), Some(SveFp));
    let mut ids = GuestIds::new(&max(), &MTE);
    assert_eq!(crate::contradiction::contradiction(&ids, 48), None);
    ids.set(48, ids.read(48) & !0xf | 2);
    assert_eq!(crate::contradiction::contradiction(&ids, 40), None);
    assert_eq!(crate::contradiction::contradiction(&ids, 41), Some(AddressRange));
    let mut ids = GuestIds::new(&max(), &MTE);
    ids.set(28, 1);
    assert_eq!(crate::contradiction::contradiction(&ids, 32), Some(SveZfr));
    ids.set(28, 0);
    ids.set(2, 6 << 24);
    assert_eq!(crate::contradiction::contradiction(&ids, 32), Some(PmuPerfMon));
    // With AArch32 both must say the same.
    ids.set(24, ids.read(24) | 2);
    ids.set(24, ids.read(24) & !1);
    assert_eq!(crate::contradiction::contradiction(&ids, 32), Some(PmuPerfMon));
    ids.set(32, ids.read(32) & !0xf00 | 6 << 8);
    assert_eq!(crate::contradiction::contradiction(&ids, 32), None);
    let numbers: Vec<u8> = Contradiction::ALL.iter().map(|c| *c as u8).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u8));
}

/// Each baseline is a CPU, on `max` with all that it says, and the same on another machine.
#[test]
fn baselines_fit() {
    use crate::baseline::BASELINES;
    let mut seen = Vec::new();
    for baseline in BASELINES {
        let features = Features { mte: baseline.memtag, sve: baseline.sve(), nested: None };
        let mut d = draft(&max(), &features);
        for (row, value) in baseline.fields() {
            let Entry { reg, field, .. } = row.entry;
            let set = d.set_field(reg as u8, field.lsb, value.into());
            assert_eq!(set, Ok(()), "{} {}", baseline.name, row.name);
        }
        assert_eq!(d.check_consistency(40), Ok(()), "{}", baseline.name);
        assert_eq!(d.ids().has_mte(), baseline.memtag);
        assert_eq!(d.ids().has_sve(), baseline.sve());
        // A machine with more of everything that may grow.
        let mut more = max();
        more.features[Reg::Isar0 as usize] |= 3 << 20;
        more.features[Reg::Pfr0 as usize] |= 3 << 56;
        more.features[Reg::Mmfr0 as usize] |= 6;
        let mut e = draft(&more, &features);
        for (row, value) in baseline.fields() {
            let Entry { reg, field, .. } = row.entry;
            e.set_field(reg as u8, field.lsb, value.into()).unwrap();
        }
        assert_eq!(d.ids(), e.ids(), "{}", baseline.name);
        seen.push((baseline.name, d.ids().clone()));
    }
    let of = |name| &seen.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(of("armv8.0-a").read(Reg::Pfr0 as usize), 0x0000_0000_0100_0011);
    assert_eq!(of("armv8.5-a+memtag").read(Reg::Pfr1 as usize), 0x221);
    assert_eq!(of("armv8.5-a").read(Reg::Pfr2 as usize), 0);
    assert_eq!(of("armv9.0-a").read(Reg::Zfr0 as usize), 1);
    assert!(!of("armv8.2-a").has_pauth() && of("armv8.4-a").has_pauth());
}

proptest! {
    /// What a VM is offered passes the check of what it may be given, whatever the machine.
    #[test]
    fn every_limit_passes_its_own_check(a in any_ids(), b in any_ids(), mte: bool, sve: bool, nested in 0_usize..3) {
        let nested = [None, Some(VirtualEl2::Vhe), Some(VirtualEl2::Nvhe)][nested];
        for host in [a, combined(&a, &b), combined(&max(), &b)] {
            let d = draft(&host, &Features { mte, sve, nested });
            for register in 0..REGISTERS as u8 {
                let value = d.ids().read(register.into());
                let mut again = d.clone();
                prop_assert_eq!(again.set(register, value), Ok(()), "{}", register);
                prop_assert_eq!(&again, &d);
            }
        }
    }

    /// Whatever is asked for, in whatever order: a VM never has more than its limit.
    #[test]
    fn never_beyond_the_limit(
        a in any_ids(),
        asked in proptest::collection::vec((0_u8..66, any::<u64>(), 0_u8..64), 1..if cfg!(miri) { 20 } else { 40 }),
    ) {
        let mut d = draft(&a, &MTE);
        let limit = d.ids().clone();
        for (register, value, lsb) in asked {
            let _ = d.set(register, value);
            let _ = d.set(register, limit.read(register.into()) & value);
            let _ = d.set_field(register, lsb, value & 0xf);
        }
        for row in rows() {
            let Entry { reg, field, .. } = row.entry;
            let (has, most) = (field.get(d.ids().read(reg as usize)), field.get(limit.read(reg as usize)));
            let mute = row.name == "MTE_frac" && !d.ids().has_mte() && has == 0;
            prop_assert!(mute || row.entry.allows(has, most), "{row:?}");
        }
    }
}
