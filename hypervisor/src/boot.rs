//! From the first Rust instruction to the first guest instruction.
//!
//! With the MMU off ([`early`]): find the UART, refuse what cannot be run on, build EL2's map. With the
//! MMU on: read the device tree, give the heap its pool, open the bundle, bring up the CPUs, build the VMs,
//! run. Whatever is wrong is said in one sentence on the UART, and the machine is turned off.

pub(crate) mod cpus;
pub(crate) mod early;
mod pool;

use crate::log;
use cpus::{Common, Up, bring_up, combined_ids};

use crate::arch::entry::image;
use crate::arch::{cache, cpu, errata, gic as icc, ids, tags, timer};
use crate::cpu::{Cpu, CpuShared, Local, Stay};
use crate::dev::gic;
use crate::exit::interrupt::{HYP_TIMER, MAINTENANCE};
use crate::lock::Mutex;
use crate::machine::{self, Host, Machine};
#[cfg(feature = "provoke")]
use crate::mem::provoke::check_tables;
use crate::mem::{heap, map, window};
use crate::vcpu::Vcpu;
use crate::vm::build::{Means, build};
use crate::vm::{Vm, identity};
use crate::{bundle, console, firmware};
use addr::{Pa, PaRange};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use fdt::{GicVersion, Options};
use frames::{Frames, Pools};
#[cfg(not(feature = "provoke"))]
use idreg::check_tables;
use idreg::{HostIds, Reg};
use manifest::Taggable;
use manifest::cpio::Archive;
use manifest::layout::{PTIMER_INTID, VTIMER_INTID};
use vmsa::attr::S2Features;
use vmsa::stage1::{Memory, Perm};
use vmsa::vmid::Vmids;

/// Milliseconds of a time slice.
const SLICE_MS: u64 = 10;

/// Goes on with the MMU on.
fn go_on(tree: &'static [u8], began: u64) -> ! {
    heap::init();
    machine::set_began(began);
    match run(tree) {
        Ok(never) => match never {},
        Err(why) => {
            // Not by the log: `log=off` hides no refusal, nor does an error before the log is there.
            console::say(format_args!("error: {why}"));
            machine::end(false, format_args!("boot refused"))
        }
    }
}

/// Everything with the MMU on, up to the first guest.
fn run(tree: &'static [u8]) -> Result<core::convert::Infallible, String> {
    #[cfg_attr(not(feature = "provoke"), allow(unused_mut, reason = "only the test build changes it"))]
    let mut machine = read_machine(tree)?;
    #[cfg(feature = "provoke")]
    crate::mem::provoke::arm(&mut machine.bootargs);
    firmware::set_conduit(machine.psci);
    let options = Options::parse(&machine.bootargs).map_err(|e| format!("{e}"))?;
    log::init(options.log);
    log::info!("Tagvisor {} at {}", env!("CARGO_PKG_VERSION"), image::start());
    check_machine(&machine)?;
    let (archive, taken, pool) = take_memory(&machine, tree)?;
    let archive = bundle::publish(archive);
    map_devices(&machine)?;
    map::prepare_windows()?;
    // SAFETY: mapped by `map_devices`, and nobody else drives it.
    unsafe { gic::init_distributor(machine.gic.gicd.start()) }?;
    let published = build_machine(&machine, &options, archive, taken, pool)?;
    #[cfg(feature = "provoke")]
    crate::mem::provoke::at("boot");
    enable_interrupts(published)?;
    for vm in &published.vms {
        let (used, all) = vm.map.lock().table_bytes();
        log::debug!("VM {}: {used} bytes of stage-2 tables, {all} set aside", vm.spec.name);
        if vm.spec.autostart {
            let _ = vm.request_start();
        }
    }
    published.end_if_done();
    GO.store(true, Ordering::Release);
    cpu::send_event();
    serve(published, 0)
}

