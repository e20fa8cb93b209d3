//! Exceptions into vEL2, and exception returns from it.
//!
//! The hardware's EL1 plays vEL2: where the hardware has EL1 in a PSTATE, L1 sees EL2 as long as vEL2
//! is what runs.

use trap::inject::{El1Context, Exception, enter_el1};

/// PSTATE.M\[3:2\] as EL1, and what turns it into EL2.
const EL1: u64 = 0b0100;
const EL_MASK: u64 = 0b1100;
const EL2: u64 = 0b1000;
/// PSTATE.IL.
const IL: u64 = 1 << 20;
/// SPSR_EL2.M\[4\]: AArch32.
const NRW: u64 = 1 << 4;
/// Bits of PSTATE that a VM may have: NZCV, TCO, DIT, UAO, PAN, SS, IL, SSBS, BTYPE, DAIF, M.
const PSTATE: u64 =
    0xf << 28 | 1 << 25 | 1 << 24 | 1 << 23 | 1 << 22 | 1 << 21 | IL | 1 << 12 | 3 << 10 | 0x3df;

/// Kinds of exceptions, by their place in a vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Synchronous.
    Sync = 0,
    /// IRQ.
    Irq = 1,
    /// FIQ.
    Fiq = 2,
    /// SError.
    SError = 3,
}

/// The state after an exception was taken to vEL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The hardware's ELR_EL2: vEL2's vector.
    pub pc: u64,
    /// The hardware's SPSR_EL2: vEL2's PSTATE.
    pub pstate: u64,
    /// ELR_EL1, which is vEL2's ELR_EL2.
    pub elr: u64,
    /// SPSR_EL1, which is vEL2's SPSR_EL2.
    pub spsr: u64,
}

/// Takes an exception to vEL2. `source` has PC and PSTATE as the hardware has them, and VBAR and SCTLR
/// of vEL2; `from_vel2` tells whether vEL2's regime ran, or L2; `pan` whether vEL2 has host extensions
/// and EL0 (E2H and TGE), where SPAN counts.
#[must_use]
pub fn take(source: &El1Context, kind: Kind, from_vel2: bool, pan: bool) -> Taken {
    let same_el = from_vel2 && source.pstate & (NRW | EL_MASK) == EL1;
    let mut source = *source;
    source.features.pan &= pan;
    let entry = enter_el1(&source, Exception::Undefined);
    let offset = match (same_el, source.pstate & NRW != 0, source.pstate & 1 != 0) {
        (true, _, false) => 0x000,
        (true, _, true) => 0x200,
        (false, false, _) => 0x400,
        (false, true, _) => 0x600,
    };
    Taken {
        pc: (source.vbar & !0x7ff).wrapping_add(offset).wrapping_add(kind as u64 * 0x80),
        pstate: entry.pstate,
        elr: source.pc,
        spsr: shown(source.pstate, from_vel2),
    }
}

/// ESR_EL2 of an SError with this VSESR_EL2 (D24.2): IDS and ISS.
#[must_use]
pub const fn serror_syndrome(vsesr: u64) -> u64 {
    0x2f << 26 | 1 << 25 | vsesr & 0x1ff_ffff
}

/// A PSTATE of the hardware as L1 sees it.
#[must_use]
pub const fn shown(pstate: u64, from_vel2: bool) -> u64 {
    if from_vel2 && pstate & (NRW | EL_MASK) == EL1 { pstate & !EL_MASK | EL2 } else { pstate }
}

/// What an ERET of vEL2 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// The hardware's SPSR_EL2.
    pub pstate: u64,
    /// Whether vEL2's regime goes on: vEL2 itself, or its EL0.
    pub stays: bool,
}

