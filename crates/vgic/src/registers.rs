//! The registers that a bank has: those at 0x080 to 0xcff of GICD and of GICR's SGI_base.

use crate::bank::Bank;
use crate::bits::{bit, gather, ones, spread};
use crate::{Kick, Vgic};

/// A register with one field per interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    Priority,
    Config,
}

/// A register and the first INTID that an access at some offset reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) register: Register,
    pub(crate) intid: u32,
}

impl Field {
    /// What is at this offset (IHI 0069H 12.8 and 12.10, the same in both frames).
    #[inline(always)]
    pub(crate) fn at(offset: u32) -> Option<Self> {
        let register = match offset.wrapping_shr(7) {
            1 => Register::Group,
            2 => Register::SetEnable,
            3 => Register::ClearEnable,
            4 => Register::SetPending,
            5 => Register::ClearPending,
            6 => Register::SetActive,
            7 => Register::ClearActive,
            8..=15 => return Some(Self { register: Register::Priority, intid: offset & 0x3ff }),
            24 | 25 => {
                return Some(Self { register: Register::Config, intid: (offset & 0xff).wrapping_mul(4) });
            }
            _ => return None,
        };
        Some(Self { register, intid: (offset & 0x7f).wrapping_mul(8) })
    }
}

impl Bank {
    #[inline(always)]
    pub(crate) fn read(&self, register: Register, lane: usize) -> u32 {
        match register {
            Register::Group => self.group1,
            Register::SetEnable | Register::ClearEnable => self.enabled,
            Register::SetPending | Register::ClearPending => self.asserted(),
            Register::SetActive | Register::ClearActive => self.shown_active(),
            Register::Priority => {
                let bytes = self.priority.get(lane..).and_then(<[u8]>::first_chunk);
                bytes.map_or(0, |b| u32::from_le_bytes(*b))
            }
            Register::Config => spread(self.edge.wrapping_shr(lane as u32)),
        }
    }

    fn set_priority(&mut self, lane: usize, value: u8) -> u32 {
        match self.priority.get_mut(lane) {
            Some(p) if *p != value => {
                *p = value;
                bit(lane)
            }
            _ => 0,
        }
    }
}

impl Vgic {
    /// Writes one byte of GICD_IPRIORITYR or GICR_IPRIORITYR.
    pub(crate) fn write_priority(&mut self, index: usize, lane: usize, value: u8) -> Kick {
        let mask = 0xffu8.wrapping_shl(8u32.saturating_sub(self.config.priority_bits));
        let Some(bank) = self.banks.get_mut(index) else { return Kick::NONE };
        let changed = bank.set_priority(lane, value & mask);
        self.touched(index, changed)
    }

    /// Writes a 32-bit register of a bank.
    pub(crate) fn write_bank(&mut self, index: usize, register: Register, lane: usize, value: u32) -> Kick {
        let private = index < self.vcpus.len();
        let Some(bank) = self.banks.get_mut(index) else { return Kick::NONE };
        let changed = match register {
            Register::Group => core::mem::replace(&mut bank.group1, value) ^ value,
            Register::SetEnable => {
                bank.enabled |= value;
                value
            }
            Register::ClearEnable => {
                bank.enabled &= !value;
                value
            }
            Register::SetPending => {
                bank.latch |= value;
                value
            }
            Register::ClearPending => {
                bank.withdraw(value);
                value
            }
            Register::SetActive => return self.set_active(index, value),
            Register::ClearActive => return self.clear_active(index, value),
            Register::Priority => {
                let mut kick = Kick::NONE;
                for (lane, byte) in (lane..).zip(value.to_le_bytes()) {
                    kick |= self.write_priority(index, lane, byte);
                }
                return kick;
            }
            Register::Config => {
                // SGIs stay edge-triggered; the fields of PPIs are writable.
                let writable = 0xffffu32.wrapping_shl(lane as u32) & if private { 0xffff_0000 } else { !0 };
                let edge = gather(value).wrapping_shl(lane as u32);
                let changed = (bank.edge ^ edge) & writable;
                bank.edge ^= changed;
                changed
            }
        };
        bank.regate(self.control);
        self.touched(index, changed)
    }

    /// Makes interrupts active. Those in a list register become so there; of the others, SPIs become
    /// active on the vCPU that they are routed to.
    fn set_active(&mut self, index: usize, value: u32) -> Kick {
        let word = self.word_of(index);
        let vcpus = self.vcpus.len();
        let Some(bank) = self.banks.get_mut(index) else { return Kick::NONE };
        let new = value & !bank.shown_active();
        bank.active |= new;
        let mut kick = Kick::NONE;
        for lane in ones(new) {
            if bank.resident & bit(lane) == 0 {
                let target = if word == 0 { index } else { bank.target(lane) };
                bank.set_holder(lane, if target < vcpus { target } else { 0 });
            }
            let holder = if word == 0 { index } else { bank.holder(lane) };
            if let Some(v) = self.vcpus.get_mut(holder) {
                v.parked_words |= bit(word);
            }
            kick |= Kick::one(holder);
        }
        kick
    }

    /// Deactivates interrupts, wherever they are active.
    pub(crate) fn clear_active(&mut self, index: usize, value: u32) -> Kick {
        let Some(bank) = self.banks.get_mut(index) else { return Kick::NONE };
        bank.drop_active |= value & bank.resident;
        bank.deactivate(value);
        self.touched(index, value)
    }
}
