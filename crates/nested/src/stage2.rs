//! A walk of L1's stage 2 in software: from an L2 physical address to an L1 physical address.
//!
//! The tables are in L1's memory and may say anything, or change meanwhile: each read goes through
//! [`Tables`], which may refuse, and a walk takes at most four. Faults are those that L1 would see on
//! hardware, with the level of L1's own table (D8.3, D8.15, pseudocode AArch64.S2Translate).
//!
//! Deviations: addresses of at most 48 bits (no LPA2, as the VM's ID registers say); no permission
//! indirection or overlays; a T0SZ out of range is a fault rather than clamped, as is an input size
//! above the physical one (D8.2.5 leaves both open).

use addr::{Canonical, Ipa, Nested};

use crate::attributes::Attributes;

mod offered;
pub use offered::Offered;

/// L1's memory as walks of its tables see it.
pub trait Tables {
    /// The eight bytes at `ipa`, a multiple of 8, as a little-endian number; `None` if that is not
    /// memory that the VM may read.
    fn read(&self, ipa: Ipa<Canonical>) -> Option<u64>;
    /// Replaces the eight bytes at `ipa` by `new` if they are `old`, atomically, and returns what they
    /// were; `None` if that is not memory that the VM may write.
    fn compare_exchange(&self, ipa: Ipa<Canonical>, old: u64, new: u64) -> Option<u64>;
}

/// The registers that govern a walk, as L1 wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// VTTBR_EL2.
    pub vttbr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
    /// SCTLR_EL2.EE: the tables are big-endian.
    pub big_endian: bool,
    /// HCR_EL2.FWB.
    pub fwb: bool,
}

/// Who accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// EL0.
    El0,
    /// EL1.
    El1,
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load, or a read of a stage-1 table.
    Read,
    /// Store, or an update of a stage-1 table.
    Write,
    /// Instruction fetch.
    Execute(Privilege),
}

/// Why a walk ends without an address, or an access is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A table or output address is too large.
    AddressSize,
    /// Nothing is mapped.
    Translation,
    /// The access flag is clear, and hardware does not set it.
    AccessFlag,
    /// The leaf forbids the access.
    Permission,
    /// A table is not in memory that the VM may read, or, to be updated, write.
    External,
}

/// A fault of L1's stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub kind: FaultKind,
    /// Level of L1's table.
    pub level: u8,
}

impl Fault {
    /// The fault status code for ESR_EL2 and PAR_EL1 (D24.2).
    #[must_use]
    pub const fn status_code(self) -> u8 {
        let class = match self.kind {
            FaultKind::AddressSize => 0b0000,
            FaultKind::Translation => 0b0001,
            FaultKind::AccessFlag => 0b0010,
            FaultKind::Permission => 0b0011,
            FaultKind::External => 0b0101,
        };
        class << 2 | self.level & 0b11
    }
}

/// Why there is no leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// L1 gets this.
    Fault(Fault),
    /// L1 kept changing the descriptor that was to be updated: execute the instruction again.
    Retry,
}

/// What L1 mapped an address to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The address, offset included.
    pub output: Ipa<Canonical>,
    /// Level of L1's table.
    pub level: u8,
    /// Bytes that map alike around the address, a power of two: those of the leaf, or of a run of
    /// leaves with the contiguous bit.
    pub size: u64,
    /// What L1 allows, and as which memory type.
    pub attributes: Attributes,
    /// A write would turn it dirty, and so be allowed (VTCR_EL2.HD).
    pub clean: bool,
    /// The descriptor.
    pub descriptor: u64,
}

impl Leaf {
    /// Whether L1 allows the access.
    ///
    /// # Errors
    /// The permission fault that L1 gets.
    pub const fn check(&self, access: Access) -> Result<(), Fault> {
        let allowed = match access {
            Access::Read => self.attributes.read,
            Access::Write => self.attributes.write,
            Access::Execute(Privilege::El1) => self.attributes.exec.el1(),
            Access::Execute(Privilege::El0) => self.attributes.exec.el0(),
        };
        if allowed { Ok(()) } else { Err(Fault { kind: FaultKind::Permission, level: self.level }) }
    }
}

const AF: u64 = 1 << 10;
const WRITE: u64 = 1 << 7;
const DBM: u64 = 1 << 51;
const CONTIGUOUS: u64 = 1 << 52;

/// How often a walk starts again because L1 changed the descriptor that it updates.
const ATTEMPTS: u32 = 4;

const fn stop<T>(kind: FaultKind, level: u8) -> Result<T, Stop> {
    Err(Stop::Fault(Fault { kind, level }))
}

