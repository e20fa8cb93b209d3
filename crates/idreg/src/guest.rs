//! The ID registers of a VM.

use crate::field::Offer;
use crate::host::HostIds;
use crate::nesting::{self, VirtualEl2};
use crate::table::ENTRIES;
use crate::{FEATURE_REGISTERS, cache};

/// What a VM may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// Memory tagging. Without effect on a machine that has none.
    pub mte: bool,
    /// Virtual EL2.
    pub nested: Option<VirtualEl2>,
}

/// What a VM reads; built once, immutable after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestIds {
    features: [u64; FEATURE_REGISTERS],
    midr: u64,
    revidr: u64,
    aidr: u64,
    ctr: u64,
    dczid: u64,
    gmid: u64,
    clidr: u64,
    ccsidr: u64,
}

impl GuestIds {
    /// The registers of a VM on this machine.
    #[must_use]
    pub fn new(host: &HostIds, features: &Features) -> Self {
        let features = features.on(host);
        let mut table = [0; FEATURE_REGISTERS];
        for entry in &ENTRIES {
            let value = entry.offered(entry.field.get(host.get(entry.reg)), &features);
            if let Some(to) = table.get_mut(entry.reg as usize) {
                *to |= entry.field.place(value);
            }
        }
        nesting::offer(&mut table, host, &features);
        Self {
            features: table,
            midr: host.midr,
            revidr: host.revidr,
            aidr: host.aidr,
            ctr: host.ctr,
            dczid: host.dczid,
            gmid: if features.mte { host.gmid } else { 0 },
            clidr: cache::clidr(host.ctr, features.mte),
            ccsidr: cache::ccsidr(host.ctr),
        }
    }

    /// The feature ID register at `(CRm - 1) * 8 + op2`; 0 beyond the space.
    #[inline(always)]
    #[must_use]
    pub fn read(&self, index: usize) -> u64 {
        match self.features.get(index) {
            Some(value) => *value,
            None => 0,
        }
    }

    /// MIDR_EL1 of the CPU that the values came from. VPIDR_EL2 takes the local CPU's, so that a
    /// guest finds the workarounds of the core that it runs on.
    #[must_use]
    pub const fn midr(&self) -> u64 {
        self.midr
    }

    /// REVIDR_EL1.
    #[must_use]
    pub const fn revidr(&self) -> u64 {
        self.revidr
    }

    /// AIDR_EL1.
    #[must_use]
    pub const fn aidr(&self) -> u64 {
        self.aidr
    }

    /// CTR_EL0.
    #[must_use]
    pub const fn ctr(&self) -> u64 {
        self.ctr
    }

    /// DCZID_EL0. It cannot be trapped: HCR_EL2.TDZ makes DZP read as 1 where this has it.
    #[must_use]
    pub const fn dczid(&self) -> u64 {
        self.dczid
    }

    /// GMID_EL1; `None` is UNDEFINED.
    #[must_use]
    pub const fn gmid(&self) -> Option<u64> {
        if self.gmid == 0 { None } else { Some(self.gmid) }
    }

    /// CLIDR_EL1.
    #[must_use]
    pub const fn clidr(&self) -> u64 {
        self.clidr
    }

    /// CCSIDR_EL1, the same for every cache that CSSELR_EL1 may select.
    #[must_use]
    pub const fn ccsidr(&self) -> u64 {
        self.ccsidr
    }

    /// Whether refused reads of ID registers are reported as trapped (FEAT_IDST).
    #[must_use]
    pub fn ids(&self) -> bool {
        self.read(crate::Reg::Mmfr2 as usize) >> 36 & 0xf != 0
    }
}

impl Features {
    /// Those that this machine can give.
    #[must_use]
    pub fn on(self, host: &HostIds) -> Self {
        Self { mte: self.mte && host.has_mte(), ..self }
    }
}

impl Offer {
    /// Whether a guest may get less than the machine has.
    #[must_use]
    pub const fn hides(self) -> bool {
        match self {
            Self::Hidden | Self::AtMost(_) | Self::WithMte(_) => true,
            Self::Host | Self::Value(_) => false,
        }
    }
}

/// VMPIDR_EL2 of a vCPU: Aff0 is its number, bit 31 is RES1.
#[must_use]
pub const fn vmpidr(vcpu: u8) -> u64 {
    1 << 31 | vcpu as u64
}
