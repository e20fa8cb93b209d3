//! Who runs: strict priority between levels, round robin by time slice within one.

use super::Cpu;
use crate::arch::{cpu, timer, traps};
use crate::dev::gic::KICK;
use crate::vcpu::run::{Pause, run};
use crate::vcpu::{Activity, request};
use crate::{console, exit, nested};
use core::cmp::Reverse;

impl Cpu {
    /// Runs vCPUs for good.
    pub(crate) fn serve(&mut self) -> ! {
        self.local.stay.begin();
        loop {
            self.local.stay.end();
            self.local.stay.begin();
            let resident = self.resident.and_then(|i| self.vcpus.get_mut(i));
            exit::interrupt::poll(&mut self.local, resident);
            self.settle_all();
            match self.choose() {
                Some(next) => self.give_turn(next),
                None => self.idle(),
            }
        }
    }

    /// Lets every vCPU do what others asked of it.
    fn settle_all(&mut self) {
        for index in 0..self.vcpus.len() {
            let asked = self.vcpus.get(index).is_some_and(|v| v.shared.asked() != 0);
            if asked {
                self.settle(index);
            }
        }
    }

    fn settle(&mut self, index: usize) {
        self.local.check_tags("settle");
        let Some(vcpu) = self.vcpus.get_mut(index) else { return };
        // Once: what comes later is not acted on before it, too, has decided about unloading.
        let asked = vcpu.shared.take();
        if asked.has(request::REGIME) {
            vcpu.tell_regime(self.resident == Some(index));
        }
        // Its registers are about to be replaced: nothing of it may stay in the hardware.
        let replaced = vcpu.must_be_unloaded(&asked);
        if (replaced || asked.has(request::FOLD)) && self.resident == Some(index) {
            vcpu.unload(&self.local);
            self.resident = None;
        }
        if replaced && self.local.fp_owner == Some(index) {
            self.local.fp_owner = None;
        }
        if asked.has(request::FOLD) {
            vcpu.shared.set_folded(timer::now());
        }
        #[cfg(feature = "provoke")]
        crate::mem::provoke::pause("settle");
        vcpu.settle(asked, self.resident == Some(index), self.local.machine);
    }

    /// The vCPU to run: of those that can, the highest priority; of these, the one whose slice is not
    /// over, or else the one whose last turn is longest ago.
    fn choose(&self) -> Option<usize> {
        let now = timer::now();
        let resident = self.resident;
        let in_slice = |i: usize| self.slice.is_some_and(|(current, end)| current == i && now < end);
        let mut best = None;
        for (i, v) in self.vcpus.iter().enumerate() {
            if v.is_runnable(now, resident == Some(i)) {
                let order = (Reverse(v.vm.spec.priority), !in_slice(i), v.turn);
                if best.is_none_or(|(least, _)| order < least) {
                    best = Some((order, i));
                }
            }
        }
        best.map(|(_, i)| i)
    }

    fn give_turn(&mut self, next: usize) {
        let now = timer::now();
        let Some(vcpu) = self.vcpus.get_mut(next) else { return };
        if !self.slice.is_some_and(|(current, end)| current == next && now < end) {
            self.turns += 1;
            vcpu.turn = self.turns;
            self.slice = Some((next, now.saturating_add(self.local.host.slice)));
        }
        if let Activity::Preparing(_) = vcpu.activity {
            self.local.check_tags("prepare");
            let before = timer::count();
            vcpu.prepare_step(self.local.stay.preparing);
            self.local.stay.preparing += timer::count().wrapping_sub(before);
            return;
        }
        if let Activity::Sweeping(at) = vcpu.activity {
            self.local.check_tags("sweep");
            vcpu.sweep_step(at);
            return;
        }
        vcpu.activity = Activity::Ready;
        self.make_resident(next);
        if let Some(vcpu) = self.vcpus.get_mut(next)
            && vcpu.nested.is_some()
        {
            // First: the alarm is for timers whose lines are low.
            nested::timers::update(vcpu, &self.local);
        }
        let contended = self.set_alarm(next);
        // A vCPU that polls with WFE gives way if there is somebody to give way to.
        match self.vcpus.get_mut(next).and_then(|vcpu| vcpu.nested.as_deref_mut()) {
            Some(nested) => nested.set_wfe_traps(contended),
            None => traps::set_wfe_traps(contended),
        }
        while let Some(vcpu) = self.vcpus.get_mut(next) {
            match run(vcpu, &mut self.local) {
                Pause::SwitchFp => self.switch_fp(next),
                pause @ (Pause::Reschedule | Pause::Settle | Pause::Yield) => {
                    if pause == Pause::Yield {
                        self.slice = None;
                    }
                    vcpu.shared.set_attentive(matches!(vcpu.activity, Activity::Waiting));
                    break;
                }
            }
        }
    }

