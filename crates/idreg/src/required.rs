//! What a CPU must have for the hypervisor to run on it at all; `docs/requirements.md` lists the same.

use crate::field::Reg;
use crate::host::HostIds;

/// Checks one CPU.
///
/// # Errors
/// What it lacks, as a sentence.
pub fn check_required(cpu: &HostIds) -> Result<(), &'static str> {
    // Each exit from a guest reads DISR_EL1.
    if !cpu.has_ras() {
        return Err("the CPU lacks FEAT_RAS (Armv8.2), without which an SError cannot be charged to a VM");
    }
    if cpu.field(Reg::Pfr0, 24) == 0 {
        return Err("the CPU has no system registers of a GICv3");
    }
    if cpu.field(Reg::Pfr0, 16) == 0xf || cpu.field(Reg::Pfr0, 20) == 0xf {
        return Err("the CPU has no floating point or no SIMD");
    }
    // TGran4; TGran4_2, whose 0 means "as TGran4".
    if cpu.field(Reg::Mmfr0, 28) == 0xf || cpu.field(Reg::Mmfr0, 40) == 1 {
        return Err("the CPU does not translate in pages of 4 KiB");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FEATURE_REGISTERS;

    fn cpu(pfr0: u64, mmfr0: u64) -> HostIds {
        let mut features = [0; FEATURE_REGISTERS];
        features[Reg::Pfr0 as usize] = pfr0;
        features[Reg::Mmfr0 as usize] = mmfr0;
        HostIds { features, midr: 0, revidr: 0, aidr: 0, ctr: 0, dczid: 0, gmid: 0, pmcr: 0, sve_lengths: 0 }
    }

    #[test]
    fn each_requirement_is_checked() {
        const PFR0: u64 = 0x1111_1111;
        assert_eq!(check_required(&cpu(PFR0, 0)), Ok(()));
        assert_eq!(check_required(&cpu(PFR0, 2 << 40)), Ok(()));
        let lacks = |pfr0, mmfr0| check_required(&cpu(pfr0, mmfr0)).unwrap_err();
        assert!(lacks(PFR0 & !(0xf << 28), 0).contains("FEAT_RAS"));
        assert!(lacks(PFR0 & !(0xf << 24), 0).contains("GICv3"));
        assert!(lacks(PFR0 | 0xf << 16, 0).contains("floating point"));
        assert!(lacks(PFR0 | 0xf << 20, 0).contains("SIMD"));
        assert!(lacks(PFR0, 0xf << 28).contains("4 KiB"));
        assert!(lacks(PFR0, 1 << 40).contains("4 KiB"));
    }
}
