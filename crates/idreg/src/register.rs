//! Which registers a VM's table holds.

use trap::SysReg;

use crate::field::index;

/// Those behind the feature ID registers, by index.
const OTHERS: [(u8, SysReg); 9] = [
    (index::MIDR, SysReg::new(3, 0, 0, 0, 0)),
    (index::REVIDR, SysReg::REVIDR_EL1),
    (index::AIDR, SysReg::AIDR_EL1),
    (index::CTR, SysReg::CTR_EL0),
    (index::CLIDR, SysReg::CLIDR_EL1),
    (index::CCSIDR, SysReg::CCSIDR_EL1),
    (index::DCZID, SysReg::new(3, 3, 0, 0, 7)),
    (index::GMID, SysReg::GMID_EL1),
    (index::MPIDR, SysReg::new(3, 0, 0, 0, 5)),
];

/// The index of a register in a VM's table.
#[must_use]
pub fn index_of(register: SysReg) -> Option<usize> {
    register.id_index().or_else(|| {
        let other = OTHERS.iter().find(|(_, other)| *other == register);
        other.map(|(index, _)| usize::from(*index))
    })
}

/// The register that an encoding of 16 bits names, as an MRS has it in bits 20:5: op0, op1, CRn, CRm,
/// op2 from the highest bit on. `None` if it has more bits.
#[must_use]
pub fn from_encoding(encoding: u64) -> Option<SysReg> {
    let e = u32::from(u16::try_from(encoding).ok()?);
    Some(SysReg::new(e >> 14, e >> 11, e >> 7, e >> 3, e))
}

/// The register at an index of a VM's table. Beyond the last, that of CPU identification.
#[must_use]
pub fn register_at(index: u8) -> SysReg {
    let other = OTHERS.iter().find(|(other, _)| *other == index);
    other.map_or_else(
        || SysReg::new(3, 0, 0, u32::from(index >> 3).wrapping_add(1), u32::from(index)),
        |(_, register)| *register,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::REGISTERS;

    #[test]
    fn indices_and_registers_pair_up() {
        for index in 0..REGISTERS {
            assert_eq!(index_of(register_at(index as u8)), Some(index));
        }
        assert_eq!(index_of(SysReg::TCR2_EL1), None);
        assert_eq!(index_of(SysReg::new(3, 0, 0, 0, 1)), None);
        // MRS x0, ID_AA64PFR1_EL1 is 0xd538_0420.
        assert_eq!(from_encoding(0xd538_0420 >> 5 & 0xffff), Some(SysReg::new(3, 0, 0, 4, 1)));
        assert_eq!(from_encoding(1 << 16 | 0xc021), None);
    }
}
