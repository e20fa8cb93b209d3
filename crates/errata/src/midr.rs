//! MIDR_EL1, and ranges of core revisions.

/// MIDR_EL1 (Arm DDI 0487, MIDR_EL1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Midr(u64);

impl Midr {
    /// The register's value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Implementer code.
    #[must_use]
    pub const fn implementer(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Part number.
    #[must_use]
    pub const fn part(self) -> u16 {
        (self.0 >> 4 & 0xfff) as u16
    }

    /// Variant and revision, `0xVR` for rVpR.
    #[must_use]
    pub const fn revision(self) -> u8 {
        (self.0 >> 20 & 0xf) as u8 * 16 + (self.0 & 0xf) as u8
    }
}

/// Some revisions of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MidrRange {
    /// Implementer code.
    pub implementer: u8,
    /// Part number.
    pub part: u16,
    /// First revision, `0xVR` for rVpR.
    pub from: u8,
    /// Last revision.
    pub to: u8,
}

impl MidrRange {
    /// Whether the CPU is one of them.
    #[must_use]
    pub const fn contains(&self, midr: Midr) -> bool {
        midr.implementer() == self.implementer
            && midr.part() == self.part
            && midr.revision() >= self.from
            && midr.revision() <= self.to
    }
}
