//! One field of an ID register: how CPUs combine, what a guest is offered, how the rest is closed.
//!
//! A [`Row`] is a [`Field`] in an [`Entry`] and its explanation. What the machine works with is the
//! entry, eight bytes; names and reasons are for those who read.

use crate::guest::Features;

/// A register of a VM's table that has named fields, as its index: that of a feature ID register is its
/// place in the trapped space, `(CRm - 1) * 8 + op2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reg {
    /// ID_AA64PFR0_EL1.
    Pfr0 = 24,
    /// ID_AA64PFR1_EL1.
    Pfr1 = 25,
    /// ID_AA64PFR2_EL1.
    Pfr2 = 26,
    /// ID_AA64ZFR0_EL1.
    Zfr0 = 28,
    /// ID_AA64SMFR0_EL1.
    Smfr0 = 29,
    /// ID_AA64FPFR0_EL1.
    Fpfr0 = 31,
    /// ID_AA64DFR0_EL1.
    Dfr0 = 32,
    /// ID_AA64DFR1_EL1.
    Dfr1 = 33,
    /// ID_AA64DFR2_EL1.
    Dfr2 = 34,
    /// ID_AA64ISAR0_EL1.
    Isar0 = 40,
    /// ID_AA64ISAR1_EL1.
    Isar1 = 41,
    /// ID_AA64ISAR2_EL1.
    Isar2 = 42,
    /// ID_AA64ISAR3_EL1.
    Isar3 = 43,
    /// ID_AA64MMFR0_EL1.
    Mmfr0 = 48,
    /// ID_AA64MMFR1_EL1.
    Mmfr1 = 49,
    /// ID_AA64MMFR2_EL1.
    Mmfr2 = 50,
    /// ID_AA64MMFR3_EL1.
    Mmfr3 = 51,
    /// ID_AA64MMFR4_EL1.
    Mmfr4 = 52,
    /// CTR_EL0.
    Ctr = index::CTR,
}

/// Indices of the registers behind the feature ID registers, which have values but no fields that a
/// table could name, but for CTR_EL0.
pub mod index {
    /// MIDR_EL1.
    pub const MIDR: u8 = 56;
    /// REVIDR_EL1.
    pub const REVIDR: u8 = 57;
    /// AIDR_EL1.
    pub const AIDR: u8 = 58;
    /// CTR_EL0.
    pub const CTR: u8 = 59;
    /// CLIDR_EL1.
    pub const CLIDR: u8 = 60;
    /// CCSIDR_EL1, the same for every cache that CSSELR_EL1 may select.
    pub const CCSIDR: u8 = 61;
    /// DCZID_EL0.
    pub const DCZID: u8 = 62;
    /// GMID_EL1; 0 where it is UNDEFINED.
    pub const GMID: u8 = 63;
    /// MPIDR_EL1 of vCPU 0.
    pub const MPIDR: u8 = 64;
}

/// Which of two values software can rely on when it may run on either CPU (Arm, D24.1.3, "Principles
/// of the ID scheme for fields in ID registers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The lower, unsigned.
    LowerSafe,
    /// The lower, as a signed number: all ones means "not implemented".
    SignedLowerSafe,
    /// The higher, unsigned: the field describes a hazard or a granule.
    HigherSafe,
    /// As `HigherSafe`, but 0 means "not known" and wins.
    HigherOrZero,
    /// Neither: different values leave the field's `absent`.
    Exact,
}

/// What a guest is offered of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offer {
    /// The machine's value.
    Host,
    /// The machine's value, but at most this one.
    AtMost(u8),
    /// As `AtMost` if the VM has MTE, else the field's `absent`.
    WithMte(u8),
    /// As `AtMost` if the VM has SVE, else the field's `absent`.
    WithSve(u8),
    /// This value, whatever the machine has.
    Value(u8),
    /// The field's `absent`.
    Hidden,
}

