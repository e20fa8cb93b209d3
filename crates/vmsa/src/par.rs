//! PAR_EL1 after an AT S1E0* or S1E1* instruction: the answer of the hardware's own walk of stage 1.
//!
//! Arm, PAR_EL1; the 128-bit format (FEAT_D128) is hidden from guests and not used by EL2.

use addr::{Canonical, Ipa, Va};

/// Where the hardware's walk leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The address, offset within the page included.
    pub ipa: Ipa<Canonical>,
    /// Memory attributes in the encoding of a `MAIR_EL1` byte (PAR_EL1.ATTR).
    pub memory: u8,
}

/// Why there is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Fault status code, as in ISS.DFSC (PAR_EL1.FST).
    pub status: u8,
    /// Stage 2 faulted, on behalf of the walk (PAR_EL1.S).
    pub stage2: bool,
}

/// Reads `par`, the answer for `va`.
///
/// # Errors
/// The fault that the access would take (PAR_EL1.F).
pub const fn decode(par: u64, va: Va) -> Result<Output, Fault> {
    if par & 1 != 0 {
        return Err(Fault { status: (par >> 1 & 0x3f) as u8, stage2: par >> 9 & 1 != 0 });
    }
    let ipa = Ipa::new(par & 0x000f_ffff_ffff_f000 | va.get() & 0xfff);
    Ok(Output { ipa, memory: (par >> 56) as u8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address() {
        // Normal write-back, inner shareable, NSE and NS as they may be.
        let output = decode(0xff00_0000_8765_4b80, Va::new(0x0500_ffff_0000_0123));
        assert_eq!(output, Ok(Output { ipa: Ipa::new(0x8765_4123), memory: 0xff }));
        let high = decode(0xf00f_ffff_ffff_f000, Va::new(u64::MAX)).map(|o| o.ipa);
        assert_eq!(high, Ok(Ipa::new(0x000f_ffff_ffff_ffff)));
    }

    #[test]
    fn faults() {
        // Translation, level 2, of stage 1.
        assert_eq!(decode(0x80d, Va::new(0)), Err(Fault { status: 0x06, stage2: false }));
        // Stage 2 permission, level 3, on the walk: S and PTW.
        assert_eq!(decode(0xb1f, Va::new(0)), Err(Fault { status: 0x0f, stage2: true }));
        assert_eq!(decode(u64::MAX, Va::new(0)), Err(Fault { status: 0x3f, stage2: true }));
    }
}
