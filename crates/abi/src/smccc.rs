//! SMCCC: the calls that every guest may make, and how a function id is built (DEN0028 2.5).

/// Bit 31 of a function id: a fast (atomic) call.
pub const FAST: u32 = 1 << 31;
/// Bit 30 of a function id: the 64-bit calling convention.
pub const SMC64: u32 = 1 << 30;

/// SMCCC_VERSION: the version in x0, `0x10002` for 1.2.
pub const VERSION: u32 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES: x1 = function id; x0 = 0 or above if it is there, else [`NOT_SUPPORTED`].
pub const ARCH_FEATURES: u32 = 0x8000_0001;
/// SMCCC_ARCH_SOC_ID.
pub const ARCH_SOC_ID: u32 = 0x8000_0002;
/// SMCCC_ARCH_WORKAROUND_1 (Spectre variant 2).
pub const ARCH_WORKAROUND_1: u32 = 0x8000_8000;
/// SMCCC_ARCH_WORKAROUND_2 (Spectre variant 4).
pub const ARCH_WORKAROUND_2: u32 = 0x8000_7FFF;
/// SMCCC_ARCH_WORKAROUND_3 (Spectre-BHB).
pub const ARCH_WORKAROUND_3: u32 = 0x8000_3FFF;

/// The version that guests see: SMCCC 1.2.
pub const VERSION_1_2: u64 = 0x1_0002;

/// "The call is not there", in x0 (as a signed 64-bit number).
pub const NOT_SUPPORTED: i64 = -1;
/// "The mitigation is not needed on this CPU", answer of ARCH_FEATURES to a workaround id.
pub const NOT_REQUIRED: i64 = -2;
/// "An argument is wrong", in x0.
pub const INVALID_PARAMETER: i64 = -3;

/// TRNG_VERSION (Arm DEN0098 1.0): the version in x0.
pub const TRNG_VERSION: u32 = 0x8400_0050;
/// TRNG_FEATURES: x1 = function id.
pub const TRNG_FEATURES: u32 = 0x8400_0051;
/// TRNG_GET_UUID.
pub const TRNG_GET_UUID: u32 = 0x8400_0052;
/// TRNG_RND, 32-bit form: x1 = number of bits, 1 to 96.
pub const TRNG_RND32: u32 = 0x8400_0053;
/// TRNG_RND, 64-bit form: x1 = number of bits, 1 to 192.
pub const TRNG_RND64: u32 = 0xC400_0053;
/// TRNG: "no entropy at the moment; try again".
pub const TRNG_NO_ENTROPY: i64 = -3;
/// TRNG: "an argument is wrong".
pub const TRNG_INVALID_PARAMETERS: i64 = -2;
