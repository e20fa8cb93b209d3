//! The MMIO frames: GICD, and GICR's RD_base and SGI_base.
//!
//! An access of a size or alignment that the register does not have, and any register that this GIC
//! does not have, reads as zero and ignores writes.

use crate::bits::{bit, ones};
use crate::registers::{Field, Register};
use crate::{CTLR_GROUP0, CTLR_GROUP1, Kick, Vgic};

/// The size of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

const GICD_CTLR: u32 = 0x0000;
const GICD_TYPER: u32 = 0x0004;
const GICD_IIDR: u32 = 0x0008;
const GICD_IROUTER: u32 = 0x6000;
const GICD_IROUTER_END: u32 = 0x7fe0;
const GICR_IIDR: u32 = 0x0004;
const GICR_TYPER: u32 = 0x0008;
const GICR_TYPER_HIGH: u32 = 0x000c;
const GICR_WAKER: u32 = 0x0014;
const PIDR2: u32 = 0xffe8;
const SGI_BASE: u32 = 0x1_0000;
const GICR_SIZE: u32 = 0x2_0000;

/// GICD_CTLR.{DS, ARE}: one Security state, affinity routing, both fixed.
const CTLR_FIXED: u32 = 1 << 6 | 1 << 4;
/// GICD_TYPER: A3V, No1N, 10 bits of INTID.
const TYPER_FIXED: u32 = 1 << 25 | 1 << 24 | 9 << 19;
/// ProductID 'T', no implementer, so that no driver takes it for a part with errata.
const IIDR: u32 = 0x5400_0000;
/// ArchRev 3 (GICv3), JEDEC.
const PIDR2_VALUE: u32 = 0x3b;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;

fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    value.wrapping_shr(32) as u32
}

impl Vgic {
    /// A read of the distributor, at `offset` from its base, by `vcpu`. If the register shows pending
    /// or active state, the vCPU's list registers should be in sync, and those of
    /// [`dist_holders`](Self::dist_holders) folded.
    #[must_use]
    pub fn dist_read(&self, vcpu: usize, offset: u32, size: Access) -> u64 {
        let _ = vcpu; // With ARE = 1 all vCPUs see the same distributor.
        match size {
            Access::Word => self.dist_read_word(offset).into(),
            Access::Byte => self.spi_field(offset).map_or(0, |(bank, f)| self.read_byte(bank, f)),
            Access::Double => match offset {
                GICD_IROUTER..GICD_IROUTER_END if offset & 7 == 0 => self.route(offset),
                _ => 0,
            },
            Access::Half => 0,
        }
    }

    /// The vCPUs other than `vcpu` in whose list registers interrupts are whose pending or active state a
    /// read of the distributor at `offset` shows: what they did with them since they last folded is not
    /// in the model yet.
    pub fn dist_holders(&self, vcpu: usize, offset: u32) -> Kick {
        let Some(bank) = self.spi_field(offset).and_then(|(bank, _)| self.banks.get(bank)) else {
            return Kick::NONE;
        };
        ones(bank.resident)
            .fold(Kick::NONE, |holders, lane| holders | Kick::one(bank.holder(lane)))
            .without(vcpu)
    }

    /// The same for the redistributor of vCPU `target`, which is the only one to hold its interrupts.
    pub fn redist_holders(&self, vcpu: usize, target: usize) -> Kick {
        let held = target < self.vcpus.len() && self.banks.get(target).is_some_and(|bank| bank.resident != 0);
        if held { Kick::one(target).without(vcpu) } else { Kick::NONE }
    }

    /// A write to the distributor by `vcpu`.
    pub fn dist_write(&mut self, vcpu: usize, offset: u32, size: Access, value: u64) -> Kick {
        let _ = vcpu;
        match size {
            Access::Word => self.dist_write_word(offset, low(value)),
            Access::Byte => {
                self.spi_field(offset).map_or(Kick::NONE, |(bank, f)| self.write_byte(bank, f, value))
            }
            Access::Double => match offset {
                GICD_IROUTER..GICD_IROUTER_END if offset & 7 == 0 => self.set_route(offset, value),
                _ => Kick::NONE,
            },
            Access::Half => Kick::NONE,
        }
    }

