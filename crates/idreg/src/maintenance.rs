//! The trap of guests' cache maintenance: only for VMs with read-only memory, and only if asked for.
//!
//! Hardware reports such maintenance as a stage-2 permission fault. Where it does not (QEMU performs none),
//! the trap makes the same decisions visible.

use crate::closing::{FgtLevel, TrapConfig, hcr};

/// HFGITR_EL2.DCIVAC: traps DC IVAC, IGVAC and IGDVAC.
pub(crate) const HFGITR_DCIVAC: u64 = 1 << 3;

impl TrapConfig {
    /// The same with a trap of the maintenance that needs write permission: DC IVAC and its tag forms.
    /// Without FEAT_FGT, of all maintenance by address to the points of coherency and persistence.
    ///
    /// Left alone: TPU and TOCU, because maintenance to the point of unification needs no permission; TDZ,
    /// which would show in DCZID_EL0.DZP and trap each clearing of a page; HCRX_EL2.CMOW, which would make
    /// DC CIVAC need write permission.
    #[must_use]
    pub fn with_maintenance(self) -> Self {
        match self.fgt {
            FgtLevel::None => Self { hcr: self.hcr | hcr::TPCP, ..self },
            FgtLevel::Fgt | FgtLevel::Fgt2 => Self { hfgitr: self.hfgitr | HFGITR_DCIVAC, ..self },
        }
    }
}
