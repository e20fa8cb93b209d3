//! What traps cache maintenance, and what never does.

use super::*;
use crate::maintenance::HFGITR_DCIVAC;

/// HCR_EL2.TPU, TOCU, TICAB; HCRX_EL2.CMOW; all of HFGITR_EL2 that traps cache maintenance by address or
/// DC ZVA.
const TPU_TOCU_TICAB: u64 = 1 << 24 | 1 << 52 | 1 << 50;
const HCRX_CMOW: u64 = 1 << 9;
const HFGITR_MAINTENANCE: u64 = 0b1111_1000_1111 | 1 << 54;

#[test]
fn nothing_traps_unless_asked_for() {
    for host in [max(), n2()] {
        for features in [PLAIN, MTE] {
            let traps = super::traps(&host, &features);
            assert_eq!(traps.hcr & (TPU_TOCU_TICAB | hcr::TPCP | hcr::TDZ), 0);
            assert_eq!(traps.hfgitr & HFGITR_MAINTENANCE, 0);
            // Set and way, always.
            assert_ne!(traps.hcr & hcr::TSW, 0);
        }
    }
}

#[test]
fn one_control_traps_and_nothing_else_changes() {
    for host in [max(), n2()] {
        let traps = super::traps(&host, &MTE);
        let with = traps.with_maintenance();
        let (hcr, hfgitr) = (with.hcr ^ traps.hcr, with.hfgitr ^ traps.hfgitr);
        let expected = if traps.fgt == FgtLevel::None { (hcr::TPCP, 0) } else { (0, HFGITR_DCIVAC) };
        assert_eq!((hcr, hfgitr), expected);
        assert_eq!(TrapConfig { hcr: traps.hcr, hfgitr: traps.hfgitr, ..with }, traps);
        assert_eq!(with.hcrx.unwrap_or(0) & HCRX_CMOW, 0);
    }
    assert_eq!(super::traps(&n2(), &MTE).fgt, FgtLevel::None);
}
