//! Data aborts, instruction aborts and tag faults.
//!
//! Arm, ESR_EL2, "ISS encoding for an exception from a Data Abort" and "... Instruction Abort".

use addr::{Canonical, Ipa, Va};

use crate::bits::{bit, field};
use crate::{Exit, FaultRegisters};

/// A level of a translation table walk. Negative ones exist with 52-bit and 56-bit addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum Level {
    /// Level -2.
    MinusTwo = -2,
    /// Level -1.
    MinusOne = -1,
    /// Level 0.
    L0 = 0,
    /// Level 1.
    L1 = 1,
    /// Level 2.
    L2 = 2,
    /// Level 3.
    L3 = 3,
}

impl Level {
    /// From the low two bits of a fault status code, or of a number from 0 to 3.
    #[inline(always)]
    #[must_use]
    pub const fn from_low_bits(fsc: u8) -> Self {
        match fsc & 3 {
            0 => Self::L0,
            1 => Self::L1,
            2 => Self::L2,
            _ => Self::L3,
        }
    }

    /// The level as a number.
    #[must_use]
    pub const fn get(self) -> i8 {
        self as i8
    }
}

/// What went wrong: DFSC or IFSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An address or a table base is too large.
    AddressSize(Level),
    /// No valid descriptor.
    Translation(Level),
    /// The access flag is 0.
    AccessFlag(Level),
    /// The descriptor does not permit the access.
    Permission(Level),
    /// Synchronous external abort.
    SynchronousExternal,
    /// Synchronous external abort on a walk.
    ExternalOnWalk(Level),
    /// Synchronous parity or ECC error.
    Parity,
    /// Synchronous parity or ECC error on a walk.
    ParityOnWalk(Level),
    /// Tag check fault of stage 1.
    TagCheck,
    /// Misaligned access.
    Alignment,
    /// Granule protection fault.
    GranuleProtection,
    /// Granule protection fault on a walk.
    GranuleProtectionOnWalk(Level),
    /// TLB conflict.
    TlbConflict,
    /// Hardware update of a descriptor in memory that does not support it.
    UnsupportedAtomicUpdate,
    /// Exclusive or atomic access to memory that does not support it.
    UnsupportedExclusive,
    /// Implementation defined or reserved.
    Other(u8),
}

impl FaultKind {
    /// From a six-bit fault status code; higher bits are ignored.
    #[inline(always)]
    #[must_use]
    pub const fn from_fsc(fsc: u8) -> Self {
        let level = Level::from_low_bits(fsc);
        match fsc & 0x3f {
            0x00..=0x03 => Self::AddressSize(level),
            0x04..=0x07 => Self::Translation(level),
            0x08..=0x0b => Self::AccessFlag(level),
            0x0c..=0x0f => Self::Permission(level),
            0x10 => Self::SynchronousExternal,
            0x11 => Self::TagCheck,
            0x12 => Self::ExternalOnWalk(Level::MinusTwo),
            0x13 => Self::ExternalOnWalk(Level::MinusOne),
            0x14..=0x17 => Self::ExternalOnWalk(level),
            0x18 => Self::Parity,
            0x1b => Self::ParityOnWalk(Level::MinusOne),
            0x1c..=0x1f => Self::ParityOnWalk(level),
            0x21 => Self::Alignment,
            0x22 => Self::GranuleProtectionOnWalk(Level::MinusTwo),
            0x23 => Self::GranuleProtectionOnWalk(Level::MinusOne),
            0x24..=0x27 => Self::GranuleProtectionOnWalk(level),
            0x28 => Self::GranuleProtection,
            0x29 => Self::AddressSize(Level::MinusOne),
            0x2a => Self::Translation(Level::MinusTwo),
            0x2b => Self::Translation(Level::MinusOne),
            0x2c => Self::AddressSize(Level::MinusTwo),
            0x30 => Self::TlbConflict,
            0x31 => Self::UnsupportedAtomicUpdate,
            0x35 => Self::UnsupportedExclusive,
            code => Self::Other(code),
        }
    }

    /// Whether the machine, not stage 2, refused the access: the syndromes that a guest gets as a
    /// synchronous external abort.
    #[must_use]
    pub const fn is_external(self) -> bool {
        matches!(
            self,
            Self::SynchronousExternal | Self::ExternalOnWalk(_) | Self::Parity | Self::ParityOnWalk(_)
        )
    }
}

