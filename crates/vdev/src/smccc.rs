//! Which call an HVC or SMC makes (Arm DEN0028), and the answers that need no state of the VM.
//!
//! [`decode`] is total: an id that is not in `abi` is [`Call::Unknown`], whose answer is
//! [`NOT_SUPPORTED`](abi::smccc::NOT_SUPPORTED). The 32- and the 64-bit form of a call are one
//! [`Call`]; they differ in how wide their arguments are, which [`Convention`] says.

use abi::{hypercall, psci, smccc};

/// A call, whichever calling convention it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is named as in `abi`, which describes it")]
pub enum Call {
    PsciVersion,
    CpuSuspend,
    CpuOff,
    CpuOn,
    AffinityInfo,
    MigrateInfoType,
    SystemOff,
    SystemReset,
    SystemReset2,
    PsciFeatures,
    SmcccVersion,
    ArchFeatures,
    ArchSocId,
    ArchWorkaround1,
    ArchWorkaround2,
    ArchWorkaround3,
    TrngVersion,
    TrngFeatures,
    TrngGetUuid,
    TrngRnd,
    HypUid,
    HypRevision,
    HypFeatures,
    VmList,
    VmInfo,
    VmStart,
    VmStop,
    VmRestart,
    EventNext,
    IdregGet,
    IdregSet,
    IdregMask,
    FaultInfo,
    FaultDecide,
    TagStats,
    TagDemote,
    TagQuota,
    TagsCopy,
    TagsMap,
    MemoryCopy,
    DirtyLog,
    DebugCopy,
    MigrateCopy,
    DeviceCopy,
    Unknown,
}

/// The function id of a call: w0. Bits 63:32 of x0 are not part of it (DEN0028, function identifiers).
#[must_use]
pub const fn function_id(x0: u64) -> u32 {
    (x0 & 0xFFFF_FFFF) as u32
}

/// The call that x0 asks for. Split by service: the ids of each are close together, so that the
/// compiler makes a range check and a table of them (14 instructions for PSCI_VERSION, not 18).
#[must_use]
pub const fn decode(x0: u64) -> Call {
    let id = function_id(x0);
    match id >> 8 {
        0x84_0000 => standard32(id),
        0xC4_0000 => standard64(id),
        0xC6_0000 => hypervisor64(id),
        _ => sparse(id),
    }
}

/// Standard secure service (owner 4), 32-bit forms.
const fn standard32(id: u32) -> Call {
    match id {
        psci::VERSION => Call::PsciVersion,
        psci::CPU_SUSPEND32 => Call::CpuSuspend,
        psci::CPU_OFF => Call::CpuOff,
        psci::CPU_ON32 => Call::CpuOn,
        psci::AFFINITY_INFO32 => Call::AffinityInfo,
        psci::MIGRATE_INFO_TYPE => Call::MigrateInfoType,
        psci::SYSTEM_OFF => Call::SystemOff,
        psci::SYSTEM_RESET => Call::SystemReset,
        psci::FEATURES => Call::PsciFeatures,
        psci::SYSTEM_RESET2_32 => Call::SystemReset2,
        smccc::TRNG_VERSION => Call::TrngVersion,
        smccc::TRNG_FEATURES => Call::TrngFeatures,
        smccc::TRNG_GET_UUID => Call::TrngGetUuid,
        smccc::TRNG_RND32 => Call::TrngRnd,
        _ => Call::Unknown,
    }
}

/// Standard secure service (owner 4), 64-bit forms.
const fn standard64(id: u32) -> Call {
    match id {
        psci::CPU_SUSPEND64 => Call::CpuSuspend,
        psci::CPU_ON64 => Call::CpuOn,
        psci::AFFINITY_INFO64 => Call::AffinityInfo,
        psci::SYSTEM_RESET2_64 => Call::SystemReset2,
        smccc::TRNG_RND64 => Call::TrngRnd,
        _ => Call::Unknown,
    }
}

