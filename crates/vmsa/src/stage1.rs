//! The hypervisor's own stage 1: EL2 with E2H=0, one 48-bit range in `TTBR0_EL2`, walked from
//! level 0.
//!
//! Writable and executable exclude each other by type ([`Perm`]). The code needs no MMU and no
//! atomics, because it also builds the tables that switch the MMU on.

use addr::{Pa, Va};

use crate::descriptor::{AF, Level, Shareability, leaf as leaf_descriptor, physical_size};
use crate::memory::{TableMemory, Tlb};
use crate::tree::{Change, MapError, Tree};

/// Range of virtual addresses.
pub type VaRange = addr::Range<Va>;

/// What EL2 may do with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Perm {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    Execute,
}

/// Memory type; the value is its index in [`MAIR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Normal write-back.
    Normal = 0,
    /// Normal write-back with allocation tags.
    Tagged = 1,
    /// Normal non-cacheable.
    NonCacheable = 2,
    /// Device-nGnRE; never executable.
    Device = 3,
}

/// `MAIR_EL2` (D24.2): the attribute of each [`Memory`], lowest byte first.
pub const MAIR: u64 = u64::from_le_bytes([0xff, 0xf0, 0x44, 0x04, 0, 0, 0, 0]);

/// AP(1), RES1 in a regime of one privilege level (D8.4.1).
const AP1: u64 = 1 << 6;
/// AP(2): read-only.
const READ_ONLY: u64 = 1 << 7;
/// Execute-never; PXN is RES0 here.
const XN: u64 = 1 << 54;

/// The whole `TCR_EL2` for E2H=0 (D24.2) on a machine with `pa_bits` of physical address: T0SZ 16,
/// 4 KiB granule, walks inner shareable and write-back, top byte ignored, so that EL2 can address
/// tagged memory. `None` if no PARange says `pa_bits`.
#[must_use]
pub const fn tcr(pa_bits: u8) -> Option<u64> {
    let Some(ps) = physical_size(pa_bits) else { return None };
    let (t0sz, irgn0, orgn0, sh0) = (16, 0b01 << 8, 0b01 << 10, 0b11 << 12);
    let (tbi, res1) = (1 << 20, 1 << 31 | 1 << 23);
    Some(t0sz | irgn0 | orgn0 | sh0 | ps << 16 | tbi | res1)
}

/// Attribute bits of a leaf (D8.3.1).
#[inline(always)]
const fn attributes(perm: Perm, memory: Memory) -> u64 {
    let shareability = match memory {
        Memory::Normal | Memory::Tagged => Shareability::Inner,
        Memory::NonCacheable => Shareability::Outer,
        Memory::Device => Shareability::Non,
    };
    let access = match (perm, memory) {
        (Perm::ReadOnly, _) | (Perm::Execute, Memory::Device) => READ_ONLY | XN,
        (Perm::ReadWrite, _) => XN,
        (Perm::Execute, Memory::Normal | Memory::Tagged | Memory::NonCacheable) => READ_ONLY,
    };
    (memory as u64) << 2 | AP1 | access | shareability.bits() | AF
}

/// The leaf that maps `pa`, aligned to the size of `level`; for a window whose entry is rewritten
/// in place.
#[inline(always)]
#[must_use]
pub const fn leaf(pa: Pa, perm: Perm, memory: Memory, level: Level) -> u64 {
    leaf_descriptor(pa.get(), attributes(perm, memory), level)
}

/// EL2's tables.
#[derive(Debug)]
pub struct Stage1 {
    tree: Tree<Va>,
}

impl Stage1 {
    /// Tables that map nothing, for a machine with `pa_bits` of physical address; `None` without
    /// memory for the root.
    pub fn new(mem: &mut impl TableMemory, pa_bits: u8) -> Option<Self> {
        Some(Self { tree: Tree::new(mem, Level::Zero, 1, 48, pa_bits.min(48))? })
    }

    /// The whole `TTBR0_EL2`, CnP clear.
    #[must_use]
    pub const fn ttbr(&self) -> u64 {
        self.tree.root().get()
    }