/// Opens the bundle, takes the heap's pool; returns what RAM is taken now, and the pool among it.
#[inline(never)]
fn take_memory(
    machine: &fdt::Machine,
    tree: &[u8],
) -> Result<(Archive<'static>, Vec<PaRange>, PaRange), String> {
    let (archive, initrd) = open_bundle(machine)?;
    let mut taken = Vec::from(machine.reserved.as_slice());
    taken.extend([image_range()?, initrd]);
    taken.extend(PaRange::new(Pa::new(tree.as_ptr().addr() as u64), tree.len() as u64));
    let mut frames = Frames::new(&machine.memory, &taken);
    let pool = pool::give(&mut frames)?;
    taken.push(pool);
    Ok((archive, taken, pool))
}

/// Reads the manifest, brings up the CPUs, builds the VMs.
#[inline(never)]
fn build_machine(
    machine: &fdt::Machine,
    options: &Options,
    archive: &Archive<'static>,
    mut taken: Vec<PaRange>,
    pool: PaRange,
) -> Result<&'static Machine, String> {
    let manifest = archive.file(manifest::MANIFEST_FILE).map_err(|e| format!("{e}"))?;
    let mut spec = manifest::dtb::read(manifest).map_err(|e| format!("manifest: {e}"))?;
    spec.tag_storage.extend(&machine.tag_storage);
    manifest::check(&spec, |name| archive.size(name)).map_err(|e| format!("manifest: {e}"))?;
    keep_clear(&spec.tag_storage, taken.get(machine.reserved.len()..).unwrap_or_default())?;
    taken.extend(&spec.tag_storage);
    spec.taggable = taggable(spec.taggable, machine)?;
    let mut pools = free_ram(&machine.memory, &taken, &spec.taggable);
    let tag_probe = pools.taggable_page();
    let all = bring_up(machine, Common { gic: machine.gic.clone(), tag_probe })?;
    let history = errata::flush_history_at_exits(window::patch);
    log::debug!("errata workarounds: {}; {history} branches at each exit", errata::in_use());
    let ids = combined_ids(&all, options).ok_or("there is no CPU")?;
    identity::log_values("host", "", &|index| ids.read(index));
    let means = means(&ids, all.iter().map(|up| &up.ids).collect(), machine, options.cmo_trap);
    if means.stage2.fwb {
        cache::guests_are_cached();
    }
    pool::complete(pool, &means, &spec.taggable)?;
    let vms = build(spec, &means, &mut pools)?;
    console::set_mux(::console::Console::new(vms.iter().map(|vm| vm.spec.name.as_str())));
    let uart_intid = machine.uart.as_ref().and_then(|u| u.intid);
    publish(vms, &all, &means, uart_intid, pools.free(false))
}

/// The machine's free RAM, on the heap, because the boot stack is short.
#[inline(never)]
fn free_ram(memory: &[PaRange], taken: &[PaRange], taggable: &Taggable) -> Box<Pools> {
    Box::new(match taggable {
        Taggable::All => Pools::new(memory, taken, memory),
        Taggable::None => Pools::new(memory, taken, &[]),
        Taggable::Ranges(ranges) => Pools::new(memory, taken, ranges),
    })
}

#[inline(never)]
fn publish(
    vms: Vec<&'static Vm>,
    all: &[Up],
    means: &Means<'_>,
    uart_intid: Option<u32>,
    free: u64,
) -> Result<&'static Machine, String> {
    let vmids = Vmids::new(if means.vmid16 { u16::MAX } else { 255 }).ok_or("there are too few VMIDs")?;
    let cpus = all.iter().map(|c| CpuShared::new(c.affinity, c.redistributor, c.ids)).collect();
    let vmids = Mutex::new(vmids);
    Ok(machine::publish(Machine { vms, cpus, host: host(means, all), vmids, uart_intid, free }))
}