/// Vendor-specific hypervisor service (owner 6), 64-bit forms.
const fn hypervisor64(id: u32) -> Call {
    match id {
        hypercall::FEATURES => Call::HypFeatures,
        hypercall::VM_LIST => Call::VmList,
        hypercall::VM_INFO => Call::VmInfo,
        hypercall::VM_START => Call::VmStart,
        hypercall::VM_STOP => Call::VmStop,
        hypercall::VM_RESTART => Call::VmRestart,
        hypercall::EVENT_NEXT => Call::EventNext,
        hypercall::IDREG_GET => Call::IdregGet,
        hypercall::IDREG_SET => Call::IdregSet,
        hypercall::IDREG_MASK => Call::IdregMask,
        hypercall::FAULT_INFO => Call::FaultInfo,
        hypercall::FAULT_DECIDE => Call::FaultDecide,
        hypercall::TAG_STATS => Call::TagStats,
        hypercall::TAG_DEMOTE => Call::TagDemote,
        hypercall::TAG_QUOTA => Call::TagQuota,
        hypercall::TAGS_COPY => Call::TagsCopy,
        hypercall::TAGS_MAP => Call::TagsMap,
        hypercall::MEMORY_COPY => Call::MemoryCopy,
        hypercall::DIRTY_LOG => Call::DirtyLog,
        hypercall::DEBUG_COPY => Call::DebugCopy,
        hypercall::MIGRATE_COPY => Call::MigrateCopy,
        hypercall::DEVICE_COPY => Call::DeviceCopy,
        _ => Call::Unknown,
    }
}

/// Arm architecture service (owner 0) and discovery of the hypervisor service.
const fn sparse(id: u32) -> Call {
    match id {
        smccc::VERSION => Call::SmcccVersion,
        smccc::ARCH_FEATURES => Call::ArchFeatures,
        smccc::ARCH_SOC_ID => Call::ArchSocId,
        smccc::ARCH_WORKAROUND_1 => Call::ArchWorkaround1,
        smccc::ARCH_WORKAROUND_2 => Call::ArchWorkaround2,
        smccc::ARCH_WORKAROUND_3 => Call::ArchWorkaround3,
        hypercall::UID => Call::HypUid,
        hypercall::REVISION => Call::HypRevision,
        _ => Call::Unknown,
    }
}

/// How wide the arguments of a call are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// SMC32/HVC32: arguments in w1 to w7; the upper halves are not part of them.
    Bits32,
    /// SMC64/HVC64: arguments in x1 to x17.
    Bits64,
}

impl Convention {
    /// The convention of the call that x0 asks for: bit 30 of the function id (DEN0028, function identifiers).
    #[must_use]
    pub const fn of(x0: u64) -> Self {
        if x0 & smccc::SMC64 as u64 == 0 { Self::Bits32 } else { Self::Bits64 }
    }

    /// An argument as the call sees it.
    #[must_use]
    pub const fn arg(self, register: u64) -> u64 {
        match self {
            Self::Bits32 => register & 0xFFFF_FFFF,
            Self::Bits64 => register,
        }
    }
}

/// The arguments x1, x2, .. of the call that x0 asks for, cut to its convention's width.
#[must_use]
pub fn args<const N: usize>(x0: u64, registers: [u64; N]) -> [u64; N] {
    let convention = Convention::of(x0);
    registers.map(|register| convention.arg(register))
}

/// A result that is a signed number, as x0 holds it.
#[must_use]
pub const fn signed(result: i64) -> u64 {
    result.cast_unsigned()
}

