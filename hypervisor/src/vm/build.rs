//! From the manifest to VMs: memory, stage 2, ID registers, device trees. Runs once, at boot, on one
//! CPU; everything that can be refused is refused here, with a sentence.

mod interrupts;
mod lazy;

use super::events::{Events, controls};
use super::fault::Faults;
use super::identity;
use super::lazy::LazyMemory;
use super::lifecycle::Life;
use super::map::GuestMap;
use super::prepare::zero;
use super::uart::GuestUart;
use super::{Backing, Stage2Registers, Vm};
use crate::arch::cpu;
use crate::bundle;
use crate::lock::Mutex;
use crate::log;
use crate::mem::heap;
use crate::mem::window;
use crate::nested::mmu::{self, NestedMmu};
use crate::vcpu::VcpuShared;
use ::console::ktap::Ktap;
use addr::{Ipa, IpaRange, Pa, PaRange};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use cmo::{Kind, chunks};
use core::sync::atomic::{AtomicU64, AtomicUsize};
use fdt::guest::GuestTree;
use frames::Pools;
use idreg::HostIds;
use manifest::{
    DeviceMemory, MachineSpec, RegionKind, RegionSpec, Taggable, Tags, VmSpec, WithoutMtePerm, layout,
};
use vdev::power::{PowerTable, Start};
use vmsa::attr::{S2Attr, S2Features, S2Memory};
use vmsa::stage2::{Geometry, tables_needed};

/// What the machine can do, as the builder needs it.
pub(crate) struct Means<'a> {
    /// The safe combination of all CPUs' ID registers.
    pub(crate) ids: &'a HostIds,
    /// Physical address bits.
    pub(crate) pa_bits: u8,
    /// Stage-2 features in use.
    pub(crate) stage2: S2Features,
    /// VMIDs have 16 bits.
    pub(crate) vmid16: bool,
    /// All CPUs have FEAT_MTE2.
    pub(crate) mte: bool,
    /// All CPUs have FEAT_RNG.
    pub(crate) rng: bool,
    /// List registers of the virtual CPU interface.
    pub(crate) list_registers: u8,
    /// `cmo-trap`: guests' cache maintenance is trapped where it may hit read-only memory.
    pub(crate) cmo_trap: bool,
    /// Each CPU's own ID registers, of those that are up.
    pub(crate) cpus: Vec<&'a HostIds>,
    /// RAM: devices may not lie in it.
    pub(crate) ram: &'a [PaRange],
    /// Devices that the hypervisor drives itself: interrupt controller and console.
    pub(crate) own: Vec<PaRange>,
}

/// Memory shared under a name.
struct Share {
    name: String,
    pieces: Vec<PaRange>,
    /// Whether a view of it named its content.
    filled: bool,
}

/// Builds all VMs, or says in a sentence why not.
pub(crate) fn build(
    mut spec: MachineSpec,
    means: &Means<'_>,
    frames: &mut Pools,
) -> Result<Vec<&'static Vm>, String> {
    let mut shares: Vec<Share> = Vec::new();
    spec.settle_shares();
    let MachineSpec { taggable, vms, .. } = spec;
    let mut built = Vec::with_capacity(vms.len());
    let controlled: Vec<bool> = (0..vms.len())
        .map(|id| vms.iter().enumerate().any(|(by, vm)| controls(by, &vm.control, id)))
        .collect();
    for (id, vm) in vms.into_iter().enumerate() {
        let name = vm.name.clone();
        let vm = build_one(id, vm, controlled.get(id) == Some(&true), &taggable, means, frames, &mut shares);
        built.push(vm.map_err(|why| format!("VM {name}: {why}"))?);
    }
    Ok(built)
}

/// Out of line, as what it calls is: a VM's parts are large, and the boot stack holds one of each only.
#[inline(never)]
fn build_one(
    id: usize,
    spec: VmSpec,
    controlled: bool,
    taggable: &Taggable,
    means: &Means<'_>,
    frames: &mut Pools,
    shares: &mut Vec<Share>,
) -> Result<&'static Vm, String> {
    if spec.mte && !means.mte {
        return Err("it wants MTE, which this machine's CPUs do not have".into());
    }
    for cpu in &spec.cpus {
        if usize::from(*cpu) >= means.cpus.len() {
            return Err(format!("it wants CPU {cpu}, but the machine has {}", means.cpus.len()));
        }
    }
    let backing = back_all(&spec, taggable, means, frames, shares)?;
    let lazy = lazy::memory(&spec, &backing, taggable, means, frames)?;
    let (stage2, map) = map_all(id, &spec, controlled, &backing, lazy, means)?;
    let virtual_el2 = mmu::virtual_el2(&spec, means)?;
    let nested = match virtual_el2 {
        Some(_) => Some(NestedMmu::new(id, &spec, stage2, means)?),
        None => None,
    };
    let sve_bits = identity::longest_vector(&spec, means)?;
    let identity = identity::of(&spec, virtual_el2, sve_bits != 0, stage2.address_bits(), means)?;
    let tree = tree(&spec, means)?;
    Ok(assemble(id, spec, Parts { backing, stage2, map, nested, tree, identity, sve_bits }, means))
}

