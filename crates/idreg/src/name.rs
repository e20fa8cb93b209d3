//! Registers and fields by their architectural names: for the host, which reads manifests and logs.

use crate::field::{Reg, Row};
use crate::table::rows;

/// The registers whose fields have names, in order.
pub const REGISTER_NAMES: [(Reg, &str); 19] = [
    (Reg::Pfr0, "ID_AA64PFR0_EL1"),
    (Reg::Pfr1, "ID_AA64PFR1_EL1"),
    (Reg::Pfr2, "ID_AA64PFR2_EL1"),
    (Reg::Zfr0, "ID_AA64ZFR0_EL1"),
    (Reg::Smfr0, "ID_AA64SMFR0_EL1"),
    (Reg::Fpfr0, "ID_AA64FPFR0_EL1"),
    (Reg::Dfr0, "ID_AA64DFR0_EL1"),
    (Reg::Dfr1, "ID_AA64DFR1_EL1"),
    (Reg::Dfr2, "ID_AA64DFR2_EL1"),
    (Reg::Isar0, "ID_AA64ISAR0_EL1"),
    (Reg::Isar1, "ID_AA64ISAR1_EL1"),
    (Reg::Isar2, "ID_AA64ISAR2_EL1"),
    (Reg::Isar3, "ID_AA64ISAR3_EL1"),
    (Reg::Mmfr0, "ID_AA64MMFR0_EL1"),
    (Reg::Mmfr1, "ID_AA64MMFR1_EL1"),
    (Reg::Mmfr2, "ID_AA64MMFR2_EL1"),
    (Reg::Mmfr3, "ID_AA64MMFR3_EL1"),
    (Reg::Mmfr4, "ID_AA64MMFR4_EL1"),
    (Reg::Ctr, "CTR_EL0"),
];

/// The register of this name, in upper or lower case.
#[must_use]
pub fn register(name: &str) -> Option<Reg> {
    REGISTER_NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(reg, _)| *reg)
}

/// A register's name.
#[must_use]
pub fn register_name(reg: Reg) -> &'static str {
    REGISTER_NAMES.iter().find(|(known, _)| *known == reg).map_or("", |(_, name)| name)
}

/// The rows of a register.
pub fn fields(reg: Reg) -> impl Iterator<Item = &'static Row> {
    rows().filter(move |row| row.entry.reg == reg)
}

/// The row of a field, by its name in upper or lower case.
#[must_use]
pub fn field(reg: Reg, name: &str) -> Option<&'static Row> {
    fields(reg).find(|row| row.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_name() {
        for row in rows() {
            let reg = register(&register_name(row.entry.reg).to_ascii_lowercase()).unwrap();
            assert_eq!(field(reg, &row.name.to_ascii_lowercase()), Some(row), "{}", row.name);
        }
        assert_eq!(register("ID_AA64PFR9_EL1"), None);
        assert_eq!(field(Reg::Pfr0, "MTE"), None);
    }
}
