//! 32 interrupts: one bit each in a mask per property, and what a list register holds for them.
//!
//! While an interrupt is *resident* (in a list register of its *holder*), part of its state lives
//! there: `lr_latch`, `lr_active` and `lr_hw` say which, as last seen. A new event meanwhile goes to
//! `latch`; when the list register is folded, an unacknowledged pending state absorbs it, and an
//! acknowledged one leaves it to be delivered again.

use crate::bits::bit;
use crate::list::{self, End};
use crate::{CTLR_GROUP0, CTLR_GROUP1};

#[derive(Clone, Debug)]
pub(crate) struct Bank {
    pub(crate) enabled: u32,
    pub(crate) group1: u32,
    /// Enabled, and its group enabled in GICD_CTLR: kept by `regate`.
    gate: u32,
    pub(crate) edge: u32,
    /// The pending latch: an edge, an SGI, or a write to ISPENDR.
    pub(crate) latch: u32,
    /// The input line, for level-sensitive interrupts.
    pub(crate) line: u32,
    /// Active, and not in a list register (or made active by ISACTIVER since the last fold).
    pub(crate) active: u32,
    /// In a list register.
    pub(crate) resident: u32,
    pub(crate) lr_latch: u32,
    pub(crate) lr_active: u32,
    /// The list register has HW = 1.
    pub(crate) lr_hw: u32,
    /// Deactivated by the guest while resident; the next fold removes the active state.
    pub(crate) drop_active: u32,
    /// The physical interrupt is active for an interrupt that waits here.
    pub(crate) hw_active: u32,
    /// The physical interrupt is active and nobody waits for it any more.
    pub(crate) owed: u32,
    pub(crate) mapped: u32,
    pub(crate) priority: [u8; 32],
    /// Aff3.Aff2.Aff1.Aff0 of GICD_IROUTER, one byte each.
    pub(crate) route: [u32; 32],
    holder: [u8; 32],
    physical: [u16; 32],
}

/// The state of an interrupt whose list register was just read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) pending: bool,
    pub(crate) active: bool,
}

impl Seen {
    pub(crate) fn of(lr: u64) -> Self {
        Self { pending: lr & list::PENDING != 0, active: lr & list::ACTIVE != 0 }
    }
}

impl Bank {
    pub(crate) const fn new() -> Self {
        Self {
            enabled: 0,
            group1: 0,
            gate: 0,
            edge: 0,
            latch: 0,
            line: 0,
            active: 0,
            resident: 0,
            lr_latch: 0,
            lr_active: 0,
            lr_hw: 0,
            drop_active: 0,
            hw_active: 0,
            owed: 0,
            mapped: 0,
            priority: [0; 32],
            route: [0; 32],
            holder: [0; 32],
            physical: [0; 32],
        }
    }

    pub(crate) fn reset(&mut self, private: bool) {
        *self = Self {
            // SGIs are always edge-triggered (IHI 0069H 12.9.9, GICR_ICFGR0).
            edge: if private { 0xffff } else { 0 },
            owed: self.owed | self.hw_active | self.lr_hw,
            mapped: self.mapped,
            physical: self.physical,
            ..Self::new()
        };
    }

    pub(crate) fn map(&mut self, lane: usize, pintid: u32) {
        if let (Some(p), Ok(id)) = (self.physical.get_mut(lane), u16::try_from(pintid)) {
            *p = id;
            self.mapped |= bit(lane);
        }
    }

    pub(crate) fn priority_of(&self, lane: usize) -> u8 {
        self.priority.get(lane).copied().unwrap_or(0xff)
    }

    pub(crate) fn physical_of(&self, lane: usize) -> u16 {
        self.physical.get(lane).copied().unwrap_or(0)
    }

    /// The vCPU in whose list register, or on which, the interrupt is resident or active.
    pub(crate) fn holder(&self, lane: usize) -> usize {
        self.holder.get(lane).copied().unwrap_or(0).into()
    }

    pub(crate) fn set_holder(&mut self, lane: usize, vcpu: usize) {
        if let (Some(h), Ok(v)) = (self.holder.get_mut(lane), u8::try_from(vcpu)) {
            *h = v;
        }
    }

    /// The vCPU that GICD_IROUTER names, which may not exist.
    pub(crate) fn target(&self, lane: usize) -> usize {
        self.route.get(lane).map_or(usize::MAX, |&r| r as usize)
    }

    /// Pending in the distributor's sense: latched anywhere, or a level whose line is high.
    pub(crate) fn asserted(&self) -> u32 {
        self.latch | self.lr_latch | (self.line & !self.edge)
    }

    /// What GICD_ISACTIVER shows.
    pub(crate) fn shown_active(&self) -> u32 {
        self.active | (self.lr_active & !self.drop_active)
    }

    /// To be called when an enable bit, a group, or GICD_CTLR changed.
    pub(crate) fn regate(&mut self, control: u32) {
        let group1 = if control & CTLR_GROUP1 != 0 { self.group1 } else { 0 };
        let group0 = if control & CTLR_GROUP0 != 0 { !self.group1 } else { 0 };
        self.gate = self.enabled & (group0 | group1);
    }

    /// Ready to be put into a list register.
    #[inline]
    pub(crate) fn ready(&self) -> u32 {
        // `lr_latch` does not matter here: it is set for resident interrupts only.
        (self.latch | (self.line & !self.edge)) & self.gate & !(self.active | self.resident)
    }

