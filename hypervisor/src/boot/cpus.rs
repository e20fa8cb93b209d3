//! The other CPUs: turning them on, setting each up, and what holds for all of them.

use super::{GO, serve};
use crate::arch::entry::{SecondaryBoot, image};
use crate::arch::{cache, cpu, errata, gic as icc, ids, mmu, sve, tags, timer, traps, vectors};
use crate::cpu::per_cpu;
use crate::dev::gic::Redistributor;
use crate::exit::interrupt::{HYP_TIMER, MAINTENANCE};
use crate::firmware;
use crate::lock::Mutex;
use crate::log;
use crate::machine::{self, Machine};
use crate::mem::{map, tables, window};
use crate::vm::Vm;
use ::errata::Workarounds;
use ::errata::mitigation::Answers;
use addr::Pa;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use fdt::Options;
use idreg::{HostIds, Reg};
use manifest::layout::{PTIMER_INTID, VTIMER_INTID};
use spin::Once;

/// A CPU that is up, as the boot CPU knows it.
pub(super) struct Up {
    /// MPIDR_EL1's affinity fields.
    pub(super) affinity: u64,
    /// Its redistributor.
    pub(super) redistributor: Redistributor,
    /// Its ID registers.
    pub(super) ids: HostIds,
    /// What firmware says there about speculation.
    pub(super) firmware: Answers,
    /// It keeps allocation tags, where that was to be tried.
    keeps_tags: bool,
}

/// What a secondary CPU reports while the boot CPU waits for it.
static REPORT: Mutex<Option<Result<Up, &'static str>>> = Mutex::new(None);
/// What CPUs need to set themselves up.
pub(super) struct Common {
    /// The interrupt controller.
    pub(super) gic: fdt::Gic,
    /// A page that is called taggable and belongs to nobody yet.
    pub(super) tag_probe: Option<Pa>,
}
static COMMON: Once<Common> = Once::new();
/// Affinity of the CPU that the boot CPU waits for, or [`NOBODY`]. That CPU takes it back before it
/// reports, and so does the boot CPU if it gives up: whoever is first decides.
static AWAITED: AtomicU64 = AtomicU64::new(NOBODY);
const NOBODY: u64 = u64::MAX;
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
    let common = COMMON.get().ok_or("no redistributors are known")?;
    let ppis = [VTIMER_INTID, PTIMER_INTID, HYP_TIMER, MAINTENANCE];
    let gic = &common.gic;
    // SAFETY: `map_devices` mapped the regions.
    let redistributor = unsafe { Redistributor::claim(&gic.gicr, gic.stride, affinity, &ppis) }?;
    traps::before_first_vcpu(&ids);
    cpu::unmask_serrors();
    icc::init_cpu_interface();
    timer::set_alarm(None);
    Ok(Up { affinity, redistributor, ids, firmware: firmware::mitigations(), keeps_tags: true })
}