/// What can fail of a VM.
struct Parts {
    backing: Vec<Backing>,
    stage2: Stage2Registers,
    map: GuestMap,
    nested: Option<NestedMmu>,
    tree: fdt::guest::Written,
    identity: identity::Guarded,
    sve_bits: u16,
}

#[inline(never)]
fn assemble(id: usize, spec: VmSpec, parts: Parts, means: &Means<'_>) -> &'static Vm {
    let Parts { backing, stage2, map, nested, tree, identity, sve_bits } = parts;
    let boot = Start { entry: spec.kernel.entry.get(), context: spec.dtb.get() };
    let vcpus: Vec<VcpuShared> = spec.cpus.iter().map(|cpu| VcpuShared::new(usize::from(*cpu))).collect();
    // VMs live as long as the machine.
    Box::leak(Box::new(Vm {
        id,
        nested,
        identity,
        sve_bits,
        stage2,
        map: Mutex::new(map),
        tree,
        vgic: Mutex::new(interrupts::controller(&spec, means)),
        uart: Mutex::new(GuestUart::new()),
        power: Mutex::new(PowerTable::new(vcpus.len(), boot)),
        life: Mutex::new(Life::new()),
        to_stop: AtomicUsize::new(0),
        events: Mutex::new(Events::new()),
        faults: Mutex::new(Faults::new(vcpus.len(), spec.regions.len())),
        ktap: Mutex::new(Ktap::new()),
        starts: AtomicU64::new(0),
        counter_offset: AtomicU64::new(0),
        reports: AtomicU64::new(0),
        report_budget: AtomicU64::new(0),
        stop_budget: AtomicU64::new(0),
        forwarded: interrupts::forwarded(&spec),
        vcpus,
        backing,
        spec,
    }))
}

/// Physical memory for all regions of a VM.
#[inline(never)]
fn back_all(
    spec: &VmSpec,
    taggable: &Taggable,
    means: &Means<'_>,
    frames: &mut Pools,
    shares: &mut Vec<Share>,
) -> Result<Vec<Backing>, String> {
    let mut all = Vec::new();
    for region in &spec.regions {
        let owned = is_owned(region);
        let kind = window_kind(region, spec, means)?;
        if kind == Kind::NonCacheable && !matches!(region.kind, RegionKind::Device { .. }) {
            log::info!("{}: region {} is non-cacheable, for lack of FEAT_MTE_PERM", spec.name, region.name);
        }
        let pieces = back(region, kind == Kind::Tagged, taggable, means, frames, shares)?;
        if kind == Kind::Tagged {
            check_tags(region, &pieces, taggable)?;
        }
        all.push(Backing { pieces, prepared_at_start: owned, kind });
    }
    Ok(all)
}

/// Physical memory for a region.
fn back(
    region: &RegionSpec,
    tags: bool,
    taggable: &Taggable,
    means: &Means<'_>,
    frames: &mut Pools,
    shares: &mut Vec<Share>,
) -> Result<Vec<PaRange>, String> {
    let size = region.ipa.size();
    let mut take = || {
        let free = frames.free(tags);
        frames.take(region.ipa.start().get(), size, tags).ok_or_else(|| {
            format!(
                "region {} needs {} KiB of {}, of which the machine has {} KiB left",
                region.name,
                size >> 10,
                if tags { "taggable RAM" } else { "RAM" },
                free >> 10
            )
        })
    };
    match &region.kind {
        RegionKind::Ram | RegionKind::ReadOnly { .. } => take(),
        RegionKind::Shared { share } => {
            if let Some(known) = shares.iter_mut().find(|s| s.name == *share) {
                if !known.filled {
                    fill_share(region, &known.pieces)?;
                    known.filled = region.file.is_some();
                }
                return Ok(known.pieces.clone());
            }
            let pieces = take()?;
            // Scrubbed once: all its VMs see the same memory from here on. Nothing of it stays in the
            // caches, so it does not matter yet whether one of them maps it non-cacheable.
            for piece in &pieces {
                let tagged = means.mte && can_be_tagged(piece, taggable);
                chunks(*piece, if tagged { Kind::Tagged } else { Kind::WriteBack }).for_each(zero);
            }
            fill_share(region, &pieces)?;
            shares.push(Share { name: share.clone(), pieces: pieces.clone(), filled: region.file.is_some() });
            Ok(pieces)
        }
        RegionKind::Device { pa, .. } => {
            let range = PaRange::new(*pa, size).ok_or("a device's address wraps")?;
            if means.ram.iter().any(|ram| ram.overlaps(&range)) {
                return Err(format!("device region {} ({pa}) lies in the machine's RAM", region.name));
            }
            if means.own.iter().any(|own| own.overlaps(&range)) {
                return Err(format!(
                    "device region {} ({pa}) is a device of the hypervisor's own",
                    region.name
                ));
            }
            Ok(alloc::vec![range])
        }
    }
}

/// Initial content of shared memory.
fn fill_share(region: &RegionSpec, pieces: &[PaRange]) -> Result<(), String> {
    let Some(name) = &region.file else { return Ok(()) };
    let mut data = bundle::file(name).ok_or_else(|| format!("file {name} is missing"))?;
    for mut chunk in pieces.iter().flat_map(|piece| chunks(*piece, Kind::WriteBack)) {
        let (now, rest) = data.split_at(data.len().min(chunk.memory.size() as usize));
        if now.is_empty() {
            break;
        }
        chunk.memory = PaRange::new(chunk.memory.start(), now.len() as u64).ok_or("a file wraps")?;
        if window::fill(chunk, |w| w.write(0, now)) != Some(true) {
            return Err(format!("there is no window to fill region {}", region.name));
        }
        data = rest;
    }
    Ok(())
}

/// Whether memory that is to be tagged can be: the manifest says so, and a tag that is stored at its
/// first and last granule comes back.
fn check_tags(region: &RegionSpec, pieces: &[PaRange], taggable: &Taggable) -> Result<(), String> {
    if !pieces.iter().all(|p| can_be_tagged(p, taggable)) {
        return Err(format!(
            "region {} has tags, but its memory is not among the machine's taggable ranges",
            region.name
        ));
    }
    let ends = pieces.iter().flat_map(|p| [p.start(), Pa::new(p.end().get() - addr::PAGE_SIZE)]);
    for page in ends {
        if window::probe_tags(page) != Some(true) {
            return Err(format!(
                "region {}: memory at {page} is called taggable, but holds no tag",
                region.name
            ));
        }
    }
    Ok(())
}

/// Whether the manifest says that this memory has tag storage.
pub(crate) fn can_be_tagged(piece: &PaRange, taggable: &Taggable) -> bool {
    match taggable {
        Taggable::None => false,
        Taggable::All => true,
        Taggable::Ranges(ranges) => ranges.iter().any(|r| r.contains_range(piece)),
    }
}

/// The memory of a region: IPA and physical address of each piece.
fn pieces<'a>(region: &RegionSpec, backing: &'a Backing) -> impl Iterator<Item = (IpaRange, Pa)> + use<'a> {
    let mut at = region.ipa.start();
    backing.pieces.iter().filter_map(move |piece| {
        let ipa = IpaRange::new(at, piece.size())?;
        at = ipa.end();
        Some((ipa, piece.start()))
    })
}

