//! A VM while the machine runs: what all its vCPUs share.

pub(crate) mod build;
pub(crate) mod console;
pub(crate) mod dirty;
pub(crate) mod events;
pub(crate) mod fault;
pub(crate) mod identity;
pub(crate) mod lazy;
pub(crate) mod lifecycle;
pub(crate) mod map;
mod memory;
pub(crate) mod prepare;
pub(crate) mod reach;
pub(crate) mod uart;

use crate::arch::{gic, timer};
use crate::lock::Mutex;
use crate::machine;
use crate::nested::mmu::NestedMmu;
use crate::vcpu::{VcpuShared, request};
use ::console::budget;
use ::console::ktap::Ktap;
use abi::hypercall::StopCause;
use addr::{Canonical, Ipa, PaRange};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use events::Events;
use fault::Faults;
use lifecycle::Life;
use manifest::{RegionKind, VmSpec};
use map::GuestMap;
use uart::GuestUart;
use vdev::power::PowerTable;
use vgic::{Kick, Vgic};

/// What the hardware needs to know of a VM's stage 2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage2Registers {
    /// VTTBR_EL2 without the VMID, which changes from time to time.
    pub(crate) root: u64,
    /// VTCR_EL2.
    pub(crate) vtcr: u64,
}

impl Stage2Registers {
    /// Bits of an address, as VTCR_EL2.T0SZ has them.
    pub(crate) const fn address_bits(&self) -> u8 {
        64 - (self.vtcr & 0x3f) as u8
    }
}

/// Physical memory behind a region.
#[derive(Clone, Debug)]
pub(crate) struct Backing {
    /// Pieces, in the order of the region's IPAs.
    pub(crate) pieces: Vec<PaRange>,
    /// Whether the VM owns it and it is scrubbed and filled at each start. Shared memory is
    /// scrubbed once, at boot; device memory never.
    pub(crate) prepared_at_start: bool,
    /// How EL2 reaches it: the type of its stage-2 leaves. Tags are zeroed along with the data if the
    /// guest sees some.
    pub(crate) kind: cmo::Kind,
}

/// How a VM ended, as far as the machine's verdict goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has not been started.
    NotRun,
    /// Its KTAP plan is complete without a failure, or it has none and called SYSTEM_OFF.
    Pass,
    /// Why it failed.
    Fail(&'static str),
}

/// A VM.
pub(crate) struct Vm {
    /// Id: index in the machine's list, and in hypercalls.
    pub(crate) id: usize,
    /// What the manifest says.
    pub(crate) spec: VmSpec,
    /// Its ID registers, and what traps.
    pub(crate) identity: identity::Guarded,
    /// Bits of its longest SVE vectors; 0 without SVE.
    pub(crate) sve_bits: u16,
    /// Where its stage 2 is.
    pub(crate) stage2: Stage2Registers,
    /// Its stage 2, to look at and to change.
    pub(crate) map: Mutex<GuestMap>,
    /// Stage 2 of its guests, if it is a hypervisor itself.
    pub(crate) nested: Option<NestedMmu>,
    /// Physical memory of each region of `spec.regions`.
    pub(crate) backing: Vec<Backing>,
    /// Its device tree, copied to the guest at each start, with seeds of their own if there is entropy.
    pub(crate) tree: fdt::guest::Written,
    /// Its vCPUs, as others see them.
    pub(crate) vcpus: Vec<VcpuShared>,
    /// Its interrupt controller.
    pub(crate) vgic: Mutex<Vgic>,
    /// Its UART.
    pub(crate) uart: Mutex<GuestUart>,
    /// PSCI state of its vCPUs.
    pub(crate) power: Mutex<PowerTable>,
    /// Whether it runs.
    pub(crate) life: Mutex<Life>,
    /// vCPUs that have yet to stop before the VM has stopped.
    pub(crate) to_stop: AtomicUsize,
    /// Events that it has not read yet, if it is a control VM.
    pub(crate) events: Mutex<Events>,
    /// Its tag faults.
    pub(crate) faults: Mutex<Faults>,
    /// What its output says about its tests.
    pub(crate) ktap: Mutex<Ktap>,
    /// Starts so far.
    pub(crate) starts: AtomicU64,
    /// CNTVOFF_EL2: the physical count at the VM's start.
    counter_offset: AtomicU64,
    /// Reports that this VM caused since it started: they are limited.
    reports: AtomicU64,
    /// When the reports that were printed are paid for ([`budget`]), and the lines about its stops.
    report_budget: AtomicU64,
    stop_budget: AtomicU64,
    /// Interrupts of devices that it has: INTID at the physical GIC, and in the VM.
    pub(crate) forwarded: Vec<(u32, u32)>,
}

