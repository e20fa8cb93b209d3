//! The authentication code of an ERETAA or ERETAB at vEL2 (DDI 0487, AArch64.Auth).
//!
//! L0 cannot let an AUTIA of its own do it: at EL2 that has the address size of L0's regime. PACGA has none,
//! and gives the upper 32 bits of the same code, which is where codes are.

/// Keys for instruction addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// APIAKey.
    A,
    /// APIBKey.
    B,
}

impl Key {
    /// SCTLR_EL2.EnIA, EnIB: the key is used.
    #[must_use]
    pub const fn enable(self) -> u64 {
        match self {
            Self::A => 1 << 31,
            Self::B => 1 << 30,
        }
    }

    /// The syndrome of a code that is wrong (FEAT_FPAC).
    #[must_use]
    pub const fn syndrome(self) -> u64 {
        /// EC 0x1c, 32-bit instruction.
        const FPAC: u64 = 0x1c << 26 | 1 << 25;
        match self {
            Self::A => FPAC,
            Self::B => FPAC | 1,
        }
    }
}

/// What a CPU does about codes: the value of APA, API or APA3, of which it has one, in ID_AA64ISAR1_EL1 and
/// ID_AA64ISAR2_EL1. `None` without FEAT_PAuth, or if PACGA has another algorithm.
#[must_use]
pub fn level(isar1: u64, isar2: u64) -> Option<u8> {
    let field = |value: u64, shift: u32| (value >> shift & 0xf) as u8;
    let [apa, api, gpa, gpi] = [field(isar1, 4), field(isar1, 8), field(isar1, 24), field(isar1, 28)];
    let [gpa3, apa3] = [field(isar2, 8), field(isar2, 12)];
    match (apa, api, apa3) {
        (level, 0, 0) if level != 0 && gpa != 0 => Some(level),
        (0, level, 0) if level != 0 && gpi != 0 => Some(level),
        (0, 0, level) if level != 0 && gpa3 != 0 => Some(level),
        (_, _, _) => None,
    }
}

/// FEAT_PAuth2 and later: a code is folded in by exclusive or.
const PAUTH2: u8 = 3;
/// FEAT_FPACCOMBINE: an instruction that also branches faults if its code is wrong.
const FPACCOMBINE: u8 = 5;

/// The part of TCR that says where in an address its code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bits of an address that its code takes.
    code: u64,
    /// Top byte ignored: that is not part of the code, and says whatever it likes.
    tbi: bool,
}

impl Layout {
    /// Of instruction addresses like `address` under TCR_EL1, which plays TCR_EL2; `two_ranges` with VHE.
    #[must_use]
    pub const fn new(tcr: u64, two_ranges: bool, address: u64) -> Self {
        let upper = two_ranges && address >> 55 & 1 == 1;
        // TxSZ, TBIx, TBIDx.
        let (size, tbi, tbid) = if upper { (16, 38, 52) } else { (0, 37, 51) };
        let tsz = tcr >> size & 0x3f;
        // 48 bits of address at most, and 16 at least (FEAT_TTST).
        let tsz = if tsz < 16 {
            16
        } else if tsz > 48 {
            48
        } else {
            tsz
        };
        let tbi = tcr >> tbi & 1 == 1 && tcr >> tbid & 1 == 0;
        let below_55 = (1 << 55) - (1 << (64 - tsz));
        Self { code: if tbi { below_55 } else { below_55 | 0xff << 56 }, tbi }
    }

    /// The address without a code.
    #[must_use]
    pub const fn original(self, address: u64) -> u64 {
        if address >> 55 & 1 == 1 { address | self.code } else { address & !self.code }
    }
}

/// The code is wrong, and the CPU has FEAT_FPACCOMBINE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Authenticates `address`, of which `code` is what PACGA gives for [`Layout::original`]. Where the CPU has
/// no FEAT_FPACCOMBINE, an address with a wrong code becomes one that is in no table.
///
/// With addresses of less than 32 bits, what of the code is below bit 32 is not checked.
///
/// # Errors
/// [`Fault`]: an exception instead of a return.
pub const fn authenticate(
    layout: Layout,
    level: u8,
    key: Key,
    address: u64,
    code: u64,
) -> Result<u64, Fault> {
    let original = layout.original(address);
    let seen = layout.code & !0xffff_ffff;
    // The result of folding the right code in is the original address.
    let folded = if level >= PAUTH2 { (address ^ code) & seen } else { address & seen };
    let expected = if level >= PAUTH2 { original } else { code } & seen;
    if folded == expected {
        return Ok(original);
    }
    if level >= FPACCOMBINE {
        return Err(Fault);
    }
    if level >= PAUTH2 {
        return Ok(original & !seen | folded);
    }
    let error: u64 = match key {
        Key::A => 0b01,
        Key::B => 0b10,
    };
    let at = if layout.tbi { 53 } else { 61 };
    Ok(original & !(0b11 << at) | error << at)
}

#[cfg(test)]
mod tests;
