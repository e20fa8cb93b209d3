//! The machine while it runs: its VMs and CPUs, built once at boot, shared by all CPUs.

use crate::arch::{gic, timer};
use crate::cpu::CpuShared;
use crate::dev::gic::KICK;
use crate::lock::Mutex;
use crate::log;
use crate::mem::map::MAX_CPUS;
use crate::nested::mmu::VMID_USERS;
use crate::vm::{Verdict, Vm};
use crate::{console, firmware};
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::Once;
use vdev::smccc::Mitigations;
use vmsa::vmid::Vmids;

/// Facts about the hardware that paths ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// All CPUs have FEAT_MTE2.
    pub(crate) mte: bool,
    /// All CPUs have pointer authentication.
    pub(crate) pauth: bool,
    /// All CPUs have FEAT_RNG.
    pub(crate) rng: bool,
    /// EL2's heap has tags: EL2 is to check them.
    pub(crate) tagged_heap: bool,
    /// The virtual CPU interface.
    pub(crate) vgic: gic::VirtualInterface,
    /// Counts of the physical counter in a time slice.
    pub(crate) slice: u64,
    /// What SMCCC says about speculation.
    pub(crate) mitigations: Mitigations,
}

/// The machine.
pub(crate) struct Machine {
    /// The VMs; the index is the VM's id.
    pub(crate) vms: Vec<&'static Vm>,
    /// The CPUs that VMs run on, in the device tree's order.
    pub(crate) cpus: Vec<CpuShared>,
    /// The hardware.
    pub(crate) host: Host,
    /// Which VMID each VM has, and each shadow stage 2.
    pub(crate) vmids: Mutex<Vmids<VMID_USERS, MAX_CPUS>>,
    /// INTID of the console UART, if it has one.
    pub(crate) uart_intid: Option<u32>,
    /// Free bytes of RAM after the VMs took theirs.
    pub(crate) free: u64,
}

static MACHINE: Once<Machine> = Once::new();

/// Publishes the machine, once.
pub(crate) fn publish(machine: Machine) -> &'static Machine {
    MACHINE.call_once(|| machine)
}

/// The machine, once it is built.
pub(crate) fn get() -> Option<&'static Machine> {
    MACHINE.get()
}

impl Machine {
    /// Makes a CPU look at its requests.
    #[inline]
    pub(crate) fn kick(&self, cpu: usize) {
        if let Some(cpu) = self.cpus.get(cpu) {
            gic::send_sgi(KICK, cpu.affinity);
        }
    }

    /// Ends the machine if no VM that counts is left running: the last thing that every stop asks.
    pub(crate) fn end_if_done(&self) {
        let counted = || self.vms.iter().filter(|vm| vm.counts());
        if counted().any(|vm| vm.is_alive()) {
            return;
        }
        let failed = counted().find_map(|vm| match vm.verdict() {
            Verdict::Fail(reason) => Some((vm, reason)),
            Verdict::Pass | Verdict::NotRun => None,
        });
        match failed {
            Some((vm, reason)) => end(false, format_args!("{}: {reason}", vm.spec.name)),
            None => end(true, format_args!("all VMs ended well")),
        }
    }
}

/// The physical count at the first instruction. Written once, before there are other CPUs.
static BEGAN: AtomicU64 = AtomicU64::new(0);
/// Whether a guest has been entered: the first one reports how long that took.
static FIRST_GUEST: AtomicBool = AtomicBool::new(false);

/// Notes when the hypervisor began.
pub(crate) fn set_began(count: u64) {
    BEGAN.store(count, Ordering::Relaxed);
}

/// A guest is about to be entered; the first time, tells how long that took. `preparing`: counts that
/// this CPU spent on preparing memory.
pub(crate) fn guest_begins(preparing: u64) {
    if !FIRST_GUEST.swap(true, Ordering::Relaxed) {
        let all = timer::now().wrapping_sub(BEGAN.load(Ordering::Relaxed));
        log::debug!("{} counts to the first guest, {preparing} more to prepare its memory", all - preparing);
    }
}

/// Whether a CPU ends the machine. Partner: itself, on other CPUs.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Prints the verdict as the last line and turns the machine off. The last two VMs may stop on two CPUs
/// at the same time: one of these prints, the other waits for the end.
pub(crate) fn end(pass: bool, reason: core::fmt::Arguments<'_>) -> ! {
    if ENDING.swap(true, Ordering::AcqRel) {
        crate::arch::cpu::halt();
    }
    stop_other_cpus();
    let mut out = console::Emergency::new();
    let verdict = if pass { "pass" } else { "fail" };
    let _ = writeln!(out, "tagvisor: result: {verdict} {reason}");
    firmware::power_off()
}

/// Asks all other CPUs to stop; they do at their next exit, and say nothing more.
pub(crate) fn stop_other_cpus() {
    console::close();
    if let Some(machine) = get() {
        let this = crate::arch::cpu::index();
        for (index, _) in machine.cpus.iter().enumerate().filter(|(i, _)| *i != this) {
            machine.kick(index);
        }
    }
}

/// Turns the machine off without a word.
pub(crate) fn power_off() -> ! {
    firmware::power_off()
}
