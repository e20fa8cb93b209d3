//! What makes interrupts pending: SGIs, devices of the model, physical interrupts.

use crate::bits::bit;
use crate::effects::Kick;
use crate::{Place, Vgic};

const SGI_IRM: u64 = 1 << 40;
/// Aff3, RS, Aff2 and Aff1 of ICC_SGI1R_EL1: no vCPU has any of them non-zero.
const SGI_FAR: u64 = 0xff << 48 | 0xf << 44 | 0xff << 32 | 0xff << 16;

impl Vgic {
    /// A write of `value` to ICC_SGI1R_EL1 (`group1`), or to ICC_SGI0R_EL1 or ICC_ASGI1R_EL1.
    ///
    /// With one Security state the former may raise SGIs of either group and the latter two those of
    /// group 0 (IHI 0069H 12.1.10, forwarding an SGI to a target PE). Virtual SGIs have no source:
    /// several before the acknowledgement are one.
    pub fn sgi(&mut self, from: usize, value: u64, group1: bool) -> Kick {
        let all = Kick::first(self.vcpus.len());
        let targets = if value & SGI_IRM != 0 {
            all.without(from).bits()
        } else if value & SGI_FAR == 0 {
            all.bits() & (value & 0xffff) as u16
        } else {
            0
        };
        let this = bit((value.wrapping_shr(24) & 0xf) as usize);
        let mut kick = Kick::NONE;
        for target in crate::bits::ones(targets.into()) {
            if let (Some(bank), Some(v)) = (self.banks.get_mut(target), self.vcpus.get_mut(target))
                && (group1 || bank.group1 & this == 0)
            {
                bank.latch |= this;
                if (bank.ready() | bank.resident) & this != 0 {
                    v.ready_words |= 1;
                    kick |= Kick::one(target);
                }
            }
        }
        kick
    }

    /// A device drives the interrupt's input: `vcpu` is ignored for SPIs, SGIs have none. An
    /// edge-triggered interrupt is latched when the level rises.
    ///
    /// A mapped interrupt has its line at the physical GIC. For it a high level counts as an event,
    /// and a low one withdraws what was signalled and not yet acknowledged by the guest.
    pub fn set_line(&mut self, vcpu: usize, intid: u32, level: bool) -> Kick {
        self.update(vcpu, intid, |bank, this| {
            if bank.mapped & this != 0 {
                if level {
                    bank.latch |= this;
                } else {
                    bank.withdraw(this);
                }
                return;
            }
            if level && bank.edge & !bank.line & this != 0 {
                bank.latch |= this;
            }
            bank.line = if level { bank.line | this } else { bank.line & !this };
        })
    }

    /// A device signals one event: the interrupt becomes pending until it is acknowledged.
    pub fn pulse(&mut self, vcpu: usize, intid: u32) -> Kick {
        self.update(vcpu, intid, |bank, this| bank.latch |= this)
    }

    /// The physical interrupt behind `intid` was acknowledged at EL2 with a priority drop only. It
    /// stays active, so that it cannot fire again, until the guest deactivates it through its list
    /// register or [`Changes`](crate::Changes) names it. Without a mapping nothing happens.
    ///
    /// A guest that disables such an interrupt keeps it pending, and physically active: deactivating
    /// it would only make a level-sensitive source fire again at once, over and over.
    pub fn hw_fired(&mut self, vcpu: usize, intid: u32) -> Kick {
        self.update(vcpu, intid, |bank, this| {
            let this = this & bank.mapped;
            bank.latch |= this;
            bank.hw_active |= this;
            // It fired, so what was owed has been paid.
            bank.owed &= !this;
        })
    }

    fn update(&mut self, vcpu: usize, intid: u32, change: impl FnOnce(&mut crate::bank::Bank, u32)) -> Kick {
        // The distributor has no inputs for SGIs.
        if intid < 16 {
            return Kick::NONE;
        }
        let vcpu = if intid < 32 { vcpu } else { 0 };
        let Some(Place { bank: index, lane, .. }) = self.place(vcpu, intid) else { return Kick::NONE };
        let Some(bank) = self.banks.get_mut(index) else { return Kick::NONE };
        change(bank, bit(lane));
        self.touched(index, bit(lane))
    }
}
