//! Named CPUs: the same for a VM on every machine that can be one.
//!
//! A baseline is what its version of the architecture requires, of what VMs can have; everything else
//! that could be lowered is at its lowest. So its values do not depend on the machine: one that has
//! less than a value is refused. Left to the machine are what no VM may lower anyway, CTR_EL0, and from
//! Armv8.3 on the algorithm of pointer authentication, which the architecture requires but does not
//! choose. A baseline is not needed at EL2: the host turns it into values of fields.

use crate::field::{Offer, Reg, Row, Rule};
use crate::table::rows;

/// What a version adds to the one before it: register, field, value (Arm, A2, "Armv8-A architecture
/// extensions").
type Step = &'static [(Reg, &'static str, u8)];

const V8_0: Step = &[
    (Reg::Pfr0, "FP", 0),
    (Reg::Pfr0, "AdvSIMD", 0),
    (Reg::Dfr0, "DebugVer", 6),
    (Reg::Dfr0, "BRPs", 1),
    (Reg::Dfr0, "WRPs", 1),
    // 40 bits, and the granule that most systems are built for.
    (Reg::Mmfr0, "PARange", 2),
    (Reg::Mmfr0, "TGran4", 0),
    // A machine may have it or not; a guest that expects it is right on both.
    (Reg::Mmfr1, "SpecSEI", 1),
];
const V8_1: Step = &[
    (Reg::Isar0, "CRC32", 1),
    (Reg::Isar0, "Atomic", 2),
    (Reg::Isar0, "RDM", 1),
    (Reg::Mmfr1, "HPDS", 1),
    (Reg::Mmfr1, "PAN", 1),
];
const V8_2: Step = &[
    (Reg::Dfr0, "DebugVer", 8),
    (Reg::Isar1, "DPB", 1),
    (Reg::Mmfr1, "PAN", 2),
    (Reg::Mmfr2, "CnP", 1),
    (Reg::Mmfr2, "UAO", 1),
];
const V8_3: Step = &[(Reg::Isar1, "JSCVT", 1), (Reg::Isar1, "FCMA", 1), (Reg::Isar1, "LRCPC", 1)];
const V8_4: Step = &[
    (Reg::Pfr0, "DIT", 1),
    (Reg::Dfr0, "DebugVer", 9),
    (Reg::Isar0, "DP", 1),
    (Reg::Isar0, "TS", 1),
    (Reg::Isar0, "TLB", 2),
    (Reg::Isar1, "LRCPC", 2),
    (Reg::Mmfr2, "ST", 1),
    (Reg::Mmfr2, "AT", 1),
    (Reg::Mmfr2, "IDS", 1),
    (Reg::Mmfr2, "TTL", 1),
];
const V8_5: Step = &[
    (Reg::Pfr0, "CSV2", 1),
    (Reg::Pfr0, "CSV3", 1),
    (Reg::Pfr1, "BT", 1),
    (Reg::Pfr1, "SSBS", 2),
    (Reg::Isar0, "TS", 2),
    (Reg::Isar1, "DPB", 2),
    (Reg::Isar1, "FRINTTS", 1),
    (Reg::Isar1, "SB", 1),
    (Reg::Isar1, "SPECRES", 1),
    (Reg::Mmfr2, "E0PD", 1),
];
/// Memory tagging. MTE_frac 0 promises asynchronous faults.
const MEMTAG: Step = &[(Reg::Pfr1, "MTE", 2), (Reg::Pfr1, "MTE_frac", 0)];

/// SVE2 without any of its options, and half precision, which it requires. Its vectors are as long as the
/// manifest says.
const V9_0: Step =
    &[(Reg::Pfr0, "FP", 1), (Reg::Pfr0, "AdvSIMD", 1), (Reg::Pfr0, "SVE", 1), (Reg::Zfr0, "SVEver", 1)];

const ARMV8_0: &[Step] = &[V8_0];
const ARMV8_2: &[Step] = &[V8_0, V8_1, V8_2];
const ARMV8_4: &[Step] = &[V8_0, V8_1, V8_2, V8_3, V8_4];
const ARMV8_5: &[Step] = &[V8_0, V8_1, V8_2, V8_3, V8_4, V8_5];
const ARMV9_0: &[Step] = &[V8_0, V8_1, V8_2, V8_3, V8_4, V8_5, V9_0];

/// A named CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// Its name.
    pub name: &'static str,
    steps: &'static [Step],
    /// Pointer authentication, by the machine's algorithm.
    pauth: bool,
    /// Whether it has memory tagging.
    pub memtag: bool,
}