/// The low `n` bits, `n` below 64.
const fn low(n: u8) -> u64 {
    (1_u64 << (n & 63)).wrapping_sub(1)
}

/// VTCR_EL2 and VTTBR_EL2, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    base: u64,
    /// Width of the input address.
    input_bits: u8,
    /// Width of an output address.
    output_bits: u8,
    /// Width of the offset in a page: 12, 14 or 16.
    granule: u8,
    start: u8,
    set_access_flag: bool,
    set_dirty: bool,
}

/// Width of the offset in L1's pages: VTCR_EL2.TG0, the reserved value and granules that are not
/// offered counting as the largest one that is (D24.2: as any implemented one).
#[must_use]
pub const fn granule(vtcr: u64, offered: &Offered) -> u8 {
    match vtcr >> 14 & 0b11 {
        0b00 if offered.granule4 => 12,
        0b10 if offered.granule16 => 14,
        _ if offered.granule64 => 16,
        _ if offered.granule16 => 14,
        _ => 12,
    }
}

/// Width of L2's physical addresses: VTCR_EL2.T0SZ. May be out of range.
#[must_use]
pub const fn input_bits(vtcr: u64) -> u8 {
    64_u8.saturating_sub((vtcr & 0x3f) as u8)
}

impl Shape {
    /// `None`: the registers are inconsistent, which is a translation fault at level 0 (pseudocode
    /// AArch64.S2TxSZFaults, S2InvalidSL, S2InconsistentSL).
    const fn new(registers: &Registers, offered: &Offered) -> Option<Self> {
        let vtcr = registers.vtcr;
        let granule = granule(vtcr, offered);
        let input_bits = input_bits(vtcr);
        let least = if offered.small { 16 } else { 25 };
        if input_bits < least || input_bits > 48 || input_bits > offered.pa_bits {
            return None;
        }
        let start = match (granule, vtcr >> 6 & 0b11) {
            (12, 0) => 2,
            (12, 1) => 1,
            (12, 2) if offered.pa_bits >= 44 => 0,
            (12, 3) if offered.small => 3,
            (14, 0) | (16, 0) => 3,
            (14, 1) | (16, 1) => 2,
            (14, 2) if offered.pa_bits >= 42 => 1,
            (16, 2) if offered.pa_bits >= 44 => 1,
            _ => return None,
        };
        let stride = granule.wrapping_sub(3);
        // One bit at least is the first table's to translate; up to 16 tables may stand side by side.
        let below = 3_u8.wrapping_sub(start).wrapping_mul(stride).wrapping_add(granule);
        if input_bits <= below || input_bits > below.wrapping_add(stride).wrapping_add(4) {
            return None;
        }
        let size = match vtcr >> 16 & 0b111 {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            _ => 48,
        };
        let set_access_flag = offered.access_flag && vtcr >> 21 & 1 != 0;
        Some(Self {
            // Bit 0 is CnP.
            base: registers.vttbr & low(48) & !1,
            input_bits,
            output_bits: if size < offered.pa_bits { size } else { offered.pa_bits },
            granule,
            start,
            set_access_flag,
            set_dirty: set_access_flag && offered.dirty_state && vtcr >> 22 & 1 != 0,
        })
    }

    /// Lowest address bit that indexes a table of `level`.
    const fn shift(&self, level: u8) -> u8 {
        let stride = self.granule.wrapping_sub(3);
        3_u8.wrapping_sub(level).wrapping_mul(stride).wrapping_add(self.granule)
    }

    /// Whether a leaf may stand at `level` (D8.3.1, without 52-bit addresses).
    const fn has_leaves(&self, level: u8) -> bool {
        level == 3 || level == 2 || level == 1 && self.granule == 12
    }

    const fn fits(&self, output: u64) -> bool {
        output >> self.output_bits == 0
    }

    /// Bits of offset in a run of leaves with the contiguous bit (D8.7.1), where this makes a block of
    /// 2 MiB or 1 GiB possible that one leaf is too small for.
    const fn run(&self, level: u8) -> u8 {
        let shift = self.shift(level);
        match (self.granule, level) {
            (14, 3) => 21,
            (14, 2) => 30,
            (16, 3) => 21,
            (16, 2) => 34,
            _ => shift,
        }
    }
}

/// What is found at a level.
enum Step {
    Table(u64),
    Leaf(Leaf),
    /// L1 changed the descriptor meanwhile.
    Raced,
}

