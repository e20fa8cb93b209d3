//! Whose trap is it: which control of L1's, if set, claims an access of L2's that came to L0.
//!
//! One table. A row is a pattern of encodings and the controls that trap them, for reads and writes;
//! no two rows match the same encoding, or it does not build. What no row matches, or whose controls
//! are all clear, is L0's own trap, and L0 answers it as it does for any VM.

use crate::controls::{L1Hcr, MDCR_TDCC, MDCR_TDE, cnthctl, hcr, hcrx};
use crate::fine::FineTraps;
use trap::{SysReg, SysregAccess};

/// L1's controls as far as they trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// HCR_EL2.
    pub hcr: L1Hcr,
    /// MDCR_EL2.
    pub mdcr: u64,
    /// CPTR_EL2, in the format that L1 has.
    pub cptr: u64,
    /// CNTHCTL_EL2 as [`controls::cnthctl_for_l2`](crate::controls::cnthctl_for_l2) gives it.
    pub cnthctl: u64,
    /// ICH_HCR_EL2.
    pub ich_hcr: u64,
    /// HCRX_EL2.
    pub hcrx: u64,
    /// Fine-grained traps, as far as the VM has them.
    pub fine: FineTraps,
    /// The VM has memory tags; without, maintenance of them is UNDEFINED and nobody's to trap.
    pub mte: bool,
}

/// A control of EL2 that traps registers or system instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    /// These bits of HCR_EL2, any of them set.
    Hcr(u64),
    /// These bits of HCR_EL2, any of them clear.
    HcrClear(u64),
    /// Writes by HCR_EL2.TVM, reads by HCR_EL2.TRVM.
    Vm,
    /// These bits of MDCR_EL2.
    Mdcr(u64),
    /// This bit of CPTR_EL2.
    Cptr(u64),
    /// This bit of CNTHCTL_EL2.
    Cnthctl(u64),
    /// This bit of CNTHCTL_EL2, clear.
    CnthctlClear(u64),
    /// These bits of ICH_HCR_EL2.
    IchHcr(u64),
}

struct Row {
    mask: u32,
    value: u32,
    control: Control,
}

impl Row {
    const fn matches(&self, key: u32) -> bool {
        key & self.mask == self.value
    }
}

