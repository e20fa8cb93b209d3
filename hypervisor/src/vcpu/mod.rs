//! A virtual CPU: its registers, what it is doing, and what others ask of it.
//!
//! A [`Vcpu`] belongs to its physical CPU, which alone touches it. What other CPUs may touch is
//! [`VcpuShared`], in the VM.

pub(crate) mod apply;
mod fp;
pub(crate) mod run;
pub(crate) mod switch;

use crate::arch::el1::{El1State, MteState, PauthKeys};
use crate::arch::gic::VirtualCpuInterface;
use crate::arch::guest::GuestRegs;
use crate::arch::timer::{self, TimerState};
use crate::arch::translate;
use crate::lock::Mutex;
use crate::machine;
use crate::nested::Nested;
use crate::nested::mmu::Attachment;
use crate::vm::Vm;
use crate::vm::fault::{Innocent, PendingAbort};
use crate::vm::prepare::Preparation;
use alloc::boxed::Box;
use cmo::Sweep;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use fp::FpRegisters;
use idreg::{GuestIds, TrapConfig};
use vmsa::walk::Regime;

/// What others ask of a vCPU. Bits of [`VcpuShared::requests`].
pub(crate) mod request {
    /// Its virtual interrupts may have changed.
    pub(crate) const INTERRUPT: u32 = 1;
    /// Get off the CPU: the VM stops.
    pub(crate) const STOP: u32 = 1 << 1;
    /// The VM starts: vCPU 0 prepares its memory.
    pub(crate) const PREPARE: u32 = 1 << 2;
    /// CPU_ON: begin.
    pub(crate) const POWER_ON: u32 = 1 << 3;
    /// A control VM decided about its tag fault.
    pub(crate) const DECIDED: u32 = 1 << 4;
    /// Say what its stage 1 is: [`VcpuShared::take_regime`](super::VcpuShared::take_regime).
    pub(crate) const REGIME: u32 = 1 << 5;
    /// Fold the list registers into the vGIC: another vCPU reads there what became of interrupts in them.
    pub(crate) const FOLD: u32 = 1 << 6;
}

/// The part of a vCPU that other CPUs see.
#[derive(Debug)]
pub(crate) struct VcpuShared {
    /// Physical CPU that it runs on.
    pub(crate) cpu: usize,
    /// [`request`] bits: set by whoever asks, taken by the vCPU's CPU.
    requests: AtomicU32,
    /// Whether a kick for an interrupt makes sense: the vCPU runs, or waits for one. One that was
    /// preempted looks at its requests when its turn comes, and must not disturb who runs instead.
    ///
    /// SeqCst, with `requests`: either who asks sees the vCPU attentive, or the vCPU, which looks at
    /// its requests after it became attentive, sees what is asked.
    attentive: AtomicBool,
    /// Exits so far.
    pub(crate) exits: ExitCounts,
    /// Its stage 1 as its CPU found it when it was asked, and when that was, in counts of the physical counter.
    regime: Mutex<Option<(u64, Regime)>>,
    /// When it last answered [`request::FOLD`], in counts of the physical counter. Release by its CPU, Acquire by
    /// whoever asked.
    folded: AtomicU64,
}

impl VcpuShared {
    /// Runs on `cpu`; nothing asked.
    pub(crate) fn new(cpu: usize) -> Self {
        Self {
            cpu,
            requests: AtomicU32::new(0),
            attentive: AtomicBool::new(false),
            exits: ExitCounts::default(),
            regime: Mutex::new(None),
            folded: AtomicU64::new(0),
        }
    }

    /// Answers [`request::FOLD`]: its list registers are in the vGIC.
    pub(crate) fn set_folded(&self, now: u64) {
        self.folded.store(now, Ordering::Release);
    }

    /// Whether they were at `since` or later.
    pub(crate) fn has_folded(&self, since: u64) -> bool {
        self.folded.load(Ordering::Acquire) >= since
    }

    /// What was found of its stage 1 since [`request::REGIME`] was asked, once.
    pub(crate) fn take_regime(&self) -> Option<(u64, Regime)> {
        self.regime.lock().take()
    }

    /// Answers [`request::REGIME`].
    pub(crate) fn set_regime(&self, now: u64, regime: Regime) {
        *self.regime.lock() = Some((now, regime));
    }

    /// Asks; returns whether a kick is due: for what was not asked already, and for an interrupt only
    /// if the vCPU is attentive.
    #[inline(always)]
    pub(crate) fn ask(&self, bits: u32) -> bool {
        let new = bits & !self.requests.fetch_or(bits, Ordering::SeqCst);
        new & !request::INTERRUPT != 0 || new != 0 && self.attentive.load(Ordering::SeqCst)
    }