    /// Maps `range`, which is unmapped, to memory from `pa` on, in the largest blocks.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub fn map(
        &mut self,
        mem: &mut dyn TableMemory,
        tlb: &mut impl Tlb<Va>,
        range: VaRange,
        pa: Pa,
        perm: Perm,
        memory: Memory,
    ) -> Result<(), MapError<Va>> {
        let change = Change::Map { pa, attributes: attributes(perm, memory) };
        self.tree.plan(mem, range, change).map(|plan| plan.commit(tlb))
    }

    /// Changes what EL2 may do with `range`, all of which is mapped. The code that runs this, its
    /// stack and the tables must stay mapped throughout: a change that splits or joins the block
    /// around them, or alters their memory type, makes them invalid for a moment.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub fn protect(
        &mut self,
        mem: &mut dyn TableMemory,
        tlb: &mut impl Tlb<Va>,
        range: VaRange,
        perm: Perm,
        memory: Memory,
    ) -> Result<(), MapError<Va>> {
        let change = Change::Update { keep: 0, set: attributes(perm, memory) };
        self.tree.plan(mem, range, change).map(|plan| plan.commit(tlb))
    }

    /// Unmaps what is mapped in `range`. See [`protect`](Self::protect) for what must stay mapped.
    ///
    /// # Errors
    /// [`MapError::OutOfTables`] if a block must be split; a misaligned or too high range.
    pub fn unmap(
        &mut self,
        mem: &mut dyn TableMemory,
        tlb: &mut impl Tlb<Va>,
        range: VaRange,
    ) -> Result<(), MapError<Va>> {
        self.tree.plan(mem, range, Change::Unmap).map(|plan| plan.commit(tlb))
    }

    /// Where `va` leads: the leaf's descriptor, the address, and the leaf's level.
    #[must_use]
    pub fn walk(&self, mem: &impl TableMemory, va: Va) -> Option<(u64, Pa, Level)> {
        self.tree.walk(mem, va)
    }

    /// Where the level-3 descriptor of `va` lies, for a window whose entry is rewritten in place;
    /// `None` if no level-3 table covers it. A mapping made once and never removed keeps it.
    #[must_use]
    pub fn page_entry(&self, mem: &impl TableMemory, va: Va) -> Option<Pa> {
        self.tree.page_entry(mem, va)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Recorder};
    use crate::memory::Unused;

    fn range(start: u64, size: u64) -> VaRange {
        VaRange::new(Va::new(start), size).unwrap()
    }

    #[test]
    fn registers() {
        assert_eq!(MAIR, 0x0444_f0ff);
        // Fields one by one: T0SZ=16, IRGN0=ORGN0=1, SH0=3, TG0=0, PS, TBI, RES1 23 and 31.
        assert_eq!(tcr(40), Some(0x8090_0000 | 2 << 16 | 0x3510));
        assert_eq!(tcr(52), tcr(48));
        assert_eq!(tcr(41), None);
    }

    #[test]
    fn leaves_bit_by_bit() {
        let page = leaf(Pa::new(0x8000_3000), Perm::ReadWrite, Memory::Tagged, Level::Three);
        assert_eq!(page, 0x8000_3000 | 1 << 54 | 1 << 10 | 0b11 << 8 | 1 << 6 | 1 << 2 | 0b11);
        let block = leaf(Pa::new(0x4000_0000), Perm::Execute, Memory::Normal, Level::Two);
        assert_eq!(block, 0x4000_0000 | 1 << 10 | 0b11 << 8 | 1 << 7 | 1 << 6 | 0b01);
        let device = leaf(Pa::new(0x900_0000), Perm::ReadWrite, Memory::Device, Level::Three);
        assert_eq!(device, 0x900_0000 | 1 << 54 | 1 << 10 | 1 << 6 | 3 << 2 | 0b11);
    }

    #[test]
    fn nothing_is_writable_and_executable() {
        for perm in [Perm::ReadOnly, Perm::ReadWrite, Perm::Execute] {
            for memory in [Memory::Normal, Memory::Tagged, Memory::NonCacheable, Memory::Device] {
                let bits = attributes(perm, memory);
                assert!(bits & READ_ONLY != 0 || bits & XN != 0, "{perm:?} {memory:?}");
                assert!(memory != Memory::Device || bits & XN != 0);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it unmaps all that there is")]
    fn an_image_with_guard_pages() {
        let mut mem = Fake::default();
        let mut tables = Stage1::new(&mut mem, 40).unwrap();
        let base = 0x4020_0000;
        let text = range(base, 0x1_0000);
        tables.map(&mut mem, &mut Unused, text, Pa::new(base), Perm::Execute, Memory::Normal).unwrap();
        let stack = range(base + 0x1_1000, 0x4000);
        let at = stack.start().get();
        tables.map(&mut mem, &mut Unused, stack, Pa::new(at), Perm::ReadWrite, Memory::Normal).unwrap();
        assert!(tables.walk(&mem, Va::new(base + 0x1_0fff)).is_none(), "guard page");
        let (leaf, pa, level) = tables.walk(&mem, Va::new(base + 0x123)).unwrap();
        assert_eq!((pa, level, leaf & XN), (Pa::new(base + 0x123), Level::Three, 0));
        assert_eq!(tables.walk(&mem, Va::new(1 << 48)), None);
        let entry = tables.page_entry(&mem, Va::new(base)).unwrap();
        assert_eq!(mem.read(entry), leaf);
        assert_eq!(tables.page_entry(&mem, Va::new(0)), None);

        // Relocated data becomes read-only in place: no break, one flush.
        let mut tlb = Recorder::default();
        tables.protect(&mut mem, &mut tlb, stack, Perm::ReadOnly, Memory::Normal).unwrap();
        assert_eq!((tlb.flushes.len(), mem.broken_rules), (1, 0));
        tables.unmap(&mut mem, &mut tlb, range(0, 1 << 48)).unwrap();
        assert_eq!(mem.tables(), 1);
    }
}
