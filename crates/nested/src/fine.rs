//! Fine-grained traps (FEAT_FGT): which bit of L1's HFGRTR_EL2, HFGWTR_EL2, HFGITR_EL2, HDFGRTR_EL2 and
//! HDFGWTR_EL2 traps which access of L2's.
//!
//! One table, a row for each bit that a VM may have. A bit traps when it is set; those with the other
//! polarity (n*) are about features that no VM has, so their accesses are L0's to refuse. No encoding has
//! two rows, or the table does not build. The tests hold it against the list of all such traps.

use trap::{SysReg, SysregAccess};

/// The registers of fine-grained traps: L1's, or what the hardware takes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FineTraps {
    /// HFGRTR_EL2: reads.
    pub read: u64,
    /// HFGWTR_EL2: writes.
    pub write: u64,
    /// HFGITR_EL2: instructions.
    pub instruction: u64,
    /// HDFGRTR_EL2: reads of debug registers.
    pub debug_read: u64,
    /// HDFGWTR_EL2: writes of debug registers.
    pub debug_write: u64,
}

/// HFGITR_EL2: ERET, ERETAA, ERETAB.
pub const ERET: u64 = 1 << 51;
/// HFGITR_EL2: SVC at EL0, at EL1.
pub const SVC: u64 = 0b11 << 52;
/// HFGRTR_EL2 and HFGWTR_EL2: keys of pointer authentication.
const KEYS: u64 = 0b1_1111 << 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// HFGRTR_EL2 and HFGWTR_EL2.
    Register = 0,
    /// HFGITR_EL2.
    Instruction = 1,
    /// HDFGRTR_EL2 and HDFGWTR_EL2.
    Debug = 2,
}

/// What of a register may be accessed: the bit is only in the one register or the other, or in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read = 1,
    Write = 2,
    Both = 3,
}

/// An encoding, and the bit that traps it: from the top the [`key`], [`Access`], [`Group`], the bit.
type Row = u32;