    /// Folds what the guest did to a resident interrupt; says whether it is active now.
    pub(crate) fn absorb(&mut self, lane: usize, seen: Seen) -> bool {
        let this = bit(lane);
        if !seen.pending {
            self.lr_latch &= !this;
        }
        if !seen.pending && !seen.active {
            // With HW = 1 the guest's EOI deactivated the physical interrupt as well.
            self.lr_hw &= !this;
        }
        let active = (seen.active && self.drop_active & this == 0) || self.active & this != 0;
        self.drop_active &= !this;
        self.active &= !this;
        active
    }

    /// Takes a resident interrupt out of its list register.
    pub(crate) fn evict(&mut self, lane: usize, active: bool) {
        let this = bit(lane);
        self.latch |= self.lr_latch & this;
        self.hw_active |= self.lr_hw & this;
        self.leave(this);
        if active {
            self.active |= this;
        }
        self.settle_debt(this);
    }

    fn leave(&mut self, this: u32) {
        self.resident &= !this;
        self.lr_latch &= !this;
        self.lr_active &= !this;
        self.lr_hw &= !this;
    }

    /// Ends the active state of interrupts that are in no list register.
    pub(crate) fn deactivate(&mut self, these: u32) {
        self.active &= !these;
        self.settle_debt(these);
    }

    /// Clears the pending latch. A list register loses it when its vCPU syncs; a level stays pending.
    pub(crate) fn withdraw(&mut self, these: u32) {
        self.latch &= !these;
        self.lr_latch &= !these;
        self.settle_debt(these);
    }

    /// A physical interrupt that stays active for nothing would never fire again: hand it back.
    pub(crate) fn settle_debt(&mut self, these: u32) {
        let idle = these & self.hw_active & !(self.asserted() | self.active | self.resident);
        self.hw_active &= !idle;
        self.owed |= idle;
    }

    /// Puts a ready interrupt into a list register: what `settle` does, when it is known to be
    /// pending, enabled and not active.
    #[inline]
    pub(crate) fn inject(&mut self, word: usize, lane: usize) -> u64 {
        let this = bit(lane);
        let hw = self.hw_active & this;
        self.lr_latch |= self.latch & this;
        self.lr_hw |= hw;
        self.resident |= this;
        self.latch &= !this;
        self.hw_active &= !hw;
        let end = if hw != 0 {
            End::Physical(self.physical_of(lane))
        } else if self.line & !self.edge & this != 0 {
            End::Maintenance
        } else {
            End::Quiet
        };
        self.encode(word, lane, list::PENDING, end)
    }

    /// Takes an interrupt out of the list register that the hardware emptied; says whether there is
    /// more of it. `settle` must decide if it was made active meanwhile.
    #[inline]
    pub(crate) fn retire(&mut self, lane: usize) -> Option<bool> {
        let this = bit(lane);
        if self.active & this != 0 {
            return None;
        }
        self.leave(this);
        self.drop_active &= !this;
        Some((self.latch | self.line | self.hw_active) & this != 0)
    }

    fn encode(&self, word: usize, lane: usize, state: u64, end: End) -> u64 {
        let intid = (word as u32).wrapping_mul(32) | lane as u32;
        list::encode(intid, self.priority_of(lane), self.group1 & bit(lane) != 0, state, end)
    }

    /// Decides what a list register of a vCPU, to which the interrupts `reach` may go, holds for this
    /// interrupt, and moves the state there. 0 says: nothing, and the interrupt is out of it.
    ///
    /// It is never pending and active at once. A level would be delivered again although its line
    /// fell, HW = 1 forbids it (IHI 0069H 12.4.8), and an edge would hide in an active list register
    /// from the order of priorities. What is pending behind an active interrupt waits in the model,
    /// and a maintenance interrupt at the EOI fetches it; a line that falls before the EOI syncs, and
    /// takes that maintenance interrupt away. An interrupt that ends with HW = 1 cannot have one, so
    /// it ends as a software one, and its successor gets HW = 1.
    pub(crate) fn settle(&mut self, word: usize, lane: usize, active: bool, reach: u32) -> u64 {
        let this = bit(lane);
        let enabled = self.gate & this != 0;
        let open = enabled && reach & this != 0;
        let asserted = self.asserted() & this != 0;
        let hw = (self.hw_active | self.lr_hw) & this != 0;
        let level = self.line & !self.edge & this != 0;
        let pending = open && asserted && !active;
        if pending {
            self.lr_latch |= self.latch & this;
            self.latch &= !this;
        } else {
            self.latch |= self.lr_latch & this;
            self.lr_latch &= !this;
        }
        self.hw_active &= !this;
        self.lr_hw &= !this;
        let in_lr = hw && (pending || active && !asserted);
        if in_lr {
            self.lr_hw |= this;
        } else if hw {
            self.hw_active |= this;
        }
        if !pending && !active {
            self.leave(this);
            self.settle_debt(this);
            return 0;
        }
        self.resident |= this;
        self.lr_active = (self.lr_active & !this) | if active { this } else { 0 };
        let end = if in_lr {
            End::Physical(self.physical_of(lane))
        } else if enabled && (level || active && asserted) {
            End::Maintenance
        } else {
            End::Quiet
        };
        let state = if pending { list::PENDING } else { 0 } | if active { list::ACTIVE } else { 0 };
        self.encode(word, lane, state, end)
    }
}
