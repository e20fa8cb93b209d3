//! A VM's interrupt controller, and the interrupts of devices that it has.

use super::Means;
use alloc::vec::Vec;
use manifest::{RegionKind, RegionSpec, VmSpec, layout};
use vgic::{Config, Vgic};

/// Interrupts of a VM's devices: INTID at the physical GIC, and in the VM.
pub(super) fn forwarded(spec: &VmSpec) -> Vec<(u32, u32)> {
    let of = |region: &RegionSpec| match &region.kind {
        RegionKind::Device { interrupts, .. } => interrupts.iter().map(|i| (i.physical, i.guest)).collect(),
        RegionKind::Ram | RegionKind::ReadOnly { .. } | RegionKind::Shared { .. } => Vec::new(),
    };
    spec.regions.iter().flat_map(of).collect()
}

/// A VM's interrupt controller.
pub(super) fn controller(spec: &VmSpec, means: &Means<'_>) -> Vgic {
    let mut vgic = Vgic::new(Config {
        vcpus: spec.cpus.len(),
        spis: layout::SPIS as usize,
        list_registers: usize::from(means.list_registers),
        priority_bits: 5,
    });
    // With virtual EL2 there are more timers than the hardware has: their lines are the model's.
    let timers = [layout::VTIMER_INTID, layout::PTIMER_INTID];
    for intid in timers.into_iter().filter(|_| spec.nested.is_none()) {
        vgic.map_hw(intid, intid);
    }
    for (physical, guest) in forwarded(spec) {
        vgic.map_hw(guest, physical);
    }
    vgic
}
