//! Registers of EL2 with HCR_EL2.E2H 0, in the format that EL1's have: what vEL2 without host
//! extensions really runs on.

/// SCTLR_EL2 with E2H 0 as SCTLR_EL1.
///
/// Copied are the bits that mean the same for EL2 itself. SPAN is 1, because such an EL2 never sets
/// PAN at entry; controls of EL0, which this regime has not, take values that change nothing.
#[must_use]
pub const fn sctlr(el2: u64) -> u64 {
    const SAME: u64 = 1 // M
        | 1 << 1 // A
        | 1 << 2 // C
        | 1 << 3 // SA
        | 1 << 6 // nAA
        | 1 << 11 // EOS
        | 1 << 12 // I
        | 1 << 13 // EnDB
        | 1 << 19 // WXN
        | 1 << 21 // IESB
        | 1 << 22 // EIS
        | 1 << 25 // EE
        | 1 << 27 // EnDA
        | 1 << 30 // EnIB
        | 1 << 31 // EnIA
        | 1 << 36 // BT, as BT1
        | 1 << 37 // ITFSB
        | 3 << 40 // TCF
        | 1 << 43 // ATA
        | 1 << 44 // DSSBS
        | 1 << 59; // TCSO
    const SPAN: u64 = 1 << 23;
    const NEUTRAL: u64 = 1 << 8 // SED
        | 1 << 16 // nTWI
        | 1 << 18 // nTWE
        | 1 << 20 // TSCXT
        | 1 << 28 // nTLSMD
        | 1 << 29; // LSMAOE
    el2 & SAME | SPAN | NEUTRAL
}

/// TCR_EL2 with E2H 0 as TCR_EL1: the one range of EL2 is the lower one, the upper one is off.
#[must_use]
pub const fn tcr(el2: u64) -> u64 {
    const EPD1: u64 = 1 << 23;
    let t0sz = el2 & 0x3f;
    let tg0 = el2 >> 14 & 3;
    // TG1 has codes of its own: 1 is 16K, 2 is 4K, 3 is 64K.
    let tg1 = match tg0 {
        1 => 3,
        2 => 1,
        _ => 2,
    };
    el2 & 0xff3f
        | t0sz << 16
        | EPD1
        | tg1 << 30
        | (el2 >> 16 & 7) << 32 // PS
        | (el2 >> 20 & 1) << 37 // TBI
        | (el2 >> 21 & 3) << 39 // HA, HD
        | (el2 >> 24 & 1) << 41 // HPD
        | (el2 >> 25 & 0xf) << 43 // HWU
        | (el2 >> 29 & 1) << 51 // TBID
        | (el2 >> 30 & 1) << 57 // TCMA
}

/// TTBR0_EL2 as TTBR0_EL1: EL2 has no ASID.
#[must_use]
pub const fn ttbr0(el2: u64) -> u64 {
    el2 & 0x0000_ffff_ffff_ffff
}

/// CPTR_EL2 with E2H 0 as CPACR_EL1. Its trap bits are those bits of CPACR_EL1 inverted.
#[must_use]
pub const fn cpacr(cptr: u64) -> u64 {
    const ZEN: u64 = 3 << 16;
    const FPEN: u64 = 3 << 20;
    const TTA: u64 = 1 << 28;
    (if cptr >> 8 & 1 == 0 { ZEN } else { 0 })
        | (if cptr >> 10 & 1 == 0 { FPEN } else { 0 })
        | (if cptr >> 20 & 1 == 0 { 0 } else { TTA })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcr_fields_move() {
        // 48 bits, 4K, shareable and cacheable; PS 48 bits; TBI.
        let el2 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 5 << 16 | 1 << 20;
        let el1 = tcr(el2);
        assert_eq!(el1 & 0xffff, 0x3510);
        assert_eq!(el1 >> 16 & 0x3f, 16, "T1SZ is legal");
        assert_eq!(el1 >> 23 & 1, 1, "EPD1");
        assert_eq!(el1 >> 30 & 3, 2, "TG1");
        assert_eq!(el1 >> 32 & 7, 5, "IPS");
        assert_eq!(el1 >> 37 & 3, 1, "TBI0");
        assert_eq!(tcr(1 << 14) >> 30 & 3, 3, "64K");
        assert_eq!(tcr(2 << 14) >> 30 & 3, 1, "16K");
        for (from, to) in [(21, 39), (22, 40), (24, 41), (25, 43), (28, 46), (29, 51), (30, 57)] {
            assert_eq!(tcr(1 << from) & !tcr(0), 1 << to, "bit {from}");
        }
        assert_eq!(tcr(!0) & (1 << 7 | 1 << 22 | 1 << 36), 0, "EPD0, A1, AS");
    }

    #[test]
    fn sctlr_keeps_its_meaning() {
        assert_eq!(sctlr(0x30c5_0830) >> 23 & 1, 1, "SPAN");
        assert_eq!(sctlr(0x1005) & 0x1005, 0x1005, "M, C, I");
        assert_eq!(sctlr(1 << 21) & 1 << 21, 1 << 21, "IESB");
        assert_eq!(sctlr(!0) & 1 << 26, 0, "UCI is of EL0");
        assert_eq!(sctlr(1 << 24), sctlr(0), "E0E is of EL0");
    }

    #[test]
    fn traps_are_inverted() {
        assert_eq!(cpacr(0), 3 << 20 | 3 << 16);
        assert_eq!(cpacr(1 << 10), 3 << 16);
        assert_eq!(cpacr(1 << 8), 3 << 20);
        assert_eq!(cpacr(1 << 8 | 1 << 10 | 1 << 20), 1 << 28);
    }

    #[test]
    fn no_asid() {
        assert_eq!(ttbr0(0xabcd_1234_5678_9001), 0x1234_5678_9001);
    }
}
