//! What the VM's ID registers say of stage 2.

/// What the VM's ID registers offer of stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Width of a physical address: 32 to 48.
    pub pa_bits: u8,
    /// Granule of 4 KiB.
    pub granule4: bool,
    /// Granule of 16 KiB.
    pub granule16: bool,
    /// Granule of 64 KiB.
    pub granule64: bool,
    /// FEAT_TTST: input sizes below 25 bits, and start at level 3 with 4 KiB.
    pub small: bool,
    /// FEAT_HAFDBS: VTCR_EL2.HA.
    pub access_flag: bool,
    /// FEAT_HAFDBS: VTCR_EL2.HD.
    pub dirty_state: bool,
    /// FEAT_XNX.
    pub xnx: bool,
    /// FEAT_MTE_PERM.
    pub mte_perm: bool,
}

/// The field of an ID register that begins at bit `at`.
const fn id_field(value: u64, at: u32) -> u64 {
    value >> at & 0b1111
}

impl Offered {
    /// From the VM's ID_AA64MMFR0_EL1 to ID_AA64MMFR2_EL1 and ID_AA64PFR2_EL1.
    #[must_use]
    pub const fn from_ids(mmfr: [u64; 3], pfr2: u64) -> Self {
        let [mmfr0, mmfr1, mmfr2] = mmfr;
        let pa_bits = match id_field(mmfr0, 0) {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            _ => 48,
        };
        Self {
            pa_bits,
            granule4: has_granule(id_field(mmfr0, 40), id_field(mmfr0, 28) != 15),
            granule16: has_granule(id_field(mmfr0, 32), id_field(mmfr0, 20) != 0),
            granule64: has_granule(id_field(mmfr0, 36), id_field(mmfr0, 24) != 15),
            small: id_field(mmfr2, 28) != 0,
            access_flag: id_field(mmfr1, 0) >= 1,
            dirty_state: id_field(mmfr1, 0) >= 2,
            xnx: id_field(mmfr1, 28) != 0,
            mte_perm: id_field(pfr2, 0) != 0,
        }
    }
}

/// Whether stage 2 has a granule, by its field: 0 is as stage 1, 1 is no.
const fn has_granule(field: u64, stage_1: bool) -> bool {
    field >= 2 || field == 0 && stage_1
}