const fn key(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

macro_rules! rows {
    ($($group:ident $bit:literal $access:ident $name:ident: $(($op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal)),+;)*) => {
        const UNSORTED: &[Row] = &[$($(
            key($op0, $op1, $crn, $crm, $op2) << 16
                | (Access::$access as u32) << 8
                | (Group::$group as u32) << 6
                | $bit,
        )+)*];
        #[cfg(test)]
        const NAMES: &[(&str, u32, u32)] = &[$((stringify!($name), Group::$group as u32, $bit),)*];
    };
}

rows! {
    Register 0 Both AFSR0_EL1: (3, 0, 5, 1, 0);
    Register 1 Both AFSR1_EL1: (3, 0, 5, 1, 1);
    Register 2 Read AIDR_EL1: (3, 1, 0, 0, 7);
    Register 3 Both AMAIR_EL1: (3, 0, 10, 3, 0);
    Register 4 Both APDAKey: (3, 0, 2, 2, 1), (3, 0, 2, 2, 0);
    Register 5 Both APDBKey: (3, 0, 2, 2, 3), (3, 0, 2, 2, 2);
    Register 6 Both APGAKey: (3, 0, 2, 3, 1), (3, 0, 2, 3, 0);
    Register 7 Both APIAKey: (3, 0, 2, 1, 1), (3, 0, 2, 1, 0);
    Register 8 Both APIBKey: (3, 0, 2, 1, 3), (3, 0, 2, 1, 2);
    Register 9 Read CCSIDR_EL1: (3, 1, 0, 0, 0);
    Register 10 Read CLIDR_EL1: (3, 1, 0, 0, 1);
    Register 11 Both CONTEXTIDR_EL1: (3, 0, 13, 0, 1);
    Register 12 Both CPACR_EL1: (3, 0, 1, 0, 2);
    Register 13 Both CSSELR_EL1: (3, 2, 0, 0, 0);
    Register 14 Read CTR_EL0: (3, 3, 0, 0, 1);
    Register 15 Read DCZID_EL0: (3, 3, 0, 0, 7);
    Register 16 Both ESR_EL1: (3, 0, 5, 2, 0);
    Register 17 Both FAR_EL1: (3, 0, 6, 0, 0);
    Register 18 Read ISR_EL1: (3, 0, 12, 1, 0);
    Register 24 Both MAIR_EL1: (3, 0, 10, 2, 0);
    Register 25 Read MIDR_EL1: (3, 0, 0, 0, 0);
    Register 26 Read MPIDR_EL1: (3, 0, 0, 0, 5);
    Register 27 Both PAR_EL1: (3, 0, 7, 4, 0);
    Register 28 Read REVIDR_EL1: (3, 0, 0, 0, 6);
    Register 29 Both SCTLR_EL1: (3, 0, 1, 0, 0);
    Register 32 Both TCR_EL1: (3, 0, 2, 0, 2);
    Register 33 Both TPIDR_EL1: (3, 0, 13, 0, 4);
    Register 34 Both TPIDRRO_EL0: (3, 3, 13, 0, 3);
    Register 35 Both TPIDR_EL0: (3, 3, 13, 0, 2);
    Register 36 Both TTBR0_EL1: (3, 0, 2, 0, 0);
    Register 37 Both TTBR1_EL1: (3, 0, 2, 0, 1);
    Register 38 Both VBAR_EL1: (3, 0, 12, 0, 0);
    Register 39 Both ICC_IGRPENn_EL1: (3, 0, 12, 12, 6), (3, 0, 12, 12, 7);
    Register 40 Read ERRIDR_EL1: (3, 0, 5, 3, 0);
    Register 41 Both ERRSELR_EL1: (3, 0, 5, 3, 1);
    Register 42 Read ERXFR_EL1: (3, 0, 5, 4, 0);
    Register 43 Both ERXCTLR_EL1: (3, 0, 5, 4, 1);
    Register 44 Both ERXSTATUS_EL1: (3, 0, 5, 4, 2);
    Register 45 Both ERXMISCn_EL1: (3, 0, 5, 5, 0), (3, 0, 5, 5, 1), (3, 0, 5, 5, 2), (3, 0, 5, 5, 3);
    Register 49 Both ERXADDR_EL1: (3, 0, 5, 4, 3);
    Instruction 0 Write ICIALLUIS: (1, 0, 7, 1, 0);
    Instruction 1 Write ICIALLU: (1, 0, 7, 5, 0);
    Instruction 2 Write ICIVAU: (1, 3, 7, 5, 1);
    Instruction 3 Write DCIVAC: (1, 0, 7, 6, 5), (1, 0, 7, 6, 3), (1, 0, 7, 6, 1);
    Instruction 4 Write DCISW: (1, 0, 7, 6, 6), (1, 0, 7, 6, 4), (1, 0, 7, 6, 2);
    Instruction 5 Write DCCSW: (1, 0, 7, 10, 6), (1, 0, 7, 10, 4), (1, 0, 7, 10, 2);
    Instruction 6 Write DCCISW: (1, 0, 7, 14, 6), (1, 0, 7, 14, 4), (1, 0, 7, 14, 2);
    Instruction 7 Write DCCVAU: (1, 3, 7, 11, 1);
    Instruction 8 Write DCCVAP: (1, 3, 7, 12, 5), (1, 3, 7, 12, 3), (1, 3, 7, 12, 1);
    Instruction 9 Write DCCVADP: (1, 3, 7, 13, 5), (1, 3, 7, 13, 3), (1, 3, 7, 13, 1);
    Instruction 10 Write DCCIVAC: (1, 3, 7, 14, 5), (1, 3, 7, 14, 3), (1, 3, 7, 14, 1);
    Instruction 11 Write DCZVA: (1, 3, 7, 4, 3), (1, 3, 7, 4, 4), (1, 3, 7, 4, 1);
    Instruction 12 Write ATS1E1R: (1, 0, 7, 8, 0);
    Instruction 13 Write ATS1E1W: (1, 0, 7, 8, 1);
    Instruction 14 Write ATS1E0R: (1, 0, 7, 8, 2);
    Instruction 15 Write ATS1E0W: (1, 0, 7, 8, 3);
    Instruction 16 Write ATS1E1RP: (1, 0, 7, 9, 0);
    Instruction 17 Write ATS1E1WP: (1, 0, 7, 9, 1);
    Instruction 18 Write TLBIVMALLE1OS: (1, 0, 8, 1, 0);
    Instruction 19 Write TLBIVAE1OS: (1, 0, 8, 1, 1);
    Instruction 20 Write TLBIASIDE1OS: (1, 0, 8, 1, 2);
    Instruction 21 Write TLBIVAAE1OS: (1, 0, 8, 1, 3);
    Instruction 22 Write TLBIVALE1OS: (1, 0, 8, 1, 5);
    Instruction 23 Write TLBIVAALE1OS: (1, 0, 8, 1, 7);
    Instruction 24 Write TLBIRVAE1OS: (1, 0, 8, 5, 1);
    Instruction 25 Write TLBIRVAAE1OS: (1, 0, 8, 5, 3);
    Instruction 26 Write TLBIRVALE1OS: (1, 0, 8, 5, 5);
    Instruction 27 Write TLBIRVAALE1OS: (1, 0, 8, 5, 7);
    Instruction 28 Write TLBIVMALLE1IS: (1, 0, 8, 3, 0);
    Instruction 29 Write TLBIVAE1IS: (1, 0, 8, 3, 1);
    Instruction 30 Write TLBIASIDE1IS: (1, 0, 8, 3, 2);
    Instruction 31 Write TLBIVAAE1IS: (1, 0, 8, 3, 3);
    Instruction 32 Write TLBIVALE1IS: (1, 0, 8, 3, 5);
    Instruction 33 Write TLBIVAALE1IS: (1, 0, 8, 3, 7);
    Instruction 34 Write TLBIRVAE1IS: (1, 0, 8, 2, 1);
    Instruction 35 Write TLBIRVAAE1IS: (1, 0, 8, 2, 3);
    Instruction 36 Write TLBIRVALE1IS: (1, 0, 8, 2, 5);
    Instruction 37 Write TLBIRVAALE1IS: (1, 0, 8, 2, 7);
    Instruction 38 Write TLBIRVAE1: (1, 0, 8, 6, 1);
    Instruction 39 Write TLBIRVAAE1: (1, 0, 8, 6, 3);
    Instruction 40 Write TLBIRVALE1: (1, 0, 8, 6, 5);
    Instruction 41 Write TLBIRVAALE1: (1, 0, 8, 6, 7);
    Instruction 42 Write TLBIVMALLE1: (1, 0, 8, 7, 0);
    Instruction 43 Write TLBIVAE1: (1, 0, 8, 7, 1);
    Instruction 44 Write TLBIASIDE1: (1, 0, 8, 7, 2);
    Instruction 45 Write TLBIVAAE1: (1, 0, 8, 7, 3);
    Instruction 46 Write TLBIVALE1: (1, 0, 8, 7, 5);
    Instruction 47 Write TLBIVAALE1: (1, 0, 8, 7, 7);
    Instruction 48 Write CFPRCTX: (1, 3, 7, 3, 4);
    Instruction 49 Write DVPRCTX: (1, 3, 7, 3, 5);
    Instruction 50 Write CPPRCTX: (1, 3, 7, 3, 7);
    Instruction 54 Write DCCVAC: (1, 3, 7, 10, 5), (1, 3, 7, 10, 3), (1, 3, 7, 10, 1);
    Debug 0 Both DBGBCRn_EL1: (2, 0, 0, 0, 5);
    Debug 1 Both DBGBVRn_EL1: (2, 0, 0, 0, 4);
    Debug 2 Both DBGWCRn_EL1: (2, 0, 0, 0, 7);
    Debug 3 Both DBGWVRn_EL1: (2, 0, 0, 0, 6);
    Debug 4 Both MDSCR_EL1: (2, 0, 0, 2, 2);
    Debug 5 Both DBGCLAIM: (2, 0, 7, 9, 6), (2, 0, 7, 8, 6);
    Debug 6 Read DBGAUTHSTATUS_EL1: (2, 0, 7, 14, 6);
    Debug 7 Both DBGPRCR_EL1: (2, 0, 1, 4, 4);
    Debug 8 Write OSLAR_EL1: (2, 0, 1, 0, 4);
    Debug 9 Read OSLSR_EL1: (2, 0, 1, 1, 4);
    Debug 10 Both OSECCR_EL1: (2, 0, 0, 6, 2);
}

/// By encoding.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler: a wrong index does not build")]
const ROWS: [Row; UNSORTED.len()] = {
    let mut rows = [0; UNSORTED.len()];
    let mut rest = UNSORTED;
    let mut used = 0;
    while let [row, tail @ ..] = rest {
        let mut at = used;
        while at > 0 && rows[at - 1] > *row {
            rows[at] = rows[at - 1];
            at -= 1;
        }
        assert!(at == 0 || rows[at - 1] >> 16 != *row >> 16, "no encoding has two rows");
        assert!(at == used || rows[at + 1] >> 16 != *row >> 16, "no encoding has two rows");
        rows[at] = *row;
        used += 1;
        rest = tail;
    }
    rows
};

/// The bits of one register that have a row.
const fn mask(group: Group, access: Access) -> u64 {
    let mut mask = 0;
    let mut rest: &[Row] = UNSORTED;
    while let [row, tail @ ..] = rest {
        if *row >> 6 & 3 == group as u32 && *row >> 8 & access as u32 != 0 {
            mask |= 1 << (*row & 0x3f);
        }
        rest = tail;
    }
    mask
}

impl FineTraps {
    /// All that a VM may have.
    const ALL: Self = Self {
        read: mask(Group::Register, Access::Read),
        write: mask(Group::Register, Access::Write),
        instruction: mask(Group::Instruction, Access::Write) | ERET | SVC,
        debug_read: mask(Group::Debug, Access::Read),
        debug_write: mask(Group::Debug, Access::Write),
    };

    /// What a VM has: without the keys unless it has pointer authentication, and without these bits of
    /// HFGITR_EL2, whose instructions it has not.
    #[must_use]
    pub const fn offered(pauth: bool, absent: u64) -> Self {
        let keys = if pauth { 0 } else { KEYS };
        let all = Self::ALL;
        Self {
            read: all.read & !keys,
            write: all.write & !keys,
            instruction: all.instruction & !absent,
            ..all
        }
    }

    /// Those that both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            read: self.read & other.read,
            write: self.write & other.write,
            instruction: self.instruction & other.instruction,
            debug_read: self.debug_read & other.debug_read,
            debug_write: self.debug_write & other.debug_write,
        }
    }

    /// Those that either has: the hardware traps for L0 and for L1.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            read: self.read | other.read,
            write: self.write | other.write,
            instruction: self.instruction | other.instruction,
            debug_read: self.debug_read | other.debug_read,
            debug_write: self.debug_write | other.debug_write,
        }
    }

    /// Whether nothing traps.
    #[inline]
    #[must_use]
    pub const fn is_clear(&self) -> bool {
        self.read | self.write | self.instruction | self.debug_read | self.debug_write == 0
    }

    /// Whether an access traps. `spare_nxs`: nXS forms of TLBI do not (HCRX_EL2.FGTnXS).
    #[must_use]
    pub fn claim(&self, access: SysregAccess, spare_nxs: bool) -> bool {
        if self.is_clear() {
            return false;
        }
        let Some((wanted, nxs)) = row_of(access.reg) else { return false };
        let Ok(at) = ROWS.binary_search_by_key(&wanted, |row| row >> 16) else { return false };
        let Some(row) = ROWS.get(at) else { return false };
        let bits = match (row >> 6 & 3, access.read) {
            (0, true) => self.read,
            (0, false) => self.write,
            (1, _) => self.instruction,
            (_, true) => self.debug_read,
            (_, false) => self.debug_write,
        };
        bits >> (row & 0x3f) & 1 != 0 && !(nxs && spare_nxs)
    }
}

/// The key of the row that an encoding would have, and whether it is a TLBI nXS: these have CRn 9 instead
/// of 8. Breakpoints and watchpoints have their number in CRm, and one row.
fn row_of(reg: SysReg) -> Option<(u32, bool)> {
    let (op0, op1, crn, crm, op2) = (reg.op0(), reg.op1(), reg.crn(), reg.crm(), reg.op2());
    Some(match (op0, op1, crn) {
        (1, 0, 9) => (key(1, 0, 8, crm, op2), true),
        (2, 0, 0) if (4..=7).contains(&op2) => (key(2, 0, 0, 0, op2), false),
        (1..=3, _, _) => (key(op0, op1, crn, crm, op2), false),
        (_, _, _) => return None,
    })
}

#[cfg(test)]
mod tests;