    /// A read of the redistributor of vCPU `target`, at `offset` from its RD_base.
    #[must_use]
    pub fn redist_read(&self, target: usize, offset: u32, size: Access) -> u64 {
        if target >= self.vcpus.len() {
            return 0;
        }
        match size {
            Access::Word if offset < SGI_BASE => self.rd_read_word(target, offset).into(),
            Access::Word => match private_field(offset) {
                Some(f) if offset & 3 == 0 => self.read_bank(target, f).into(),
                _ => 0,
            },
            Access::Byte => private_field(offset).map_or(0, |f| self.read_byte(target, f)),
            Access::Double => {
                if offset == GICR_TYPER {
                    self.redist_type(target)
                } else {
                    0
                }
            }
            Access::Half => 0,
        }
    }

    /// A write to the redistributor of vCPU `target`.
    pub fn redist_write(&mut self, target: usize, offset: u32, size: Access, value: u64) -> Kick {
        if target >= self.vcpus.len() {
            return Kick::NONE;
        }
        match size {
            Access::Word if offset == GICR_WAKER => {
                if let Some(v) = self.vcpus.get_mut(target) {
                    v.asleep = low(value) & WAKER_PROCESSOR_SLEEP != 0;
                }
                Kick::NONE
            }
            Access::Word => match private_field(offset) {
                Some(f) if offset & 3 == 0 => {
                    self.write_bank(target, f.register, f.intid as usize, low(value))
                }
                _ => Kick::NONE,
            },
            Access::Byte => private_field(offset).map_or(Kick::NONE, |f| self.write_byte(target, f, value)),
            Access::Half | Access::Double => Kick::NONE,
        }
    }

    fn dist_read_word(&self, offset: u32) -> u32 {
        if offset & 3 != 0 {
            return 0;
        }
        match offset {
            GICD_CTLR => CTLR_FIXED | self.control,
            // ITLinesNumber is the number of SPIs / 32.
            GICD_TYPER => TYPER_FIXED | (self.config.spis as u32).wrapping_shr(5),
            GICD_IIDR => IIDR,
            PIDR2 => PIDR2_VALUE,
            GICD_IROUTER..GICD_IROUTER_END if offset & 4 == 0 => low(self.route(offset)),
            GICD_IROUTER..GICD_IROUTER_END => high(self.route(offset)),
            _ => self.spi_field(offset).map_or(0, |(bank, f)| self.read_bank(bank, f)),
        }
    }

    fn dist_write_word(&mut self, offset: u32, value: u32) -> Kick {
        if offset & 3 != 0 {
            return Kick::NONE;
        }
        match offset {
            GICD_CTLR => self.set_control(value & (CTLR_GROUP0 | CTLR_GROUP1)),
            GICD_IROUTER..GICD_IROUTER_END => {
                let old = self.route(offset);
                let new = if offset & 4 == 0 {
                    old & !0xffff_ffff | u64::from(value)
                } else {
                    u64::from(low(old)) | u64::from(value).wrapping_shl(32)
                };
                self.set_route(offset, new)
            }
            _ => match self.spi_field(offset) {
                Some((bank, f)) => self.write_bank(bank, f.register, (f.intid & 31) as usize, value),
                None => Kick::NONE,
            },
        }
    }

    fn rd_read_word(&self, target: usize, offset: u32) -> u32 {
        match offset {
            GICR_IIDR => IIDR,
            GICR_TYPER => low(self.redist_type(target)),
            GICR_TYPER_HIGH => high(self.redist_type(target)),
            // ChildrenAsleep follows ProcessorSleep at once.
            GICR_WAKER if self.vcpus.get(target).is_some_and(|v| v.asleep) => {
                WAKER_PROCESSOR_SLEEP | WAKER_CHILDREN_ASLEEP
            }
            PIDR2 => PIDR2_VALUE,
            // GICR_CTLR too: no LPIs, and register writes are never pending.
            _ => 0,
        }
    }

