//! The ID registers of the machine.

use core::fmt;

use crate::FEATURE_REGISTERS;
use crate::cache;
use crate::contradiction::address_bits;
use crate::field::{Entry, Reg, index};
use crate::register_at;
use crate::table::ENTRIES;

/// Raw values of one CPU, or what holds for several of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostIds {
    /// The feature ID registers, at `(CRm - 1) * 8 + op2`.
    pub features: [u64; FEATURE_REGISTERS],
    /// MIDR_EL1. It and the next two describe one CPU: combining keeps them as they are.
    pub midr: u64,
    /// REVIDR_EL1.
    pub revidr: u64,
    /// AIDR_EL1.
    pub aidr: u64,
    /// CTR_EL0.
    pub ctr: u64,
    /// DCZID_EL0. Combining keeps it: no VM has CPUs that differ in it ([`Mixed`]).
    pub dczid: u64,
    /// GMID_EL1, 0 where it does not exist. Combining keeps it if both CPUs have one.
    pub gmid: u64,
    /// PMCR_EL0, for the number of counters; 0 without PMU.
    pub pmcr: u64,
    /// Vector lengths of SVE, bit n for 128 times n + 1 bits; 0 without SVE. What holds for several CPUs
    /// is the shorter ones, up to the first in which they differ: ZCR_EL2 and ZCR_EL1 limit the length,
    /// they choose none.
    pub sve_lengths: u16,
}

/// Two CPUs that cannot be in one VM, because they differ in sizes that a guest reads from the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixed {
    /// Index of the register.
    pub register: u8,
    /// The two CPUs, as positions in what was asked about.
    pub cpus: (usize, usize),
    /// Its value on each.
    pub values: (u64, u64),
}

impl Mixed {
    /// The register's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.register {
            index::DCZID => "DCZID_EL0",
            index::GMID => "GMID_EL1",
            _ => "the sizes in CTR_EL0",
        }
    }
}

/// Something of which a CPU has less than was counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Index of the register; that of ID_AA64ZFR0_EL1 for the lengths of vectors.
    pub register: u8,
    /// Lowest bit of the field; 0 for a whole register.
    pub lsb: u8,
    /// What was counted on.
    pub expected: u64,
    /// What the CPU has.
    pub has: u64,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { register, lsb, expected, has } = *self;
        let register = register_at(register);
        write!(f, "{register} bit {lsb} is {has:#x}, but VMs were offered {expected:#x}")
    }
}

impl HostIds {
    /// Narrows the values to those that hold on `other` too. Bits that no row names hold where both
    /// CPUs have them.
    pub fn combine(&mut self, other: &Self) {
        let mine = self.features;
        for (to, theirs) in self.features.iter_mut().zip(other.features) {
            *to &= theirs;
        }
        for entry in &ENTRIES {
            let (index, field) = (entry.reg as usize, entry.field);
            let (Some(a), Some(b)) = (mine.get(index), other.features.get(index)) else { continue };
            if let Some(to) = self.features.get_mut(index) {
                *to = (*to & !field.mask()) | field.place(field.safe(field.get(*a), field.get(*b)));
            }
        }
        self.ctr = cache::combine_ctr(self.ctr, other.ctr);
        if other.gmid == 0 {
            self.gmid = 0;
        }
        self.pmcr = self.pmcr.min(other.pmcr);
        let differ = self.sve_lengths ^ other.sve_lengths;
        let lowest = differ & differ.wrapping_neg();
        self.sve_lengths &= lowest.wrapping_sub(1);
    }

    /// Whether VMs can have SVE: on all CPUs, with a vector length in common.
    #[must_use]
    pub fn has_sve(&self) -> bool {
        self.field(Reg::Pfr0, 32) != 0 && self.sve_lengths != 0
    }

    /// The longest vector that all CPUs have, in bits; 0 without SVE.
    #[must_use]
    pub const fn longest_vector(&self) -> u16 {
        128_u16.saturating_mul(16_u32.saturating_sub(self.sve_lengths.leading_zeros()) as u16)
    }

    /// Whether all CPUs have vectors of `bits`.
    #[must_use]
    pub const fn has_vector(&self, bits: u16) -> bool {
        let step = (bits / 128).wrapping_sub(1);
        bits.is_multiple_of(128) && step < 16 && self.sve_lengths >> step & 1 != 0
    }

    /// The machine's values for a VM on `cpus`: features as they hold on all CPUs, sizes as on these.
    ///
    /// # Errors
    /// Two of them that differ in the size of DC ZVA, of LDGM (if `mte`), or of what cache maintenance
    /// works on.
    pub fn on_cpus<'a>(
        &self,
        mte: bool,
        cpus: impl IntoIterator<Item = (usize, &'a Self)>,
    ) -> Result<Self, Mixed> {
        let mut own = *self;
        let mut first: Option<(usize, &Self)> = None;
        for (place, cpu) in cpus {
            let Some((other, known)) = first else {
                own = Self {
                    midr: cpu.midr,
                    revidr: cpu.revidr,
                    aidr: cpu.aidr,
                    ctr: cpu.ctr,
                    dczid: cpu.dczid,
                    gmid: if self.gmid == 0 { 0 } else { cpu.gmid },
                    ..*self
                };
                first = Some((place, cpu));
                continue;
            };
            let sizes = |ids: &Self| ids.ctr & cache::CTR_SIZES;
            for (register, a, b) in [
                (index::DCZID, known.dczid, cpu.dczid),
                (index::GMID, if mte { known.gmid } else { 0 }, if mte { cpu.gmid } else { 0 }),
                (index::CTR, sizes(known), sizes(cpu)),
            ] {
                if a != b {
                    return Err(Mixed { register, cpus: (other, place), values: (a, b) });
                }
            }
        }
        own.ctr = cache::combine_ctr(own.ctr, own.ctr & cache::CTR_SIZES | self.ctr & !cache::CTR_SIZES);
        Ok(own)
    }