/// The stage-2 memory type of a region.
fn memory_type(region: &RegionSpec, spec: &VmSpec, means: &Means<'_>) -> Result<S2Memory, String> {
    if let RegionKind::Device { memory_type, .. } = &region.kind {
        match memory_type {
            DeviceMemory::Device => return Ok(S2Memory::DeviceNGnRE),
            DeviceMemory::NonCacheable => return Ok(S2Memory::NonCacheable),
            DeviceMemory::WriteBack => {}
        }
    }
    // What VMs with MTE have non-cacheable is so for all that share it.
    let shared = matches!(region.kind, RegionKind::Shared { .. }) && !means.stage2.mte_perm;
    let settled = shared && region.without_mte_perm == WithoutMtePerm::NonCacheable;
    if !(spec.mte || settled) || region.tags == Tags::Backed {
        return Ok(S2Memory::WriteBack);
    }
    if means.stage2.mte_perm {
        return Ok(S2Memory::WriteBackNoTag);
    }
    let lazy = spec.regions.iter().filter(|r| r.tags == Tags::Lazy);
    let pages: u64 = lazy.map(|r| r.ipa.size() / addr::PAGE_SIZE).sum();
    match (region.tags, region.without_mte_perm) {
        (Tags::Lazy, _) if spec.tag_quota.is_none_or(|quota| quota >= pages) => Ok(S2Memory::WriteBack),
        (Tags::None, WithoutMtePerm::NonCacheable) => Ok(S2Memory::NonCacheable),
        (Tags::Lazy, _) => Err(format!(
            "region {} has lazy tags, which need FEAT_MTE_PERM unless the tag quota covers all lazy memory",
            region.name
        )),
        (Tags::None | Tags::Backed, _) => Err(format!(
            "region {} has no tags, but the VM has MTE: that needs FEAT_MTE_PERM, which this machine's CPUs \
             lack, or without-mte-perm = \"noncacheable\"",
            region.name
        )),
    }
}

