//! What L1's stage 2 and the VM's own allow together.
//!
//! [`Attributes::decode`] reads a leaf of L1's as L1 means it: by L1's HCR_EL2.FWB, and with
//! FEAT_MTE_PERM only if L1 is offered that. [`compose`] joins it with what the VM itself may do, and
//! the result is encoded with the features of the machine.

use addr::{BLOCK_1G, BLOCK_2M, Canonical, Ipa, Nested, PAGE_SIZE, Pa, Range};
use vmsa::attr::{Exec, S2Attr, S2Memory};

use crate::stage2::{Leaf, Offered};

/// A leaf of L1's, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The memory type, weakened to one that shadows have.
    pub memory: S2Memory,
    /// L2 may read.
    pub read: bool,
    /// L2 may write.
    pub write: bool,
    /// Who of L2 may execute.
    pub exec: Exec,
    /// MemAttr is a reserved value; it counts as write-back.
    pub reserved: bool,
}

impl Attributes {
    /// Decodes a leaf (D8.6.4 to D8.6.6, D8.4.3).
    ///
    /// Device-GRE and nGRE become nGnRE, and write-through and mixed Normal types non-cacheable: each
    /// is stricter, and none can be told from the other where HCR_EL2.FWB is 1. With L1's FWB,
    /// "as stage 1 says" becomes write-back: that is what the VM has of all its memory.
    #[must_use]
    pub const fn decode(leaf: u64, fwb: bool, offered: &Offered) -> Self {
        let (memory, reserved) = match decode_memory(leaf >> 2 & 0b1111, fwb, offered.mte_perm) {
            Some(memory) => (memory, false),
            None => (S2Memory::WriteBack, true),
        };
        // Without FEAT_XNX bit 53 is RES0.
        let exec = match (leaf >> 54 & 1 != 0, leaf >> 53 & 1 != 0 && offered.xnx) {
            (false, false) => Exec::All,
            (false, true) => Exec::El0,
            (true, false) => Exec::Nobody,
            (true, true) => Exec::El1,
        };
        Self { memory, read: leaf >> 6 & 1 != 0, write: leaf >> 7 & 1 != 0, exec, reserved }
    }

    /// Whether L1 says that it is a device.
    #[must_use]
    pub const fn is_device(&self) -> bool {
        is_device(self.memory)
    }

    /// Whether L1 forbids access to tags.
    #[must_use]
    pub const fn no_tag(&self) -> bool {
        matches!(self.memory, S2Memory::WriteBackNoTag)
    }
}

/// Whether a memory type is a Device type.
pub(crate) const fn is_device(memory: S2Memory) -> bool {
    rank(memory) < rank(S2Memory::NonCacheable)
}

/// MemAttr; `None` is a reserved value.
const fn decode_memory(mem_attr: u64, fwb: bool, mte_perm: bool) -> Option<S2Memory> {
    Some(match (mem_attr, fwb) {
        (0b0000, _) => S2Memory::DeviceNGnRnE,
        (0b0001..=0b0011, _) => S2Memory::DeviceNGnRE,
        (0b0101, _) => S2Memory::NonCacheable,
        (0b0100, false) if mte_perm => S2Memory::WriteBackNoTag,
        (0b1111, false) => S2Memory::WriteBack,
        (0b0110 | 0b0111 | 0b1001..=0b1011 | 0b1101 | 0b1110, false) => S2Memory::NonCacheable,
        (0b0110 | 0b0111, true) => S2Memory::WriteBack,
        (0b1110 | 0b1111, true) if mte_perm => S2Memory::WriteBackNoTag,
        _ => return None,
    })
}

/// A leaf of the VM's own stage 2: what the VM itself may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Where the address leads, offset included.
    pub pa: Pa,
    /// What the VM may do there.
    pub attr: S2Attr,
    /// Bytes of the leaf: 4 KiB, 2 MiB or 1 GiB.
    pub size: u64,
}

/// What a shadow maps at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// L2's physical addresses: one block of 1 GiB or 2 MiB, or pages of one 2 MiB.
    pub nested: Range<Ipa<Nested>>,
    /// L1's physical address of the start.
    pub canonical: Ipa<Canonical>,
    /// Physical address of the start.
    pub pa: Pa,
    /// What both allow.
    pub attr: S2Attr,
    /// Bytes of L1's leaf, or of its run of leaves.
    pub leaf: u64,
}

/// Joins L1's leaf with the VM's own at the address `ipa`: permissions that both grant, the stricter
/// memory type, the smaller block. `None` if an address is out of all ranges, which walks rule out.
#[must_use]
pub fn compose(ipa: Ipa<Nested>, leaf: &Leaf, own: &Own) -> Option<Mapping> {
    let both = leaf.size.min(own.size);
    let size = match both {
        BLOCK_1G.. => BLOCK_1G,
        BLOCK_2M.. => BLOCK_2M,
        // Pages of 16 or 64 KiB are mapped whole if the VM's block allows.
        PAGE_SIZE.. => both,
        _ => PAGE_SIZE,
    };
    let l1 = leaf.attributes;
    let attr = S2Attr {
        memory: stricter(l1.memory, own.attr.memory),
        read: l1.read && own.attr.read,
        write: l1.write && own.attr.write,
        exec: Exec::new(l1.exec.el1() && own.attr.exec.el1(), l1.exec.el0() && own.attr.exec.el0()),
    };
    let nested = Range::<Ipa<Nested>>::new(ipa.align_down(size), size)?;
    let (canonical, pa) = (leaf.output.align_down(size), own.pa.align_down(size));
    Some(Mapping { nested, canonical, pa, attr, leaf: leaf.size })
}

/// The stricter of two memory types. NoTagAccess is a permission of write-back memory; what is less
/// than that is never tagged.
#[must_use]
pub const fn stricter(a: S2Memory, b: S2Memory) -> S2Memory {
    if rank(a) < rank(b) { a } else { b }
}

const fn rank(memory: S2Memory) -> u8 {
    match memory {
        S2Memory::DeviceNGnRnE => 0,
        S2Memory::DeviceNGnRE => 1,
        S2Memory::NonCacheable => 2,
        S2Memory::WriteBackNoTag => 3,
        S2Memory::WriteBack => 4,
    }
}

#[cfg(test)]
mod tests;