/// Whether HPFAR_EL2 holds the faulting IPA (Arm pseudocode, IPAValid): for translation, access flag
/// and address size faults, and for permission faults only of a stage-1 walk.
#[inline(always)]
const fn hpfar_is_valid(kind: FaultKind, s1ptw: bool) -> bool {
    match kind {
        FaultKind::Translation(_) | FaultKind::AccessFlag(_) | FaultKind::AddressSize(_) => true,
        FaultKind::Permission(_) => s1ptw,
        FaultKind::SynchronousExternal
        | FaultKind::ExternalOnWalk(_)
        | FaultKind::Parity
        | FaultKind::ParityOnWalk(_)
        | FaultKind::TagCheck
        | FaultKind::Alignment
        | FaultKind::GranuleProtection
        | FaultKind::GranuleProtectionOnWalk(_)
        | FaultKind::TlbConflict
        | FaultKind::UnsupportedAtomicUpdate
        | FaultKind::UnsupportedExclusive
        | FaultKind::Other(_) => false,
    }
}

/// The IPA that HPFAR_EL2 and FAR_EL2 report together: FIPA is HPFAR_EL2\[47:4\], NS (bit 63) is not
/// part of it.
#[inline(always)]
#[must_use]
pub const fn fault_ipa(hpfar: u64, far: u64) -> Ipa<Canonical> {
    Ipa::new((hpfar & 0x0000_ffff_ffff_fff0) << 8 | far & 0xfff)
}

#[inline(always)]
fn abort_ipa(esr: u64, far: u64, regs: &impl FaultRegisters) -> Option<Ipa<Canonical>> {
    let s1ptw = bit(esr, 7);
    // On a walk FAR is the address being translated: its offset is not the descriptor's.
    let offset = if s1ptw { 0 } else { far };
    hpfar_is_valid(FaultKind::from_fsc(esr as u8), s1ptw).then(|| fault_ipa(regs.hpfar(), offset))
}

/// How wide an access is (ISS.SAS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AccessSize {
    /// One byte.
    Byte = 0,
    /// Two bytes.
    Half = 1,
    /// Four bytes.
    Word = 2,
    /// Eight bytes.
    Double = 3,
}

impl AccessSize {
    #[inline(always)]
    const fn from_sas(sas: u64) -> Self {
        match sas & 3 {
            0 => Self::Byte,
            1 => Self::Half,
            2 => Self::Word,
            _ => Self::Double,
        }
    }

    /// The width in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    /// All bits that an access of this width carries.
    #[inline(always)]
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::Half => 0xffff,
            Self::Word => 0xffff_ffff,
            Self::Double => u64::MAX,
        }
    }
}

/// A data abort from a lower exception level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAbort {
    esr: u64,
    /// FAR_EL2: the virtual address, tag byte included. Not valid if [`Self::fnv`].
    pub va: Va,
    /// The faulting IPA, where the architecture gives it; on a stage-1 walk only its page. Without
    /// it, translate `va` again.
    pub ipa: Option<Ipa<Canonical>>,
}

#[inline(always)]
pub(crate) fn decode_data(esr: u64, regs: &impl FaultRegisters) -> Exit {
    let far = regs.far();
    // ISS2.TagAccess is tested before anything else: such a fault may have ISV=1, and QEMU 11.1
    // reports it with DFSC 0 and a stale HPFAR_EL2.
    if bit(esr, 41) {
        let access = if bit(esr, 6) { TagAccess::Write } else { TagAccess::ReadOrChecked };
        return Exit::TagFault(TagFault { va: Va::new(far), access, esr });
    }
    Exit::DataAbort(DataAbort { esr, va: Va::new(far), ipa: abort_ipa(esr, far, regs) })
}

impl DataAbort {
    /// All of ESR_EL2.
    #[must_use]
    pub const fn esr(&self) -> u64 {
        self.esr
    }

