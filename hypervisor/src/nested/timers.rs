//! The four timers of a vCPU with virtual EL2, of which the hardware has two at a time.
//!
//! In L2, the hardware's EL1 timers are L2's. In vEL2 they are those of EL2: with VHE, vEL2 reaches
//! them by the names of EL1's without an exit. The other pair is in memory, EL1's in the page where L1
//! writes them with or without an exit, EL2's here; EL2's own timer wakes L0 for them. Each has a line
//! into L0's model of the GIC.

use super::Nested;
use crate::arch::timer;
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use ::nested::controls::cnthctl::ECV;
use ::nested::page;
use ::nested::registers::{Timer, TimerPart};
use ::nested::timer::Registers;
use manifest::layout::{HYP_PTIMER_INTID, HYP_VTIMER_INTID, PTIMER_INTID, VTIMER_INTID};

/// The INTID of each [`Timer`].
const INTIDS: [u32; 4] = [VTIMER_INTID, PTIMER_INTID, HYP_VTIMER_INTID, HYP_PTIMER_INTID];
/// Those of the two timers of the hardware.
const PHYSICAL: [u32; 2] = [VTIMER_INTID, PTIMER_INTID];

/// Timers as far as they are not in the hardware or the page.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// EL2's virtual and physical timer, while L2 runs.
    hyp: [Registers; 2],
    /// Level of each timer's line, as the model has it.
    lines: [bool; 4],
    /// Whether a physical timer interrupt is active: its line is high, and L1 knows.
    active: [bool; 2],
    /// Level of the maintenance interrupt's line.
    pub(super) maintenance: bool,
}

impl Timers {
    /// Whether no line is high, and no physical interrupt active.
    fn is_quiet(&self) -> bool {
        self.lines == [false; 4] && self.active == [false; 2]
    }

    /// See [`Nested::soft_deadline`].
    pub(super) fn deadline(&self, nested: &Nested, now: u64) -> Option<u64> {
        let mut left: Option<u64> = None;
        for (n, line) in self.lines.into_iter().enumerate() {
            if (n < 2) == nested.in_l2 || line {
                continue;
            }
            let (registers, offset) = nested.soft(n);
            if let Some(counts) = registers.left(now.wrapping_sub(offset)) {
                left = Some(left.map_or(counts, |least| least.min(counts)));
            }
        }
        left.map(|counts| now.saturating_add(counts))
    }
}

impl Nested {
    /// EL1's two timers, as the page has them.
    #[inline(always)]
    fn in_page(&self) -> [Registers; 2] {
        let word = |slot| self.page.get(slot);
        [
            Registers { ctl: word(page::CNTV_CTL_EL0), cval: word(page::CNTV_CVAL_EL0) },
            Registers { ctl: word(page::CNTP_CTL_EL0), cval: word(page::CNTP_CVAL_EL0) },
        ]
    }

    /// A timer that is not in the hardware, and what its counter lags behind the physical one.
    #[inline(always)]
    fn soft(&self, n: usize) -> (Registers, u64) {
        let [v, p] = self.in_page();
        match n {
            0 => (v, self.page.get(page::CNTVOFF_EL2)),
            1 => (p, self.l2_physical_offset()),
            2 => (self.timers.hyp[0], 0),
            _ => (self.timers.hyp[1], 0),
        }
    }

    /// The level of each timer's line.
    fn levels(&self, now: u64) -> [bool; 4] {
        let hardware = timer::lines();
        let soft = |n: usize| {
            let (registers, offset) = self.soft(n);
            registers.line(now.wrapping_sub(offset))
        };
        let [v, p] = hardware;
        if self.in_l2 { [v, p, soft(2), soft(3)] } else { [soft(0), soft(1), v, p] }
    }
}

/// FEAT_ECV on this CPU: the timers of EL1 can be trapped exactly.
pub(super) fn ecv() -> bool {
    timer::has_ecv()
}

/// Brings the lines of all timers into the model, and the physical interrupts in line with them.
pub(crate) fn update(vcpu: &mut Vcpu, local: &Local) {
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    let levels = nested.levels(timer::count());
    if levels != nested.timers.lines {
        set_lines(vcpu, levels);
    }
    settle(vcpu, local);
}

fn set_lines(vcpu: &mut Vcpu, levels: [bool; 4]) {
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    let old = core::mem::replace(&mut nested.timers.lines, levels);
    let mut vgic = vcpu.vm.vgic.lock();
    let mut kick = vgic::Kick::NONE;
    for ((intid, level), was) in INTIDS.into_iter().zip(levels).zip(old) {
        if level != was {
            kick |= vgic.set_line(vcpu.id, intid, level);
        }
    }
    drop(vgic);
    vcpu.vm.kick(kick, Some(vcpu.id));
}

/// A physical timer interrupt came. It stays active, so that it does not come again, as long as its
/// line is high.
pub(crate) fn fired(vcpu: &mut Vcpu, local: &Local, intid: u32) {
    if let Some(nested) = vcpu.nested.as_deref_mut() {
        for (active, physical) in nested.timers.active.iter_mut().zip(PHYSICAL) {
            *active |= physical == intid;
        }
    }
    update(vcpu, local);
}

/// A physical timer interrupt is active just as long as the line of the timer that is in the hardware
/// is high, as the model knows it.
fn settle(vcpu: &mut Vcpu, local: &Local) {
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    let [v, p, hv, hp] = nested.timers.lines;
    let wanted = if nested.in_l2 { [v, p] } else { [hv, hp] };
    for ((active, wanted), intid) in nested.timers.active.iter_mut().zip(wanted).zip(PHYSICAL) {
        if *active != wanted {
            *active = wanted;
            local.redistributor.set_active(intid, wanted);
        }
    }
}

