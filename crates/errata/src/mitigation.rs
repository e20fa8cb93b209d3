//! Answers to a guest that asks for SMCCC_ARCH_WORKAROUND_1, 2 and 3 (Arm DEN0028, the sections of
//! those names).
//!
//! The answer follows from the ID registers of all CPUs, combined, and from what firmware answered to
//! the hypervisor. `Needed` is only given where firmware has the call: the guest's own call is then
//! passed on to it.

use crate::midr::Midr;
use crate::table::part;

/// What SMCCC_ARCH_FEATURES says of a workaround call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i64)]
pub enum Answer {
    /// The call is there, and this CPU needs it.
    Needed = 0,
    /// The call is there, but this CPU does not need it.
    Unaffected = 1,
    /// There is no call.
    Unknown = -1,
    /// No CPU of the machine needs the call (ARCH_WORKAROUND_2 only).
    NotRequired = -2,
}

impl Answer {
    /// What firmware answered.
    #[must_use]
    pub const fn from_firmware(x0: i64) -> Self {
        match x0 {
            0 => Self::Needed,
            1 => Self::Unaffected,
            -2 => Self::NotRequired,
            _ => Self::Unknown,
        }
    }

    /// What holds for two CPUs: a call that one needs is there for both. It does nothing on a CPU that
    /// does not need it.
    #[must_use]
    pub const fn combine(self, other: Self) -> Self {
        match (self, other) {
            (Self::Needed, _) | (_, Self::Needed) => Self::Needed,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Unaffected, _) | (_, Self::Unaffected) => Self::Unaffected,
            (Self::NotRequired, Self::NotRequired) => Self::NotRequired,
        }
    }

    /// For the calls that do not know `NotRequired`.
    const fn without_not_required(self) -> Self {
        match self {
            Self::NotRequired => Self::Unknown,
            Self::Needed | Self::Unaffected | Self::Unknown => self,
        }
    }
}

/// The answers for all three calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answers {
    /// ARCH_WORKAROUND_1.
    pub workaround_1: Answer,
    /// ARCH_WORKAROUND_2.
    pub workaround_2: Answer,
    /// ARCH_WORKAROUND_3.
    pub workaround_3: Answer,
}

/// What the ID registers say about speculation, on all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Speculation {
    /// ID_AA64PFR0_EL1.CSV2.
    pub csv2: u8,
    /// ID_AA64PFR1_EL1.SSBS.
    pub ssbs: u8,
    /// ID_AA64MMFR1_EL1.ECBHB.
    pub ecbhb: u8,
}

impl Answers {
    /// Of firmware that does not have ARCH_FEATURES.
    pub const UNKNOWN: Self =
        Self { workaround_1: Answer::Unknown, workaround_2: Answer::Unknown, workaround_3: Answer::Unknown };

    /// What holds for two CPUs.
    #[must_use]
    pub const fn combine(self, other: Self) -> Self {
        Self {
            workaround_1: self.workaround_1.combine(other.workaround_1),
            workaround_2: self.workaround_2.combine(other.workaround_2),
            workaround_3: self.workaround_3.combine(other.workaround_3),
        }
    }

    /// What guests are told, where these are firmware's answers.
    #[must_use]
    pub const fn for_guests(self, cpus: Speculation) -> Self {
        Self {
            workaround_1: workaround_1(cpus.csv2, self.workaround_1),
            workaround_2: workaround_2(cpus.ssbs, self.workaround_2),
            workaround_3: workaround_3(cpus.csv2, cpus.ecbhb, self.workaround_3),
        }
    }
}

/// ARCH_WORKAROUND_1 (branch target injection). `csv2` is ID_AA64PFR0_EL1.CSV2: 1 or more says that
/// one context cannot control the branches of another.
#[must_use]
pub const fn workaround_1(csv2: u8, firmware: Answer) -> Answer {
    if csv2 >= 1 { Answer::Unaffected } else { firmware.without_not_required() }
}

/// ARCH_WORKAROUND_2 (speculative store bypass). `ssbs` is ID_AA64PFR1_EL1.SSBS: a guest that has
/// PSTATE.SSBS controls the bypass by itself, and is told that there is no call.
#[must_use]
pub const fn workaround_2(ssbs: u8, firmware: Answer) -> Answer {
    if ssbs >= 1 { Answer::Unknown } else { firmware }
}

/// ARCH_WORKAROUND_3 (branch history injection). `csv2` 3 or more (FEAT_CSV2_3) and `ecbhb`
/// (ID_AA64MMFR1_EL1.ECBHB) 1 or more say that history does not cross exception levels.
#[must_use]
pub const fn workaround_3(csv2: u8, ecbhb: u8, firmware: Answer) -> Answer {
    if csv2 >= 3 || ecbhb >= 1 { Answer::Unaffected } else { firmware.without_not_required() }
}

/// How many branches an entry to EL2 takes to flush the branch history that a guest left behind, for
/// the cores with MTE (Arm, "Spectre-BHB" whitepaper); 0 where the core is not listed, or where `csv2` and
/// `ecbhb` say that history does not cross exception levels. CLRBHB (ID_AA64ISAR2_EL1.CLRBHB) would do the
/// same; no core of the list has it without ECBHB.
#[must_use]
pub const fn history_branches(midr: Midr, csv2: u8, ecbhb: u8) -> u8 {
    if csv2 >= 3 || ecbhb >= 1 {
        return 0;
    }
    match (midr.implementer(), midr.part()) {
        (part::ARM, part::A710 | part::X2 | part::N2) | (part::MICROSOFT, part::N2) => 32,
        (part::ARM, part::A715 | part::A720) => 38,
        (part::ARM, part::X3 | part::V2) => 132,
        (_, _) => 0,
    }
}
