//! This CPU's ID registers, as they are.

use super::sysreg::mrs;

/// All of op0=3, op1=0, CRn=0, CRm=1..7, op2=0..7, index (CRm-1)*8+op2. EL2 may read reserved
/// encodings: they are zero (DDI 0487, "ID registers").
pub(crate) fn feature_registers() -> [u64; 56] {
    [
        mrs!("S3_0_C0_C1_0"),
        mrs!("S3_0_C0_C1_1"),
        mrs!("S3_0_C0_C1_2"),
        mrs!("S3_0_C0_C1_3"),
        mrs!("S3_0_C0_C1_4"),
        mrs!("S3_0_C0_C1_5"),
        mrs!("S3_0_C0_C1_6"),
        mrs!("S3_0_C0_C1_7"),
        mrs!("S3_0_C0_C2_0"),
        mrs!("S3_0_C0_C2_1"),
        mrs!("S3_0_C0_C2_2"),
        mrs!("S3_0_C0_C2_3"),
        mrs!("S3_0_C0_C2_4"),
        mrs!("S3_0_C0_C2_5"),
        mrs!("S3_0_C0_C2_6"),
        mrs!("S3_0_C0_C2_7"),
        mrs!("S3_0_C0_C3_0"),
        mrs!("S3_0_C0_C3_1"),
        mrs!("S3_0_C0_C3_2"),
        mrs!("S3_0_C0_C3_3"),
        mrs!("S3_0_C0_C3_4"),
        mrs!("S3_0_C0_C3_5"),
        mrs!("S3_0_C0_C3_6"),
        mrs!("S3_0_C0_C3_7"),
        mrs!("S3_0_C0_C4_0"),
        mrs!("S3_0_C0_C4_1"),
        mrs!("S3_0_C0_C4_2"),
        mrs!("S3_0_C0_C4_3"),
        mrs!("S3_0_C0_C4_4"),
        mrs!("S3_0_C0_C4_5"),
        mrs!("S3_0_C0_C4_6"),
        mrs!("S3_0_C0_C4_7"),
        mrs!("S3_0_C0_C5_0"),
        mrs!("S3_0_C0_C5_1"),
        mrs!("S3_0_C0_C5_2"),
        mrs!("S3_0_C0_C5_3"),
        mrs!("S3_0_C0_C5_4"),
        mrs!("S3_0_C0_C5_5"),
        mrs!("S3_0_C0_C5_6"),
        mrs!("S3_0_C0_C5_7"),
        mrs!("S3_0_C0_C6_0"),
        mrs!("S3_0_C0_C6_1"),
        mrs!("S3_0_C0_C6_2"),
        mrs!("S3_0_C0_C6_3"),
        mrs!("S3_0_C0_C6_4"),
        mrs!("S3_0_C0_C6_5"),
        mrs!("S3_0_C0_C6_6"),
        mrs!("S3_0_C0_C6_7"),
        mrs!("S3_0_C0_C7_0"),
        mrs!("S3_0_C0_C7_1"),
        mrs!("S3_0_C0_C7_2"),
        mrs!("S3_0_C0_C7_3"),
        mrs!("S3_0_C0_C7_4"),
        mrs!("S3_0_C0_C7_5"),
        mrs!("S3_0_C0_C7_6"),
        mrs!("S3_0_C0_C7_7"),
    ]
}

/// MIDR_EL1.
pub(crate) fn midr() -> u64 {
    mrs!("midr_el1")
}

/// REVIDR_EL1.
pub(crate) fn revidr() -> u64 {
    mrs!("revidr_el1")
}

/// AIDR_EL1.
pub(crate) fn aidr() -> u64 {
    mrs!("aidr_el1")
}

/// CTR_EL0.
pub(crate) fn ctr() -> u64 {
    mrs!("ctr_el0")
}

/// DCZID_EL0.
pub(crate) fn dczid() -> u64 {
    mrs!("dczid_el0")
}

/// GMID_EL1: log2 of the LDGM and STGM block, in words. Only where FEAT_MTE2 is.
pub(crate) fn gmid() -> u64 {
    mrs!("S3_1_C0_C0_4")
}

/// PMCR_EL0. Only where a PMU is.
pub(crate) fn pmcr() -> u64 {
    mrs!("pmcr_el0")
}