/// The vCPU leaves the CPU, and the physical timers are no longer its.
pub(super) fn release(vcpu: &mut Vcpu, _local: &Local) {
    if let Some(nested) = vcpu.nested.as_deref_mut() {
        // Whoever takes the vCPU out clears both.
        nested.timers.active = [false; 2];
    }
}

/// The other context's timers go into the hardware. `in_l2` is the new one already.
pub(super) fn swap(vcpu: &mut Vcpu, local: &Local) {
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    // With ISTATUS, which L1 reads in the page without an exit.
    let old = timer::registers().map(|(ctl, cval)| Registers { ctl, cval });
    let (el1, hyp) = if nested.in_l2 {
        nested.timers.hyp = old;
        (nested.in_page(), old)
    } else {
        let [v, p] = old;
        nested.page.set(page::CNTV_CTL_EL0, v.ctl);
        nested.page.set(page::CNTV_CVAL_EL0, v.cval);
        nested.page.set(page::CNTP_CTL_EL0, p.ctl);
        nested.page.set(page::CNTP_CVAL_EL0, p.cval);
        (old, nested.timers.hyp)
    };
    let (new, soft) = if nested.in_l2 { (el1, hyp) } else { (hyp, el1) };
    let pair = |r: Registers| (r.ctl & 3, r.cval);
    let [a, b] = new;
    nested.load_physical_offset();
    // SAFETY: the vCPU is entered next, in that context.
    unsafe { timer::set_registers([pair(a), pair(b)], nested.counter_offset()) };
    let [v, p] = el1;
    let [hv, hp] = hyp;
    let armed = v.armed() | p.armed() | hv.armed() | hp.armed();
    if !armed && nested.timers.is_quiet() {
        return;
    }
    let (count, offset) = (timer::count(), nested.page.get(page::CNTVOFF_EL2));
    let physical = count.wrapping_sub(nested.l2_physical_offset());
    let levels = [v.line(count.wrapping_sub(offset)), p.line(physical), hv.line(count), hp.line(count)];
    if levels != nested.timers.lines {
        set_lines(vcpu, levels);
    }
    settle(vcpu, local);
    if soft.iter().any(|r| r.armed()) {
        set_alarm(vcpu);
    }
}

/// Wakes L0 for the timers that are not in the hardware. Their lines must be up to date: a high one is
/// no reason to wake, and of one that is due since the lines were looked at, the alarm goes off at once.
fn set_alarm(vcpu: &Vcpu) {
    if let Some(at) = vcpu.soft_deadline(timer::count()) {
        timer::advance_alarm(at);
    }
}

/// vEL2 reads a register of a timer, by a name that traps.
pub(super) fn read(nested: &Nested, which: Timer, part: TimerPart) -> u64 {
    let n = which as usize;
    let (registers, offset) = nested.current(n);
    let count = timer::now().wrapping_sub(offset);
    match part {
        // At EL2 the physical counter is as it is (CNTP_TVAL_EL0, accessors).
        TimerPart::Tval if which == Timer::Physical => registers.read_tval(timer::now()),
        TimerPart::Tval => registers.read_tval(count),
        TimerPart::Ctl => registers.read_ctl(count),
        TimerPart::Cval => registers.cval,
    }
}

/// vEL2 writes one.
pub(super) fn write(vcpu: &mut Vcpu, local: &Local, which: Timer, part: TimerPart, value: u64) {
    let Some(nested) = vcpu.nested.as_deref_mut() else { return };
    let n = which as usize;
    let (mut registers, offset) = nested.current(n);
    match part {
        TimerPart::Tval => {
            let offset = if which == Timer::Physical { 0 } else { offset };
            registers.cval = Registers::cval_of(value, timer::now().wrapping_sub(offset));
        }
        TimerPart::Ctl => registers.ctl = value & 3,
        TimerPart::Cval => registers.cval = value,
    }
    nested.set_current(n, registers);
    update(vcpu, local);
    set_alarm(vcpu);
}

impl Nested {
    /// CNTPOFF_EL2 for L2, if it counts there.
    #[inline]
    pub(super) fn load_physical_offset(&self) {
        if self.in_l2 && self.regs.cnthctl & self.offered.cnthctl & ECV != 0 {
            // SAFETY: this vCPU is entered next, in L2; who has the bit has FEAT_ECV_POFF.
            unsafe { timer::set_physical_offset(self.page.get(page::CNTPOFF_EL2)) };
        }
    }

    /// A timer while vEL2 runs.
    fn current(&self, n: usize) -> (Registers, u64) {
        let [v, p] = timer::registers();
        match n {
            0 | 1 => self.soft(n),
            2 => (Registers { ctl: v.0 & 3, cval: v.1 }, 0),
            _ => (Registers { ctl: p.0 & 3, cval: p.1 }, 0),
        }
    }

    fn set_current(&mut self, n: usize, registers: Registers) {
        let [mut v, mut p] = timer::registers();
        let pair = (registers.ctl, registers.cval);
        match n {
            0 => {
                self.page.set(page::CNTV_CTL_EL0, pair.0);
                return self.page.set(page::CNTV_CVAL_EL0, pair.1);
            }
            1 => {
                self.page.set(page::CNTP_CTL_EL0, pair.0);
                return self.page.set(page::CNTP_CVAL_EL0, pair.1);
            }
            2 => v = pair,
            _ => p = pair,
        }
        // SAFETY: the vCPU is in vEL2, whose timers these are.
        unsafe { timer::set_registers([v, p], self.counter_offset()) };
    }
}