/// How EL2 reaches a region: as its stage-2 leaf has it. EL2 never opens a window to a device.
fn window_kind(region: &RegionSpec, spec: &VmSpec, means: &Means<'_>) -> Result<Kind, String> {
    let device = matches!(region.kind, RegionKind::Device { .. });
    Ok(match memory_type(region, spec, means)? {
        S2Memory::WriteBack if spec.mte && !device => Kind::Tagged,
        S2Memory::WriteBack | S2Memory::WriteBackNoTag => Kind::WriteBack,
        S2Memory::NonCacheable | S2Memory::DeviceNGnRE | S2Memory::DeviceNGnRnE => Kind::NonCacheable,
    })
}

fn attributes(region: &RegionSpec, memory: S2Memory) -> S2Attr {
    match &region.kind {
        RegionKind::Ram => S2Attr::rwx(memory),
        RegionKind::ReadOnly { .. } => S2Attr::rx(memory),
        RegionKind::Shared { .. } | RegionKind::Device { .. } => S2Attr::rw(memory),
    }
}

/// The VM's stage 2, complete. `controlled`: some VM controls this one.
#[inline(never)]
fn map_all(
    id: usize,
    spec: &VmSpec,
    controlled: bool,
    backing: &[Backing],
    lazy: LazyMemory,
    means: &Means<'_>,
) -> Result<(Stage2Registers, GuestMap), String> {
    let end = spec.regions.iter().map(|r| r.ipa.end()).max().unwrap_or(layout::UART.end());
    let bits = Geometry::ipa_bits_for(end.max(layout::UART.end()));
    let geometry = Geometry::new(bits, means.pa_bits).ok_or_else(|| {
        format!("its memory ends at {end}, beyond the {} address bits of this machine", means.pa_bits)
    })?;
    let ranges = || {
        let with_ipa = spec.regions.iter().zip(backing);
        with_ipa.flat_map(|(region, backing)| pieces(region, backing).map(move |(ipa, pa)| (region, ipa, pa)))
    };
    // Memory of the VM's own may be split down to pages while it runs: for lazy tags, and for the dirty
    // log of a VM that controls it.
    let split = |region: &RegionSpec| region.tags == Tags::Lazy || controlled && is_owned(region);
    let budget = tables_needed(&geometry, ranges().map(|(region, ipa, pa)| (ipa, pa, split(region))));
    let mut map = GuestMap::new(id, geometry, means.stage2, budget, lazy)
        .ok_or_else(|| format!("EL2's heap has no room for its stage 2, {} KiB of tables", budget << 2))?;
    for (region, ipa, pa) in ranges() {
        let attr = attributes(region, memory_type(region, spec, means)?);
        map.map_unused(ipa, pa, attr).map_err(|e| format!("region {} cannot be mapped: {e}", region.name))?;
    }
    map.cover(spec, controlled);
    crate::arch::tlb::publish_guest();
    let registers = Stage2Registers { root: map.root(), vtcr: geometry.vtcr(means.vmid16) };
    Ok((registers, map))
}

/// Whether the VM owns the region's memory.
fn is_owned(region: &RegionSpec) -> bool {
    matches!(region.kind, RegionKind::Ram | RegionKind::ReadOnly { .. })
}

#[inline(never)]
fn tree(spec: &VmSpec, means: &Means<'_>) -> Result<fdt::guest::Written, String> {
    let initrd = match &spec.initrd {
        Some(placed) => {
            let size = bundle::file(&placed.file).map_or(0, |f| f.len() as u64);
            IpaRange::new(Ipa::new(placed.at.get()), size)
        }
        None => None,
    };
    let mut seed = [0u8; 32];
    let mut seeded = true;
    for chunk in seed.chunks_mut(8) {
        match cpu::random(means.rng) {
            Some(random) => chunk.copy_from_slice(&random.to_le_bytes()),
            None => seeded = false,
        }
    }
    let guest = GuestTree {
        spec,
        initrd,
        rng_seed: seeded.then_some(seed),
        kaslr_seed: cpu::random(means.rng),
        psci: if spec.nested.is_some() { fdt::Conduit::Smc } else { fdt::Conduit::Hvc },
    };
    heap::hastily(|| fdt::guest::write(&guest).map_err(|e| format!("{e}")))
}
