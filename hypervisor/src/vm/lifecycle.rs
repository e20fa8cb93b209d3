//! Start and stop: a VM's states, and who moves it from one to the next.
//!
//! ```text
//! Stopped --start--> Starting --(vCPU 0 prepared memory)--> Running --stop--> Stopping
//!    ^                                                                            |
//!    +------------------------(all vCPUs are off their CPUs)----------------------+
//! ```
//! A stop is asked of every vCPU; each one's CPU answers in `Vcpu::settle`, and the last one to
//! answer completes the stop, on whatever CPU that is.

use super::events::{Event, Events, post};
use super::{Verdict, Vm};
use crate::arch::{gic, timer};
use crate::log;
use crate::machine::{self, Machine};
use crate::vcpu::{Activity, Asked, Vcpu, request};
use crate::vm::prepare::Preparation;
use ::console::ktap::Ktap;
use abi::hypercall::{Error, EventKind, StopCause, VmState};
use core::sync::atomic::Ordering;
use vdev::power::{PowerTable, Start};

/// Whether a VM runs.
#[derive(Debug)]
pub(crate) struct Life {
    /// State.
    pub(crate) state: VmState,
    /// Why it stops or stopped.
    pub(crate) cause: Option<StopCause>,
    /// Calls that copy its memory at the moment: a start waits for them.
    pub(crate) copies: usize,
    /// Start again as soon as it has stopped.
    restart: bool,
    /// It never starts: a CPU that it needs is not used.
    barred: bool,
}

impl Life {
    /// Stopped, never started.
    pub(crate) const fn new() -> Self {
        Self { state: VmState::Stopped, cause: None, copies: 0, restart: false, barred: false }
    }
}

impl Vm {
    /// Whether it runs, or is about to.
    pub(crate) fn is_alive(&self) -> bool {
        self.life.lock().state != VmState::Stopped
    }

    /// Begins a start of a stopped VM. Its ID registers stay as they are from here on; [`Error::Invalid`]
    /// says that they contradict each other.
    pub(crate) fn request_start(&self) -> Result<(), Error> {
        if let Err(why) = self.freeze_identity() {
            if self.may_report() {
                log::warn!("{} cannot start: its ID registers contradict each other: {why}", self.spec.name);
            }
            return Err(Error::Invalid);
        }
        let mut life = self.life.lock();
        if life.state != VmState::Stopped || life.barred {
            return Err(Error::Busy);
        }
        life.state = VmState::Starting;
        life.cause = None;
        drop(life);
        self.ask(0, request::PREPARE, false);
        Ok(())
    }

    /// Begins a stop of a VM that runs or starts. With `restart`, it starts again afterwards.
    pub(crate) fn request_stop(&self, cause: StopCause, restart: bool) -> bool {
        let mut life = self.life.lock();
        if !matches!(life.state, VmState::Starting | VmState::Running) {
            // While a stop is under way, a controller may still turn it into a restart, or a restart
            // into a stop; the guest may not.
            let heeded = life.state == VmState::Stopping && cause == StopCause::Request;
            if heeded {
                life.restart = restart;
            }
            return heeded;
        }
        life.state = VmState::Stopping;
        life.cause = Some(cause);
        life.restart = restart;
        self.to_stop.store(self.vcpus.len(), Ordering::Release);
        drop(life);
        for vcpu in 0..self.vcpus.len() {
            self.ask(vcpu, request::STOP, false);
        }
        true
    }

    /// For a CPU that must not run guests: its VMs end, which are `here`, and never start again. The CPU's
    /// vCPUs have run nothing, so it answers for them; returns when all has ended.
    pub(crate) fn bar(here: &[&'static Self], index: usize, machine: &Machine) {
        for vm in here {
            vm.life.lock().barred = true;
            log::warn!("{} cannot run: one of its CPUs is not used", vm.spec.name);
            vm.request_stop(StopCause::Fault, false);
        }
        // Another's request to stop may be under way, and those of the other CPUs take a while to answer.
        while here.iter().any(|vm| vm.is_alive()) {
            for vm in here {
                let own = vm.vcpus.iter().filter(|vcpu| vcpu.cpu == index);
                own.filter(|vcpu| vcpu.take().has(request::STOP)).for_each(|_| vm.vcpu_stopped(machine));
            }
            core::hint::spin_loop();
        }
    }

    /// A vCPU is off its CPU, as was asked. The last one completes the stop.
    fn vcpu_stopped(&'static self, machine: &Machine) {
        // AcqRel: what the others did before is seen by the last one.
        if self.to_stop.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stopped(machine);
        }
    }