/// Reads the device tree; out of line, because it needs half of the boot stack and `run` never returns.
#[inline(never)]
fn read_machine(tree: &[u8]) -> Result<fdt::Machine, String> {
    fdt::machine::read(tree).map_err(|e| format!("{e}"))
}

/// The machine's tag storage holds nothing of the hypervisor's own, which was placed before the manifest
/// was read.
fn keep_clear(tag_storage: &[PaRange], own: &[PaRange]) -> Result<(), String> {
    for storage in tag_storage {
        if let Some(own) = own.iter().find(|own| own.overlaps(storage)) {
            return Err(format!(
                "tag storage at {} is in use by the hypervisor itself, at {}: the device tree has to reserve it",
                storage.start(),
                own.start()
            ));
        }
    }
    Ok(())
}

/// What manifest and device tree both take for taggable.
fn taggable(asked: Taggable, machine: &fdt::Machine) -> Result<Taggable, String> {
    asked.without(&machine.memory, &machine.untaggable).map_err(|(asked, untaggable)| {
        format!(
            "manifest: taggable range at {} reaches into memory at {} that the device tree marks arm,no-mte",
            asked.start(),
            untaggable.start()
        )
    })
}

/// What this hypervisor cannot do without.
fn check_machine(machine: &fdt::Machine) -> Result<(), String> {
    if machine.gic.version != GicVersion::V3 {
        return Err("the interrupt controller is a GICv2, but a GICv3 is needed (QEMU: add \
                    gic-version=3 to -machine)"
            .into());
    }
    if machine.psci.is_none() {
        return Err(
            "the device tree has no PSCI 0.2 or later, which turns CPUs on and the machine off".into()
        );
    }
    check_intids(machine)?;
    if machine.memory.iter().any(|m| m.end().get() > map::STACKS) {
        return Err(format!("there is RAM above {:#x}, which EL2's map does not reach", map::STACKS));
    }
    if machine.cpus.len() > map::MAX_CPUS {
        return Err(format!("the machine has {} CPUs, more than {}", machine.cpus.len(), map::MAX_CPUS));
    }
    check_tables().map_err(|e| format!("{e}"))
}

/// The exit path knows the PPIs as constants, those that Arm's Base System Architecture (DEN0094)
/// assigns.
fn check_intids(machine: &fdt::Machine) -> Result<(), String> {
    let timer = &machine.timer;
    let wired = [
        ("EL1 virtual timer", timer.virtual_intid, VTIMER_INTID),
        ("EL1 physical timer", timer.physical_intid, PTIMER_INTID),
        ("EL2 physical timer", timer.hyp_physical_intid, HYP_TIMER),
        ("GIC maintenance interrupt", machine.gic.maintenance_intid.unwrap_or(MAINTENANCE), MAINTENANCE),
    ];
    match wired.iter().find(|(_, told, known)| told != known) {
        Some((what, told, known)) => Err(format!(
            "the device tree gives the {what} INTID {told}, but only {known} is supported (Arm BSA)"
        )),
        None => Ok(()),
    }
}

fn image_range() -> Result<PaRange, String> {
    let size = image::end().get() - image::start().get();
    PaRange::new(image::start(), size).ok_or_else(|| "the image wraps".into())
}

/// The archive that came as initrd.
fn open_bundle(machine: &fdt::Machine) -> Result<(Archive<'static>, PaRange), String> {
    let range = machine.initrd.ok_or("there is no bundle: the loader gave no initrd")?;
    if !machine.memory.iter().any(|m| m.contains_range(&range)) {
        return Err(format!("the bundle at {} is not in RAM", range.start()));
    }
    map::add(range, Perm::ReadOnly, Memory::Normal)?;
    // SAFETY: just mapped, read-only for good, and kept out of the frames.
    let bytes =
        unsafe { core::slice::from_raw_parts(range.start().get() as *const u8, range.size() as usize) };
    Ok((Archive::new(bytes).map_err(|e| format!("{e}"))?, range))
}

