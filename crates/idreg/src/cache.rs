//! CTR_EL0, CLIDR_EL1 and CCSIDR_EL1: what a guest is told about caches.
//!
//! CTR_EL0 is the machine's. The cache hierarchy is invented: a guest cannot act on a real one, since
//! its set/way operations are trapped, and it may differ between CPUs.

use crate::field::Rule::{Exact, HigherOrZero, LowerSafe};
use crate::field::{Field, Rule};

const fn field(lsb: u8, width: u8, rule: Rule, absent: u8) -> Field {
    Field { lsb, width, rule, absent }
}

/// Arm, CTR_EL0: IminLine, L1Ip, DminLine, ERG, CWG, IDC, DIC, TminLine.
pub(crate) static CTR: [Field; 8] = [
    field(0, 4, LowerSafe, 0),
    // Two policies: VIPT asks for the more maintenance.
    field(14, 2, Exact, 0b10),
    field(16, 4, LowerSafe, 0),
    field(20, 4, HigherOrZero, 0),
    field(24, 4, HigherOrZero, 0),
    field(28, 1, LowerSafe, 0),
    field(29, 1, LowerSafe, 0),
    field(32, 6, LowerSafe, 0),
];

/// CTR_EL0\[31\] is RES1.
const CTR_RES1: u64 = 1 << 31;
/// IminLine, DminLine, ERG, CWG and TminLine.
pub(crate) const CTR_SIZES: u64 = 0x3f_0fff_000f;
const CTR_IDC: u64 = 1 << 28;

pub(crate) fn combine_ctr(a: u64, b: u64) -> u64 {
    CTR.iter().fold((a | b) & CTR_RES1, |value, f| value | f.place(f.safe(f.get(a), f.get(b))))
}

/// CLIDR_EL1: the fewest levels that agree with CTR_EL0.IDC. With IDC, cleaning to the point of
/// unification is not needed and one unified cache remains; otherwise split level 1 caches come
/// before it. With MTE the last level holds tags as well (Ttype 2: unified tag and data).
pub(crate) const fn clidr(ctr: u64, mte: bool) -> u64 {
    const SEPARATE: u64 = 0b011;
    const UNIFIED: u64 = 0b100;
    let (levels, last) =
        if ctr & CTR_IDC != 0 { (UNIFIED, 1) } else { (SEPARATE | UNIFIED << 3 | 1 << 21 | 1 << 27, 2) };
    // LoC is [26:24], Ttype<n> starts at bit 33.
    let tags = match (mte, last) {
        (false, _) => 0,
        (true, 1) => 0b10 << 33,
        (true, _) => 0b10 << 35,
    };
    levels | last << 24 | tags
}

/// CCSIDR_EL1 of every cache: one set, one way, lines of CTR_EL0.DminLine, so that a guest's loop
/// over sets and ways is short.
pub(crate) const fn ccsidr(ctr: u64) -> u64 {
    // DminLine counts words, LineSize 16-byte units, both as logarithms.
    (ctr >> 16 & 0xf).saturating_sub(2) & 7
}