const fn key(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

const ALL: u32 = key(3, 7, 15, 15, 7);

/// One encoding.
const fn one(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32, control: Control) -> Row {
    Row { mask: ALL, value: key(op0, op1, crn, crm, op2), control }
}

/// Encodings whose CRm and op2 agree with these in the bits of the masks.
const fn some(
    (op0, op1, crn): (u32, u32, u32),
    (crm, crm_mask): (u32, u32),
    (op2, op2_mask): (u32, u32),
    control: Control,
) -> Row {
    Row { mask: key(3, 7, 15, crm_mask, op2_mask), value: key(op0, op1, crn, crm, op2), control }
}

/// All of a CRn, at any op1.
const fn crn(op0: u32, crn: u32, control: Control) -> Row {
    Row { mask: key(3, 0, 15, 0, 0), value: key(op0, 0, crn, 0, 0), control }
}

const TID1: Control = Control::Hcr(1 << 16);
const TID2: Control = Control::Hcr(1 << 17);
const TID2_4: Control = Control::Hcr(1 << 17 | 1 << 49);
const TID3: Control = Control::Hcr(1 << 18);
const TID5: Control = Control::Hcr(1 << 58);
const TIDCP: Control = Control::Hcr(1 << 20);
const TACR: Control = Control::Hcr(1 << 21);
const TSW: Control = Control::Hcr(1 << 22);
const TPCP: Control = Control::Hcr(1 << 23);
const TOCU: Control = Control::Hcr(1 << 24 | hcr::TOCU);
const TICAB: Control = Control::Hcr(1 << 24 | hcr::TICAB);
const TTLB: Control = Control::Hcr(hcr::TTLB);
const TTLBIS: Control = Control::Hcr(hcr::TTLB | hcr::TTLBIS);
const TTLBOS: Control = Control::Hcr(hcr::TTLB | hcr::TTLBOS);
const TDZ: Control = Control::Hcr(1 << 28);
const TERR: Control = Control::Hcr(1 << 36);
const SGI: Control = Control::Hcr(hcr::IMO | hcr::FMO);
const APK: Control = Control::HcrClear(hcr::APK);
const ATA: Control = Control::HcrClear(hcr::ATA);
const VM: Control = Control::Vm;
// TDE counts as all of TDA, TDOSA and TDRA.
const TDA: Control = Control::Mdcr(MDCR_TDE | 1 << 9);
const TDCC: Control = Control::Mdcr(MDCR_TDE | 1 << 9 | MDCR_TDCC);
const TDOSA: Control = Control::Mdcr(MDCR_TDE | 1 << 10);
const TDRA: Control = Control::Mdcr(MDCR_TDE | 1 << 11);
const TCPAC: Control = Control::Cptr(1 << 31);
const PCT: Control = Control::CnthctlClear(1);
const PCEN: Control = Control::CnthctlClear(2);
const TVT: Control = Control::Cnthctl(cnthctl::EL1TVT);
const TVCT: Control = Control::Cnthctl(cnthctl::EL1TVCT);
const TC: Control = Control::IchHcr(1 << 10);
const TALL0: Control = Control::IchHcr(1 << 11);
const TALL1: Control = Control::IchHcr(1 << 12);
const DIR: Control = Control::IchHcr(1 << 10 | 1 << 14);

const ANY: (u32, u32) = (0, 0);

const ROWS: &[Row] = &[
    // Identification.
    one(3, 0, 0, 0, 6, TID1),
    one(3, 1, 0, 0, 6, TID1),
    one(3, 1, 0, 0, 7, TID1),
    one(3, 1, 0, 0, 0, TID2_4),
    one(3, 1, 0, 0, 1, TID2_4),
    one(3, 1, 0, 0, 2, TID2_4),
    one(3, 1, 0, 0, 4, TID5),
    one(3, 2, 0, 0, 0, TID2_4),
    one(3, 3, 0, 0, 1, TID2),
    some((3, 0, 0), (1, 15), ANY, TID3),
    some((3, 0, 0), (2, 14), ANY, TID3),
    some((3, 0, 0), (4, 12), ANY, TID3),
    // Stage 1 and its faults.
    one(3, 0, 1, 0, 0, VM),
    one(3, 0, 1, 0, 1, TACR),
    one(3, 0, 1, 0, 2, TCPAC),
    one(3, 0, 1, 0, 5, ATA),
    one(3, 0, 1, 0, 6, ATA),
    one(3, 0, 2, 0, 0, VM),
    one(3, 0, 2, 0, 1, VM),
    one(3, 0, 2, 0, 2, VM),
    some((3, 0, 2), (1, 15), ANY, APK),
    some((3, 0, 2), (2, 14), ANY, APK),
    one(3, 0, 5, 1, 0, VM),
    one(3, 0, 5, 1, 1, VM),
    one(3, 0, 5, 2, 0, VM),
    some((3, 0, 5), (3, 15), ANY, TERR),
    some((3, 0, 5), (4, 14), ANY, TERR),
    one(3, 0, 5, 6, 0, ATA),
    one(3, 0, 5, 6, 1, ATA),
    one(3, 0, 6, 0, 0, VM),
    one(3, 0, 10, 2, 0, VM),
    one(3, 0, 10, 3, 0, VM),
    one(3, 0, 13, 0, 1, VM),
    // GIC.
    one(3, 0, 4, 6, 0, TC),
    some((3, 0, 12), (8, 15), ANY, TALL0),
    some((3, 0, 12), (9, 15), ANY, TALL1),
    one(3, 0, 12, 11, 1, DIR),
    one(3, 0, 12, 11, 3, TC),
    one(3, 0, 12, 11, 5, SGI),
    one(3, 0, 12, 11, 6, SGI),
    one(3, 0, 12, 11, 7, SGI),
    some((3, 0, 12), (12, 15), (0, 4), TALL1),
    one(3, 0, 12, 12, 4, TC),
    one(3, 0, 12, 12, 6, TALL0),
    one(3, 0, 12, 12, 7, TALL1),
    // Timers.
    one(3, 3, 14, 0, 1, PCT),
    one(3, 3, 14, 0, 5, PCT),
    some((3, 3, 14), (2, 15), ANY, PCEN),
    one(3, 3, 14, 0, 2, TVCT),
    one(3, 3, 14, 0, 6, TVCT),
    some((3, 3, 14), (3, 15), ANY, TVT),
    // Debug.
    some((2, 0, 0), ANY, (4, 4), TDA),
    one(2, 0, 0, 0, 2, TDCC),
    one(2, 0, 0, 2, 0, TDCC),
    one(2, 0, 0, 2, 2, TDA),
    one(2, 0, 0, 3, 2, TDCC),
    one(2, 0, 0, 6, 2, TDA),
    some((2, 0, 7), ANY, ANY, TDA),
    some((2, 3, 0), ANY, ANY, TDCC),
    one(2, 0, 1, 0, 0, TDRA),
    one(2, 0, 1, 0, 4, TDOSA),
    one(2, 0, 1, 1, 4, TDOSA),
    one(2, 0, 1, 3, 4, TDOSA),
    one(2, 0, 1, 4, 4, TDOSA),
    // Implementation defined.
    crn(3, 11, TIDCP),
    crn(3, 15, TIDCP),
    crn(1, 11, TIDCP),
    crn(1, 15, TIDCP),
    // Cache maintenance: op2 1 and 3, and 5 with tags; by set/way 2, and 4 and 6 with tags.
    one(1, 0, 7, 1, 0, TICAB),
    one(1, 0, 7, 5, 0, TOCU),
    one(1, 3, 7, 5, 1, TOCU),
    one(1, 3, 7, 11, 1, TOCU),
    some((1, 0, 7), (6, 15), (1, 5), TPCP),
    one(1, 0, 7, 6, 5, TPCP),
    one(1, 0, 7, 6, 2, TSW),
    some((1, 0, 7), (6, 15), (4, 5), TSW),
    one(1, 0, 7, 10, 2, TSW),
    some((1, 0, 7), (10, 15), (4, 5), TSW),
    one(1, 0, 7, 14, 2, TSW),
    some((1, 0, 7), (14, 15), (4, 5), TSW),
    some((1, 3, 7), (10, 15), (1, 1), TPCP),
    some((1, 3, 7), (12, 14), (1, 1), TPCP),
    some((1, 3, 7), (14, 15), (1, 1), TPCP),
    one(1, 3, 7, 4, 1, TDZ),
    one(1, 3, 7, 4, 3, TDZ),
    one(1, 3, 7, 4, 4, TDZ),
    // TLB maintenance of EL1, and its nXS forms: Outer Shareable, without ranges and with, Inner Shareable,
    // local.
    some((1, 0, 8), (1, 15), ANY, TTLBOS),
    some((1, 0, 8), (5, 15), ANY, TTLBOS),
    some((1, 0, 8), (2, 14), ANY, TTLBIS),
    some((1, 0, 8), (6, 14), ANY, TTLB),
    some((1, 0, 9), (1, 15), ANY, TTLBOS),
    some((1, 0, 9), (5, 15), ANY, TTLBOS),
    some((1, 0, 9), (2, 14), ANY, TTLBIS),
    some((1, 0, 9), (6, 14), ANY, TTLB),
];

const _: () = {
    let mut rest = ROWS;
    while let [row, tail @ ..] = rest {
        let mut others = tail;
        while let [other, more @ ..] = others {
            let differ = (row.value ^ other.value) & row.mask & other.mask;
            assert!(differ != 0, "no encoding has two rows");
            others = more;
        }
        assert!(row.value & !row.mask == 0, "a row can match");
        rest = tail;
    }
};

/// DC instructions of FEAT_MTE: their op2 begins at 3.
const fn is_tag_maintenance(reg: SysReg) -> bool {
    reg.op0() == 1 && reg.crn() == 7 && matches!(reg.crm(), 4 | 6 | 10 | 12..=14) && reg.op2() >= 3
}

impl Controls {
    /// HCR_EL2 and no other that traps.
    #[must_use]
    pub fn only(hcr: L1Hcr) -> Self {
        // CNTHCTL_EL2.EL1PCTEN and EL1PTEN trap when they are clear.
        let fine = FineTraps::default();
        Self { hcr, mdcr: 0, cptr: 0, cnthctl: 0b11, ich_hcr: 0, hcrx: 0, fine, mte: true }
    }

    /// Whether L1 traps this access of L2's.
    #[must_use]
    pub fn claim(&self, access: SysregAccess) -> bool {
        if !self.mte && is_tag_maintenance(access.reg) {
            return false;
        }
        if self.fine.claim(access, self.hcrx & hcrx::FGT_NXS != 0) {
            return true;
        }
        let r = access.reg;
        let key = key(r.op0(), r.op1(), r.crn(), r.crm(), r.op2());
        ROWS.iter().find(|row| row.matches(key)).is_some_and(|row| self.is_set(row.control, access.read))
    }

    const fn is_set(&self, control: Control, read: bool) -> bool {
        match control {
            Control::Hcr(bits) => self.hcr.has(bits),
            Control::HcrClear(bits) => self.hcr.get() & bits != bits,
            Control::Vm => self.hcr.has(if read { 1 << 30 } else { 1 << 26 }),
            Control::Mdcr(bits) => self.mdcr & bits != 0,
            Control::Cptr(bit) => self.cptr & bit != 0,
            Control::Cnthctl(bit) => self.cnthctl & bit != 0,
            Control::CnthctlClear(bit) => self.cnthctl & bit == 0,
            Control::IchHcr(bits) => self.hcr.owns_interrupts() && self.ich_hcr & bits != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Nothing trapped.
    const OPEN: u64 = hcr::APK | hcr::API | hcr::ATA;

    fn controls(hcr: u64) -> Controls {
        Controls::only(L1Hcr::new(hcr, true))
    }

    fn access(reg: SysReg, read: bool) -> SysregAccess {
        SysregAccess { reg, rt: 0, read }
    }

    #[test]
    fn each_control_claims_its_own() {
        for (reg, bit) in [
            (SysReg::REVIDR_EL1, 16),
            (SysReg::CTR_EL0, 17),
            (SysReg::CLIDR_EL1, 49),
            (SysReg::new(3, 0, 0, 4, 0), 18),
            (SysReg::new(3, 0, 0, 7, 7), 18),
            (SysReg::new(3, 0, 0, 1, 0), 18),
            (SysReg::new(3, 7, 15, 2, 0), 20),
            (SysReg::ACTLR_EL1, 21),
            (SysReg::DC_CISW, 22),
            (SysReg::DC_CGDSW, 22),
            (SysReg::DC_IVAC, 23),
            (SysReg::DC_IGDVAC, 23),
            (SysReg::DC_CIGVAC, 23),
            (SysReg::DC_CVADP, 23),
            (SysReg::DC_CVAU, 24),
            (SysReg::IC_IALLUIS, 24),
            (SysReg::new(1, 0, 8, 3, 0), 25),
            (SysReg::new(1, 0, 9, 7, 1), 25),
            (SysReg::TTBR0_EL1, 26),
            (SysReg::DC_GZVA, 28),
            (SysReg::ERXSTATUS_EL1, 36),
            (SysReg::ICC_SGI1R_EL1, 4),
            (SysReg::GMID_EL1, 58),
            (SysReg::new(1, 0, 8, 3, 1), 54),
            (SysReg::new(1, 0, 9, 2, 1), 54),
            (SysReg::new(1, 0, 8, 1, 0), 55),
            (SysReg::new(1, 0, 9, 5, 7), 55),
            (SysReg::IC_IALLUIS, 50),
            (SysReg::DC_CVAU, 52),
            (SysReg::new(1, 0, 7, 5, 0), 52),
        ] {
            assert!(controls(OPEN | 1 << bit).claim(access(reg, false)), "{reg} by bit {bit}");
            assert!(!controls(OPEN).claim(access(reg, false)), "{reg}");
        }
    }

    #[test]
    fn the_other_controls() {
        let key = SysReg::new(3, 0, 2, 2, 1);
        assert!(
            controls(OPEN & !hcr::APK).claim(access(key, true)) && !controls(OPEN).claim(access(key, true))
        );
        assert!(controls(OPEN & !hcr::ATA).claim(access(SysReg::GCR_EL1, true)));
        assert!(controls(OPEN | 1 << 30).claim(access(SysReg::FAR_EL1, true)), "TRVM reads");
        assert!(!controls(OPEN | 1 << 30).claim(access(SysReg::FAR_EL1, false)), "TRVM does not trap writes");
        let mut c = controls(OPEN);
        (c.cnthctl, c.mdcr, c.cptr, c.ich_hcr) = (0, 1 << 9 | 1 << 10 | 1 << 5, 1 << 31, 1 << 12);
        for reg in [SysReg::CNTP_CVAL_EL0, SysReg::CNTPCT_EL0, SysReg::MDSCR_EL1, SysReg::OSLAR_EL1] {
            assert!(c.claim(access(reg, true)), "{reg}");
        }
        c.mdcr = MDCR_TDCC;
        assert!(c.claim(access(SysReg::MDCCSR_EL0, true)) && !c.claim(access(SysReg::MDSCR_EL1, true)));
        c.mdcr = !0;
        let virtual_timer = SysReg::new(3, 3, 14, 3, 1);
        assert!(!c.claim(access(virtual_timer, false)));
        c.cnthctl = cnthctl::EL1TVT;
        assert!(c.claim(access(virtual_timer, false)) && !c.claim(access(SysReg::new(3, 3, 14, 0, 2), true)));
        c.cnthctl = cnthctl::EL1TVCT;
        assert!(c.claim(access(SysReg::new(3, 3, 14, 0, 2), true)) && !c.claim(access(virtual_timer, true)));
        c.cnthctl = 0;
        assert!(!c.claim(access(SysReg::PMCR_EL0, true)), "no VM has performance monitors");
        assert!(c.claim(access(SysReg::CPACR_EL1, true)));
        assert!(!c.claim(access(SysReg::ICC_IAR1_EL1, true)), "the interface is L1's only with IMO or FMO");
        c.hcr = L1Hcr::new(OPEN | hcr::IMO, true);
        assert!(c.claim(access(SysReg::ICC_IAR1_EL1, true)));
    }

    /// Rows `control,bit,value,R or W,name,op0,op1,CRn,CRm,op2` of all accesses that a bit with this value
    /// traps whose feature a VM may have, from the accessors of the architecture.
    const TRAPS: &str = include_str!("../tests/coarse.csv");

    /// As [`controls`], but with one bit of one control as the row has it.
    fn with_bit(control: &str, bit: u32, value: bool) -> Controls {
        let put = |word: u64| if value { word | 1 << bit } else { word & !(1 << bit) };
        let mut c = controls(OPEN);
        match control {
            "HCR" => c.hcr = L1Hcr::new(put(OPEN), true),
            "MDCR" => c.mdcr = put(c.mdcr),
            "CPTR" => c.cptr = put(c.cptr),
            "CNTHCTL" => c.cnthctl = put(c.cnthctl),
            "ICH_HCR" => (c.ich_hcr, c.hcr) = (put(0), L1Hcr::new(OPEN | hcr::IMO, true)),
            _ => panic!("{control}"),
        }
        c
    }

    #[test]
    fn without_tags_their_maintenance_is_nobodys() {
        let tsw = Controls { mte: false, ..controls(OPEN | 1 << 22) };
        assert!(tsw.claim(access(SysReg::DC_CISW, false)) && !tsw.claim(access(SysReg::DC_CGDSW, false)));
        let all = controls(OPEN | 1 << 23 | 1 << 28);
        let without = Controls { mte: false, ..all };
        for reg in [SysReg::DC_IGDVAC, SysReg::DC_CIGVAC, SysReg::DC_GZVA] {
            assert!(!without.claim(access(reg, false)) && all.claim(access(reg, false)), "{reg}");
        }
        for reg in [SysReg::DC_IVAC, SysReg::DC_CVADP, SysReg::DC_CIVAC] {
            assert!(without.claim(access(reg, false)), "{reg}");
        }
    }

    #[test]
    fn no_trap_of_the_architecture_is_forgotten() {
        let mut rows = 0;
        for line in TRAPS.lines() {
            let f: std::vec::Vec<&str> = line.split(',').collect();
            let n = |i: usize| f[i].parse().unwrap();
            let access = access(SysReg::new(n(5), n(6), n(7), n(8), n(9)), f[3] == "R");
            assert!(with_bit(f[0], n(1), n(2) != 0).claim(access), "{line}");
            assert!(!controls(OPEN).claim(access), "{line}: open");
            rows += 1;
        }
        assert!(rows > 300);
    }

    proptest! {
        /// With every control clear nothing is L1's.
        #[test]
        fn clear_controls_claim_nothing(op0 in 0u32..4, op1 in 0u32..8, crn in 0u32..16, crm in 0u32..16, op2 in 0u32..8, read: bool) {
            prop_assert!(!controls(OPEN).claim(access(SysReg::new(op0, op1, crn, crm, op2), read)));
        }
    }
}
