//! SError syndromes: how bad it is, and what a guest is told.
//!
//! Arm, ESR_EL2, "ISS encoding for an SError exception"; DISR_EL1; VSESR_EL2.

use crate::bits::{bit, field};

/// How far an error spread (ISS.AET).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SErrorKind {
    /// UC: it may have spread anywhere.
    Uncontainable,
    /// UEU: contained, the interrupted state is lost.
    Unrecoverable,
    /// UEO: contained, execution can go on.
    Restartable,
    /// UER: contained, execution can go on once the error is repaired.
    Recoverable,
    /// CE: corrected.
    Corrected,
    /// The syndrome is implementation defined (ISS.IDS).
    ImpDef,
    /// The syndrome says nothing: no RAS, or DFSC is not that of an asynchronous error.
    Uncategorized,
}

/// What follows from an SError that a guest is charged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Consequence {
    /// A virtual SError.
    Inject,
    /// The VM stops.
    Stop,
    /// The machine ends: nobody's memory can be trusted.
    End,
}

/// The syndrome of an SError.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SError {
    iss: u64,
    /// How far it spread.
    pub kind: SErrorKind,
}

const IDS: u64 = 1 << 24;
const ISS: u64 = 0x01ff_ffff;
/// AET, EA and DFSC: what ESR, DISR and VSESR have in common when IDS is 0.
const ARCHITECTED: u64 = 0x1c00 | 0x200 | 0x3f;
/// DISR_EL1.A: an SError was deferred by ESB.
const DISR_A: u64 = 1 << 31;

impl SError {
    /// From ESR_EL2 of an SError; `ras` is whether the CPU has FEAT_RAS, without which AET is RES0.
    #[must_use]
    pub const fn from_esr(esr: u64, ras: bool) -> Self {
        let kind = if bit(esr, 24) {
            SErrorKind::ImpDef
        } else if !ras || field(esr, 0, 6) != 0x11 {
            SErrorKind::Uncategorized
        } else {
            match field(esr, 10, 3) {
                0b001 => SErrorKind::Unrecoverable,
                0b010 => SErrorKind::Restartable,
                0b011 => SErrorKind::Recoverable,
                0b110 => SErrorKind::Corrected,
                // 0b000; the reserved values are taken for the worst.
                _ => SErrorKind::Uncontainable,
            }
        };
        let iss = esr & if bit(esr, 24) { ISS } else { ARCHITECTED };
        Self { iss, kind }
    }

    /// From DISR_EL1 after ESB: `None` if no SError was deferred.
    #[must_use]
    pub const fn from_disr(disr: u64) -> Option<Self> {
        // The fields lie where ESR has them, and only a CPU with FEAT_RAS has the register.
        if disr & DISR_A == 0 { None } else { Some(Self::from_esr(disr & ISS, true)) }
    }

    /// ISS.EA: an implementation-defined classification of external aborts.
    #[must_use]
    pub const fn ea(&self) -> bool {
        bit(self.iss, 9) && self.iss & IDS == 0
    }

    /// What is to become of it if a guest's accesses caused it and that guest may have it (`inject`). What
    /// may have spread within the VM, or whose syndrome does not say, is not something to go on with; what
    /// may have spread beyond is not the VM's alone.
    #[must_use]
    pub const fn consequence(&self, inject: bool) -> Consequence {
        match self.kind {
            SErrorKind::Uncontainable => Consequence::End,
            SErrorKind::Unrecoverable
            | SErrorKind::Restartable
            | SErrorKind::Recoverable
            | SErrorKind::Corrected
                if inject =>
            {
                Consequence::Inject
            }
            SErrorKind::Unrecoverable
            | SErrorKind::Restartable
            | SErrorKind::Recoverable
            | SErrorKind::Corrected
            | SErrorKind::ImpDef
            | SErrorKind::Uncategorized => Consequence::Stop,
        }
    }

    /// VSESR_EL2 for a virtual SError that hands the error on. A guest that has no RAS, and every
    /// guest whose host's syndrome is implementation defined, gets an empty implementation-defined
    /// syndrome: it cannot read the host's.
    #[must_use]
    pub const fn vsesr(&self, guest_has_ras: bool) -> u64 {
        if guest_has_ras && self.iss & IDS == 0 { self.iss } else { IDS }
    }

    /// DISR_EL1 as the guest would read it after its own ESB.
    #[must_use]
    pub const fn disr(&self, guest_has_ras: bool) -> u64 {
        DISR_A | self.vsesr(guest_has_ras)
    }
}