    /// Says whether a kick for an interrupt makes sense; requests are to be looked at afterwards.
    pub(crate) fn set_attentive(&self, attentive: bool) {
        self.attentive.store(attentive, Ordering::SeqCst);
    }

    /// What is asked, left in place.
    #[inline(always)]
    pub(crate) fn asked(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Takes only `bits`.
    #[inline]
    pub(crate) fn take_only(&self, bits: u32) {
        self.requests.fetch_and(!bits, Ordering::Acquire);
    }

    /// Takes what is asked.
    #[inline]
    pub(crate) fn take(&self) -> Asked {
        Asked(self.requests.swap(0, Ordering::Acquire))
    }
}

/// Requests that were taken: whoever has them does them, or says why they are void.
#[must_use]
#[derive(Debug)]
pub(crate) struct Asked(u32);

impl Asked {
    /// Whether one of `bits` was asked.
    pub(crate) const fn has(&self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

/// What a vCPU is doing.
#[derive(Debug)]
pub(crate) enum Activity {
    /// Off: before its VM starts, after CPU_OFF, after its VM stopped.
    Off,
    /// Preparing its VM's memory: only vCPU 0, step by step.
    Preparing(Preparation),
    /// Cleaning and invalidating its VM's memory, step by step: maintenance by set and way.
    Sweeping(Sweep),
    /// Wants the CPU.
    Ready,
    /// In WFI, or in CPU_SUSPEND: until an interrupt is pending.
    Waiting,
    /// Took a tag fault that a control VM is to decide about.
    Faulted,
}

/// A count that one CPU writes and all may read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// One more. A plain load and store: there is one writer, the vCPU's CPU.
    #[inline(always)]
    pub(crate) fn bump(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The count.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Exits by kind, for the console's list.
#[derive(Debug, Default)]
pub(crate) struct ExitCounts {
    /// HVC and SMC.
    pub(crate) calls: Count,
    /// Trapped system registers and instructions.
    pub(crate) sysregs: Count,
    /// Data and instruction aborts, tag faults.
    pub(crate) aborts: Count,
    /// WFI and WFE.
    pub(crate) waits: Count,
    /// Physical interrupts.
    pub(crate) interrupts: Count,
    /// All others.
    pub(crate) others: Count,
}

impl ExitCounts {
    /// What the guest itself caused.
    pub(crate) fn without_interrupts(&self) -> u64 {
        let Self { calls, sysregs, aborts, waits, interrupts: _, others } = self;
        [calls, sysregs, aborts, waits, others].into_iter().map(Count::get).fold(0, u64::wrapping_add)
    }
}

/// A virtual CPU.
pub(crate) struct Vcpu {
    /// x0 to x30.
    pub(crate) regs: GuestRegs,
    /// The VM.
    pub(crate) vm: &'static Vm,
    /// Its ID registers; none before it first begins.
    pub(crate) ids: &'static GuestIds,
    /// What traps on its CPU; `None` before it first begins.
    pub(crate) traps: Option<TrapConfig>,
    /// Index in the VM: Aff0 of its MPIDR.
    pub(crate) id: usize,
    /// What others see of it.
    pub(crate) shared: &'static VcpuShared,
    /// What it is doing.
    pub(crate) activity: Activity,
    /// Its list registers have to be brought in line with the model before it is entered.
    pub(crate) sync_due: bool,
    /// Last turn on the CPU, for round robin.
    pub(crate) turn: u64,
    /// An external abort that it takes before it goes on; `sync_due` is set with it.
    pub(crate) pending_abort: Option<PendingAbort>,
    /// The page that its last tag fault found tagged at the VM's own stage 2.
    pub(crate) innocent: Innocent,
    /// The same at a guest hypervisor's.
    pub(crate) innocent_l2: Innocent,
    /// MDSCR_EL1, as written: it has no effect.
    pub(crate) mdscr: u64,
    /// The OS lock (OSLAR_EL1), as written: it has no effect.
    pub(crate) os_lock: bool,
    /// The load that waits until other vCPUs have folded: its address, and since when it waits, in counts of
    /// the physical counter.
    pub(crate) awaits_folds: Option<(u64, u64)>,
    /// The device that it just accessed answers later.
    pub(crate) repeats: bool,
    /// CSSELR_EL1, where it is trapped.
    pub(crate) csselr: u64,
    /// Virtual EL2, for a VM that has it.
    pub(crate) nested: Option<Box<Nested>>,
    /// Which shadow stage 2 its guest uses, if it is a hypervisor's.
    pub(crate) shadow: Attachment,
    /// HCR_EL2.VSE while it is not resident.
    virtual_serror: u64,
    /// EL1 registers while it is not resident.
    el1: El1State,
    /// MTE registers while it is not resident.
    mte: MteState,
    /// PAuth keys while it is not resident.
    pauth: PauthKeys,
    /// Timers while it is not resident.
    timers: TimerState,
    /// Virtual CPU interface while it is not resident.
    vgic: VirtualCpuInterface,
    /// FP registers while they are not in the hardware.
    fp: FpRegisters,
}

/// The ID registers of a vCPU that has not run: all zero.
static NO_IDS: GuestIds = GuestIds::NONE;

impl Vcpu {
    /// An off vCPU.
    pub(crate) fn new(vm: &'static Vm, id: usize, shared: &'static VcpuShared) -> Self {
        Self {
            regs: GuestRegs::new(),
            vm,
            ids: &NO_IDS,
            traps: None,
            id,
            shared,
            activity: Activity::Off,
            sync_due: false,
            turn: 0,
            pending_abort: None,
            innocent: Innocent::default(),
            innocent_l2: Innocent::default(),
            mdscr: 0,
            os_lock: true,
            csselr: 0,
            awaits_folds: None,
            repeats: false,
            nested: vm.spec.nested.map(|kind| Nested::new(kind == manifest::Nested::Vhe)),
            shadow: Attachment::default(),
            virtual_serror: 0,
            el1: El1State::default(),
            mte: MteState::default(),
            pauth: PauthKeys::default(),
            timers: TimerState::default(),
            vgic: VirtualCpuInterface::at_reset(),
            fp: FpRegisters::new(vm.sve_bits),
        }
    }

    /// Puts the vCPU, which must not be resident, into its first state: at `entry`, `context` in x0.
    pub(crate) fn reset(&mut self, entry: u64, context: u64) {
        if let Some(identity) = self.vm.identity() {
            self.ids = identity.ids();
            let cpu = machine::get().and_then(|machine| machine.cpus.get(self.shared.cpu));
            self.traps = cpu.map(|cpu| identity.traps_on(&cpu.ids));
        }
        self.regs = GuestRegs::new();
        self.regs.set(0, context);
        self.pending_abort = None;
        self.mdscr = 0;
        self.os_lock = true;
        self.csselr = 0;
        self.awaits_folds = None;
        if let Some(nested) = &mut self.nested {
            nested.reset(crate::arch::ids::midr(), idreg::vmpidr(self.id as u8), self.ids);
        }
        self.reset_shadow();
        self.virtual_serror = 0;
        self.el1 = El1State::at_reset(entry);
        if let Some(nested) = &self.nested {
            (self.el1.sctlr_el1, self.el1.cpacr_el1) = nested.first_controls();
        }
        self.mte = MteState::default();
        self.pauth = PauthKeys::default();
        self.timers = TimerState::default();
        self.vgic = VirtualCpuInterface::at_reset();
        self.fp.reset();
    }

    /// Answers [`request::REGIME`].
    pub(crate) fn tell_regime(&self, resident: bool) {
        let El1State { tcr_el1, ttbr0_el1, ttbr1_el1, sctlr_el1, mair_el1, .. } = self.el1;
        let saved = Regime {
            tcr: tcr_el1,
            ttbr0: ttbr0_el1,
            ttbr1: ttbr1_el1,
            sctlr: sctlr_el1,
            mair: mair_el1,
            pan: false,
            el2: false,
        };
        // Whoever looks from outside is not bound by PAN.
        let regime = if resident { Regime { pan: false, ..translate::regime() } } else { saved };
        self.shared.set_regime(timer::now(), regime);
    }

    /// When one of its timers fires while it is not resident, in counts of the physical counter; `now` if
    /// one is due.
    pub(crate) fn timer_deadline(&self, now: u64) -> Option<u64> {
        let physical = self.nested.as_ref().map_or(0, |nested| nested.physical_offset());
        let own = self.timers.deadline([self.counter_offset(), physical], now);
        match (own, self.soft_deadline(now)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// When a timer fires that is in no hardware: one of those of which vEL2 and L2 take turns. `now` if
    /// it is due, but nothing more is said of it once its interrupt is pending.
    pub(crate) fn soft_deadline(&self, now: u64) -> Option<u64> {
        self.nested.as_ref()?.soft_deadline(now)
    }

    /// CNTVOFF_EL2 for its virtual timer.
    fn counter_offset(&self) -> u64 {
        self.nested.as_ref().map_or_else(|| self.vm.counter_offset(), |nested| nested.counter_offset())
    }

    /// The name for reports: `vm/vcpu`.
    pub(crate) fn name(&self) -> (&'static str, usize) {
        (&self.vm.spec.name, self.id)
    }
}
