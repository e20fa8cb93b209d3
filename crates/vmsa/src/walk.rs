//! A walk of a guest's stage 1 in software, for the accesses whose IPA the CPU did not report, and for
//! address translation that a guest hypervisor asks for: EL1&0, EL2&0, which is alike, and EL2.
//!
//! The tables are the guest's and may say anything: every read goes through [`GuestMemory`], which
//! may refuse, and a walk takes at most four of them. Deviations from the manual: no 52-bit
//! addresses, no permission indirection or overlays (FEAT_S1PIE, FEAT_S1POE: hidden from guests). A
//! reserved granule counts as 4 KiB and a region size out of range as a fault, both choices that
//! D8.2.1 leaves open.

use core::cell::Cell;

use addr::{Canonical, Ipa, Va};

/// A VM's memory as its table walks see it; `Ipa<S>` is what stage 1 gives.
pub trait GuestMemory<S = Canonical> {
    /// The eight bytes at `ipa`, a multiple of 8, as a little-endian number; `None` if that is not
    /// memory that the VM may read.
    fn read_u64(&self, ipa: Ipa<S>) -> Option<u64>;
}

/// The registers that govern the walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regime {
    /// `TCR_EL1`.
    pub tcr: u64,
    /// `TTBR0_EL1`.
    pub ttbr0: u64,
    /// `TTBR1_EL1`.
    pub ttbr1: u64,
    /// `SCTLR_EL1`.
    pub sctlr: u64,
    /// `MAIR_EL1`.
    pub mair: u64,
    /// `PSTATE.PAN`.
    pub pan: bool,
    /// The regime is EL2's, without EL0 (`HCR_EL2.E2H` 0): one range of addresses and one privilege.
    /// `tcr` and `sctlr` have the format of EL1 all the same, see [`el2_tcr`].
    pub el2: bool,
}

/// TCR_EL2 with `HCR_EL2.E2H` 0, in the format of TCR_EL1: the upper half disabled, ASIDs without
/// meaning (D24.2, both registers).
#[must_use]
pub const fn el2_tcr(tcr: u64) -> u64 {
    const EPD1: u64 = 1 << 23;
    // T0SZ, IRGN0, ORGN0, SH0, TG0.
    let low = tcr & 0xff3f;
    // PS; TBI; HA, HD; HPD; TBID; TCMA.
    let moved = [(16, 0b111, 32), (20, 1, 37), (21, 0b11, 39), (24, 1, 41), (29, 1, 51), (30, 1, 57)];
    let (mut new, mut rest) = (low | EPD1, moved.as_slice());
    while let [(from, mask, to), tail @ ..] = rest {
        new |= (tcr >> *from & *mask) << *to;
        rest = tail;
    }
    new
}

/// Who accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// EL0, or an unprivileged access of EL1.
    El0,
    /// EL1.
    El1,
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Instruction fetch.
    Execute,
}

/// What the accessing exception level may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Load.
    pub read: bool,
    /// Store.
    pub write: bool,
    /// Fetch instructions.
    pub exec: bool,
}

impl Permissions {
    const ALL: Self = Self { read: true, write: true, exec: true };

    const fn allow(self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
            Access::Execute => self.exec,
        }
    }
}

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<S = Canonical> {
    /// The address, offset within the page included.
    pub ipa: Ipa<S>,
    /// Memory attributes in the encoding of a `MAIR_EL1` byte.
    pub memory: u8,
    /// Shareability, as the leaf has it: 0 none, 2 outer, 3 inner.
    pub shareability: u8,
    /// What the exception level may do there.
    pub permissions: Permissions,
    /// Level of the leaf; 0 with the MMU off.
    pub level: u8,
}

/// Why a walk ends without an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind<S = Canonical> {
    /// An address beyond `TCR_EL1.IPS`.
    AddressSize,
    /// Nothing is mapped.
    Translation,
    /// The access flag is clear, and hardware does not set it.
    AccessFlag,
    /// The access is not allowed.
    Permission,
    /// A table is not in readable memory.
    TableRead(Ipa<S>),
}

