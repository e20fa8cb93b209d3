//! From a CPU's MIDR to the workarounds that software at EL2 needs, for the cores that have MTE.
//!
//! [`workarounds`] looks a MIDR up in [`table::ROWS`]; a machine needs the union over its CPUs.
//! [`mitigation`] answers the SMCCC calls by which a guest asks about speculation.
//!
//! The table holds errata that concern EL2. Not in it: those of features that no guest has (TRBE, SPE,
//! AMU), and those that an operating system finds by the MIDR that it reads, which is the real one
//! (unprivileged loads of Cortex-A510 and A520, BF16 of Cortex-A510).
//!
//! Sources: Arm's Software Developer Errata Notices, by the numbers in the rows, as far as Linux's
//! `Documentation/arch/arm64/silicon-errata.rst` and its public patches quote them.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod midr;
pub mod mitigation;
pub mod table;

use core::fmt;

pub use midr::{Midr, MidrRange};
pub use table::Row;

/// A set of workarounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Workarounds(u32);

impl Workarounds {
    /// None.
    pub const NONE: Self = Self(0);
    /// Each TLB invalidation and its DSB is done twice.
    pub const REPEAT_TLBI: Self = Self(1 << 0);
    /// SB or ISB follows each write of PSTATE.SSBS. EL2 writes it by ERET only, which synchronizes.
    pub const SSBS_BARRIER: Self = Self(1 << 1);
    /// HCR_EL2.FWB stays 0, and guest memory is cleaned to the point of coherency before a guest sees
    /// it, unless firmware says that the machine is not affected (Errata Management Interface, DEN0100).
    pub const NO_FWB: Self = Self(1 << 2);
    /// VTCR_EL2.HD stays 0, and guests do not see hardware management of the dirty state.
    pub const NO_HARDWARE_DIRTY: Self = Self(1 << 3);
    /// A mapping that stops being executable goes through break-before-make, as every change of a valid
    /// leaf of stage 2 does here.
    pub const BREAK_BEFORE_NO_EXEC: Self = Self(1 << 4);

    /// Each workaround and its name.
    const NAMES: [(Self, &'static str); 5] = [
        (Self::REPEAT_TLBI, "repeat TLBI"),
        (Self::SSBS_BARRIER, "barrier after SSBS"),
        (Self::NO_FWB, "no FWB"),
        (Self::NO_HARDWARE_DIRTY, "no hardware dirty state"),
        (Self::BREAK_BEFORE_NO_EXEC, "break before no-exec"),
    ];

    /// The set as a number, for an atomic.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set whose number is `bits`; bits that name no workaround are dropped.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & 0b1_1111)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Workarounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (_, name) in Self::NAMES.iter().filter(|(one, _)| self.contains(*one)) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        if self.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// What a CPU with this MIDR needs.
#[must_use]
pub fn workarounds(midr: Midr) -> Workarounds {
    table::affecting(midr).fold(Workarounds::NONE, |set, row| set.union(row.workaround))
}

#[cfg(test)]
mod tests;
