//! What is allowed but probably not meant.

use crate::schema::MachineEntry;
use crate::source::Table;
use addr::PAGE_SIZE;
use manifest::{MachineSpec, OnTagAccess, RegionKind, RegionSpec, Taggable, Tags, VmSpec};

/// A sentence for each, with its line.
pub(crate) fn all(entries: &MachineEntry<'_>, spec: &MachineSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    for (table, vm) in entries.of(spec) {
        let mut warn = |what: &str| warnings.push(table.error(what).to_string());
        if vm.mte && spec.taggable == Taggable::None {
            warn("has MTE, but [machine] taggable is \"none\"");
        }
        if vm.tag_quota.is_some() && !vm.regions.iter().any(|r| r.tags == Tags::Lazy) {
            warn("has a tag-quota, but no region with tags \"lazy\"");
        }
        if let Some(region) = short_quota(vm) {
            warn(&format!(
                "region \"{}\" has lazy tags and on-tag-access \"inject\", but tag-quota does not cover all lazy \
                 memory: a kernel that clears tags there itself does not survive the abort",
                region.name
            ));
        }
        for region in &vm.regions {
            if let Some(what) = of_region(region, spec, table, vm) {
                warn(&format!("region \"{}\" {what}", region.name));
            }
        }
    }
    if spec.vms.iter().all(|vm| !vm.autostart)
        && let Some((table, _)) = entries.of(spec).next()
    {
        warnings.push(table.clone().called(String::new()).error("no VM has autostart").to_string());
    }
    warnings
}

/// RAM whose tags may run out, where the guest's kernel then takes an abort.
fn short_quota(vm: &VmSpec) -> Option<&RegionSpec> {
    let lazy = || vm.regions.iter().filter(|r| r.tags == Tags::Lazy);
    let pages: u64 = lazy().map(|r| r.ipa.size() / PAGE_SIZE).sum();
    let inject = |r: &&RegionSpec| r.kind == RegionKind::Ram && r.on_tag_access == OnTagAccess::Inject;
    let short = vm.mte && vm.tag_quota.is_some_and(|quota| quota < pages);
    lazy().find(inject).filter(|_| short)
}

fn of_region(
    region: &RegionSpec,
    spec: &MachineSpec,
    table: &Table<'_>,
    vm: &VmSpec,
) -> Option<&'static str> {
    let written = |key| {
        let named = |t: &Table<'_>| t.get("name").is_some_and(|v| v.str().is_ok_and(|n| n == region.name));
        table.tables("region").is_ok_and(|tables| tables.iter().any(|t| named(t) && t.get(key).is_some()))
    };
    let views = |share: &str| {
        let same = |r: &&RegionSpec| matches!(&r.kind, RegionKind::Shared { share: s } if s == share);
        spec.vms.iter().flat_map(|vm| &vm.regions).filter(same).count()
    };
    match &region.kind {
        RegionKind::Shared { share } if views(share) < 2 => {
            return Some("is shared, but nothing else has its share");
        }
        RegionKind::ReadOnly { .. } if region.file.is_none() => return Some("is read-only, but has no file"),
        RegionKind::Ram
        | RegionKind::ReadOnly { .. }
        | RegionKind::Shared { .. }
        | RegionKind::Device { .. } => {}
    }
    if !vm.mte && region.tags == Tags::Lazy {
        return Some("has tags \"lazy\", but its VM has no MTE");
    }
    if region.tags == Tags::Backed && written("on-tag-access") {
        return Some("has on-tag-access, which does nothing with tags \"backed\"");
    }
    None
}