    /// What `cpu` lacks of these values, which were counted on: such a CPU must not be used. Sizes have to
    /// be the same; of the lengths of vectors, none may be missing.
    #[must_use]
    pub fn lack_of(&self, cpu: &Self) -> Option<Lack> {
        let field = ENTRIES.iter().find_map(|entry| {
            let Entry { reg, field, .. } = *entry;
            let (expected, has) = (field.get(self.get(reg)), field.get(cpu.get(reg)));
            let lacks = field.safe(expected, has) != expected;
            lacks.then_some(Lack { register: reg as u8, lsb: field.lsb, expected, has })
        });
        let sizes = |ids: &Self| ids.ctr & cache::CTR_SIZES;
        let missing = self.sve_lengths & !cpu.sve_lengths != 0;
        let whole = [
            (index::DCZID, self.dczid, cpu.dczid, self.dczid != cpu.dczid),
            (index::GMID, self.gmid, cpu.gmid, self.gmid != cpu.gmid),
            (index::CTR, self.ctr, cpu.ctr, sizes(self) != sizes(cpu)),
            (Reg::Zfr0 as u8, self.sve_lengths.into(), cpu.sve_lengths.into(), missing),
        ];
        let whole = whole.into_iter().find(|(.., lacks)| *lacks);
        field.or(whole.map(|(register, expected, has, _)| Lack { register, lsb: 0, expected, has }))
    }

    /// Lowers the field of at most 4 bits at `lsb` to `cap`: an option or an erratum takes a feature
    /// from the hypervisor and from its guests.
    pub fn limit(&mut self, reg: Reg, lsb: u32, cap: u64) {
        let value = self.field(reg, lsb).min(cap & 0xf);
        if let Some(to) = self.features.get_mut(reg as usize) {
            *to = (*to & !0xf_u64.wrapping_shl(lsb)) | value.wrapping_shl(lsb);
        }
    }

    /// A register's value.
    #[must_use]
    pub fn get(&self, reg: Reg) -> u64 {
        if reg == Reg::Ctr { self.ctr } else { self.features.get(reg as usize).copied().unwrap_or(0) }
    }

    /// A register's value by its index.
    #[must_use]
    pub fn read(&self, place: usize) -> u64 {
        let others = [
            (index::MIDR, self.midr),
            (index::REVIDR, self.revidr),
            (index::AIDR, self.aidr),
            (index::CTR, self.ctr),
            (index::DCZID, self.dczid),
            (index::GMID, self.gmid),
        ];
        let other = || others.iter().find(|(index, _)| usize::from(*index) == place).map_or(0, |(_, v)| *v);
        self.features.get(place).copied().unwrap_or_else(other)
    }

    /// A field of at most 4 bits, unsigned.
    #[must_use]
    pub fn field(&self, reg: Reg, lsb: u32) -> u64 {
        self.get(reg).wrapping_shr(lsb) & 0xf
    }

    /// Bits of physical addresses.
    #[must_use]
    pub fn address_bits(&self) -> u8 {
        address_bits(self.field(Reg::Mmfr0, 0))
    }

    /// Whether VMs can have MTE: FEAT_MTE2, and one size of LDGM and STGM on all CPUs.
    #[must_use]
    pub fn has_mte(&self) -> bool {
        self.field(Reg::Pfr1, 8) >= 2 && self.gmid != 0
    }

    /// Whether stage 2 has NoTagAccess (FEAT_MTE_PERM). QEMU shows the field without MTE too.
    #[must_use]
    pub fn has_mte_perm(&self) -> bool {
        self.has_mte() && self.field(Reg::Pfr2, 0) >= 1
    }

    /// Whether stage 2 can force attributes (FEAT_S2FWB).
    #[must_use]
    pub fn has_fwb(&self) -> bool {
        self.field(Reg::Mmfr2, 40) >= 1
    }

    /// Whether HCRX_EL2 exists (FEAT_HCX).
    #[must_use]
    pub fn has_hcx(&self) -> bool {
        self.field(Reg::Mmfr1, 40) >= 1
    }

    /// Whether the registers of memory partitioning exist (FEAT_MPAM, of either number).
    #[must_use]
    pub fn has_mpam(&self) -> bool {
        self.field(Reg::Pfr0, 40) != 0 || self.field(Reg::Pfr1, 16) != 0
    }

    /// Whether pointer authentication exists in any form.
    #[must_use]
    pub fn has_pauth(&self) -> bool {
        self.field(Reg::Isar1, 4) != 0 || self.field(Reg::Isar1, 8) != 0 || self.field(Reg::Isar2, 12) != 0
    }

    /// Whether RAS registers exist.
    #[must_use]
    pub fn has_ras(&self) -> bool {
        self.field(Reg::Pfr0, 28) != 0
    }

    /// Whether performance monitors of the architecture exist.
    #[must_use]
    pub fn has_pmu(&self) -> bool {
        !matches!(self.field(Reg::Dfr0, 8), 0 | 0xf)
    }
}
