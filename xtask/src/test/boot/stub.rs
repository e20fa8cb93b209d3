//! A few instructions at EL2 or EL3 before the image: what QEMU's own loader never does.

/// HCR_EL2 with E2H and RW.
const E2H_RW: u64 = 1 << 34 | 1 << 31;
const MSR_HCR_EL2_X9: u32 = 0xd51c_1109;
const MSR_SPSEL_0: u32 = 0xd500_40bf;
const ISB: u32 = 0xd503_3fdf;
const BR_X9: u32 = 0xd61f_0120;

/// Leaves the state of a host kernel at EL2 if asked (HCR_EL2.E2H set, SP_EL0 in use), sets x0 if given,
/// and goes on at `target`.
pub fn stub(host: bool, x0: Option<u64>, target: u64) -> Vec<u8> {
    let mut words = Vec::new();
    if host {
        words.extend(load(9, E2H_RW));
        words.extend([MSR_HCR_EL2_X9, ISB, MSR_SPSEL_0]);
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
        assert_eq!(stub(true, Some(0), 0).len(), 4 * (4 + 3 + 4 + 4 + 1));
    }
}