fn map_devices(machine: &fdt::Machine) -> Result<(), String> {
    for range in core::iter::once(&machine.gic.gicd).chain(&machine.gic.gicr) {
        map::add(*range, Perm::ReadWrite, Memory::Device)?;
    }
    Ok(())
}

/// Set when the machine is published: secondaries start to serve. Release by the boot CPU, Acquire by
/// them.
static GO: AtomicBool = AtomicBool::new(false);

/// What the builder of VMs needs to know of the machine.
fn means<'a>(
    ids: &'a HostIds,
    cpus: Vec<&'a HostIds>,
    machine: &'a fdt::Machine,
    cmo_trap: bool,
) -> Means<'a> {
    let gic = &machine.gic;
    let uart = machine.uart.iter().map(|u| u.base);
    let own = core::iter::once(gic.gicd).chain(gic.gicr.iter().copied()).chain(uart).collect();
    Means {
        ids,
        pa_bits: ids.address_bits(),
        stage2: S2Features { fwb: ids.has_fwb(), mte_perm: ids.has_mte() && ids.has_mte_perm() },
        vmid16: ids.field(Reg::Mmfr1, 4) == 2,
        mte: ids.has_mte(),
        rng: ids.field(Reg::Isar0, 60) != 0,
        list_registers: icc::virtual_interface().list_registers,
        cmo_trap,
        cpus,
        ram: &machine.memory,
        own,
    }
}

/// What the exit path needs to know of the machine.
fn host(means: &Means<'_>, all: &[Up]) -> Host {
    Host {
        mte: means.mte,
        pauth: means.ids.has_pauth(),
        rng: means.rng,
        tagged_heap: heap::is_tagged(),
        vgic: icc::virtual_interface(),
        slice: timer::frequency() / 1000 * SLICE_MS,
        mitigations: firmware::told_to_guests(means.ids, all.iter().map(|up| up.firmware)),
    }
}

/// Routes the interrupts of the console and of devices given to VMs.
fn enable_interrupts(machine: &Machine) -> Result<(), String> {
    let Some(boot) = machine.cpus.first() else { return Err("there is no CPU".into()) };
    if let Some(intid) = machine.uart_intid {
        gic::enable_spi(intid, boot.affinity, false)?;
        console::enable_interrupts();
    }
    for vm in &machine.vms {
        let home = vm.vcpus.first().and_then(|v| machine.cpus.get(v.cpu)).unwrap_or(boot);
        for region in &vm.spec.regions {
            if let manifest::RegionKind::Device { interrupts, .. } = &region.kind {
                for i in interrupts {
                    gic::enable_spi(i.physical, home.affinity, i.edge)
                        .map_err(|why| format!("VM {}: interrupt {}: {why}", vm.spec.name, i.physical))?;
                }
            }
        }
    }
    Ok(())
}

/// Runs this CPU's vCPUs for good.
fn serve(machine: &'static Machine, index: usize) -> Result<core::convert::Infallible, String> {
    let shared = machine.cpus.get(index).ok_or("a CPU without a place")?;
    if heap::is_tagged() {
        tags::check_own_memory();
    }
    #[cfg(feature = "provoke")]
    if index != 0 {
        crate::mem::provoke::at("secondary");
    }
    let all = machine.vms.iter().flat_map(|vm| vm.vcpus.iter().enumerate().map(move |v| (vm, v)));
    let here = all.filter(|(_, (_, v))| v.cpu == index);
    let mut vcpus = Vec::with_capacity(here.clone().count());
    vcpus.extend(here.map(|(vm, (id, vcpu))| Vcpu::new(vm, id, vcpu)));
    let redistributor = shared.redistributor;
    let local = Local {
        machine,
        shared,
        index,
        host: machine.host,
        midr: ids::midr(),
        redistributor,
        stay: Stay::default(),
        fp_owner: None,
    };
    Cpu::new(local, vcpus).serve()
}
