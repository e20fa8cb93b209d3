//! What traps and disabled features make of the machines that were measured.

use super::*;

#[test]
fn closing_of_max() {
    use arm_sysregs::el2::registers as r;
    let t = traps(&max(), &MTE);
    let expected = r::HcrEl2::VM
        | r::HcrEl2::SWIO
        | r::HcrEl2::FMO
        | r::HcrEl2::IMO
        | r::HcrEl2::AMO
        | r::HcrEl2::FB
        | r::HcrEl2::TWI
        | r::HcrEl2::TID1
        | r::HcrEl2::TID3
        | r::HcrEl2::TSC
        | r::HcrEl2::TIDCP
        | r::HcrEl2::TACR
        | r::HcrEl2::TSW
        | r::HcrEl2::RW
        | r::HcrEl2::TLOR
        | r::HcrEl2::TERR
        | r::HcrEl2::APK
        | r::HcrEl2::API
        | r::HcrEl2::FWB
        | r::HcrEl2::TID4
        | r::HcrEl2::ATA;
    assert_eq!(t.hcr, expected.bits(), "{:#x}", t.hcr ^ expected.bits());
    assert!(!t.traps_ctr());
    assert_eq!(traps(&max(), &PLAIN).hcr, (expected ^ r::HcrEl2::ATA | r::HcrEl2::TID5).bits());
    assert_eq!(t.hcrx, Some(r::HcrxEl2::TALLINT.bits()));
    assert_eq!(t.cptr, 0x33ff);
    assert_eq!(cptr::TFP | cptr::TAM, (r::CptrEl2::TFP | r::CptrEl2::TAM).bits());
    assert_eq!(cptr::TZ | cptr::TSM, (r::CptrEl2::TZ | r::CptrEl2::TSM).bits());
    let debug = r::MdcrEl2::TDA | r::MdcrEl2::TDOSA | r::MdcrEl2::TDRA | r::MdcrEl2::TDCC;
    let pmu = r::MdcrEl2::TPM | r::MdcrEl2::TPMCR | r::MdcrEl2::HPMD;
    assert_eq!(t.mdcr, (debug | pmu).bits() | 6, "six counters");
    assert_eq!(mdcr::TPMS | mdcr::TTRF, (r::MdcrEl2::TPMS | r::MdcrEl2::TTRF).bits());
    assert_eq!(t.fgt, FgtLevel::Fgt);
    assert_eq!((t.hfgrtr, t.hfgwtr, t.hdfgrtr, t.hdfgwtr), (0, 0, 0, 0));
    assert_eq!(t.hfgitr, r::HfgitrEl2::ATS1E1A.bits());
    assert_eq!((t.hafgrtr, t.mpam2), (None, None));
    assert_eq!(t.cnthctl, 3);
    let constants = [
        (hcr::VSE, r::HcrEl2::VSE),
        (hcr::TWE, r::HcrEl2::TWE),
        (hcr::TID2, r::HcrEl2::TID2),
        (hcr::TPCP, r::HcrEl2::TPCP),
        (hcr::TDZ, r::HcrEl2::TDZ),
    ];
    assert!(constants.iter().all(|(ours, theirs)| *ours == theirs.bits()));
    // The n* bits that the table relies on trap when 0.
    assert_eq!(r::HfgrtrEl2::NTPIDR2_EL0.bits() & t.hfgrtr, 0);
    let full = arm_sysregs::el2::registers::HfgitrEl2::COSPRCTX.bits();
    let mut cosp = max();
    cosp.features[Reg::Isar1 as usize] |= 1 << 41;
    assert_ne!(traps(&cosp, &MTE).hfgitr & full, 0);
}

#[test]
fn closing_of_n2() {
    let t = traps(&n2(), &MTE);
    assert_eq!((t.fgt, t.hcrx, t.hafgrtr), (FgtLevel::None, None, None));
    assert_ne!(t.hcr & hcr::TID4, 0);
    assert_eq!(t.mdcr & mdcr::TDCC, 0);
    assert_ne!(t.cptr & cptr::TAM, 0);
    let mut old = n2();
    old.features[Reg::Mmfr2 as usize] = 0;
    old.features[Reg::Pfr0 as usize] = 0x11;
    let t = traps(&old, &PLAIN);
    assert!(t.traps_ctr());
    assert_eq!(t.hcr & (hcr::TID4 | hcr::FWB | hcr::TERR), 0);
    let mut mpam = n2();
    mpam.features[Reg::Pfr0 as usize] |= 1 << 40;
    let bits = arm_sysregs::el2::registers::Mpam2El2::TRAPMPAM0EL1
        | arm_sysregs::el2::registers::Mpam2El2::TRAPMPAM1EL1
        | arm_sysregs::el2::registers::Mpam2El2::TIDR;
    assert_eq!(traps(&mpam, &PLAIN).mpam2, Some(bits.bits()));
}