    /// What went wrong.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> FaultKind {
        FaultKind::from_fsc(self.esr as u8)
    }

    /// Whether `size`, `sign_extend`, `rt`, `sf` and `acquire_release` describe the instruction: a
    /// load or store of one general-purpose register without write-back.
    #[inline(always)]
    #[must_use]
    pub const fn isv(&self) -> bool {
        bit(self.esr, 24)
    }

    /// Width of the access (ISV only).
    #[inline(always)]
    #[must_use]
    pub const fn size(&self) -> AccessSize {
        AccessSize::from_sas(field(self.esr, 22, 2))
    }

    /// Whether a load extends its sign (ISV only).
    #[inline(always)]
    #[must_use]
    pub const fn sign_extend(&self) -> bool {
        bit(self.esr, 21)
    }

    /// The general-purpose register; 31 is XZR (ISV only).
    #[inline(always)]
    #[must_use]
    pub const fn rt(&self) -> u8 {
        field(self.esr, 16, 5) as u8
    }

    /// Whether the register is 64 bits wide (ISV only).
    #[inline(always)]
    #[must_use]
    pub const fn sf(&self) -> bool {
        bit(self.esr, 15)
    }

    /// Whether the instruction has acquire or release semantics (ISV only).
    #[inline(always)]
    #[must_use]
    pub const fn acquire_release(&self) -> bool {
        bit(self.esr, 14)
    }

    /// Whether FAR_EL2 is not valid, which only a synchronous external abort can say.
    #[inline(always)]
    #[must_use]
    pub const fn fnv(&self) -> bool {
        bit(self.esr, 10)
    }

    /// Whether the abort is external in an implementation-defined way (ISS.EA).
    #[must_use]
    pub const fn ea(&self) -> bool {
        bit(self.esr, 9)
    }

    /// Whether a cache maintenance or address translation instruction faulted.
    #[inline(always)]
    #[must_use]
    pub const fn cm(&self) -> bool {
        bit(self.esr, 8)
    }

    /// Whether the fault is on the stage-2 translation of a stage-1 walk.
    #[inline(always)]
    #[must_use]
    pub const fn s1ptw(&self) -> bool {
        bit(self.esr, 7)
    }

    /// ISS.WnR as it stands: 1 also for every cache maintenance instruction.
    #[inline(always)]
    #[must_use]
    pub const fn wnr(&self) -> bool {
        bit(self.esr, 6)
    }

    /// Whether data was to be written: never by cache maintenance, whose WnR is 1 whatever
    /// permission it needs.
    #[inline(always)]
    #[must_use]
    pub const fn write(&self) -> bool {
        // CM in bit 8, WnR in bit 6.
        self.esr & 0x140 == 0x40
    }

    /// Whether the instruction is 32 bits long (ESR_EL2.IL).
    #[must_use]
    pub const fn il(&self) -> bool {
        bit(self.esr, 25)
    }

    /// What a load that got `value` from a device puts into its register.
    #[inline(always)]
    #[must_use]
    pub const fn extend(&self, value: u64) -> u64 {
        let extended = match (self.size(), self.sign_extend()) {
            (AccessSize::Byte, true) => value as u8 as i8 as u64,
            (AccessSize::Half, true) => value as u16 as i16 as u64,
            (AccessSize::Word, true) => value as u32 as i32 as u64,
            (size, _) => value & size.mask(),
        };
        if self.sf() { extended } else { extended & 0xffff_ffff }
    }

    /// What a store of a register that holds `value` writes.
    #[inline(always)]
    #[must_use]
    pub const fn truncate(&self, value: u64) -> u64 {
        value & self.size().mask()
    }
}

/// An instruction abort from a lower exception level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionAbort {
    esr: u64,
    /// FAR_EL2. Not valid if [`Self::fnv`].
    pub va: Va,
    /// The faulting IPA, where the architecture gives it; on a stage-1 walk only its page.
    pub ipa: Option<Ipa<Canonical>>,
}

impl InstructionAbort {
    #[inline(always)]
    pub(crate) fn new(esr: u64, regs: &impl FaultRegisters) -> Self {
        let far = regs.far();
        Self { esr, va: Va::new(far), ipa: abort_ipa(esr, far, regs) }
    }

    /// All of ESR_EL2.
    #[must_use]
    pub const fn esr(&self) -> u64 {
        self.esr
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> FaultKind {
        FaultKind::from_fsc(self.esr as u8)
    }

    /// Whether FAR_EL2 is not valid.
    #[must_use]
    pub const fn fnv(&self) -> bool {
        bit(self.esr, 10)
    }

    /// Whether the fault is on the stage-2 translation of a stage-1 walk.
    #[must_use]
    pub const fn s1ptw(&self) -> bool {
        bit(self.esr, 7)
    }
}

/// What a tag fault reports about the access (ISS.WnR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TagAccess {
    /// A tag is read: LDG, LDGM, or any tag-checked load, store or atomic. QEMU 11.1 reports STGM
    /// like this too.
    ReadOrChecked,
    /// A tag is written: the STG family, DC GVA, DC GZVA, SETG.
    Write,
}

/// A stage-2 permission fault because of NoTagAccess (FEAT_MTE_PERM): ISS2.TagAccess, ESR_EL2\[41\].
///
/// It has no IPA: HPFAR_EL2 is not valid for it. ISV may be 1, but it never describes a device access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagFault {
    /// The virtual address, logical tag included.
    pub va: Va,
    /// Kind of access.
    pub access: TagAccess,
    esr: u64,
}

impl TagFault {
    /// All of ESR_EL2.
    #[must_use]
    pub const fn esr(&self) -> u64 {
        self.esr
    }
}