    /// Stops the VM if it runs and starts it.
    pub(crate) fn request_restart(&self, cause: StopCause) -> Result<(), Error> {
        if self.request_stop(cause, true) {
            return Ok(());
        }
        if self.life.lock().state == VmState::Stopping { Ok(()) } else { self.request_start() }
    }

    /// The last vCPU is off its CPU.
    fn stopped(&'static self, machine: &Machine) {
        // Nothing turns a vCPU on any more until the VM begins anew.
        let mut power = self.power.lock();
        for vcpu in 0..self.vcpus.len() {
            power.cpu_off(vcpu);
        }
        drop(power);
        let mut life = self.life.lock();
        let cause = life.cause.unwrap_or(StopCause::Request);
        let restart = core::mem::take(&mut life.restart) && !life.barred;
        // A VM that restarts is never seen stopped, so the machine does not end meanwhile.
        life.state = if restart { VmState::Starting } else { VmState::Stopped };
        drop(life);
        self.finish_output();
        self.report_lazy_memory();
        if self.may_say_stopped() {
            match self.ktap.lock().verdict() {
                Some(Err(why)) => log::info!("{} stopped: {}, but {why}", self.spec.name, describe(cause)),
                Some(Ok(())) | None => log::info!("{} stopped: {}", self.spec.name, describe(cause)),
            }
        }
        post(machine, Event { kind: EventKind::Stopped, vm: self.id, detail: cause as u64 });
        if restart {
            self.ask(0, request::PREPARE, false);
        } else {
            machine.end_if_done();
        }
    }

    /// How it ended.
    pub(crate) fn verdict(&self) -> Verdict {
        let life = self.life.lock();
        if self.starts.load(Ordering::Relaxed) == 0 && life.cause != Some(StopCause::Fault) {
            return Verdict::NotRun;
        }
        match (self.ktap.lock().verdict(), life.cause) {
            (_, Some(StopCause::Fault)) => Verdict::Fail("stopped by a fault"),
            (Some(Ok(())), _) => Verdict::Pass,
            (Some(Err(why)), _) => Verdict::Fail(why),
            (None, Some(StopCause::SystemOff)) => Verdict::Pass,
            (None, _) => Verdict::Fail("stopped without a report and without SYSTEM_OFF"),
        }
    }
}

/// A stop's cause in words.
fn describe(cause: StopCause) -> &'static str {
    match cause {
        StopCause::SystemOff => "SYSTEM_OFF",
        StopCause::SystemReset => "SYSTEM_RESET",
        StopCause::Request => "on request",
        StopCause::Fault => "because of a fault",
    }
}

impl Vcpu {
    /// Whether what was asked replaces its registers.
    pub(crate) fn must_be_unloaded(&self, asked: &Asked) -> bool {
        asked.has(request::STOP | request::PREPARE | request::POWER_ON)
            || matches!(self.activity, Activity::Off)
    }

