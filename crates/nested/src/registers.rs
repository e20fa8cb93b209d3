//! The EL2 registers whose accesses by vEL2 trap even with FEAT_NV2, and what each is.
//!
//! One table, in order of encoding, so that a duplicate does not build. A register of EL2 that is not
//! in it belongs to a feature that no nested VM has: it is UNDEFINED there. The test holds the table
//! against the list of all accesses that trap.

use trap::SysReg;

/// A register that L0 emulates for vEL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// SCTLR_EL2.
    Sctlr,
    /// ACTLR_EL2, HACR_EL2, AArch32 state: reads as zero, writes ignored.
    RazWi,
    /// HPFAR_EL2.
    Hpfar,
    /// MDCR_EL2.
    Mdcr,
    /// CPTR_EL2.
    Cptr,
    /// ZCR_EL2, where the VM has SVE.
    Zcr,
    /// TTBR0_EL2.
    Ttbr0,
    /// TTBR1_EL2.
    Ttbr1,
    /// TCR_EL2.
    Tcr,
    /// AFSR0_EL2.
    Afsr0,
    /// AFSR1_EL2.
    Afsr1,
    /// MAIR_EL2.
    Mair,
    /// AMAIR_EL2.
    Amair,
    /// VBAR_EL2.
    Vbar,
    /// CONTEXTIDR_EL2.
    Contextidr,
    /// CNTHCTL_EL2.
    Cnthctl,
    /// CNTKCTL_EL12: that of vEL1.
    CntkctlEl12,
    /// ICC_SRE_EL2.
    IccSre,
    /// ICH_VTR_EL2.
    IchVtr,
    /// ICH_MISR_EL2.
    IchMisr,
    /// ICH_EISR_EL2.
    IchEisr,
    /// ICH_ELRSR_EL2.
    IchElrsr,
    /// A register of a timer.
    Timer(Timer, TimerPart),
}

/// The timers of a vCPU with vEL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Timer {
    /// EL1 virtual.
    Virtual = 0,
    /// EL1 physical.
    Physical = 1,
    /// EL2 virtual.
    HypVirtual = 2,
    /// EL2 physical.
    HypPhysical = 3,
}

/// A timer's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerPart {
    /// TVAL.
    Tval,
    /// CTL.
    Ctl,
    /// CVAL.
    Cval,
}

/// In which VMs a register exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// In all.
    Both,
    /// Where HCR_EL2.E2H is 1 (FEAT_VHE).
    Vhe,
}

struct Row {
    encoding: SysReg,
    exists: Where,
    register: Register,
}

const fn row(op1: u32, crn: u32, crm: u32, op2: u32, exists: Where, register: Register) -> Row {
    Row { encoding: SysReg::new(3, op1, crn, crm, op2), exists, register }
}

use Register as R;
use Timer as T;
use TimerPart as P;
use Where::{Both, Vhe};

/// By op1, CRn, CRm, op2.
const ROWS: [Row; 48] = [
    row(3, 14, 2, 0, Both, R::Timer(T::Physical, P::Tval)),
    row(3, 14, 2, 1, Both, R::Timer(T::Physical, P::Ctl)),
    row(3, 14, 2, 2, Both, R::Timer(T::Physical, P::Cval)),
    row(3, 14, 3, 0, Both, R::Timer(T::Virtual, P::Tval)),
    row(3, 14, 3, 1, Both, R::Timer(T::Virtual, P::Ctl)),
    row(3, 14, 3, 2, Both, R::Timer(T::Virtual, P::Cval)),
    row(4, 1, 0, 0, Both, R::Sctlr),
    row(4, 1, 0, 1, Both, R::RazWi),
    row(4, 1, 1, 1, Both, R::Mdcr),
    row(4, 1, 1, 2, Both, R::Cptr),
    row(4, 1, 1, 7, Both, R::RazWi),
    row(4, 1, 2, 0, Both, R::Zcr),
    row(4, 2, 0, 0, Both, R::Ttbr0),
    row(4, 2, 0, 1, Vhe, R::Ttbr1),
    row(4, 2, 0, 2, Both, R::Tcr),
    row(4, 3, 0, 0, Both, R::RazWi),
    row(4, 4, 3, 0, Both, R::RazWi),
    row(4, 4, 3, 1, Both, R::RazWi),
    row(4, 4, 3, 2, Both, R::RazWi),
    row(4, 4, 3, 3, Both, R::RazWi),
    row(4, 5, 0, 1, Both, R::RazWi),
    row(4, 5, 1, 0, Both, R::Afsr0),
    row(4, 5, 1, 1, Both, R::Afsr1),
    row(4, 5, 3, 0, Both, R::RazWi),
    row(4, 6, 0, 4, Both, R::Hpfar),
    row(4, 10, 2, 0, Both, R::Mair),
    row(4, 10, 3, 0, Both, R::Amair),
    row(4, 12, 0, 0, Both, R::Vbar),
    row(4, 12, 9, 5, Both, R::IccSre),
    row(4, 12, 11, 1, Both, R::IchVtr),
    row(4, 12, 11, 2, Both, R::IchMisr),
    row(4, 12, 11, 3, Both, R::IchEisr),
    row(4, 12, 11, 5, Both, R::IchElrsr),
    row(4, 13, 0, 1, Both, R::Contextidr),
    row(4, 14, 1, 0, Both, R::Cnthctl),
    row(4, 14, 2, 0, Both, R::Timer(T::HypPhysical, P::Tval)),
    row(4, 14, 2, 1, Both, R::Timer(T::HypPhysical, P::Ctl)),
    row(4, 14, 2, 2, Both, R::Timer(T::HypPhysical, P::Cval)),
    row(4, 14, 3, 0, Vhe, R::Timer(T::HypVirtual, P::Tval)),
    row(4, 14, 3, 1, Vhe, R::Timer(T::HypVirtual, P::Ctl)),
    row(4, 14, 3, 2, Vhe, R::Timer(T::HypVirtual, P::Cval)),
    row(5, 14, 1, 0, Vhe, R::CntkctlEl12),
    row(5, 14, 2, 0, Vhe, R::Timer(T::Physical, P::Tval)),
    row(5, 14, 2, 1, Vhe, R::Timer(T::Physical, P::Ctl)),
    row(5, 14, 2, 2, Vhe, R::Timer(T::Physical, P::Cval)),
    row(5, 14, 3, 0, Vhe, R::Timer(T::Virtual, P::Tval)),
    row(5, 14, 3, 1, Vhe, R::Timer(T::Virtual, P::Ctl)),
    row(5, 14, 3, 2, Vhe, R::Timer(T::Virtual, P::Cval)),
];