    fn make_resident(&mut self, next: usize) {
        if self.resident == Some(next) {
            return;
        }
        self.local.check_tags("switch");
        if let Some(old) = self.resident.and_then(|i| self.vcpus.get_mut(i)) {
            old.unload(&self.local);
        }
        self.resident = Some(next);
        let fp_loaded = self.local.fp_owner == Some(next);
        let Some(vcpu) = self.vcpus.get_mut(next) else { return };
        let last = self.last_of_vm.get_mut(vcpu.vm.id);
        let neighbour = last.is_some_and(|last| last.replace(vcpu.id) != Some(vcpu.id));
        // SAFETY: it is entered next; nobody else is resident.
        unsafe { vcpu.load(&self.local, neighbour, fp_loaded) };
    }

    /// The resident vCPU used FP, or SVE for the first time: its registers into the hardware, the owner's,
    /// who may be itself, out of it.
    fn switch_fp(&mut self, index: usize) {
        let cptr = crate::arch::fp::open();
        if let Some(owner) = self.local.fp_owner.and_then(|i| self.vcpus.get_mut(i)) {
            owner.save_fp();
        }
        if let Some(vcpu) = self.vcpus.get_mut(index) {
            // SAFETY: it is resident.
            unsafe { vcpu.load_fp(cptr) };
            self.local.fp_owner = Some(index);
        }
    }

    /// Arms EL2's timer: for the end of the slice if someone of the same priority waits for the
    /// CPU, and for whoever of no lower priority has a timer that fires while it is not resident.
    /// Returns whether someone waits.
    fn set_alarm(&self, running: usize) -> bool {
        let Some(priority) = self.vcpus.get(running).map(|v| v.vm.spec.priority) else { return false };
        let now = timer::now();
        let mut alarm: Option<u64> = None;
        let mut contended = false;
        for (i, v) in self.vcpus.iter().enumerate() {
            if i == running {
                alarm = earlier(alarm, v.soft_deadline(now));
                if v.nested.is_some() && !timer::has_ecv() {
                    // Timers that it sets without an exit are seen by then.
                    alarm = earlier(alarm, Some(now.saturating_add(self.local.host.slice)));
                }
            }
            if i == running || v.vm.spec.priority < priority {
                continue;
            }
            let at = if v.is_runnable(now, false) {
                contended = true;
                self.slice.map(|(_, end)| end)
            } else {
                v.sleeping_deadline(now)
            };
            alarm = earlier(alarm, at);
        }
        timer::set_alarm(earlier(alarm, console::deadline()));
        contended
    }

    /// Nobody can run: waits for an interrupt, or for the first timer of a vCPU that is not resident.
    fn idle(&mut self) {
        let now = timer::now();
        let mut alarm: Option<u64> = None;
        for (i, v) in self.vcpus.iter().enumerate() {
            // One that became due since it was chosen that nobody runs counts, too.
            let at = if self.resident == Some(i) { v.soft_deadline(now) } else { v.sleeping_deadline(now) };
            alarm = earlier(alarm, at);
        }
        // What VMs without focus left unfinished is shown; if it has to wait, so does this CPU not for
        // longer.
        if console::tick(milliseconds()) {
            alarm = earlier(alarm, Some(timer::now().saturating_add(timer::frequency() / 10)));
        }
        timer::set_alarm(earlier(alarm, console::deadline()));
        cpu::wait_for_interrupt();
        self.local.stay.begin();
    }
}

/// Milliseconds since the counter started, for the console's patience.
fn milliseconds() -> u64 {
    timer::now() / (timer::frequency() / 1000).max(1)
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

const _: () = assert!(KICK < 16);
