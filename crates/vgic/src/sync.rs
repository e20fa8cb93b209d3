//! Moving interrupts between the model and list registers.
//!
//! `sync` folds every used list register in place: it reads what the guest did, asks the bank what
//! the list register should hold now, and writes it if that differs. Then the best ready interrupts
//! take the free ones. When there are none free,
//! - a ready interrupt displaces the lowest-priority pending one that it outranks; what still waits
//!   sets NPIE, so there is a maintenance interrupt as soon as nothing pending is left in the list
//!   registers. Underflow (UIE) would not do: it is always asserted with one list register, and
//!   never comes when a guest with EOImode = 1 keeps all of them active.
//! - if all are active, one pending interrupt must still get in, since after the next priority drop
//!   it may be due. The active one of lowest priority is *parked* in the model: it ends last.
//!   LRENPIE reports EOIs that found no list register; with EOImode = 0 they come in order of
//!   priority, so the count suffices. With EOImode = 1 any order is possible, so writes to
//!   ICC_DIR_EL1 trap (TDIR) and come in by [`Vgic::deactivate`].

use crate::bank::Seen;
use crate::bits::{bit, ones};
use crate::{Changes, Kick, ListRegisters, PhysIntids, Place, Vgic, hcr};

/// The interrupt to deliver next.
#[derive(Clone, Copy)]
struct Best {
    place: Place,
    priority: u32,
    /// No other is ready.
    alone: bool,
}

impl Vgic {
    /// Folds what the guest did in its list registers into the model, and refills them.
    ///
    /// To be called on a [`Kick`], on a maintenance interrupt, and before this vCPU accesses a register
    /// that shows or changes pending, active or enable state. A write by another vCPU to an interrupt
    /// that is in a list register takes effect here, not at the write: what the guest acknowledged
    /// before this moment stays acknowledged, which is an order that the GIC architecture allows,
    /// because effects of such writes reach the CPU interface in finite time only (IHI 0069H 4.1).
    pub fn sync(&mut self, vcpu: usize, lrs: &mut dyn ListRegisters) -> Changes {
        let mut kick = self.fold(vcpu, lrs).without(vcpu);
        self.refill(vcpu, lrs);
        let deactivate = self.take_deactivations(vcpu, &mut kick);
        Changes { kick, deactivate }
    }

    /// Fills the list registers of a vCPU that is about to become resident; they must be empty.
    ///
    /// The hypervisor restores active states of PPIs ([`Vgic::pending_hw_active`]) after this.
    pub fn load(&mut self, vcpu: usize, lrs: &mut dyn ListRegisters) -> Changes {
        self.sync(vcpu, lrs)
    }

    /// Folds all list registers of a vCPU into the model and empties them.
    pub fn unload(&mut self, vcpu: usize, lrs: &mut dyn ListRegisters) -> Changes {
        let mut kick = self.count_ends(vcpu, lrs);
        let Some(used) = self.vcpus.get(vcpu).map(|v| v.used) else { return Changes::default() };
        for n in ones(used) {
            let Some(place) = self.resident(vcpu, n) else { continue };
            let value = lrs.read_lr(n);
            if let Some(bank) = self.banks.get_mut(place.bank) {
                let active = bank.absorb(place.lane, Seen::of(value));
                self.evict(vcpu, n, place, active);
            }
            kick |= self.touched(place.bank, bit(place.lane));
            if value != 0 {
                lrs.write_lr(n, 0);
            }
        }
        self.control_lrs(vcpu, 0, lrs);
        // Only `has_pending` is of interest for a vCPU that does not run.
        kick = kick.without(vcpu);
        let deactivate = self.take_deactivations(vcpu, &mut kick);
        Changes { kick, deactivate }
    }

    /// A trapped write of `intid` to ICC_DIR_EL1 with EOImode = 1. The caller's list registers must
    /// be in sync before, and again after, as the kick says.
    pub fn deactivate(&mut self, vcpu: usize, intid: u32) -> Kick {
        let Some(place) = self.place(vcpu, intid) else { return Kick::NONE };
        self.clear_active(place.bank, bit(place.lane))
    }

    /// Physical interrupts that nobody in the guest will deactivate any more, to be deactivated now.
    /// `sync`, `load` and `unload` report them already; this is for a VM that ends after `reset`.
    #[inline]
    pub fn take_deactivations(&mut self, vcpu: usize, kick: &mut Kick) -> PhysIntids {
        let private = if vcpu < self.vcpus.len() { self.banks.get(vcpu) } else { None };
        if private.is_none_or(|bank| bank.owed | self.owed_spis == 0) {
            return PhysIntids::default();
        }
        self.take_all_owed(vcpu, kick)
    }

    #[cold]
    #[inline(never)]
    fn take_all_owed(&mut self, vcpu: usize, kick: &mut Kick) -> PhysIntids {
        let mut ids = PhysIntids::default();
        if !self.take_owed(vcpu, &mut ids) {
            *kick |= Kick::one(vcpu);
        }
        for spi_word in ones(self.owed_spis) {
            if self.take_owed(self.bank_of(vcpu, spi_word.wrapping_add(1)), &mut ids) {
                self.owed_spis &= !bit(spi_word);
            } else {
                *kick |= Kick::one(vcpu);
            }
        }
        ids
    }