/// PSCI_FEATURES (DEN0022): 0 if the function is there. CPU_SUSPEND's flags are 0 too:
/// original power-state format, no OS-initiated mode. SMCCC_VERSION is what tells a guest that
/// SMCCC is at least 1.1.
#[must_use]
pub const fn psci_features(function: u32) -> i64 {
    match decode(function as u64) {
        Call::PsciVersion
        | Call::CpuSuspend
        | Call::CpuOff
        | Call::CpuOn
        | Call::AffinityInfo
        | Call::MigrateInfoType
        | Call::SystemOff
        | Call::SystemReset
        | Call::SystemReset2
        | Call::PsciFeatures
        | Call::SmcccVersion => psci::SUCCESS,
        Call::ArchFeatures
        | Call::ArchSocId
        | Call::ArchWorkaround1
        | Call::ArchWorkaround2
        | Call::ArchWorkaround3
        | Call::TrngVersion
        | Call::TrngFeatures
        | Call::TrngGetUuid
        | Call::TrngRnd
        | Call::HypUid
        | Call::HypRevision
        | Call::HypFeatures
        | Call::VmList
        | Call::VmInfo
        | Call::VmStart
        | Call::VmStop
        | Call::VmRestart
        | Call::EventNext
        | Call::IdregGet
        | Call::IdregSet
        | Call::IdregMask
        | Call::FaultInfo
        | Call::FaultDecide
        | Call::TagStats
        | Call::TagDemote
        | Call::TagQuota
        | Call::TagsCopy
        | Call::TagsMap
        | Call::MemoryCopy
        | Call::DirtyLog
        | Call::DebugCopy
        | Call::MigrateCopy
        | Call::DeviceCopy
        | Call::Unknown => psci::NOT_SUPPORTED,
    }
}

/// What ARCH_FEATURES says of a workaround call (DEN0028, SMCCC_ARCH_WORKAROUND_1 to 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Mitigation {
    /// The call is there, and this CPU needs it.
    Needed = 0,
    /// The call is there, but this CPU does not need it.
    Unaffected = 1,
    /// There is no call, and nothing is known about the CPU.
    Unknown = smccc::NOT_SUPPORTED,
    /// No CPU of the machine needs the call (ARCH_WORKAROUND_2 only).
    NotRequired = smccc::NOT_REQUIRED,
}

/// What firmware and the CPU's ID registers say about the three workaround calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mitigations {
    /// ARCH_WORKAROUND_1: Spectre variant 2.
    pub workaround_1: Mitigation,
    /// ARCH_WORKAROUND_2: Spectre variant 4.
    pub workaround_2: Mitigation,
    /// ARCH_WORKAROUND_3: Spectre-BHB.
    pub workaround_3: Mitigation,
}

/// SMCCC_ARCH_FEATURES (DEN0028): 0 or above if the function is there. It speaks only of the
/// Arm architecture calls; the SoC id is not told.
#[must_use]
pub const fn arch_features(function: u32, mitigations: &Mitigations) -> i64 {
    match function {
        smccc::VERSION | smccc::ARCH_FEATURES => 0,
        smccc::ARCH_WORKAROUND_1 => mitigations.workaround_1 as i64,
        smccc::ARCH_WORKAROUND_2 => mitigations.workaround_2 as i64,
        smccc::ARCH_WORKAROUND_3 => mitigations.workaround_3 as i64,
        _ => smccc::NOT_SUPPORTED,
    }
}

/// x0 to x3 of vendor-specific hypervisor call UID.
#[must_use]
pub const fn hyp_uid() -> [u64; 4] {
    words(hypercall::UID_WORDS)
}

/// x0 and x1 of vendor-specific hypervisor call FEATURES: all calls of `abi::hypercall`.
#[must_use]
pub const fn hyp_features() -> [u64; 2] {
    [0, CALLS]
}

/// A bit for each call that is decoded.
const CALLS: u64 = {
    let (mut calls, mut bit) = (0, 0);
    while bit < 64 {
        if !matches!(hypervisor64(hypercall::FEATURES + bit), Call::Unknown) {
            calls |= 1 << bit;
        }
        bit += 1;
    }
    calls
};

/// TRNG_VERSION's answer (Arm DEN0098) where there is an entropy source: 1.0.
pub const TRNG_VERSION_1_0: u64 = 0x1_0000;
/// The entropy source's UUID, as the four words of TRNG_GET_UUID: w0 to w3.
pub const TRNG_UUID_WORDS: [u32; 4] = [0x6174_0d6d, 0x7349_7667, 0x652d_728f, 0x676e_7274];