/// Takes back the boot CPU's word that it waits for the CPU `affinity`; false if that has happened.
fn stop_waiting_for(affinity: u64) -> bool {
    AWAITED.compare_exchange(affinity, NOBODY, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

impl Up {
    /// Tries whether this CPU keeps an allocation tag, if it has MTE and the boot CPU named a page for it.
    fn probe_tags(mut self) -> Self {
        let has_mte = self.ids.field(Reg::Pfr1, 8) >= 2;
        let page = COMMON.get().and_then(|common| common.tag_probe).filter(|_| has_mte);
        self.keeps_tags = page.is_none_or(|page| window::probe_tags(page) == Some(true));
        self
    }
}

/// This CPU's ID registers.
pub(super) fn host_ids() -> HostIds {
    let mut host = HostIds {
        features: ids::feature_registers(),
        midr: ids::midr(),
        revidr: ids::revidr(),
        aidr: ids::aidr(),
        ctr: ids::ctr(),
        dczid: ids::dczid(),
        gmid: 0,
        pmcr: 0,
        sve_lengths: 0,
    };
    if host.field(Reg::Pfr1, 8) >= 2 {
        host.gmid = ids::gmid();
    }
    if host.has_pmu() {
        host.pmcr = ids::pmcr();
    }
    if host.field(Reg::Pfr0, 32) != 0 {
        host.sve_lengths = sve::lengths();
    }
    host
}

/// Turns the other CPUs on, one after the other.
pub(super) fn bring_up(machine: &fdt::Machine, common: Common) -> Result<Vec<Up>, String> {
    let common = COMMON.call_once(|| common);
    let this = cpu::affinity();
    let mut cpus = Vec::new();
    // VM manifests count the CPUs that are up, the boot CPU first.
    let (_, panic_stack) = map::add_stacks(0)?;
    cpus.push(set_up_cpu(0, panic_stack)?.probe_tags());
    let others = machine.cpus.iter().filter(|c| c.enabled && c.mpidr != this);
    // A CPU that fails keeps its stacks: it may come up late.
    for (other, place) in others.zip(1..) {
        match turn_on(other.mpidr, cpus.len(), place) {
            Ok(up) => cpus.push(up),
            Err(why) => log::warn!("CPU {:#x} is not used: {why}", other.mpidr),
        }
    }
    if let Some(page) = common.tag_probe {
        let keep = cpus.iter().filter(|up| up.keeps_tags).count();
        log::debug!("{keep} of {} CPUs keep a tag at {page}, or have no MTE", cpus.len());
    }
    Ok(cpus)
}

fn turn_on(affinity: u64, index: usize, place: usize) -> Result<Up, String> {
    let (stack, panic_stack) = map::add_stacks(place)?;
    let regime = mmu::current();
    let boot = Box::leak(Box::new(SecondaryBoot {
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
    AWAITED.store(affinity, Ordering::Release);
    firmware::cpu_on(affinity, entry, context).map_err(|e| format!("PSCI CPU_ON: {e}"))?;
    let deadline = timer::now() + timer::frequency();
    loop {
        if let Some(report) = REPORT.lock().take() {
            return report.map_err(String::from);
        }
        // A CPU that has taken the word back reports very soon.
        if timer::now() >= deadline && stop_waiting_for(affinity) {
            return Err("it does not answer".into());
        }
        core::hint::spin_loop();
    }
}

/// A secondary CPU's first Rust function, on its own stack, MMU on.
pub(crate) extern "C" fn secondary(boot: &'static SecondaryBoot) -> ! {
    let index = boot.cpu as usize;
    let up = set_up_cpu(index, boot.panic_stack);
    if !stop_waiting_for(cpu::affinity()) {
        // Given up: its index, and with it its window, may be another's.
        cpu::halt();
    }
    let failed = up.is_err();
    *REPORT.lock() = Some(up.map(Up::probe_tags));
    if failed {
        cpu::halt();
    }
    while !GO.load(Ordering::Acquire) {
        cpu::wait_for_event();
    }
    match machine::get() {
        Some(machine) if !has_what_was_offered(machine, index) => {
            let needs = |vm: &&Vm| vm.vcpus.iter().any(|vcpu| vcpu.cpu == index);
            let here: Vec<&Vm> = machine.vms.iter().copied().filter(needs).collect();
            Vm::bar(&here, index, machine);
            cpu::halt()
        }
        Some(machine) => match serve(machine, index) {
            Ok(never) => match never {},
            Err(why) => panic!("{why}"),
        },
        None => cpu::halt(),
    }
}

/// Whether this CPU still has all that it reported, on which its VMs' ID registers and traps rest.
fn has_what_was_offered(machine: &Machine, index: usize) -> bool {
    let now = host_ids();
    #[cfg(feature = "provoke")]
    let now = crate::mem::provoke::lessened(now);
    let Some(lack) = machine.cpus.get(index).and_then(|cpu| cpu.ids.lack_of(&now)) else {
        return true;
    };
    log::warn!("CPU {:#x} is not used: {lack}", cpu::affinity());
    false
}

/// The safe combination of all CPUs' ID registers, less what options turn off.
pub(super) fn combined_ids(all: &[Up], options: &Options) -> Option<HostIds> {
    let (first, rest) = all.split_first()?;
    let mut host = first.ids;
    for up in rest {
        host.combine(&up.ids);
    }
    for up in all.iter().filter(|up| !up.keeps_tags) {
        // As if it had no MTE: no VM can have it.
        log::warn!("CPU {:#x} keeps no allocation tag in memory that is called taggable", up.affinity);
        host.limit(Reg::Pfr1, 8, 1);
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