    fn take_owed(&mut self, index: usize, ids: &mut PhysIntids) -> bool {
        let Some(bank) = self.banks.get_mut(index) else { return true };
        for lane in ones(bank.owed) {
            if !ids.push(bank.physical_of(lane)) {
                return false;
            }
            bank.owed &= !bit(lane);
        }
        true
    }

    fn resident(&self, vcpu: usize, n: usize) -> Option<Place> {
        self.place(vcpu, self.vcpus.get(vcpu)?.intids.get(n).copied()?.into())
    }

    fn fold(&mut self, vcpu: usize, lrs: &mut dyn ListRegisters) -> Kick {
        let mut kick = self.count_ends(vcpu, lrs);
        let Some(used) = self.vcpus.get(vcpu).map(|v| v.used) else { return kick };
        if used == 0 {
            return kick;
        }
        let empty = lrs.elrsr();
        for n in ones(used) {
            let Some(place) = self.resident(vcpu, n) else { continue };
            if empty & bit(n) != 0
                && let Some(more) = self.retire(vcpu, n, place)
            {
                kick |= more;
                continue;
            }
            let old = if empty & bit(n) != 0 { 0 } else { lrs.read_lr(n) };
            let Some(bank) = self.banks.get_mut(place.bank) else { continue };
            let active = bank.absorb(place.lane, Seen::of(old));
            let new = self.settle(vcpu, n, place, active);
            if new != old {
                lrs.write_lr(n, new);
            }
            if new == 0 {
                kick |= self.touched(place.bank, bit(place.lane));
            }
        }
        kick
    }

    /// The common end of an interrupt: its list register is empty.
    #[inline]
    fn retire(&mut self, vcpu: usize, n: usize, place: Place) -> Option<Kick> {
        let more = self.banks.get_mut(place.bank)?.retire(place.lane)?;
        let v = self.vcpus.get_mut(vcpu)?;
        v.used &= !bit(n);
        v.active &= !bit(n);
        if !more {
            return Some(Kick::NONE);
        }
        if let Some(bank) = self.banks.get_mut(place.bank) {
            bank.settle_debt(bit(place.lane));
        }
        Some(self.touched(place.bank, bit(place.lane)))
    }

    /// Settles what list register `n` holds for the interrupt at `place`.
    fn settle(&mut self, vcpu: usize, n: usize, place: Place, active: bool) -> u64 {
        let (Some(bank), Some(v)) = (self.banks.get_mut(place.bank), self.vcpus.get_mut(vcpu)) else {
            return 0;
        };
        let value = bank.settle(place.word, place.lane, active, v.reach(place.word));
        if bank.owed != 0 && place.word != 0 {
            self.owed_spis |= bit(place.word.wrapping_sub(1));
        }
        v.used = if value != 0 { v.used | bit(n) } else { v.used & !bit(n) };
        v.active = if value != 0 && active { v.active | bit(n) } else { v.active & !bit(n) };
        value
    }

    fn refill(&mut self, vcpu: usize, lrs: &mut dyn ListRegisters) {
        let mut control = 0;
        while let Some(best) = self.best(vcpu) {
            let free = self.free(vcpu);
            let Some(n) = free.or_else(|| self.displace(vcpu, best.priority)) else {
                control = hcr::NPIE;
                break;
            };
            self.inject(vcpu, n, best.place, lrs);
            // What `displace` evicted is ready again, otherwise there is nothing more to find.
            if best.alone && free.is_some() {
                if let Some(v) = self.vcpus.get_mut(vcpu) {
                    v.ready_words = 0;
                }
                break;
            }
        }
        if self.vcpus.get(vcpu).is_some_and(|v| v.parked_words != 0) {
            control |= self.unpark(vcpu, lrs);
        }
        self.control_lrs(vcpu, control, lrs);
    }

    /// The ready interrupt of highest priority, then lowest INTID.
    #[inline]
    fn best(&mut self, vcpu: usize) -> Option<Best> {
        let v = self.vcpus.get(vcpu)?;
        let mut stale = 0;
        let mut best: Option<Best> = None;
        for word in ones(v.ready_words) {
            let (bank, ready) = self.candidates(vcpu, v, word)?;
            if ready == 0 {
                stale |= bit(word);
            }
            for lane in ones(ready) {
                let priority = u32::from(bank.priority_of(lane));
                if best.is_none_or(|b| priority < b.priority) {
                    let place = Place { word, bank: self.bank_of(vcpu, word), lane };
                    best = Some(Best { place, priority, alone: best.is_none() });
                } else if let Some(b) = &mut best {
                    b.alone = false;
                }
            }
        }
        if stale != 0 {
            self.vcpus.get_mut(vcpu)?.ready_words &= !stale;
        }
        best
    }

    fn free(&self, vcpu: usize) -> Option<usize> {
        let n = self.vcpus.get(vcpu)?.used.trailing_ones() as usize;
        (n < self.config.list_registers).then_some(n)
    }

