//! Shared memory where some of its VMs can have it non-cacheable only.

use crate::{MachineSpec, RegionKind, RegionSpec, Tags, VmSpec, WithoutMtePerm};
use alloc::string::String;
use alloc::vec::Vec;

/// The share that a region is a view of, if that has no tags.
fn share(region: &RegionSpec) -> Option<&String> {
    match &region.kind {
        RegionKind::Shared { share } if region.tags == Tags::None => Some(share),
        RegionKind::Shared { .. }
        | RegionKind::Ram
        | RegionKind::ReadOnly { .. }
        | RegionKind::Device { .. } => None,
    }
}

impl MachineSpec {
    /// Makes views by VMs without MTE say what those by VMs with MTE do about machines without
    /// FEAT_MTE_PERM: where one VM has memory non-cacheable, all have, or caches would hold what others do
    /// not see (B2.11 "Mismatched memory attributes").
    pub fn settle_shares(&mut self) {
        let wants = |vm: &VmSpec| {
            let mut names = Vec::new();
            for region in vm.regions.iter().filter(|_| vm.mte) {
                names.extend(
                    share(region)
                        .filter(|_| region.without_mte_perm == WithoutMtePerm::NonCacheable)
                        .cloned(),
                );
            }
            names
        };
        let wanted: Vec<String> = self.vms.iter().flat_map(wants).collect();
        for region in self.vms.iter_mut().filter(|vm| !vm.mte).flat_map(|vm| &mut vm.regions) {
            let Some(name) = share(region) else { continue };
            region.without_mte_perm =
                if wanted.contains(name) { WithoutMtePerm::NonCacheable } else { WithoutMtePerm::Refuse };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{region, vm};
    use crate::{Taggable, WithoutMtePerm::*};

    /// Views of share `s` by VMs with and without MTE that say this; what they say afterwards.
    fn settled(views: &[(bool, WithoutMtePerm)]) -> Vec<WithoutMtePerm> {
        let view = |&(mte, what): &(bool, WithoutMtePerm)| {
            let mut vm = VmSpec { mte, ..vm("x") };
            for share in ["s", "other"] {
                let kind = RegionKind::Shared { share: share.into() };
                vm.regions.push(region(share, 0x7000_0000, 0x1000, kind));
            }
            vm.regions[1].without_mte_perm = what;
            vm
        };
        let vms = views.iter().map(view).collect();
        let mut spec = MachineSpec { taggable: Taggable::All, tag_storage: Vec::new(), vms };
        spec.settle_shares();
        for vm in &spec.vms {
            assert_eq!((vm.regions[0].without_mte_perm, vm.regions[2].without_mte_perm), (Refuse, Refuse));
        }
        spec.vms.iter().map(|vm| vm.regions[1].without_mte_perm).collect()
    }

    #[test]
    fn all_views_have_one_type() {
        let of = |views: &[_]| settled(views);
        assert_eq!(of(&[(false, Refuse), (true, NonCacheable)]), [NonCacheable; 2], "in whatever order");
        assert_eq!(of(&[(true, NonCacheable), (false, Refuse), (false, NonCacheable)]), [NonCacheable; 3]);
        // Nobody needs it.
        assert_eq!(of(&[(false, NonCacheable), (false, Refuse)]), [Refuse; 2]);
        // A VM with MTE is refused where the machine cannot do it otherwise: that is not decided here.
        assert_eq!(of(&[(true, Refuse), (false, NonCacheable)]), [Refuse; 2]);
        assert_eq!(of(&[(true, Refuse), (true, NonCacheable)]), [Refuse, NonCacheable]);
    }
}
