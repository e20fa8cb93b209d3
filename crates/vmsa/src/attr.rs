//! Stage-2 attributes: what a leaf lets the guest do, and its one encoding.
//!
//! The field MemAttr (5:2) means different things with and without FEAT_S2FWB: 0b1111 is plain
//! write-back without it, and write-back *without tag access* with it (D8.6.4 to D8.6.6). So nothing
//! else in the tree knows the field's values, and [`S2Attr::encode`] has an inverse.

use crate::descriptor::{AF, Shareability};

const MEM_ATTR_SHIFT: u32 = 2;
const MEM_ATTR: u64 = 0b1111 << MEM_ATTR_SHIFT;
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;
const SH: u64 = 0b11 << 8;
const XN_SHIFT: u32 = 53;
const XN: u64 = 0b11 << XN_SHIFT;

/// Memory type that stage 2 imposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum S2Memory {
    /// Normal write-back. With FWB it is forced, whatever stage 1 says: the memory is coherent
    /// with what the hypervisor wrote, and no guest can make it otherwise.
    WriteBack,
    /// The same with the permission NoTagAccess: a tag access traps (FEAT_MTE_PERM).
    WriteBackNoTag,
    /// Normal non-cacheable at most; accesses are never tag-checked.
    NonCacheable,
    /// Device-nGnRE at most.
    DeviceNGnRE,
    /// Device-nGnRnE.
    DeviceNGnRnE,
}

impl S2Memory {
    /// The leaf bits that say the type, and their value.
    ///
    /// # Errors
    /// [`AttrError::NoMtePerm`]; never silently another memory type.
    pub(crate) const fn encode(self, features: S2Features) -> Result<(u64, u64), AttrError> {
        let (mem_attr, sh) = match (self, features.fwb) {
            (Self::WriteBackNoTag, _) if !features.mte_perm => return Err(AttrError::NoMtePerm),
            (Self::WriteBack, false) => (0b1111, Shareability::Inner),
            (Self::WriteBack, true) => (0b0110, Shareability::Inner),
            (Self::WriteBackNoTag, false) => (0b0100, Shareability::Inner),
            (Self::WriteBackNoTag, true) => (0b1110, Shareability::Inner),
            (Self::NonCacheable, _) => (0b0101, Shareability::Outer),
            (Self::DeviceNGnRE, _) => (0b0001, Shareability::Non),
            (Self::DeviceNGnRnE, _) => (0b0000, Shareability::Non),
        };
        Ok((MEM_ATTR | SH, sh.bits() | mem_attr << MEM_ATTR_SHIFT))
    }
}

/// Who may execute, as XN(1:0) says (D8.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exec {
    /// EL1 and EL0.
    All = 0b00,
    /// EL0 only; without FEAT_XNX the CPU takes it for [`All`](Self::All).
    El0 = 0b01,
    /// Nobody.
    Nobody = 0b10,
    /// EL1 only; without FEAT_XNX the CPU takes it for [`Nobody`](Self::Nobody).
    El1 = 0b11,
}

impl Exec {
    /// By who may.
    #[must_use]
    pub const fn new(el1: bool, el0: bool) -> Self {
        match (el1, el0) {
            (true, true) => Self::All,
            (false, true) => Self::El0,
            (false, false) => Self::Nobody,
            (true, false) => Self::El1,
        }
    }

    /// Whether EL1 may.
    #[must_use]
    pub const fn el1(self) -> bool {
        matches!(self, Self::All | Self::El1)
    }

    /// Whether EL0 may.
    #[must_use]
    pub const fn el0(self) -> bool {
        matches!(self, Self::All | Self::El0)
    }
}

/// What the CPUs can do that changes the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct S2Features {
    /// `HCR_EL2.FWB` is 1 while these tables are in use.
    pub fwb: bool,
    /// FEAT_MTE_PERM: NoTagAccess exists.
    pub mte_perm: bool,
}

/// Attributes of a stage-2 leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct S2Attr {
    /// Memory type.
    pub memory: S2Memory,
    /// The guest may read.
    pub read: bool,
    /// The guest may write.
    pub write: bool,
    /// Who may execute.
    pub exec: Exec,
}

/// Why attributes have no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrError {
    /// Memory without tag access needs FEAT_MTE_PERM, which the machine lacks.
    NoMtePerm,
}

impl S2Attr {
    /// The leaf bit that allows stores.
    pub(crate) const WRITE: u64 = WRITE;

    /// Read, write and execute.
    #[must_use]
    pub const fn rwx(memory: S2Memory) -> Self {
        Self { memory, read: true, write: true, exec: Exec::All }
    }

    /// Read and execute.
    #[must_use]
    pub const fn rx(memory: S2Memory) -> Self {
        Self { memory, read: true, write: false, exec: Exec::All }
    }

    /// Read and write.
    #[must_use]
    pub const fn rw(memory: S2Memory) -> Self {
        Self { memory, read: true, write: true, exec: Exec::Nobody }
    }

    /// The attribute bits of a leaf: everything but address, type and valid bit (D8.3.2).
    ///
    /// # Errors
    /// [`AttrError::NoMtePerm`]; never silently another memory type.
    pub const fn encode(self, features: S2Features) -> Result<u64, AttrError> {
        let memory = match self.memory.encode(features) {
            Ok((_, bits)) => bits,
            Err(error) => return Err(error),
        };
        let exec = (self.exec as u64) << XN_SHIFT;
        let mut bits = AF | memory | exec;
        if self.read {
            bits |= READ;
        }
        if self.write {
            bits |= WRITE;
        }
        Ok(bits)
    }