/// TRNG_VERSION; without an entropy source there is no TRNG.
#[must_use]
pub const fn trng_version(present: bool) -> u64 {
    if present { TRNG_VERSION_1_0 } else { signed(smccc::NOT_SUPPORTED) }
}

/// TRNG_FEATURES (DEN0098): 0 if there is an entropy source and the function is one of TRNG's.
#[must_use]
pub const fn trng_features(function: u32, present: bool) -> i64 {
    match function {
        smccc::TRNG_VERSION
        | smccc::TRNG_FEATURES
        | smccc::TRNG_GET_UUID
        | smccc::TRNG_RND32
        | smccc::TRNG_RND64
            if present =>
        {
            0
        }
        _ => smccc::NOT_SUPPORTED,
    }
}

/// x0 to x3 of TRNG_GET_UUID (DEN0098).
#[must_use]
pub const fn trng_uuid(present: bool) -> [u64; 4] {
    if present { words(TRNG_UUID_WORDS) } else { [signed(smccc::NOT_SUPPORTED), 0, 0, 0] }
}

/// x0 to x3 of TRNG_RND (DEN0098): `bits` (x1) random bits, at most three registers of the
/// convention's width. x3 holds the lowest, x1 the highest; bits beyond those asked for are 0.
/// `entropy` gives 64 fresh bits or fails; nothing is handed out unless all of it could be drawn.
pub fn trng_rnd(convention: Convention, bits: u64, mut entropy: impl FnMut() -> Option<u64>) -> [u64; 4] {
    let width: u64 = match convention {
        Convention::Bits32 => 32,
        Convention::Bits64 => 64,
    };
    let bits = convention.arg(bits);
    if bits == 0 || bits > 3 * width {
        return [signed(smccc::TRNG_INVALID_PARAMETERS), 0, 0, 0];
    }
    // How many bits of the register with index `n` (0 = x3) are asked for, drawn and masked.
    let mut draw = |n: u64| -> Option<u64> {
        match bits.saturating_sub(n * width).min(width) {
            0 => Some(0),
            wanted => entropy().map(|word| word & (u64::MAX >> (64 - wanted))),
        }
    };
    match (draw(0), draw(1), draw(2)) {
        (Some(low), Some(middle), Some(high)) => [0, high, middle, low],
        _ => [signed(smccc::TRNG_NO_ENTROPY), 0, 0, 0],
    }
}

