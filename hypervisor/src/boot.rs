//! From the first Rust instruction to the first guest instruction.
//!
//! With the MMU off ([`early`]): find the UART, refuse what cannot be run on, build EL2's map. With the
//! MMU on: read the device tree, give the heap its pool, open the bundle, bring up the CPUs, build the VMs,
//! run. Whatever is wrong is said in one sentence on the UART, and the machine is turned off.

pub(crate) mod early;
mod pool;

use crate::arch::entry::{SecondaryBoot, image};
use crate::arch::{cache, cpu, errata, gic as icc, ids, mmu, tags, timer, traps, vectors};
use crate::cpu::{Cpu, CpuShared, Local, Stay, per_cpu};
use crate::dev::gic::{self, Redistributor};
use crate::exit::interrupt::{HYP_TIMER, MAINTENANCE};
use crate::machine::{self, Host, Machine};
use crate::mem::frames::{Frames, Pools};
use crate::mem::{heap, map, tables};
use crate::vcpu::Vcpu;
use crate::vm::build::{Means, build};
use crate::{bundle, console, firmware};
use ::errata::Workarounds;
use ::errata::mitigation::Answers;
use addr::{Pa, PaRange};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use fdt::{GicVersion, Options};
use idreg::{HostIds, Reg};
use manifest::cpio::Archive;
use manifest::layout::{PTIMER_INTID, VTIMER_INTID};
use spin::{Mutex, Once};
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
    let provocation = crate::mem::provoke::take(&mut machine.bootargs);
    firmware::set_conduit(machine.psci);
    let options = Options::parse(&machine.bootargs).map_err(|e| format!("{e}"))?;
    console::init_log(options.log);
    log::info!("Tagvisor {} at {}", env!("CARGO_PKG_VERSION"), image::start());
    check_machine(&machine)?;
    let (archive, initrd) = open_bundle(&machine)?;
    let mut taken = Vec::from(machine.reserved.as_slice());
    taken.extend([image_range()?, initrd]);
    taken.extend(PaRange::new(Pa::new(tree.as_ptr().addr() as u64), tree.len() as u64));
    let mut frames = Frames::new(&machine.memory, &taken);
    let pool = pool::give(&mut frames)?;
    taken.push(pool);
    let archive = bundle::publish(archive);
    map_devices(&machine)?;
    map::prepare_windows()?;
    // SAFETY: mapped by `map_devices`, and nobody else drives it.
    unsafe { gic::init_distributor(machine.gic.gicd.start()) }?;

    let all = bring_up(&machine)?;
    log::debug!("errata workarounds: {}", errata::in_use());
    let ids = combined_ids(&all, &options).ok_or("there is no CPU")?;
    let means = means(&ids, all.len(), &machine);
    let manifest = archive.file(manifest::MANIFEST_FILE).map_err(|e| format!("{e}"))?;
    let spec = manifest::dtb::read(manifest).map_err(|e| format!("manifest: {e}"))?;
    manifest::check(&spec, |name| archive.size(name)).map_err(|e| format!("manifest: {e}"))?;
    pool::complete(pool, &means, &spec.taggable)?;
    let mut pools = Pools::new(&machine.memory, &taken, &spec.taggable);
    let vms = build(spec, &means, &mut pools)?;
    console::set_mux(::console::Console::new(vms.iter().map(|vm| vm.spec.name.as_str())));
    let vmids = Vmids::new(if means.vmid16 { u16::MAX } else { 255 }).ok_or("there are too few VMIDs")?;
    let host = host(&means, &all);
    let uart_intid = machine.uart.as_ref().and_then(|u| u.intid);
    let published = machine::publish(Machine {
        vms,
        cpus: all.iter().map(|c| CpuShared::new(c.affinity, c.redistributor)).collect(),
        host,
        vmids: Mutex::new(vmids),
        uart_intid,
        free: pools.free(false),
    });
    #[cfg(feature = "provoke")]
    provocation.iter().for_each(|what| crate::mem::provoke::run(what));
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

/// Reads the device tree; out of line, because it needs half of the boot stack and `run` never returns.
#[inline(never)]
fn read_machine(tree: &[u8]) -> Result<fdt::Machine, String> {
    fdt::machine::read(tree).map_err(|e| format!("{e}"))
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
    if machine.memory.iter().any(|m| m.end().get() > map::STACKS) {
        return Err(format!("there is RAM above {:#x}, which EL2's map does not reach", map::STACKS));
    }
    if machine.cpus.len() > map::MAX_CPUS {
        return Err(format!("the machine has {} CPUs, more than {}", machine.cpus.len(), map::MAX_CPUS));
    }
    idreg::check_tables().map_err(|e| format!("{e}"))
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

/// A CPU that is up, as the boot CPU knows it.
struct Up {
    affinity: u64,
    redistributor: Redistributor,
    ids: HostIds,
    /// What firmware says there about speculation.
    firmware: Answers,
}

/// What a secondary CPU reports while the boot CPU waits for it.
static REPORT: Mutex<Option<Result<Up, &'static str>>> = Mutex::new(None);
/// What a secondary CPU needs to set itself up.
static REGIONS: Once<Vec<PaRange>> = Once::new();
/// Set when the machine is published: secondaries start to serve. Release by the boot CPU, Acquire by
/// them.
static GO: AtomicBool = AtomicBool::new(false);

/// Sets this CPU up; the same on all.
fn set_up_cpu(index: usize, panic_stack: u64) -> Result<Up, &'static str> {
    vectors::install();
    cpu::set_per_cpu(per_cpu(index, panic_stack));
    let ids = host_ids();
    idreg::check_required(&ids)?;
    if timer::frequency() == 0 {
        return Err("firmware does not announce the frequency of the counter (CNTFRQ_EL0 is 0)");
    }
    cache::join();
    errata::join();
    tags::allow_access();
    let affinity = cpu::affinity();
    let regions = REGIONS.get().ok_or("no redistributors are known")?;
    let ppis = [VTIMER_INTID, PTIMER_INTID, HYP_TIMER, MAINTENANCE];
    // SAFETY: `map_devices` mapped the regions.
    let redistributor = unsafe { Redistributor::claim(regions, affinity, &ppis) }?;
    traps::before_first_vcpu();
    icc::init_cpu_interface();
    timer::set_alarm(None);
    Ok(Up { affinity, redistributor, ids, firmware: firmware::mitigations() })
}

