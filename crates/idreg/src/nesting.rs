//! What a VM that starts at virtual EL2 sees beside what every VM sees: fields that describe EL2 and
//! stage 2, where the table has them hidden.
//!
//! Only what the hypervisor emulates is offered: fine-grained traps (FEAT_FGT), HCRX_EL2 (FEAT_HCX),
//! enhanced traps (FEAT_EVT), the physical counter's offset (FEAT_ECV). Hidden stay nesting itself
//! (FEAT_NV) and FEAT_CMOW, whose HCRX_EL2.CMOW would have to hold for permissions that a shadow lacks
//! for reasons of its own.

use crate::field::Reg;
use crate::guest::Features;
use crate::host::HostIds;

/// Which kind of hypervisor a VM at virtual EL2 may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VirtualEl2 {
    /// HCR_EL2.E2H is RES1 (FEAT_VHE without FEAT_E2H0).
    Vhe,
    /// HCR_EL2.E2H is RES0 (no FEAT_VHE).
    Nvhe,
}

/// A field of four bits and its value.
type Value = (Reg, u32, u64);

/// Puts the fields of EL2 into a VM's table.
pub(crate) fn offer(table: &mut [u64], host: &HostIds, features: &Features) {
    let Some(kind) = features.nested else { return };
    let vhe = kind == VirtualEl2::Vhe;
    let values: [Value; 14] = [
        // Error records: none; ESB and VSESR_EL2 are what a hypervisor needs of RAS.
        (Reg::Pfr0, 28, 1),
        // AArch64 only.
        (Reg::Pfr0, 8, 1),
        // Stage-2 granules as those of stage 1.
        (Reg::Mmfr0, 32, 0),
        (Reg::Mmfr0, 36, 0),
        (Reg::Mmfr0, 40, 0),
        // 16 bits of VMID.
        (Reg::Mmfr1, 4, 2),
        // FEAT_VHE: what kind of hypervisor it is to be.
        (Reg::Mmfr1, 8, u64::from(vhe)),
        // E2H0: all ones says that E2H cannot be 0.
        (Reg::Mmfr4, 24, if vhe { 0xf } else { 0 }),
        // Software decides what L1's attributes mean, so FEAT_S2FWB asks nothing of the machine.
        (Reg::Mmfr2, 40, 1),
        // What the machine traps for L1: FGT without FGT2, HCX, EVT; ECV with CNTPOFF_EL2.
        (Reg::Mmfr0, 56, host.field(Reg::Mmfr0, 56).min(1)),
        (Reg::Mmfr0, 60, host.field(Reg::Mmfr0, 60).min(2)),
        (Reg::Mmfr1, 40, u64::from(host.has_hcx())),
        (Reg::Mmfr1, 56, 0),
        (Reg::Mmfr2, 56, host.field(Reg::Mmfr2, 56).min(2)),
    ];
    for (reg, lsb, value) in values {
        put(table, reg, lsb, value);
    }
    // FEAT_MTE_PERM: its stage 2 may forbid tags, where the machine's can.
    if features.mte && host.has_mte_perm() {
        put(table, Reg::Pfr2, 0, 1);
    }
}

fn put(table: &mut [u64], reg: Reg, lsb: u32, value: u64) {
    if let Some(to) = table.get_mut(reg as usize) {
        *to = *to & !0xf_u64.wrapping_shl(lsb) | value.wrapping_shl(lsb);
    }
}