const fn words([w0, w1, w2, w3]: [u32; 4]) -> [u64; 4] {
    [w0 as u64, w1 as u64, w2 as u64, w3 as u64]
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Every id of `abi`, and what it decodes to.
    const IDS: [(u32, Call); 49] = [
        (0x8400_0000, Call::PsciVersion),
        (0x8400_0001, Call::CpuSuspend),
        (0xC400_0001, Call::CpuSuspend),
        (0x8400_0002, Call::CpuOff),
        (0x8400_0003, Call::CpuOn),
        (0xC400_0003, Call::CpuOn),
        (0x8400_0004, Call::AffinityInfo),
        (0xC400_0004, Call::AffinityInfo),
        (0x8400_0006, Call::MigrateInfoType),
        (0x8400_0008, Call::SystemOff),
        (0x8400_0009, Call::SystemReset),
        (0x8400_000A, Call::PsciFeatures),
        (0x8400_0012, Call::SystemReset2),
        (0xC400_0012, Call::SystemReset2),
        (0x8000_0000, Call::SmcccVersion),
        (0x8000_0001, Call::ArchFeatures),
        (0x8000_0002, Call::ArchSocId),
        (0x8000_8000, Call::ArchWorkaround1),
        (0x8000_7FFF, Call::ArchWorkaround2),
        (0x8000_3FFF, Call::ArchWorkaround3),
        (0x8400_0050, Call::TrngVersion),
        (0x8400_0051, Call::TrngFeatures),
        (0x8400_0052, Call::TrngGetUuid),
        (0x8400_0053, Call::TrngRnd),
        (0xC400_0053, Call::TrngRnd),
        (0x8600_FF01, Call::HypUid),
        (0x8600_FF03, Call::HypRevision),
        (0xC600_0000, Call::HypFeatures),
        (0xC600_0001, Call::VmList),
        (0xC600_0002, Call::VmInfo),
        (0xC600_0003, Call::VmStart),
        (0xC600_0004, Call::VmStop),
        (0xC600_0005, Call::VmRestart),
        (0xC600_0006, Call::EventNext),
        (0xC600_0007, Call::IdregGet),
        (0xC600_0008, Call::IdregSet),
        (0xC600_0009, Call::IdregMask),
        (0xC600_000A, Call::FaultInfo),
        (0xC600_000B, Call::FaultDecide),
        (0xC600_000C, Call::TagStats),
        (0xC600_000D, Call::TagDemote),
        (0xC600_000E, Call::TagQuota),
        (0xC600_0010, Call::TagsCopy),
        (0xC600_0011, Call::TagsMap),
        (0xC600_0012, Call::MemoryCopy),
        (0xC600_0013, Call::DirtyLog),
        (0xC600_0014, Call::DebugCopy),
        (0xC600_0015, Call::MigrateCopy),
        (0xC600_0016, Call::DeviceCopy),
    ];

    const NONE: Mitigations = Mitigations {
        workaround_1: Mitigation::Unknown,
        workaround_2: Mitigation::Unknown,
        workaround_3: Mitigation::Unknown,
    };

    #[test]
    fn known_ids() {
        for (id, call) in IDS {
            assert_eq!(decode(u64::from(id)), call, "{id:#x}");
            assert_eq!(decode(u64::from(id) | 0xFFFF_FFFF_0000_0000), call, "{id:#x}: w0 counts");
        }
    }

    #[test]
    fn everything_near_a_known_id_is_unknown() {
        for &(id, _) in IDS.iter().step_by(if cfg!(miri) { 5 } else { 1 }) {
            for near in (0..32).map(|bit| id ^ (1 << bit)).chain([id.wrapping_sub(1), id.wrapping_add(1)]) {
                if IDS.iter().all(|&(known, _)| known != near) {
                    assert_eq!(decode(u64::from(near)), Call::Unknown, "{near:#x}");
                }
            }
        }
    }

    #[test]
    fn arguments_have_the_width_of_the_call() {
        let wide = [u64::MAX, 0x1_0000_0002];
        assert_eq!(args(u64::from(psci::CPU_ON32), wide), [0xFFFF_FFFF, 2]);
        assert_eq!(args(u64::from(psci::CPU_ON64), wide), wide);
        assert_eq!(args(u64::from(psci::CPU_ON32) | 1 << 62, wide), [0xFFFF_FFFF, 2]);
    }

    #[test]
    fn psci_features_name_psci_and_smccc_version() {
        for (id, _) in IDS {
            let there = id & 0xBFFF_FF00 == 0x8400_0000 && id & 0xFF < 0x20 || id == smccc::VERSION;
            assert_eq!(psci_features(id), if there { 0 } else { -1 }, "{id:#x}");
        }
        for id in [0, 0x8400_0005, 0x8400_0007, 0x8400_000E, 0xC400_0000, 0xC400_0002, u32::MAX] {
            assert_eq!(psci_features(id), -1, "{id:#x}");
        }
    }

    #[test]
    fn arch_features_name_what_is_there() {
        let known = Mitigations {
            workaround_1: Mitigation::Needed,
            workaround_2: Mitigation::NotRequired,
            workaround_3: Mitigation::Unaffected,
        };
        for (id, _) in IDS {
            let (expected, unknown) = match id {
                smccc::VERSION | smccc::ARCH_FEATURES => (0, 0),
                smccc::ARCH_WORKAROUND_1 => (0, -1),
                smccc::ARCH_WORKAROUND_2 => (-2, -1),
                smccc::ARCH_WORKAROUND_3 => (1, -1),
                _ => (-1, -1),
            };
            assert_eq!(arch_features(id, &known), expected, "{id:#x}");
            assert_eq!(arch_features(id, &NONE), unknown, "{id:#x}");
        }
    }

    #[test]
    fn hypervisor_discovery() {
        let bytes: Vec<u8> = hyp_uid().into_iter().flat_map(|w| (w as u32).to_le_bytes()).collect();
        assert_eq!(bytes, *b"\x6d\x0d\x74\x61gvIs\x8fr-el2-1");
        let [x0, calls] = hyp_features();
        assert_eq!(x0, 0);
        for bit in 0..64 {
            let there = decode(u64::from(hypercall::FEATURES) + bit) != Call::Unknown;
            assert_eq!(calls >> bit & 1 != 0, there, "bit {bit}");
        }
    }

    #[test]
    fn trng_is_there_only_with_entropy() {
        assert_eq!(trng_version(true), 0x1_0000);
        assert_eq!(trng_version(false), u64::MAX);
        for (id, call) in IDS {
            let trng =
                matches!(call, Call::TrngVersion | Call::TrngFeatures | Call::TrngGetUuid | Call::TrngRnd);
            assert_eq!(trng_features(id, true), if trng { 0 } else { -1 }, "{id:#x}");
            assert_eq!(trng_features(id, false), -1);
        }
        assert_eq!(trng_uuid(true), TRNG_UUID_WORDS.map(u64::from));
        assert_ne!(trng_uuid(true)[0], 0xFFFF_FFFF, "that would read as NOT_SUPPORTED");
        assert_eq!(trng_uuid(false), [u64::MAX, 0, 0, 0]);
    }

    #[test]
    fn trng_arguments() {
        let rnd = |convention, bits| trng_rnd(convention, bits, || Some(u64::MAX));
        let invalid = [signed(-2), 0, 0, 0];
        for bits in [0, 193, 1 << 32, u64::MAX] {
            assert_eq!(rnd(Convention::Bits64, bits), invalid, "{bits}");
        }
        for bits in [0, 97, 192, 1 << 32, u64::MAX] {
            assert_eq!(rnd(Convention::Bits32, bits), invalid, "{bits}");
        }
        assert_eq!(rnd(Convention::Bits32, 1 | 1 << 32), [0, 0, 0, 1], "the upper half does not count");
    }

    #[test]
    fn trng_packing() {
        for (convention, width) in [(Convention::Bits32, 32), (Convention::Bits64, 64)] {
            for bits in 1..=3 * width {
                let mut draws = 0;
                let [x0, x1, x2, x3] = trng_rnd(convention, bits, || {
                    draws += 1;
                    Some(u64::MAX)
                });
                assert_eq!(x0, 0);
                assert_eq!(draws, bits.div_ceil(width), "no bit is drawn in vain");
                let ones = [x3, x2, x1].map(|x| u64::from(x.count_ones()));
                let fill = |n: u64| bits.saturating_sub(n * width).min(width);
                assert_eq!(ones, [fill(0), fill(1), fill(2)]);
                for x in [x1, x2, x3] {
                    assert_eq!(x & (x.wrapping_add(1)), 0, "low bits first");
                }
            }
        }
    }

    #[test]
    fn trng_without_entropy() {
        for fails_at in 0..3 {
            let mut draws = 0;
            let answer = trng_rnd(Convention::Bits64, 192, || {
                draws += 1;
                (draws != fails_at + 1).then_some(5)
            });
            assert_eq!(answer, [signed(-3), 0, 0, 0]);
        }
    }

    proptest! {
        #[test]
        fn decoding_is_total(x0 in any::<u64>(), bits in any::<u64>(), word in any::<Option<u64>>()) {
            let known = IDS.iter().find(|&&(id, _)| id == x0 as u32).map_or(Call::Unknown, |&(_, call)| call);
            prop_assert_eq!(decode(x0), known);
            let _ = trng_rnd(Convention::of(x0), bits, || word);
        }
    }
}