    /// Does what others asked of it while it is not running. It is `resident` at most if
    /// [`must_be_unloaded`](Self::must_be_unloaded) denied it of the same value: what is asked in between
    /// waits for the next turn. With a STOP all else is void: it was asked of the life that ends. REGIME
    /// and FOLD have been answered.
    pub(crate) fn settle(&mut self, asked: Asked, resident: bool, machine: &'static Machine) {
        if asked.has(request::STOP) {
            assert!(!resident, "a vCPU stops in residence");
            self.activity = Activity::Off;
            self.vm.end_wait(self.id);
            self.vm.vcpu_stopped(machine);
            return;
        }
        // A request that comes late, after another stop and start, finds the VM running: it is void.
        if asked.has(request::PREPARE)
            && matches!(self.activity, Activity::Off)
            && self.vm.life.lock().state == VmState::Starting
        {
            self.activity = Activity::Preparing(Preparation::new());
            if let Some(nested) = &self.vm.nested {
                nested.begin(|index| self.vm.id_register(index));
            }
        }
        if asked.has(request::POWER_ON) && self.vm.life.lock().state == VmState::Running {
            let start = self.vm.power.lock().started(self.id);
            if let Some(start) = start {
                self.reset(start.entry, start.context);
                self.activity = Activity::Ready;
            }
        }
        if asked.has(request::DECIDED) {
            self.go_on_after_fault();
        }
        if asked.has(request::INTERRUPT) {
            // The way into the guest syncs; what waits is woken if there is something to deliver.
            self.sync_due = true;
            if matches!(self.activity, Activity::Waiting) && self.vm.vgic.lock().has_pending(self.id) {
                self.vm.power.lock().resume(self.id);
                self.shared.set_attentive(false);
                self.activity = Activity::Ready;
            }
        }
    }

    /// Memory is ready: the VM's first instruction is next.
    pub(crate) fn begin(&mut self, machine: &Machine, preparing: u64) {
        let vm = self.vm;
        self.activity = Activity::Off;
        if vm.life.lock().state != VmState::Starting {
            // A stop came meanwhile; its request is pending.
            return;
        }
        let boot = Start { entry: vm.spec.kernel.entry.get(), context: vm.spec.dtb.get() };
        // Together: the UART remembers the level that it gave to the vGIC.
        let mut uart = vm.uart.lock();
        let mut vgic = vm.vgic.lock();
        vgic.reset();
        // Interrupts of its devices that it left in service come again.
        let mut again = vgic::Kick::NONE;
        let orphans = vgic.take_deactivations(self.id, &mut again);
        drop(vgic);
        uart.reset();
        drop(uart);
        // PPIs are no matter: their active state follows the vCPU in residence.
        orphans.iter().filter(|intid| *intid >= 32).for_each(gic::deactivate);
        *vm.ktap.lock() = Ktap::new();
        *vm.events.lock() = Events::new();
        *vm.power.lock() = PowerTable::new(vm.vcpus.len(), boot);
        vm.faults.lock().forget();
        vm.forgive_reports();
        vm.map.lock().dirty.stop();
        vm.restart_counter(timer::now());
        let mut life = vm.life.lock();
        if life.state != VmState::Starting {
            return;
        }
        vm.starts.fetch_add(1, Ordering::Relaxed);
        life.cause = None;
        life.state = VmState::Running;
        drop(life);
        let start = vm.power.lock().started(0);
        if let Some(start) = start {
            self.reset(start.entry, start.context);
        }
        self.activity = Activity::Ready;
        log::debug!("{} starts", vm.spec.name);
        machine::guest_begins(preparing);
        post(machine, Event { kind: EventKind::Started, vm: vm.id, detail: 0 });
    }

    /// Whether it could use the CPU now.
    pub(crate) fn is_runnable(&self, now: u64, resident: bool) -> bool {
        match self.activity {
            Activity::Off | Activity::Faulted => false,
            Activity::Preparing(_) | Activity::Sweeping(_) | Activity::Ready => true,
            // A resident one's timers are in the hardware, which interrupts.
            Activity::Waiting => {
                let in_memory = if resident { self.soft_deadline(now) } else { self.timer_deadline(now) };
                in_memory.is_some_and(|at| at <= now)
            }
        }
    }

    /// When a waiting vCPU that is not resident has to be looked at.
    pub(crate) fn sleeping_deadline(&self, now: u64) -> Option<u64> {
        match self.activity {
            Activity::Waiting => self.timer_deadline(now),
            Activity::Off
            | Activity::Preparing(_)
            | Activity::Sweeping(_)
            | Activity::Ready
            | Activity::Faulted => None,
        }
    }
}