    /// The attributes in a leaf, or `None` if [`encode`](Self::encode) makes none of this kind
    /// with these features: a reserved MemAttr, or a type that no mapping here uses.
    #[must_use]
    pub const fn decode(leaf: u64, features: S2Features) -> Option<Self> {
        let S2Features { fwb, mte_perm } = features;
        let memory = match ((leaf & MEM_ATTR) >> MEM_ATTR_SHIFT, fwb) {
            (0b0000, _) => S2Memory::DeviceNGnRnE,
            (0b0001, _) => S2Memory::DeviceNGnRE,
            (0b0101, _) => S2Memory::NonCacheable,
            (0b1111, false) | (0b0110, true) => S2Memory::WriteBack,
            (0b0100, false) | (0b1110, true) if mte_perm => S2Memory::WriteBackNoTag,
            _ => return None,
        };
        let exec = match (leaf & XN) >> XN_SHIFT {
            0b00 => Exec::All,
            0b01 => Exec::El0,
            0b10 => Exec::Nobody,
            _ => Exec::El1,
        };
        let attr = Self { memory, read: leaf & READ != 0, write: leaf & WRITE != 0, exec };
        match attr.encode(features) {
            Ok(bits) if bits & (SH | AF) == leaf & (SH | AF) => Some(attr),
            Ok(_) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use S2Memory::*;

    const FEATURES: [S2Features; 4] = [
        S2Features { fwb: false, mte_perm: false },
        S2Features { fwb: false, mte_perm: true },
        S2Features { fwb: true, mte_perm: false },
        S2Features { fwb: true, mte_perm: true },
    ];

    /// MemAttr; meaning for FWB=0 and FWB=1, without and with MTE_PERM; D8.6.5 and D8.6.6.
    /// `None` is a reserved value, or a type that no mapping uses.
    #[rustfmt::skip]
    const TABLE: [[Option<S2Memory>; 4]; 16] = [
        /* 0000 */ [Some(DeviceNGnRnE), Some(DeviceNGnRnE), Some(DeviceNGnRnE), Some(DeviceNGnRnE)],
        /* 0001 */ [Some(DeviceNGnRE), Some(DeviceNGnRE), Some(DeviceNGnRE), Some(DeviceNGnRE)],
        /* 0010 nGRE */ [None; 4],
        /* 0011 GRE  */ [None; 4],
        /* 0100 */ [None, Some(WriteBackNoTag), None, None],
        /* 0101 */ [Some(NonCacheable), Some(NonCacheable), Some(NonCacheable), Some(NonCacheable)],
        /* 0110 outer NC inner WT */ [None, None, Some(WriteBack), Some(WriteBack)],
        /* 0111 outer NC inner WB, stage 1's */ [None; 4],
        /* 1000 */ [None; 4],
        /* 1001 */ [None; 4],
        /* 1010 */ [None; 4],
        /* 1011 */ [None; 4],
        /* 1100 */ [None; 4],
        /* 1101 */ [None; 4],
        /* 1110 */ [None, None, None, Some(WriteBackNoTag)],
        /* 1111 stage 1's without tag access with FWB */ [Some(WriteBack), Some(WriteBack), None, None],
    ];

    #[test]
    fn every_mem_attr_means_what_the_manual_says() {
        for (value, row) in TABLE.iter().enumerate() {
            for (features, expected) in FEATURES.into_iter().zip(row) {
                // Try all shareabilities: a leaf of ours has exactly one of them.
                let found: std::vec::Vec<_> = (0..4_u64)
                    .filter_map(|sh| S2Attr::decode((value as u64) << 2 | sh << 8 | AF | READ, features))
                    .map(|attr| attr.memory)
                    .collect();
                assert_eq!(
                    found,
                    expected.iter().copied().collect::<std::vec::Vec<_>>(),
                    "{value:#06b} {features:?}"
                );
            }
        }
    }

    #[test]
    fn decode_inverts_encode() {
        for features in FEATURES {
            for memory in [WriteBack, WriteBackNoTag, NonCacheable, DeviceNGnRE, DeviceNGnRnE] {
                for rights in 0..16 {
                    let (read, write) = (rights & 1 != 0, rights & 2 != 0);
                    let exec = Exec::new(rights & 4 != 0, rights & 8 != 0);
                    assert_eq!((exec.el1(), exec.el0()), (rights & 4 != 0, rights & 8 != 0));
                    let attr = S2Attr { memory, read, write, exec };
                    match attr.encode(features) {
                        Ok(bits) => {
                            assert_eq!(S2Attr::decode(bits, features), Some(attr));
                            assert_eq!(bits & !(MEM_ATTR | READ | WRITE | SH | AF | XN), 0);
                        }
                        Err(AttrError::NoMtePerm) => {
                            assert!(memory == WriteBackNoTag && !features.mte_perm);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_tag_access_is_never_silently_write_back() {
        for features in FEATURES {
            let plain = S2Attr::rwx(WriteBack).encode(features).unwrap();
            match S2Attr::rwx(WriteBackNoTag).encode(features) {
                Ok(bits) => assert!(features.mte_perm && bits != plain),
                Err(AttrError::NoMtePerm) => assert!(!features.mte_perm),
            }
        }
    }

    #[test]
    fn execute_never_is_by_exception_level() {
        let xn = |exec| {
            let attr = S2Attr { exec, ..S2Attr::rwx(WriteBack) };
            attr.encode(FEATURES[0]).unwrap() >> 53 & 0b11
        };
        assert_eq!([Exec::All, Exec::El0, Exec::Nobody, Exec::El1].map(xn), [0b00, 0b01, 0b10, 0b11]);
    }
}