impl HostIds {
    /// Whether VMs can have a virtual EL2 of this kind: FEAT_NV2, and NV1 for one without VHE.
    #[must_use]
    pub fn has_nesting(&self, kind: VirtualEl2) -> bool {
        // ID_AA64MMFR2_EL1.NV 2, or ID_AA64MMFR4_EL1.NV_frac 1: FEAT_NV2 (only).
        let nv2 = self.field(Reg::Mmfr2, 24) >= 2 || self.field(Reg::Mmfr4, 20) >= 1;
        // E2H0 0b1110: HCR_EL2.NV1 is RES0.
        let nv1 = self.field(Reg::Mmfr4, 24) != 0xe;
        nv2 && (kind == VirtualEl2::Vhe || nv1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FEATURE_REGISTERS, GuestIds};

    fn machine(mmfr2: u64, mmfr4: u64) -> HostIds {
        let mut features = [0; FEATURE_REGISTERS];
        features[Reg::Mmfr2 as usize] = mmfr2;
        features[Reg::Mmfr4 as usize] = mmfr4;
        features[Reg::Pfr1 as usize] = 3 << 8;
        features[Reg::Pfr2 as usize] = 1;
        HostIds { features, midr: 0, revidr: 0, aidr: 0, ctr: 0, dczid: 4, gmid: 6, pmcr: 0, sve_lengths: 0 }
    }

    fn field(kind: Option<VirtualEl2>, mte: bool, reg: Reg, lsb: u32) -> u64 {
        let ids = GuestIds::new(&machine(2 << 24, 0), &Features { mte, sve: false, nested: kind });
        ids.read(reg as usize) >> lsb & 0xf
    }

    #[test]
    fn el2_is_seen_by_hypervisors_only() {
        for (kind, el2, vh, e2h0) in
            [(None, 0, 0, 0), (Some(VirtualEl2::Vhe), 1, 1, 0xf), (Some(VirtualEl2::Nvhe), 1, 0, 0)]
        {
            assert_eq!(field(kind, false, Reg::Pfr0, 8), el2);
            assert_eq!(field(kind, false, Reg::Mmfr1, 8), vh);
            assert_eq!(field(kind, false, Reg::Mmfr4, 24), e2h0);
            assert_eq!(field(kind, false, Reg::Mmfr2, 24), 0, "no nesting below");
            assert_eq!(field(kind, false, Reg::Mmfr0, 40), u64::from(kind.is_none()), "stage-2 granule");
        }
    }

    #[test]
    fn controls_of_el2_are_the_machines() {
        let mut host = machine(2 << 24 | 2 << 56, 0);
        host.features[Reg::Mmfr0 as usize] = 2 << 60 | 2 << 56;
        host.features[Reg::Mmfr1 as usize] = 1 << 56 | 1 << 40;
        for (nested, fgt, ecv, hcx, cmow, evt) in
            [(Some(VirtualEl2::Nvhe), 1, 2, 1, 0, 2), (None, 0, 1, 0, 1, 0)]
        {
            let ids = GuestIds::new(&host, &Features { mte: false, sve: false, nested });
            let field = |reg, lsb| ids.field(reg, lsb);
            assert_eq!((field(Reg::Mmfr0, 56), field(Reg::Mmfr0, 60)), (fgt, ecv));
            assert_eq!(
                (field(Reg::Mmfr1, 40), field(Reg::Mmfr1, 56), field(Reg::Mmfr2, 56)),
                (hcx, cmow, evt)
            );
        }
        let none = GuestIds::new(
            &machine(2 << 24, 0),
            &Features { nested: Some(VirtualEl2::Vhe), ..Features::default() },
        );
        assert_eq!(
            (none.field(Reg::Mmfr0, 56), none.field(Reg::Mmfr1, 40), none.field(Reg::Mmfr2, 56)),
            (0, 0, 0)
        );
    }

    #[test]
    fn mte_perm_needs_mte() {
        assert_eq!(field(Some(VirtualEl2::Vhe), true, Reg::Pfr2, 0), 1);
        assert_eq!(field(Some(VirtualEl2::Vhe), false, Reg::Pfr2, 0), 0);
        assert_eq!(field(None, true, Reg::Pfr2, 0), 0);
    }

    #[test]
    fn what_the_machine_must_have() {
        for (mmfr2, mmfr4, vhe, nvhe) in [
            (0, 0, false, false),
            (1, 0, false, false),
            (2, 0, true, true),
            (2, 0xe, true, false),
            (2, 0xf, true, true),
            (0, 0x10_0000, true, true),
        ] {
            let host = machine(mmfr2 << 24, (mmfr4 & 0xf) << 24 | mmfr4 & 0xf0_0000);
            assert_eq!(host.has_nesting(VirtualEl2::Vhe), vhe, "{mmfr2:x} {mmfr4:x}");
            assert_eq!(host.has_nesting(VirtualEl2::Nvhe), nvhe, "{mmfr2:x} {mmfr4:x}");
        }
    }
}