/// Walks L1's tables for `ipa`. `write`: the access is a write, so a clean leaf turns dirty where
/// VTCR_EL2.HD says so; VTCR_EL2.HA sets the access flag. Permissions are not checked: see
/// [`Leaf::check`].
///
/// # Errors
/// [`Stop::Fault`], in the manual's order: translation, address size, access flag; [`Stop::Retry`].
pub fn walk(
    tables: &dyn Tables,
    registers: &Registers,
    offered: &Offered,
    ipa: Ipa<Nested>,
    write: bool,
) -> Result<Leaf, Stop> {
    let Some(shape) = Shape::new(registers, offered) else { return stop(FaultKind::Translation, 0) };
    if ipa.get() >> shape.input_bits != 0 {
        return stop(FaultKind::Translation, 0);
    }
    // The root is aligned to its size; what lies below is RES0.
    let root_bits = shape.input_bits.saturating_sub(shape.shift(shape.start)).saturating_add(3);
    let root = shape.base & !low(root_bits);
    if !shape.fits(root) {
        return stop(FaultKind::AddressSize, 0);
    }
    for _ in 0..ATTEMPTS {
        let (mut table, mut level, mut index) = (root, shape.start, ipa.get());
        loop {
            let entry = Ipa::new(table | index >> shape.shift(level) << 3);
            let look = Lookup { tables, registers, offered, shape: &shape, entry, level, write };
            match look.step(ipa)? {
                Step::Table(next) => {
                    index = ipa.get() & low(shape.shift(level));
                    (table, level) = (next, level.wrapping_add(1));
                }
                Step::Leaf(leaf) => return Ok(leaf),
                Step::Raced => break,
            }
        }
    }
    Err(Stop::Retry)
}

/// One level of a walk.
struct Lookup<'a> {
    tables: &'a dyn Tables,
    registers: &'a Registers,
    offered: &'a Offered,
    shape: &'a Shape,
    entry: Ipa<Canonical>,
    level: u8,
    write: bool,
}

impl Lookup<'_> {
    fn step(&self, ipa: Ipa<Nested>) -> Result<Step, Stop> {
        let (shape, level) = (self.shape, self.level);
        let Some(raw) = self.tables.read(self.entry) else { return stop(FaultKind::External, level) };
        let descriptor = self.ordered(raw);
        let high = descriptor & 0b10 != 0;
        let is_table = level < 3 && high;
        let is_leaf = shape.has_leaves(level) && high == (level == 3);
        if descriptor & 1 == 0 || !(is_table || is_leaf) {
            return stop(FaultKind::Translation, level);
        }
        let offset_bits = if is_table { shape.granule } else { shape.shift(level) };
        let output = descriptor & low(48) & !low(offset_bits);
        if !shape.fits(output) {
            return stop(FaultKind::AddressSize, level);
        }
        if is_table {
            return Ok(Step::Table(output));
        }
        let mut new = descriptor;
        if descriptor & AF == 0 {
            if !shape.set_access_flag {
                return stop(FaultKind::AccessFlag, level);
            }
            new |= AF;
        }
        if shape.set_dirty && self.write && descriptor & DBM != 0 {
            new |= WRITE;
        }
        if new != descriptor {
            match self.tables.compare_exchange(self.entry, raw, self.ordered(new)) {
                None => return stop(FaultKind::External, level),
                Some(found) if found != raw => return Ok(Step::Raced),
                Some(_) => {}
            }
        }
        Ok(Step::Leaf(self.leaf(new, output, ipa)))
    }

    fn leaf(&self, descriptor: u64, output: u64, ipa: Ipa<Nested>) -> Leaf {
        let shape = self.shape;
        let shift = shape.shift(self.level);
        // In a run, leaves may differ in their dirty state: then each is its own.
        let clean = shape.set_dirty && descriptor & DBM != 0;
        let run = if descriptor & CONTIGUOUS != 0 && !clean { shape.run(self.level) } else { shift };
        // A run of leaves whose addresses do not run is L1's error; each is its own too.
        let runs = (output ^ ipa.get()) & low(run) & !low(shift) == 0 && run <= shape.input_bits;
        let size_bits = if runs { run } else { shift };
        Leaf {
            output: Ipa::new(output | ipa.get() & low(shift)),
            level: self.level,
            size: 1 << size_bits,
            attributes: Attributes::decode(descriptor, self.registers.fwb, self.offered),
            clean,
            descriptor,
        }
    }

    /// A descriptor in the byte order of the tables.
    const fn ordered(&self, value: u64) -> u64 {
        if self.registers.big_endian { value.swap_bytes() } else { value }
    }
}

#[cfg(test)]
pub(crate) mod tests;