/// A fault of the guest's stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage1Fault<S = Canonical> {
    /// Why.
    pub kind: FaultKind<S>,
    /// Level of lookup.
    pub level: u8,
}

impl<S> Stage1Fault<S> {
    /// The fault status code for `ESR_EL1` (D24.2): a table that cannot be read is a synchronous
    /// external abort on a walk.
    #[must_use]
    pub const fn status_code(&self) -> u8 {
        let class = match self.kind {
            FaultKind::AddressSize => 0b00 << 2,
            FaultKind::Translation => 0b01 << 2,
            FaultKind::AccessFlag => 0b10 << 2,
            FaultKind::Permission => 0b11 << 2,
            FaultKind::TableRead(_) => 0b101 << 2,
        };
        class | self.level & 0b11
    }
}

const fn fault<T, S: Copy>(kind: FaultKind<S>, level: u32) -> Result<T, Stage1Fault<S>> {
    Err(Stage1Fault { kind, level: level as u8 & 0b11 })
}

const fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 != 0
}

/// The low `n` bits; `n` is below 64.
const fn low(n: u32) -> u64 {
    (1_u64 << (n & 63)).wrapping_sub(1)
}

/// One half of the address space as TCR_EL1 describes it.
struct Half {
    ttbr: u64,
    /// Width of the addresses that it translates.
    bits: u32,
    /// Width of the offset in a page.
    granule: u32,
    top_byte_ignored: bool,
    disabled: bool,
    no_hierarchy: bool,
}

impl Half {
    fn new(regime: &Regime, upper: bool, privilege: Privilege, access: Access) -> Self {
        let tcr = regime.tcr;
        let pick = |lower_bit, upper_bit| bit(tcr, if upper { upper_bit } else { lower_bit });
        let granule = match (upper, tcr >> if upper { 30 } else { 14 } & 0b11) {
            (false, 0b01) | (true, 0b11) => 16,
            (false, 0b10) | (true, 0b01) => 14,
            _ => 12,
        };
        let size = (tcr >> if upper { 16 } else { 0 } & 0x3f) as u32;
        let data_only = access == Access::Execute && pick(51, 52);
        let hidden_from_el0 = privilege == Privilege::El0 && pick(55, 56);
        Self {
            ttbr: if upper { regime.ttbr1 } else { regime.ttbr0 },
            bits: 64_u32.saturating_sub(size),
            granule,
            top_byte_ignored: pick(37, 38) && !data_only,
            disabled: pick(7, 23) || hidden_from_el0,
            no_hierarchy: pick(41, 42),
        }
    }

    /// Whether `va` lies in the half and the half can be walked at all.
    fn covers(&self, va: u64, upper: bool) -> bool {
        // FEAT_TTST allows the smallest sizes; without it the guest gets what it asked for.
        let size_ok = self.bits <= 48 && self.bits >= 16_u32.max(self.granule.saturating_add(1));
        let top = if self.top_byte_ignored { 56 } else { 64 };
        let sign = if upper { u64::MAX } else { 0 };
        let mask = if top == 64 { u64::MAX } else { low(top) } & !low(self.bits);
        size_ok && !self.disabled && va & mask == sign & mask
    }

    /// Address bits that one table translates.
    const fn stride(&self) -> u32 {
        self.granule.wrapping_sub(3)
    }

    /// Lowest address bit that indexes a table of `level`.
    const fn shift(&self, level: u32) -> u32 {
        3_u32.saturating_sub(level).wrapping_mul(self.stride()).wrapping_add(self.granule)
    }

    /// The level of the first table: as many as it takes to translate all bits above the page's.
    const fn start_level(&self) -> u32 {
        let levels = self.bits.saturating_sub(self.granule).div_ceil(self.stride());
        4_u32.saturating_sub(levels)
    }