/// This CPU's ID registers.
fn host_ids() -> HostIds {
    let mut host = HostIds {
        features: ids::feature_registers(),
        midr: ids::midr(),
        revidr: ids::revidr(),
        aidr: ids::aidr(),
        ctr: ids::ctr(),
        dczid: ids::dczid(),
        gmid: 0,
        pmcr: 0,
    };
    if host.field(Reg::Pfr1, 8) >= 2 {
        host.gmid = ids::gmid();
    }
    if host.has_pmu() {
        host.pmcr = ids::pmcr();
    }
    host
}

/// Turns the other CPUs on, one after the other.
fn bring_up(machine: &fdt::Machine) -> Result<Vec<Up>, String> {
    REGIONS.call_once(|| machine.gic.gicr.clone());
    let this = cpu::affinity();
    let mut cpus = Vec::new();
    // VM manifests count the CPUs that are up, the boot CPU first.
    let (_, panic_stack) = map::add_stacks(0)?;
    cpus.push(set_up_cpu(0, panic_stack)?);
    let others = machine.cpus.iter().filter(|c| c.enabled && c.mpidr != this);
    // A CPU that fails keeps its stacks: it may come up late.
    for (other, place) in others.zip(1..) {
        match turn_on(other.mpidr, cpus.len(), place) {
            Ok(up) => cpus.push(up),
            Err(why) => log::warn!("CPU {:#x} is not used: {why}", other.mpidr),
        }
    }
    Ok(cpus)
}

fn turn_on(affinity: u64, index: usize, place: usize) -> Result<Up, String> {
    let (stack, panic_stack) = map::add_stacks(place)?;
    let regime = mmu::current();
    let boot = alloc::boxed::Box::leak(alloc::boxed::Box::new(SecondaryBoot {
        ttbr0: regime.ttbr0,
        tcr: regime.tcr,
        mair: regime.mair,
        sctlr: mmu::SCTLR,
        stack,
        cpu: index as u64,
        panic_stack,
    }));
    // It reads this with its MMU off.
    tables::clean(boot);
    let entry = image::secondary_entry().get();
    let context = core::ptr::from_ref(boot).addr() as u64;
    firmware::cpu_on(affinity, entry, context).map_err(|e| format!("PSCI CPU_ON: {e}"))?;
    let deadline = timer::now() + timer::frequency();
    while timer::now() < deadline {
        match REPORT.lock().take() {
            // One that was given up before.
            Some(Ok(up)) if up.affinity != affinity => {}
            Some(report) => return report.map_err(String::from),
            None => {}
        }
        core::hint::spin_loop();
    }
    Err("it does not answer".into())
}

/// A secondary CPU's first Rust function, on its own stack, MMU on.
pub(crate) extern "C" fn secondary(boot: &'static SecondaryBoot) -> ! {
    let index = boot.cpu as usize;
    let up = set_up_cpu(index, boot.panic_stack);
    let failed = up.is_err();
    *REPORT.lock() = Some(up);
    if failed {
        cpu::halt();
    }
    while !GO.load(Ordering::Acquire) {
        cpu::wait_for_event();
    }
    match machine::get() {
        Some(machine) => match serve(machine, index) {
            Ok(never) => match never {},
            Err(why) => panic!("{why}"),
        },
        None => cpu::halt(),
    }
}

/// The safe combination of all CPUs' ID registers, less what options turn off.
fn combined_ids(all: &[Up], options: &Options) -> Option<HostIds> {
    let (first, rest) = all.split_first()?;
    let mut host = first.ids;
    for up in rest {
        host.combine(&up.ids);
    }
    if !options.fwb || errata::in_use().contains(Workarounds::NO_FWB) {
        hide(&mut host, Reg::Mmfr2, 40);
    }
    if !options.mte_perm {
        hide(&mut host, Reg::Pfr2, 0);
    }
    if errata::in_use().contains(Workarounds::NO_HARDWARE_DIRTY) {
        // HAFDBS: the access flag alone.
        host.limit(Reg::Mmfr1, 0, 1);
    }
    Some(host)
}

/// Makes a 4-bit field say "not implemented".
fn hide(host: &mut HostIds, reg: Reg, lsb: u32) {
    if let Some(value) = host.features.get_mut(reg as usize) {
        *value &= !(0xf << lsb);
    }
}

/// What the builder of VMs needs to know of the machine.
fn means<'a>(ids: &'a HostIds, cpus: usize, machine: &'a fdt::Machine) -> Means<'a> {
    let gic = &machine.gic;
    let uart = machine.uart.iter().map(|u| u.base);
    let own = core::iter::once(gic.gicd).chain(gic.gicr.iter().copied()).chain(uart).collect();
    Means {
        ids,
        pa_bits: mmu::pa_bits(),
        stage2: S2Features { fwb: ids.has_fwb(), mte_perm: ids.has_mte() && ids.has_mte_perm() },
        vmid16: ids.field(Reg::Mmfr1, 4) == 2,
        mte: ids.has_mte(),
        rng: ids.field(Reg::Isar0, 60) != 0,
        list_registers: icc::virtual_interface().list_registers,
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
