//! PSCI function ids and results (Arm DEN0022, 1.1).

/// PSCI_VERSION.
pub const VERSION: u32 = 0x8400_0000;
/// CPU_SUSPEND, 32-bit form.
pub const CPU_SUSPEND32: u32 = 0x8400_0001;
/// CPU_SUSPEND, 64-bit form.
pub const CPU_SUSPEND64: u32 = 0xC400_0001;
/// CPU_OFF.
pub const CPU_OFF: u32 = 0x8400_0002;
/// CPU_ON, 32-bit form.
pub const CPU_ON32: u32 = 0x8400_0003;
/// CPU_ON, 64-bit form: x1 = target MPIDR, x2 = entry, x3 = context for x0.
pub const CPU_ON64: u32 = 0xC400_0003;
/// AFFINITY_INFO, 32-bit form.
pub const AFFINITY_INFO32: u32 = 0x8400_0004;
/// AFFINITY_INFO, 64-bit form: x1 = target MPIDR, x2 = lowest affinity level.
pub const AFFINITY_INFO64: u32 = 0xC400_0004;
/// MIGRATE_INFO_TYPE.
pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// PSCI_FEATURES: x1 = function id.
pub const FEATURES: u32 = 0x8400_000A;
/// SYSTEM_RESET2, 32-bit form.
pub const SYSTEM_RESET2_32: u32 = 0x8400_0012;
/// SYSTEM_RESET2, 64-bit form: x1 = reset type, x2 = cookie.
pub const SYSTEM_RESET2_64: u32 = 0xC400_0012;

/// The version that guests see: PSCI 1.1.
pub const VERSION_1_1: u64 = 0x1_0001;
/// MIGRATE_INFO_TYPE's answer: no trusted OS, or one that needs no migration.
pub const TRUSTED_OS_NOT_PRESENT: u64 = 2;

/// Done.
pub const SUCCESS: i64 = 0;
/// The function is not there.
pub const NOT_SUPPORTED: i64 = -1;
/// An argument is wrong.
pub const INVALID_PARAMETERS: i64 = -2;
/// Refused.
pub const DENIED: i64 = -3;
/// The CPU is on.
pub const ALREADY_ON: i64 = -4;
/// The CPU is being turned on.
pub const ON_PENDING: i64 = -5;
/// Failed inside.
pub const INTERNAL_FAILURE: i64 = -6;
/// The entry address is wrong.
pub const INVALID_ADDRESS: i64 = -9;

/// AFFINITY_INFO: the CPU is on.
pub const AFFINITY_ON: u64 = 0;
/// AFFINITY_INFO: the CPU is off.
pub const AFFINITY_OFF: u64 = 1;
/// AFFINITY_INFO: the CPU is being turned on.
pub const AFFINITY_ON_PENDING: u64 = 2;