/// The order of [`ROWS`].
const fn key(r: SysReg) -> u32 {
    r.op1() << 11 | r.crn() << 7 | r.crm() << 3 | r.op2()
}

const _: () = {
    let mut rest: &[Row] = &ROWS;
    while let [first, tail @ ..] = rest {
        if let [second, ..] = tail {
            assert!(
                key(first.encoding) < key(second.encoding),
                "the table is in order and has no duplicates"
            );
        }
        rest = tail;
    }
};

/// The register that a trapped access of vEL2 names; `None` is none of EL2's, or UNDEFINED.
#[must_use]
pub fn lookup(reg: SysReg, vhe: bool) -> Option<Register> {
    let wanted = key(reg);
    let found = ROWS.binary_search_by_key(&wanted, |row| key(row.encoding)).ok()?;
    let row = ROWS.get(found)?;
    (reg.op0() == 3 && (vhe || row.exists == Both)).then_some(row.register)
}

/// Whether an encoding is in the space of EL2 registers (op1 4, and 5 for EL12 and EL02 names): what
/// [`lookup`] does not know there is UNDEFINED.
#[must_use]
pub const fn is_el2(reg: SysReg) -> bool {
    reg.op0() == 3 && (reg.op1() == 4 || reg.op1() == 5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    /// Rows `name,op0,op1,CRn,CRm,op2,when` of all accesses that trap with NV and NV2: `both`, or only
    /// with NV1 (`nv1`). From the accessors of the architecture.
    const TRAPS: &str = include_str!("../tests/traps.csv");

    /// Names of features that no nested VM has.
    const HIDDEN: &[&str] = &[
        "ACTLRMASK",
        "AMAIR2",
        "CPTRMASK",
        "GCSCR",
        "GCSPR",
        "MAIR2",
        "MPAM2",
        "MPAMBW2",
        "PFAR",
        "PIRE0",
        "PIR",
        "PMBSR",
        "PMSCR",
        "POR",
        "SCTLR2MASK",
        "SCTLR2",
        "SCTLRMASK",
        "SCXTNUM",
        "SMCR",
        "TCR2MASK",
        "TCR2",
        "TCRMASK",
        "TRBSR",
        "TRCITECR",
        "TRFCR",
    ];

    fn traps() -> impl Iterator<Item = (&'static str, SysReg, bool)> {
        TRAPS.lines().map(|line| {
            let f: Vec<&str> = line.split(',').collect();
            let n = |i: usize| f[i].parse().unwrap();
            (f[0], SysReg::new(n(1), n(2), n(3), n(4), n(5)), f[6] == "both")
        })
    }

    #[test]
    fn no_access_that_traps_is_forgotten() {
        for (name, reg, both) in traps() {
            let stem = name.split('_').next().unwrap();
            let known = lookup(reg, true).is_some();
            // Names of EL1 registers reach memory where they exist at all (E2H = 1).
            let memory = name.ends_with("_EL12") && !both;
            let hidden = HIDDEN.contains(&stem) && name.ends_with("_EL2");
            assert!(known ^ (memory || hidden), "{name}");
        }
    }

    #[test]
    fn every_row_is_an_access_that_traps() {
        let all: Vec<SysReg> = traps().map(|(_, reg, _)| reg).collect();
        for row in &ROWS {
            // EL1 timers trap by CNTHCTL_EL2 and not by NV.
            assert!(row.encoding.op1() == 3 || all.contains(&row.encoding), "{}", row.encoding.to_string());
        }
    }

    #[test]
    fn without_vhe_there_are_no_aliases() {
        assert_eq!(lookup(SysReg::new(3, 5, 14, 1, 0), false), None);
        assert_eq!(lookup(SysReg::new(3, 4, 14, 3, 1), false), None, "CNTHV_CTL_EL2");
        assert_eq!(lookup(SysReg::new(3, 4, 1, 0, 0), false), Some(Register::Sctlr));
        assert_eq!(lookup(SysReg::new(1, 4, 1, 0, 0), true), None);
        assert!(is_el2(SysReg::new(3, 5, 1, 0, 0)) && !is_el2(SysReg::new(3, 0, 1, 0, 0)));
    }
}