    /// GICR_TYPER: affinity, processor number, Last (IHI 0069H 12.11.37).
    fn redist_type(&self, target: usize) -> u64 {
        let last = u64::from(target.wrapping_add(1) == self.vcpus.len());
        let number = target as u64;
        number.wrapping_shl(32) | number.wrapping_shl(8) | last.wrapping_shl(4)
    }

    /// GICD_CTLR's group enables gate every interrupt of every vCPU.
    fn set_control(&mut self, control: u32) -> Kick {
        if self.control == control {
            return Kick::NONE;
        }
        self.control = control;
        self.banks.iter_mut().for_each(|bank| bank.regate(control));
        for v in &mut self.vcpus {
            v.ready_words = bit(self.config.spis.wrapping_shr(5).wrapping_add(1)).wrapping_sub(1);
        }
        Kick::first(self.vcpus.len())
    }

    /// The bank and field of an SPI; those of private interrupts are RES0 here when ARE = 1.
    fn spi_field(&self, offset: u32) -> Option<(usize, Field)> {
        let field = Field::at(offset)?;
        let word = field.intid.wrapping_shr(5) as usize;
        (word != 0 && word <= self.config.spis / 32).then(|| (self.bank_of(0, word), field))
    }

    fn read_bank(&self, bank: usize, field: Field) -> u32 {
        self.banks.get(bank).map_or(0, |b| b.read(field.register, (field.intid & 31) as usize))
    }

    /// Only priorities are accessible by bytes (IHI 0069H 12.1.3).
    fn read_byte(&self, bank: usize, field: Field) -> u64 {
        match self.banks.get(bank) {
            Some(b) if field.register == Register::Priority => {
                b.priority_of((field.intid & 31) as usize).into()
            }
            _ => 0,
        }
    }

    fn write_byte(&mut self, bank: usize, field: Field, value: u64) -> Kick {
        if field.register != Register::Priority {
            return Kick::NONE;
        }
        self.write_priority(bank, (field.intid & 31) as usize, value as u8)
    }

    /// The bank and lane of the SPI whose GICD_IROUTER is at `offset`.
    fn routed_spi(&self, offset: u32) -> Option<(usize, usize)> {
        let intid = (offset & 0x1fff) / 8;
        let word = (intid / 32) as usize;
        (word != 0 && word <= self.config.spis / 32).then(|| (self.bank_of(0, word), (intid % 32) as usize))
    }

    /// GICD_IROUTER<n>; Interrupt_Routing_Mode is RAZ/WI, as GICD_TYPER.No1N allows.
    fn route(&self, offset: u32) -> u64 {
        let route = self.routed_spi(offset).and_then(|(b, lane)| self.banks.get(b)?.route.get(lane));
        let route = u64::from(route.copied().unwrap_or(0));
        (route & 0xff00_0000).wrapping_shl(8) | route & 0x00ff_ffff
    }

    fn set_route(&mut self, offset: u32, value: u64) -> Kick {
        let affinity = low(value.wrapping_shr(8)) & 0xff00_0000 | low(value) & 0x00ff_ffff;
        let Some((index, lane)) = self.routed_spi(offset) else { return Kick::NONE };
        let spi_word = index.wrapping_sub(self.vcpus.len());
        let Some(route) = self.banks.get_mut(index).and_then(|b| b.route.get_mut(lane)) else {
            return Kick::NONE;
        };
        let old = core::mem::replace(route, affinity);
        if old == affinity {
            return Kick::NONE;
        }
        for (vcpu, v) in self.vcpus.iter_mut().enumerate() {
            if let Some(routed) = v.routed.get_mut(spi_word) {
                *routed = if vcpu as u32 == affinity { *routed | bit(lane) } else { *routed & !bit(lane) };
            }
        }
        self.touched(index, bit(lane))
    }
}

/// The field of a private interrupt at `offset` of a redistributor: SGI_base has one word of each.
fn private_field(offset: u32) -> Option<Field> {
    if !(SGI_BASE..GICR_SIZE).contains(&offset) {
        return None;
    }
    Field::at(offset & 0xffff).filter(|f| f.intid < 32)
}