    /// Whether a leaf may stand at `level` (D8.3.1, without 52-bit addresses).
    const fn has_leaves(&self, level: u32) -> bool {
        level == 3 || level == 2 || level == 1 && self.granule == 12
    }
}

/// Width of an output address by `TCR_EL1.IPS`; larger ones need 52-bit support.
const fn output_bits(tcr: u64) -> u32 {
    match tcr >> 32 & 0b111 {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}

/// Translates `va` as the CPU would for this access.
///
/// # Errors
/// The fault that the guest would take, in the manual's order of priority (D8.15): translation,
/// address size, access flag, permission.
pub fn translate<S: Copy>(
    memory: &dyn GuestMemory<S>,
    regime: &Regime,
    va: Va,
    privilege: Privilege,
    access: Access,
) -> Result<Translation<S>, Stage1Fault<S>> {
    let va = va.get();
    let upper = bit(va, 55) && !regime.el2;
    let half = Half::new(regime, upper, privilege, access);
    if !bit(regime.sctlr, 0) {
        return flat(regime, &half, va, access);
    }
    if !half.covers(va, upper) {
        return fault(FaultKind::Translation, 0);
    }
    let output_bits = output_bits(regime.tcr);
    let mut level = half.start_level();
    // The first table is as large as the bits it translates, and at least 64 bytes.
    let first_bits = half.bits.saturating_sub(half.shift(level)).saturating_add(3).max(6);
    let mut base = regime_base(half.ttbr) & !low(first_bits);
    let mut index_mask = low(half.bits);
    if base >> output_bits != 0 {
        return fault(FaultKind::AddressSize, 0);
    }
    let mut inherited = Inherited::default();
    loop {
        let shift = half.shift(level);
        let entry = Ipa::new(base | (va & index_mask) >> shift << 3);
        let Some(raw) = memory.read_u64(entry) else {
            return fault(FaultKind::TableRead(entry), level);
        };
        // SCTLR_EL1.EE: the byte order of walks.
        let descriptor = if bit(regime.sctlr, 25) { raw.swap_bytes() } else { raw };
        let is_table = level < 3 && bit(descriptor, 1);
        let is_leaf = half.has_leaves(level) && bit(descriptor, 1) == (level == 3);
        if !bit(descriptor, 0) || !(is_table || is_leaf) {
            return fault(FaultKind::Translation, level);
        }
        let offset_bits = if is_table { half.granule } else { shift };
        let output = descriptor & low(48) & !low(offset_bits);
        if output >> output_bits != 0 {
            return fault(FaultKind::AddressSize, level);
        }
        if is_table {
            if !half.no_hierarchy {
                inherited.add(descriptor);
            }
            (base, index_mask, level) = (output, low(shift), level.saturating_add(1));
            continue;
        }
        // TCR_EL1.HA: hardware sets the flag.
        if !bit(descriptor, 10) && !bit(regime.tcr, 39) {
            return fault(FaultKind::AccessFlag, level);
        }
        let permissions = inherited.permissions(regime, descriptor, privilege);
        if !permissions.allow(access) {
            return fault(FaultKind::Permission, level);
        }
        let byte = (descriptor >> 2 & 0b111) as u32;
        let memory = (regime.mair >> byte.wrapping_mul(8)) as u8;
        let ipa = Ipa::new(output | va & low(shift));
        let shareability = (descriptor >> 8 & 0b11) as u8;
        return Ok(Translation { ipa, memory, shareability, permissions, level: level as u8 });
    }
}

/// The descriptors that a walk looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookups<S = Canonical> {
    /// Where they are, the last one first.
    pub entries: [Option<Ipa<S>>; 4],
    /// Level of the last one.
    pub level: u8,
}

/// Remembers where a walk read.
struct Remembering<'a, S> {
    memory: &'a dyn GuestMemory<S>,
    entries: Cell<[Option<Ipa<S>>; 4]>,
}

impl<S: Copy> GuestMemory<S> for Remembering<'_, S> {
    fn read_u64(&self, ipa: Ipa<S>) -> Option<u64> {
        let [a, b, c, _] = self.entries.get();
        self.entries.set([Some(ipa), a, b, c]);
        self.memory.read_u64(ipa)
    }
}