/// ERET of vEL2 with this SPSR_EL2 (AArch64.ExceptionReturn, IllegalExceptionReturn). `current` is the
/// hardware's PSTATE, `tge` L1's HCR_EL2.TGE, `el0` whether it makes EL0 vEL2's own.
#[must_use]
pub const fn eret(spsr: u64, current: u64, tge: bool, el0: bool) -> Return {
    let state = spsr & PSTATE;
    match spsr & 0x1f {
        // EL2t, EL2h.
        0b0_1000 | 0b0_1001 => Return { pstate: state & !EL_MASK | EL1, stays: true },
        0b0_0000 => Return { pstate: state, stays: el0 },
        // EL1t, EL1h.
        0b0_0100 | 0b0_0101 if !tge => Return { pstate: state, stays: false },
        // Illegal: EL and stack pointer stay, IL is set, and so is nothing that a step needs.
        _ => Return { pstate: state & !(0x1f | 1 << 21) | IL | current & 0x1f, stays: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use trap::inject::PstateFeatures;

    fn source(pstate: u64) -> El1Context {
        let features = PstateFeatures { pan: true, ssbs: true, mte: false, nmi: false };
        El1Context { pc: 0x1234, pstate, vbar: 0xffff_8000_0000_0800, sctlr: 1 << 23, features }
    }

    #[test]
    fn vectors_are_chosen_by_virtual_level() {
        for (pstate, vel2, kind, offset) in [
            (0x3c5, true, Kind::Sync, 0x200),
            (0x3c4, true, Kind::Sync, 0x000),
            (0x3c0, true, Kind::Sync, 0x400),
            (0x3c5, false, Kind::Sync, 0x400),
            (0x3c4, false, Kind::Irq, 0x480),
            (0x3c0, false, Kind::Fiq, 0x500),
            (0x3c5, true, Kind::SError, 0x380),
            (0x010, false, Kind::Sync, 0x600),
        ] {
            let taken = take(&source(pstate), kind, vel2, true);
            assert_eq!(taken.pc, 0xffff_8000_0000_0800 + offset, "{pstate:#x} {vel2} {kind:?}");
            assert_eq!(taken.pstate & 0x3df, 0x3c5);
            assert_eq!(taken.elr, 0x1234);
        }
    }

    #[test]
    fn vel2_sees_el2_in_its_spsr() {
        assert_eq!(take(&source(0x6000_03c5), Kind::Sync, true, true).spsr, 0x6000_03c9);
        assert_eq!(take(&source(0x6000_03c4), Kind::Sync, true, true).spsr, 0x6000_03c8);
        assert_eq!(take(&source(0x6000_03c0), Kind::Sync, true, true).spsr, 0x6000_03c0);
        assert_eq!(take(&source(0x6000_03c5), Kind::Sync, false, true).spsr, 0x6000_03c5);
    }

    #[test]
    fn syndromes_of_serrors() {
        assert_eq!(serror_syndrome(1 << 24), 0xbf00_0000);
        assert_eq!(serror_syndrome(!0), 0xbfff_ffff);
    }

    #[test]
    fn pan_is_of_hosts_only() {
        let mut s = source(0x3c0);
        s.sctlr = 0;
        assert_eq!(take(&s, Kind::Sync, true, true).pstate >> 22 & 1, 1);
        assert_eq!(take(&s, Kind::Sync, true, false).pstate >> 22 & 1, 0);
    }

    #[test]
    fn returns() {
        let go = |spsr, tge, el0| eret(spsr, 0x3c5, tge, el0);
        assert_eq!(go(0x3c9, false, false), Return { pstate: 0x3c5, stays: true });
        assert_eq!(go(0x3c8, true, true), Return { pstate: 0x3c4, stays: true });
        assert_eq!(go(0x3c5, false, false), Return { pstate: 0x3c5, stays: false });
        assert_eq!(go(0x000, false, false), Return { pstate: 0, stays: false });
        assert_eq!(go(0x000, true, true), Return { pstate: 0, stays: true });
        // EL3, reserved, AArch32, EL1 under TGE.
        for spsr in [0x3cd, 0x3cc, 0x3c2, 0x3c1, 0x3c7, 0x3d0, 0x3d3] {
            assert_eq!(go(spsr, false, false), Return { pstate: 0x10_03c5, stays: true }, "{spsr:#x}");
        }
        assert_eq!(go(0x3c5, true, true), Return { pstate: 0x10_03c5, stays: true });
    }

    proptest! {
        /// The hardware is never asked for more than EL1 in AArch64.
        #[test]
        fn no_more_than_el1(spsr: u64, tge: bool, el0: bool, sp: bool) {
            let current = 0x3c4 | u64::from(sp);
            let r = eret(spsr, current, tge, el0);
            prop_assert!(matches!(r.pstate & 0x1f, 0 | 4 | 5));
            prop_assert_eq!(r.pstate & !PSTATE, 0);
        }
    }
}