const fn named(name: &'static str, steps: &'static [Step], pauth: bool, memtag: bool) -> Baseline {
    Baseline { name, steps, pauth, memtag }
}

/// All baselines. Armv9.0 is Armv8.5 with SVE2, which a VM has only if its entry says so besides.
pub const BASELINES: [Baseline; 7] = [
    named("armv8.0-a", ARMV8_0, false, false),
    named("armv8.2-a", ARMV8_2, false, false),
    named("armv8.4-a", ARMV8_4, true, false),
    named("armv8.5-a", ARMV8_5, true, false),
    named("armv8.5-a+memtag", ARMV8_5, true, true),
    named("armv9.0-a", ARMV9_0, true, false),
    named("armv9.0-a+memtag", ARMV9_0, true, true),
];

impl Baseline {
    /// The baseline of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        BASELINES.into_iter().find(|baseline| baseline.name == name)
    }

    /// The fields that it sets, with their values.
    pub fn fields(self) -> impl Iterator<Item = (&'static Row, u8)> {
        rows().filter_map(move |row| Some((row, self.value(row)?)))
    }

    /// Whether a VM with it may have SVE.
    #[must_use]
    pub fn sve(self) -> bool {
        self.steps.iter().any(|step| step.iter().any(|(reg, ..)| *reg == Reg::Zfr0))
    }

    /// What it sets a field to; `None` leaves it to the machine.
    fn value(self, row: &Row) -> Option<u8> {
        let memtag = [MEMTAG];
        let steps = self.steps.iter().chain(if self.memtag { memtag.as_slice() } else { &[] });
        let mut named = steps
            .flat_map(|step| step.iter())
            .filter(|(reg, name, _)| *reg == row.entry.reg && *name == row.name);
        if let Some((_, _, value)) = named.next_back() {
            return Some(*value);
        }
        let machine = match row.entry.offer {
            Offer::Value(_) | Offer::Hidden => true,
            Offer::Host | Offer::AtMost(_) | Offer::WithMte(_) | Offer::WithSve(_) => {
                row.entry.reg == Reg::Ctr || self.pauth && is_pauth(row)
            }
        };
        (!machine).then_some(match row.entry.field.rule {
            Rule::LowerSafe | Rule::HigherSafe | Rule::HigherOrZero => 0,
            Rule::SignedLowerSafe | Rule::Exact => row.entry.field.absent,
        })
    }
}

fn is_pauth(row: &Row) -> bool {
    matches!(row.name, "APA" | "API" | "APA3" | "GPA" | "GPI" | "GPA3" | "PAC_frac")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    #[test]
    fn names_exist() {
        for (reg, name, _) in [V8_0, V8_1, V8_2, V8_3, V8_4, V8_5, MEMTAG].into_iter().flatten() {
            assert!(name::field(*reg, name).is_some_and(|row| row.name == *name), "{name}");
        }
        for baseline in BASELINES {
            assert_eq!(Baseline::by_name(baseline.name), Some(baseline));
        }
        assert_eq!(Baseline::by_name("host"), None);
    }

    #[test]
    fn later_steps_win() {
        let value = |name, field| {
            let mut fields = Baseline::by_name(name).unwrap().fields();
            fields.find(|(row, _)| row.name == field).map(|(_, value)| value)
        };
        assert_eq!(value("armv8.0-a", "DPB"), Some(0));
        assert_eq!(value("armv8.0-a", "HPDS"), Some(0));
        assert_eq!(value("armv8.2-a", "HPDS"), Some(1), "not optional from Armv8.1 on");
        assert_eq!(value("armv9.0-a", "HPDS"), Some(1));
        assert_eq!((value("armv8.5-a", "FP"), value("armv9.0-a", "FP")), (Some(0), Some(1)));
        assert_eq!(value("armv8.4-a", "DPB"), Some(1));
        assert_eq!(value("armv8.5-a", "DPB"), Some(2));
        assert_eq!(value("armv8.5-a", "MTE"), Some(0));
        assert_eq!(value("armv8.5-a+memtag", "MTE"), Some(2));
        assert_eq!(value("armv8.2-a", "API"), Some(0));
        assert_eq!(value("armv8.4-a", "API"), None, "the machine's algorithm");
        assert_eq!(value("armv8.5-a", "SME"), None, "hidden from all VMs");
        assert_eq!(value("armv8.5-a", "IDC"), None);
        assert_eq!(value("armv8.0-a", "TGran64"), Some(0xf));
    }
}