/// What the CPU's walk for this access looked at, up to the descriptor that it could not read, or not
/// update in memory that stage 2 keeps read-only (TCR_EL1.HA and HD: a leaf). To be asked after a stage-2
/// fault on a walk, whose syndrome has the level of stage 2 only. If the walk does not fail there, the
/// tables changed meanwhile, or the leaf would fault next.
pub fn lookups<S: Copy>(
    memory: &dyn GuestMemory<S>,
    regime: &Regime,
    va: Va,
    privilege: Privilege,
    access: Access,
) -> Lookups<S> {
    let memory = Remembering { memory, entries: Cell::new([None; 4]) };
    let level = match translate(&memory, regime, va, privilege, access) {
        Ok(translation) => translation.level,
        Err(fault) => fault.level,
    };
    Lookups { entries: memory.entries.get(), level }
}

/// TTBR bits 47:1; bit 0 is CnP.
const fn regime_base(ttbr: u64) -> u64 {
    ttbr & low(48) & !1
}

/// With the MMU off the address is its own translation (D8.2.10): Device-nGnRnE for data; for
/// instructions Normal, write-through if `SCTLR_EL1.I` is set.
fn flat<S: Copy>(
    regime: &Regime,
    half: &Half,
    va: u64,
    access: Access,
) -> Result<Translation<S>, Stage1Fault<S>> {
    let address = if half.top_byte_ignored { va & low(56) } else { va };
    if address >> 48 != 0 {
        return fault(FaultKind::AddressSize, 0);
    }
    let memory = match access {
        Access::Read | Access::Write => 0x00,
        Access::Execute if bit(regime.sctlr, 12) => 0xaa,
        Access::Execute => 0x44,
    };
    let (ipa, permissions) = (Ipa::new(address), Permissions::ALL);
    Ok(Translation { ipa, memory, shareability: 0b10, permissions, level: 0 })
}

/// What the table descriptors of a walk take away (D8.4.2).
#[derive(Default)]
struct Inherited {
    read_only: bool,
    no_el0: bool,
    uxn: bool,
    pxn: bool,
}

impl Inherited {
    fn add(&mut self, table: u64) {
        self.read_only |= bit(table, 62);
        self.no_el0 |= bit(table, 61);
        self.uxn |= bit(table, 60);
        self.pxn |= bit(table, 59);
    }

    /// The permissions of a leaf (D8.4.1).
    fn permissions(&self, regime: &Regime, leaf: u64, privilege: Privilege) -> Permissions {
        // TCR_EL1.HD: a clean page (DBM) turns dirty by itself.
        let dirty_by_hardware = bit(regime.tcr, 40) && bit(leaf, 51);
        let write = !self.read_only && (!bit(leaf, 7) || dirty_by_hardware);
        let wxn = bit(regime.sctlr, 19);
        if regime.el2 {
            // One privilege: XN and XNTable are where EL1&0 has UXN and UXNTable.
            let exec = !(self.uxn || bit(leaf, 54) || wxn && write);
            return Permissions { read: true, write, exec };
        }
        let el0 = !self.no_el0 && bit(leaf, 6);
        let el0_write = el0 && write;
        let el0_exec = !(self.uxn || bit(leaf, 54) || wxn && el0_write);
        match privilege {
            Privilege::El0 => Permissions { read: el0, write: el0_write, exec: el0_exec },
            Privilege::El1 => {
                // What EL0 may write, EL1 never executes.
                let exec = !(self.pxn || bit(leaf, 53) || el0_write || wxn && write);
                // SCTLR_EL1.EPAN: PAN also for what EL0 may only execute.
                let denied = regime.pan && (el0 || bit(regime.sctlr, 57) && el0_exec);
                Permissions { read: !denied, write: write && !denied, exec }
            }
        }
    }
}

#[cfg(test)]
mod tests;