    /// Puts a ready interrupt into a free list register.
    #[inline]
    fn inject(&mut self, vcpu: usize, n: usize, place: Place, lrs: &mut dyn ListRegisters) {
        let (Some(v), Some(bank)) = (self.vcpus.get_mut(vcpu), self.banks.get_mut(place.bank)) else {
            return;
        };
        v.hold(n, place);
        bank.set_holder(place.lane, vcpu);
        lrs.write_lr(n, bank.inject(place.word, place.lane));
    }

    /// Puts an active interrupt back into a free list register.
    fn reinstate(&mut self, vcpu: usize, n: usize, place: Place, lrs: &mut dyn ListRegisters) {
        if let (Some(v), Some(bank)) = (self.vcpus.get_mut(vcpu), self.banks.get_mut(place.bank)) {
            v.hold(n, place);
            bank.active &= !bit(place.lane);
        }
        let value = self.settle(vcpu, n, place, true);
        lrs.write_lr(n, value);
    }

    /// Makes room for a ready interrupt of this priority when all list registers are in use.
    #[cold]
    #[inline(never)]
    fn displace(&mut self, vcpu: usize, priority: u32) -> Option<usize> {
        let v = self.vcpus.get(vcpu)?;
        let only_pending = v.used & !v.active;
        let among = if only_pending != 0 { only_pending } else { v.used };
        let (worst, n, place) = ones(among)
            .filter_map(|n| {
                let place = self.resident(vcpu, n)?;
                Some((u32::from(self.banks.get(place.bank)?.priority_of(place.lane)), n, place))
            })
            .max_by_key(|&(worst, n, _)| (worst, n))?;
        if only_pending != 0 && worst <= priority {
            return None;
        }
        self.evict(vcpu, n, place, only_pending == 0);
        Some(n)
    }

    fn evict(&mut self, vcpu: usize, n: usize, place: Place, active: bool) {
        let (Some(v), Some(bank)) = (self.vcpus.get_mut(vcpu), self.banks.get_mut(place.bank)) else {
            return;
        };
        bank.evict(place.lane, active);
        if bank.owed != 0 && place.word != 0 {
            self.owed_spis |= bit(place.word.wrapping_sub(1));
        }
        v.used &= !bit(n);
        v.active &= !bit(n);
        v.ready_words |= bit(place.word);
        if active {
            v.parked_words |= bit(place.word);
        }
    }

    /// Brings active interrupts back into free list registers, best first; says what control bits
    /// those that stay outside need.
    #[cold]
    #[inline(never)]
    fn unpark(&mut self, vcpu: usize, lrs: &mut dyn ListRegisters) -> u64 {
        while let Some(place) = self.best_parked(vcpu) {
            let Some(n) = self.free(vcpu) else { return hcr::LRENPIE | hcr::TDIR };
            self.reinstate(vcpu, n, place, lrs);
        }
        0
    }

    /// The active interrupt of highest priority that is in no list register.
    fn best_parked(&mut self, vcpu: usize) -> Option<Place> {
        let mut best = None;
        for word in ones(self.vcpus.get(vcpu)?.parked_words) {
            let index = self.bank_of(vcpu, word);
            let bank = self.banks.get(index)?;
            let mut any = false;
            for lane in ones(bank.active & !bank.resident) {
                if word == 0 || bank.holder(lane) == vcpu {
                    any = true;
                    let place = Place { word, bank: index, lane };
                    let priority = bank.priority_of(lane);
                    if best.is_none_or(|(p, _)| priority < p) {
                        best = Some((priority, place));
                    }
                }
            }
            if !any {
                self.vcpus.get_mut(vcpu)?.parked_words &= !bit(word);
            }
        }
        best.map(|(_, place)| place)
    }

    #[inline]
    fn count_ends(&mut self, vcpu: usize, lrs: &mut dyn ListRegisters) -> Kick {
        match self.vcpus.get(vcpu) {
            Some(v) if v.hcr & hcr::LRENPIE != 0 => self.end_parked(vcpu, lrs),
            _ => Kick::NONE,
        }
    }

    /// Ends parked interrupts whose EOI the hardware counted.
    #[cold]
    #[inline(never)]
    fn end_parked(&mut self, vcpu: usize, lrs: &mut dyn ListRegisters) -> Kick {
        let mut kick = Kick::NONE;
        let value = lrs.read_hcr();
        for _ in 0..(value & hcr::EOICOUNT).wrapping_shr(hcr::EOICOUNT_SHIFT) {
            let Some(place) = self.best_parked(vcpu) else { break };
            kick |= self.clear_active(place.bank, bit(place.lane));
        }
        if value & hcr::EOICOUNT != 0 {
            lrs.write_hcr(value & !hcr::EOICOUNT);
        }
        kick.without(vcpu)
    }

    fn control_lrs(&mut self, vcpu: usize, wanted: u64, lrs: &mut dyn ListRegisters) {
        let Some(v) = self.vcpus.get_mut(vcpu) else { return };
        if v.hcr != wanted {
            v.hcr = wanted;
            let others = lrs.read_hcr() & !hcr::OWNED;
            lrs.write_hcr(others | wanted);
        }
    }
}