/// Most reports of one VM per start: a hostile guest cannot flood the console. Nor can it by starting again
/// and again: then they have to be paid for.
const MAX_REPORTS: u64 = 16;

impl Vm {
    /// CNTVOFF_EL2 for its vCPUs.
    pub(crate) fn counter_offset(&self) -> u64 {
        self.counter_offset.load(Ordering::Relaxed)
    }

    /// The VM's counter starts at 0 now.
    pub(crate) fn restart_counter(&self, now: u64) {
        self.counter_offset.store(now, Ordering::Relaxed);
    }

    /// Makes the vCPUs of `kick` look at their virtual interrupts. `own`: the caller's own vCPU, which
    /// looks before it enters its guest anyway.
    #[inline(always)]
    pub(crate) fn kick(&self, kick: Kick, own: Option<usize>) {
        for vcpu in kick {
            self.ask(vcpu, request::INTERRUPT, own == Some(vcpu));
        }
    }

    /// Asks something of a vCPU and makes its CPU look, unless it is the caller's own.
    #[inline(never)]
    pub(crate) fn ask(&self, vcpu: usize, bits: u32, own: bool) {
        let Some(shared) = self.vcpus.get(vcpu) else { return };
        if shared.ask(bits) && !own {
            wake(shared.cpu);
        }
    }

    /// Whether an IPA is memory that a vCPU can start in.
    pub(crate) fn is_ram(&self, ipa: u64) -> bool {
        self.spec.regions.iter().any(|r| {
            matches!(r.kind, RegionKind::Ram | RegionKind::ReadOnly { .. })
                && r.ipa.contains(Ipa::<Canonical>::new(ipa))
        })
    }

    /// Whether the machine's end and verdict wait for it.
    pub(crate) fn counts(&self) -> bool {
        !self.spec.background
    }

    /// Whether the VM may print another report.
    pub(crate) fn may_report(&self) -> bool {
        self.is_report_due() && self.may_print_report()
    }

    /// Whether it has not had all its reports of this start yet; whether it may print one, too, says
    /// [`may_print_report`](Self::may_print_report).
    pub(crate) fn is_report_due(&self) -> bool {
        self.reports.fetch_add(1, Ordering::Relaxed) < MAX_REPORTS
    }

    /// Whether a report that is due may be printed.
    pub(crate) fn may_print_report(&self) -> bool {
        spend(&self.report_budget)
    }

    /// A new start may report again.
    pub(crate) fn forgive_reports(&self) {
        self.reports.store(0, Ordering::Relaxed);
    }

    /// Whether a line may say that it has stopped.
    pub(crate) fn may_say_stopped(&self) -> bool {
        spend(&self.stop_budget)
    }
}

/// Takes a line from a budget, if there is one left. Relaxed: two CPUs at once may take the same one.
#[cold]
#[inline(never)]
fn spend(budget: &AtomicU64) -> bool {
    let until = budget::spend(budget.load(Ordering::Relaxed), timer::count(), timer::frequency());
    if let Some(until) = until {
        budget.store(until, Ordering::Relaxed);
    }
    until.is_some()
}

/// Makes a CPU see that one of its vCPUs was asked something. On this CPU the scheduler looks
/// anyway: at the next exit's end if the vCPU is resident, else when it chooses.
#[inline(always)]
fn wake(cpu: usize) {
    let Some(machine) = machine::get() else { return };
    let Some(shared) = machine.cpus.get(cpu) else { return };
    shared.ask_reschedule();
    gic::send_sgi(crate::dev::gic::KICK, shared.affinity);
}

/// Stops a VM because of what it did.
pub(crate) fn stop_for_fault(vm: &'static Vm) {
    vm.request_stop(StopCause::Fault, false);
}
