//! The table: erratum, cores, workaround, reason.

use crate::Workarounds;
use crate::midr::{Midr, MidrRange};

/// One erratum of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Arm's number.
    pub erratum: u32,
    /// Which revisions of which core.
    pub cpus: MidrRange,
    /// What to do.
    pub workaround: Workarounds,
    /// What goes wrong.
    pub why: &'static str,
}

/// Implementer codes and part numbers of the cores with MTE.
pub mod part {
    /// Implementer: Arm.
    pub const ARM: u8 = 0x41;
    /// Implementer: Microsoft, whose Azure Cobalt 100 is a Neoverse N2.
    pub const MICROSOFT: u8 = 0x6d;
    /// Cortex-A510.
    pub const A510: u16 = 0xd46;
    /// Cortex-A710.
    pub const A710: u16 = 0xd47;
    /// Cortex-X2.
    pub const X2: u16 = 0xd48;
    /// Neoverse N2.
    pub const N2: u16 = 0xd49;
    /// Cortex-A715.
    pub const A715: u16 = 0xd4d;
    /// Cortex-X3.
    pub const X3: u16 = 0xd4e;
    /// Neoverse V2.
    pub const V2: u16 = 0xd4f;
    /// Cortex-A520.
    pub const A520: u16 = 0xd80;
    /// Cortex-A720.
    pub const A720: u16 = 0xd81;
    /// Cortex-X4.
    pub const X4: u16 = 0xd82;
    /// Neoverse V3.
    pub const V3: u16 = 0xd84;
    /// Cortex-X925.
    pub const X925: u16 = 0xd85;
    /// Neoverse N3.
    pub const N3: u16 = 0xd8e;
}
use part::{A510, A710, A715, A720, ARM, MICROSOFT, N2, N3, V2, V3, X2, X3, X4, X925};

const ALL: (u8, u8) = (0, 0xff);

const fn row(
    erratum: u32,
    implementer: u8,
    part: u16,
    (from, to): (u8, u8),
    workaround: Workarounds,
    why: &'static str,
) -> Row {
    Row { erratum, cpus: MidrRange { implementer, part, from, to }, workaround, why }
}

const fn tlbi(erratum: u32, implementer: u8, part: u16) -> Row {
    const WHY: &str =
        "accesses by an old translation may still be under way when a broadcast TLBI is complete";
    row(erratum, implementer, part, ALL, Workarounds::REPEAT_TLBI, WHY)
}

const fn ssbs(erratum: u32, implementer: u8, part: u16) -> Row {
    const WHY: &str = "speculation goes on past MSR SSBS as if it had not been written";
    row(erratum, implementer, part, ALL, Workarounds::SSBS_BARRIER, WHY)
}

const fn fwb(erratum: u32, implementer: u8, part: u16, revisions: (u8, u8)) -> Row {
    const WHY: &str =
        "fetches with stage 1 and SCTLR_EL1.I off miss FWB: stale instructions on some interconnects";
    row(erratum, implementer, part, revisions, Workarounds::NO_FWB, WHY)
}

/// Sorted by part number, then by erratum.
pub const ROWS: &[Row] = &[
    row(
        2_051_678,
        ARM,
        A510,
        (0x00, 0x02),
        Workarounds::NO_HARDWARE_DIRTY,
        "a dirty state update may be lost",
    ),
    row(
        2_441_009,
        ARM,
        A510,
        (0x00, 0x11),
        Workarounds::REPEAT_TLBI,
        "a broadcast TLBI may be complete before another CPU's accesses by the old translation",
    ),
    fwb(2_701_952, ARM, A710, ALL),
    ssbs(3_324_338, ARM, A710),
    tlbi(4_193_788, ARM, A710),
    fwb(2_701_952, ARM, X2, ALL),
    ssbs(3_324_338, ARM, X2),
    tlbi(4_193_788, ARM, X2),
    fwb(2_728_475, ARM, N2, (0x00, 0x02)),
    ssbs(3_324_339, ARM, N2),
    ssbs(3_324_339, MICROSOFT, N2),
    tlbi(4_193_789, ARM, N2),
    tlbi(4_193_789, MICROSOFT, N2),
    row(
        2_645_198,
        ARM,
        A715,
        ALL,
        Workarounds::BREAK_BEFORE_NO_EXEC,
        "ESR and FAR of an instruction abort are wrong after a mapping lost its execute permission",
    ),
    ssbs(3_456_084, ARM, A715),
    fwb(2_701_951, ARM, X3, (0x00, 0x11)),
    ssbs(3_324_335, ARM, X3),
    tlbi(4_193_786, ARM, X3),
    fwb(2_719_103, ARM, V2, (0x00, 0x01)),
    ssbs(3_324_336, ARM, V2),
    tlbi(4_193_787, ARM, V2),
    ssbs(3_456_091, ARM, A720),
    ssbs(3_194_386, ARM, X4),
    tlbi(4_118_414, ARM, X4),
    ssbs(3_312_417, ARM, V3),
    tlbi(4_193_784, ARM, V3),
    ssbs(3_324_334, ARM, X925),
    tlbi(4_193_781, ARM, X925),
    ssbs(3_456_111, ARM, N3),
];

/// The rows that a CPU is affected by.
pub fn affecting(midr: Midr) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(move |row| row.cpus.contains(midr))
}