/// What happens when a guest uses something that its ID registers do not offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// All of it is offered.
    Nothing,
    /// What is hidden is a property or a control that software at EL1 and EL0 has no part in.
    Unreachable,
    /// A control in this register field traps it to EL2.
    Trap(&'static str),
    /// A control in this register field makes it UNDEFINED.
    Undef(&'static str),
    /// A control in this register field makes it have no effect.
    Inert(&'static str),
    /// No control exists; why that is harmless.
    Open(&'static str),
    /// What keeps state is closed by a control in this register field; what of it stays open, and why that
    /// is harmless.
    Partly(&'static str, &'static str),
}

/// [`Closed`] without its reasons: what is left of it in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described at `Closed`")]
pub enum How {
    Nothing,
    Unreachable,
    Trap,
    Undef,
    Inert,
    Open,
    Partly,
}

impl Closed {
    /// Without its reasons.
    #[must_use]
    pub const fn how(&self) -> How {
        match self {
            Self::Nothing => How::Nothing,
            Self::Unreachable => How::Unreachable,
            Self::Trap(_) => How::Trap,
            Self::Undef(_) => How::Undef,
            Self::Inert(_) => How::Inert,
            Self::Open(_) => How::Open,
            Self::Partly(..) => How::Partly,
        }
    }
}

/// Where a field is in its register, and how CPUs combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Lowest bit.
    pub lsb: u8,
    /// Number of bits, at most 8.
    pub width: u8,
    /// How CPUs combine.
    pub rule: Rule,
    /// The value that says "not implemented".
    pub absent: u8,
}

/// A field of a feature ID register, as far as values depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Register.
    pub reg: Reg,
    /// The field in it.
    pub field: Field,
    /// What a guest gets.
    pub offer: Offer,
    /// How what it does not get is closed.
    pub how: How,
}

const _: () = assert!(size_of::<Entry>() == 8);

/// An entry and why it is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the machine works with.
    pub entry: Entry,
    /// Architectural name of the field.
    pub name: &'static str,
    /// How what a guest does not get is closed.
    pub closed: Closed,
    /// Why.
    pub why: &'static str,
}

impl Field {
    /// The bits of the field, at bit 0.
    #[must_use]
    pub const fn ones(&self) -> u64 {
        1u64.wrapping_shl(self.width as u32).wrapping_sub(1)
    }

    /// The bits of the field, in place.
    #[must_use]
    pub const fn mask(&self) -> u64 {
        self.ones().wrapping_shl(self.lsb as u32)
    }

    /// The field of a register's value.
    #[must_use]
    pub const fn get(&self, register: u64) -> u64 {
        register.wrapping_shr(self.lsb as u32) & self.ones()
    }

    /// A register's value with nothing but this field.
    #[must_use]
    pub const fn place(&self, value: u64) -> u64 {
        (value & self.ones()).wrapping_shl(self.lsb as u32)
    }

    /// The value that holds on CPUs with either.
    #[must_use]
    pub const fn safe(&self, a: u64, b: u64) -> u64 {
        let lower = match self.rule {
            Rule::LowerSafe => a < b,
            Rule::SignedLowerSafe => self.biased(a) < self.biased(b),
            Rule::HigherSafe => a > b,
            Rule::HigherOrZero => a == 0 || (b != 0 && a > b),
            Rule::Exact => {
                if a != b {
                    return self.absent as u64;
                }
                true
            }
        };
        if lower { a } else { b }
    }

    /// A signed field's value, moved so that unsigned order is signed order.
    const fn biased(&self, value: u64) -> u64 {
        value ^ 1u64.wrapping_shl((self.width as u32).wrapping_sub(1))
    }
}

impl Entry {
    /// What a guest sees where the machine has `host`.
    #[must_use]
    pub const fn offered(&self, host: u64, features: &Features) -> u64 {
        match self.offer {
            Offer::Host => host,
            Offer::AtMost(cap) => self.field.safe(host, cap as u64),
            Offer::WithMte(cap) if features.mte => self.field.safe(host, cap as u64),
            Offer::WithSve(cap) if features.sve => self.field.safe(host, cap as u64),
            Offer::Value(value) => value as u64,
            Offer::Hidden | Offer::WithMte(_) | Offer::WithSve(_) => self.field.absent as u64,
        }
    }

    /// The entry for a VM that cannot have what it depends on: hidden.
    #[must_use]
    pub const fn for_features(self, features: &Features) -> Self {
        match self.offer {
            Offer::WithMte(_) if !features.mte => Self { offer: Offer::Hidden, ..self },
            Offer::WithSve(_) if !features.sve => Self { offer: Offer::Hidden, ..self },
            Offer::Host | Offer::AtMost(_) | Offer::WithMte(_) | Offer::WithSve(_) => self,
            Offer::Value(_) | Offer::Hidden => self,
        }
    }

    /// Whether a VM may have `asked` where `limit` is what it is offered: the same, or less of it.
    #[must_use]
    pub const fn allows(&self, asked: u64, limit: u64) -> bool {
        match self.offer {
            Offer::Host | Offer::AtMost(_) | Offer::WithMte(_) | Offer::WithSve(_) => {
                self.field.safe(asked, limit) == asked
            }
            Offer::Value(_) | Offer::Hidden => asked == limit,
        }
    }

    /// Whether any other value than `limit` is allowed.
    #[must_use]
    pub const fn is_writable(&self, limit: u64) -> bool {
        let least = match self.field.rule {
            Rule::LowerSafe | Rule::HigherOrZero => 0,
            Rule::SignedLowerSafe => self.field.biased(0),
            Rule::HigherSafe => self.field.ones(),
            Rule::Exact => self.field.absent as u64,
        };
        least != limit && self.allows(least, limit)
    }
}
