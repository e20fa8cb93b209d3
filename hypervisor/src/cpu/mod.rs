//! A physical CPU: the vCPUs that it runs, and what it needs to run them.

pub(crate) mod schedule;

use crate::arch::cpu::PerCpu;
use crate::arch::{tags, timer, tlb};
use crate::dev::gic::Redistributor;
use crate::log;
use crate::machine::{Host, Machine};
use crate::vcpu::Vcpu;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use idreg::HostIds;
use manifest::MAX_VMS;

/// The part of a CPU that others see.
#[derive(Debug)]
pub(crate) struct CpuShared {
    /// MPIDR_EL1's affinity fields.
    pub(crate) affinity: u64,
    /// Its redistributor.
    pub(crate) redistributor: Redistributor,
    /// Its own ID registers: what traps there depends on what it has.
    pub(crate) ids: HostIds,
    /// A vCPU that is not the resident one has something to do. Set with Release by whoever kicks,
    /// taken with Acquire by the CPU.
    reschedule: AtomicBool,
}

impl CpuShared {
    /// Nothing asked.
    pub(crate) const fn new(affinity: u64, redistributor: Redistributor, ids: HostIds) -> Self {
        Self { affinity, redistributor, ids, reschedule: AtomicBool::new(false) }
    }

    /// Asks the CPU to look whom to run.
    pub(crate) fn ask_reschedule(&self) {
        self.reschedule.store(true, Ordering::Release);
    }

    /// Takes that request.
    #[inline]
    pub(crate) fn take_reschedule(&self) -> bool {
        self.reschedule.load(Ordering::Acquire) && self.reschedule.swap(false, Ordering::Acquire)
    }
}

/// What the exit path knows of its CPU.
pub(crate) struct Local {
    /// The machine.
    pub(crate) machine: &'static Machine,
    /// What others see of this CPU.
    pub(crate) shared: &'static CpuShared,
    /// This CPU's index.
    pub(crate) index: usize,
    /// Facts about the hardware.
    pub(crate) host: Host,
    /// This CPU's MIDR_EL1, which its guests see.
    pub(crate) midr: u64,
    /// This CPU's redistributor.
    pub(crate) redistributor: Redistributor,
    /// How long EL2 keeps the CPU at a time.
    pub(crate) stay: Stay,
    /// Index in [`Cpu::vcpus`] of the vCPU whose FP registers are in the hardware.
    pub(crate) fp_owner: Option<usize>,
}

impl Local {
    /// The VMID of a VM or shadow that this CPU's guest uses next.
    #[inline]
    pub(crate) fn take_vmid(&self, user: usize) -> u16 {
        // The tables have a place for every user and CPU.
        let mut vmids = self.machine.vmids.lock();
        let assignment = vmids.take(self.index, user);
        let assignment = assignment.unwrap_or_else(|| panic!("user {user} gets no VMID"));
        if assignment.flush {
            // Under the lock: no other CPU may use a VMID of the new generation before.
            tlb::flush_all_vms();
        }
        assignment.vmid
    }

    /// From here on, EL2 checks the tags of its heap. The exception to EL2 turned that off (PSTATE.TCO); the
    /// short paths leave it so. `place`: what a test that misuses the heap here calls it.
    #[inline(always)]
    pub(crate) fn check_tags(&self, place: &str) {
        if self.host.tagged_heap {
            self.check_tags_with_mte(place);
        }
    }

    /// The same on a CPU that has FEAT_MTE. Without tags on the heap nothing is checked.
    #[inline(always)]
    pub(crate) fn check_tags_with_mte(&self, place: &str) {
        tags::checks_on();
        #[cfg(feature = "provoke")]
        crate::mem::provoke::at(place);
        #[cfg(not(feature = "provoke"))]
        let _ = place;
    }
}

/// How long EL2 keeps a CPU without entering a guest, looking for interrupts or sleeping, in counts of
/// the physical counter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stay {
    since: u64,
    longest: u64,
    /// Spent on preparing VMs' memory, all in all.
    pub(crate) preparing: u64,
}

impl Stay {
    /// A stay begins: a guest exited, or a sleep ended.
    #[inline(always)]
    pub(crate) fn begin(&mut self) {
        self.since = timer::count();
    }

    /// The stay ends, or interrupts have been looked for.
    #[inline(always)]
    pub(crate) fn end(&mut self) {
        let length = timer::count().wrapping_sub(self.since);
        if length > self.longest {
            self.exceeded(length);
        }
    }

    #[cold]
    fn exceeded(&mut self, length: u64) {
        self.longest = length;
        log::debug!("longest stay at EL2: {length} counts");
    }
}

/// A physical CPU.
pub(crate) struct Cpu {
    /// What the exit path needs.
    pub(crate) local: Local,
    /// The vCPUs that run here.
    pub(crate) vcpus: Vec<Vcpu>,
    /// Index of the vCPU whose EL1 state is in the hardware.
    resident: Option<usize>,
    /// For each VM, which of its vCPUs ran here last.
    last_of_vm: [Option<usize>; MAX_VMS],
    /// Turns given so far.
    turns: u64,
    /// Who has the CPU, and until when it keeps it against equals.
    slice: Option<(usize, u64)>,
}

impl Cpu {
    /// A CPU that has not run anything.
    pub(crate) fn new(local: Local, vcpus: Vec<Vcpu>) -> Self {
        Self { local, vcpus, resident: None, last_of_vm: [None; MAX_VMS], turns: 0, slice: None }
    }
}

/// Per-CPU record for the vectors, leaked for good.
pub(crate) fn per_cpu(index: usize, panic_stack: u64) -> &'static PerCpu {
    alloc::boxed::Box::leak(alloc::boxed::Box::new(PerCpu { panic_stack, index }))
}
