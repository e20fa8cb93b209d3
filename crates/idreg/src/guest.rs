//! The ID registers of a VM.

use trap::SysReg;

use crate::field::{Reg, index};
use crate::host::HostIds;
use crate::nesting::{self, VirtualEl2};
use crate::table::ENTRIES;
use crate::{REGISTERS, cache};

/// What a VM may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// Memory tagging. Without effect on a machine that has none.
    pub mte: bool,
    /// The Scalable Vector Extension. Without effect on a machine that has none.
    pub sve: bool,
    /// Virtual EL2.
    pub nested: Option<VirtualEl2>,
}

/// A field of four bits: its register and lowest bit.
pub(crate) type FieldAt = (Reg, u32);

/// The algorithms of pointer authentication, each with its fields for addresses and for PACGA: FEAT_PACQARMA5
/// (APA, GPA), FEAT_PACIMP (API, GPI), FEAT_PACQARMA3 (APA3, GPA3). Both or neither (Arm, A2.2, and the
/// two registers).
pub(crate) const PAUTH: [[FieldAt; 2]; 3] = [
    [(Reg::Isar1, 4), (Reg::Isar1, 24)],
    [(Reg::Isar1, 8), (Reg::Isar1, 28)],
    [(Reg::Isar2, 12), (Reg::Isar2, 8)],
];
/// ID_AA64ISAR2_EL1.PAC_frac: something about these algorithms.
pub(crate) const PAC_FRAC: FieldAt = (Reg::Isar2, 24);
/// ID_AA64PFR1_EL1.MTE_frac: with MTE 2, whether there are asynchronous faults.
pub(crate) const MTE_FRAC: FieldAt = (Reg::Pfr1, 40);

/// What a VM reads, at the index of each register: the feature ID registers, then [`index`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestIds([u64; REGISTERS]);

impl GuestIds {
    /// All zero.
    pub const NONE: Self = Self([0; REGISTERS]);

    /// The most that a VM gets on this machine.
    #[must_use]
    pub fn new(host: &HostIds, features: &Features) -> Self {
        let features = features.on(host);
        let mut ids = Self::NONE;
        for (index, value) in [
            (index::MIDR, host.midr),
            (index::REVIDR, host.revidr),
            (index::AIDR, host.aidr),
            (index::CTR, host.ctr),
            (index::DCZID, host.dczid),
            (index::MPIDR, vmpidr(0)),
        ] {
            ids.set(index.into(), value);
        }
        for entry in &ENTRIES {
            let value = entry.offered(entry.field.get(host.get(entry.reg)), &features);
            if let Some(to) = ids.0.get_mut(entry.reg as usize) {
                *to = *to & !entry.field.mask() | entry.field.place(value);
            }
        }
        for algorithm in PAUTH {
            let [a, b] = algorithm;
            if ids.field(a.0, a.1) == 0 || ids.field(b.0, b.1) == 0 {
                // CPUs agree in the one half of it only.
                ids.clear(a);
                ids.clear(b);
            }
        }
        if !ids.has_pauth() {
            ids.clear(PAC_FRAC);
        }
        nesting::offer(&mut ids.0, host, &features);
        ids.derive(host);
        ids
    }

    /// Makes a field of four bits 0.
    fn clear(&mut self, (reg, lsb): FieldAt) {
        if let Some(to) = self.0.get_mut(reg as usize) {
            *to &= !0xf_u64.wrapping_shl(lsb);
        }
    }

    /// Works out what follows from others: CLIDR_EL1, CCSIDR_EL1, GMID_EL1, and MTE_frac, which says
    /// something of MTE 2 only.
    pub(crate) fn derive(&mut self, host: &HostIds) {
        let mte = self.has_mte();
        if !mte {
            self.clear(MTE_FRAC);
        }
        self.set(index::GMID.into(), if mte { host.gmid } else { 0 });
        self.set(index::CLIDR.into(), cache::clidr(self.ctr(), mte));
        self.set(index::CCSIDR.into(), cache::ccsidr(self.ctr()));
    }

    /// Writes a register.
    pub(crate) fn set(&mut self, index: usize, value: u64) {
        if let Some(to) = self.0.get_mut(index) {
            *to = value;
        }
    }

    /// The register at this index; 0 beyond the last.
    #[inline(always)]
    #[must_use]
    pub fn read(&self, index: usize) -> u64 {
        match self.0.get(index) {
            Some(value) => *value,
            None => 0,
        }
    }

    /// A field of at most 4 bits, unsigned.
    #[must_use]
    pub fn field(&self, reg: Reg, lsb: u32) -> u64 {
        self.read(reg as usize).wrapping_shr(lsb) & 0xf
    }

    /// Whether the VM has memory with tags (FEAT_MTE2).
    #[must_use]
    pub fn has_mte(&self) -> bool {
        self.field(Reg::Pfr1, 8) >= 2
    }

    /// Whether the VM has SVE.
    #[must_use]
    pub fn has_sve(&self) -> bool {
        self.field(Reg::Pfr0, 32) != 0
    }

    /// CTR_EL0.
    #[must_use]
    pub fn ctr(&self) -> u64 {
        self.read(index::CTR.into())
    }

    /// Whether refused reads of ID registers are reported as trapped (FEAT_IDST).
    #[must_use]
    pub fn ids(&self) -> bool {
        self.field(Reg::Mmfr2, 36) != 0
    }

    /// Whether pointer authentication exists in any form.
    #[must_use]
    pub fn has_pauth(&self) -> bool {
        self.field(Reg::Isar1, 4) != 0 || self.field(Reg::Isar1, 8) != 0 || self.field(Reg::Isar2, 12) != 0
    }

    /// Whether a system instruction exists, of those that a VM may do without: DC CVAP and DC CVADP with
    /// their tag forms (FEAT_DPB, FEAT_DPB2).
    #[must_use]
    pub fn has_instruction(&self, instruction: SysReg) -> bool {
        let persistence = self.field(Reg::Isar1, 0);
        match (instruction.op0(), instruction.op1(), instruction.crn(), instruction.crm()) {
            (1, 3, 7, 12) => persistence >= 1,
            (1, 3, 7, 13) => persistence >= 2,
            (_, _, _, _) => true,
        }
    }

    /// Whether there are FP registers.
    #[must_use]
    pub fn has_fp(&self) -> bool {
        self.field(Reg::Pfr0, 16) != 0xf
    }
}

impl Features {
    /// Those that this machine can give.
    #[must_use]
    pub fn on(self, host: &HostIds) -> Self {
        let sve = self.sve && host.has_sve();
        Self { mte: self.mte && host.has_mte(), sve, ..self }
    }
}

/// VMPIDR_EL2 of a vCPU: Aff0 is its number, bit 31 is RES1.
#[must_use]
pub const fn vmpidr(vcpu: u8) -> u64 {
    1 << 31 | vcpu as u64
}
