//! A few instructions at EL2 or EL3 before the image: what QEMU's own loader never does.

/// HCR_EL2 with E2H and RW.
const E2H_RW: u64 = 1 << 34 | 1 << 31;
const MSR_HCR_EL2_X9: u32 = 0xd51c_1109;
const MSR_TPIDR_EL2_X9: u32 = 0xd51c_d049;
const MSR_ICC_SRE_EL2_X9: u32 = 0xd51c_c9a9;
const MSR_ICH_LR3_EL2_X9: u32 = 0xd51c_cc69;
const MSR_SPSEL_0: u32 = 0xd500_40bf;
const ISB: u32 = 0xd503_3fdf;
const BR_X9: u32 = 0xd61f_0120;
const STR_W9_X10: u32 = 0xb900_0149;

/// A virtual interrupt of nobody: pending, group 1, of the highest priority, INTID 44.
const LR3: u64 = 1 << 62 | 1 << 60 | 44;
/// GICR_ISPENDR0 and GICR_ISACTIVER0 of CPU 0, and GICD_ISACTIVER1.
const PRIVATE_PENDING: u64 = 0x080b_0200;
const PRIVATE_ACTIVE: u64 = 0x080b_0300;
const SPIS_ACTIVE: u64 = 0x0800_0304;
/// An SGI that wakes CPUs, the maintenance interrupt and EL2's timer.
const PRIVATE: u64 = 1 << 0 | 1 << 25 | 1 << 26;

/// Leaves the state of a host kernel at EL2 if asked (HCR_EL2.E2H set, SP_EL0 in use, TPIDR_EL2 in use, interrupts
/// in service, one in a list register), sets x0 if given, and goes on at `target`.
pub fn stub(host: bool, x0: Option<u64>, target: u64) -> Vec<u8> {
    let mut words = Vec::new();
    if host {
        words.extend(load(9, E2H_RW));
        words.extend([MSR_HCR_EL2_X9, ISB, MSR_SPSEL_0]);
        for (value, register) in
            [(0xdead_beef, MSR_TPIDR_EL2_X9), (0xf, MSR_ICC_SRE_EL2_X9), (LR3, MSR_ICH_LR3_EL2_X9)]
        {
            words.extend(load(9, value));
            words.extend([register, ISB]);
        }
        for (register, value) in
            [(PRIVATE_PENDING, 1 << 30), (PRIVATE_ACTIVE, PRIVATE), (SPIS_ACTIVE, 0xffff_ffff)]
        {
            words.extend(load(10, register));
            words.extend(load(9, value));
            words.push(STR_W9_X10);
        }
    }
    if let Some(x0) = x0 {
        words.extend(load(0, x0));
    }
    words.extend(load(9, target));
    words.push(BR_X9);
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// MOVZ and three MOVK.
fn load(register: u32, value: u64) -> impl Iterator<Item = u32> {
    const MOVZ: u32 = 0xd280_0000;
    const MOVK: u32 = 0xf280_0000;
    (0..4_u32).map(move |part| {
        let bits = (value >> (16 * part)) as u16;
        (if part == 0 { MOVZ } else { MOVK }) | part << 21 | u32::from(bits) << 5 | register
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_takes_four_instructions() {
        let words: Vec<u32> = load(9, 0x5a60_0000).collect();
        assert_eq!(words, [0xd280_0009, 0xf2ab_4c09, 0xf2c0_0009, 0xf2e0_0009]);
        assert_eq!(stub(true, Some(0), 0).len(), 4 * (4 + 3 + 3 * 6 + 3 * 9 + 4 + 4 + 1));
    }
}
