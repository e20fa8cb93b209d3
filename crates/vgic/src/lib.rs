//! The virtual GICv3 of one VM: distributor, redistributors, and what sits in the list registers.
//!
//! [`Vgic`] is a plain value. The hypervisor keeps it under one lock per VM and calls it when a guest
//! touches a GIC frame or sends an SGI, when a device or a physical interrupt changes something, and
//! to move interrupts in and out of the list registers of a vCPU ([`Vgic::sync`], [`Vgic::load`],
//! [`Vgic::unload`]), which it reaches through [`ListRegisters`].
//!
//! Between exits the list registers belong to the hardware. Whoever changes the model therefore gets
//! a [`Kick`]: the vCPUs whose list registers no longer show what the model wants. Each of them must
//! run `sync` before it enters its guest again; a running one must be made to leave it.
//!
//! - `bank`: 32 interrupts as bit masks, and the rule that decides what a list register holds
//! - `signal`: SGIs, device lines, physical interrupts
//! - `sync`: folding list registers into the model and refilling them
//! - `registers`: which register an offset means, and its meaning for a bank
//! - `frames`: the MMIO frames GICD, GICR RD_base and SGI_base
//! - `list`: the layout of ICH_LR<n>_EL2 and ICH_HCR_EL2
//!
//! The model is a GICv3 with ARE=1 and one Security state (DS=1); no LPIs, extended ranges, message
//! SPIs or 1-of-N delivery. Source: Arm IHI 0069H, chapters 4 (handling, prioritization), 6
//! (virtualization) and 12 (registers). GICR_WAKER.ProcessorSleep does not hold interrupts back: an
//! interrupt for a sleeping vCPU is what wakes it, and the PSCI state decides whether it runs.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bank;
mod bits;
mod effects;
mod frames;
mod list;
mod registers;
mod signal;
mod sync;

use alloc::boxed::Box;
use alloc::vec;

use bank::Bank;
use bits::bit;
pub use effects::{Changes, Kick, PhysIntids, VcpuIter};
pub use frames::Access;
pub use list::{ListRegisters, hcr};

/// The most vCPUs that one [`Vgic`] serves; all have Aff3 = Aff2 = Aff1 = 0.
pub const MAX_VCPUS: usize = 16;
/// The most SPIs that one [`Vgic`] has.
pub const MAX_SPIS: usize = 256;
const MAX_LIST_REGISTERS: usize = 16;
const SPI_WORDS: usize = MAX_SPIS / 32;
const CTLR_GROUP0: u32 = 1;
const CTLR_GROUP1: u32 = 2;

/// The size of a [`Vgic`]. Values outside their range are brought into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: usize,
    /// Number of SPIs, a multiple of 32 up to [`MAX_SPIS`].
    pub spis: usize,
    /// Number of list registers of the machine, 1 to 16 (ICH_VTR_EL2.ListRegs + 1).
    pub list_registers: usize,
    /// Priority bits implemented by the virtual CPU interface, 5 to 8 (ICH_VTR_EL2.PRIbits + 1).
    pub priority_bits: u32,
}

/// An interrupt that waits for a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its priority, lower is more urgent.
    pub priority: u8,
    /// Group 1.
    pub group1: bool,
}

/// The virtual GICv3 of one VM.
#[derive(Clone, Debug)]
pub struct Vgic {
    config: Config,
    /// GICD_CTLR.EnableGrp1 and EnableGrp0.
    control: u32,
    /// One bank of private interrupts for each vCPU, then the banks of SPIs.
    banks: Box<[Bank]>,
    vcpus: Box<[Vcpu]>,
    /// SPI banks with physical interrupts that are to be deactivated, as a mask of SPI words.
    owed_spis: u32,
}

/// What a vCPU's list registers hold, and where to look for more.
#[derive(Clone, Debug)]
struct Vcpu {
    /// Words (0: private, 1 and up: SPIs) that may hold an interrupt to deliver to this vCPU.
    ready_words: u32,
    /// Words that may hold an interrupt which is active on this vCPU but in none of its LRs.
    parked_words: u32,
    /// List registers in use, and those among them that were active when last seen.
    used: u32,
    active: u32,
    /// The INTID in each list register in use.
    intids: [u16; MAX_LIST_REGISTERS],
    /// The bits of [`hcr::OWNED`] that are set in ICH_HCR_EL2.
    hcr: u64,
    /// GICR_WAKER.ProcessorSleep.
    asleep: bool,
    /// SPIs routed to this vCPU.
    routed: [u32; SPI_WORDS],
}

impl Vcpu {
    fn new(routed: u32) -> Self {
        Self {
            ready_words: 0,
            parked_words: 0,
            used: 0,
            active: 0,
            intids: [0; MAX_LIST_REGISTERS],
            hcr: 0,
            asleep: true,
            routed: [routed; SPI_WORDS],
        }
    }

    /// Notes that list register `n` holds the interrupt at `place`, pending.
    #[inline]
    fn hold(&mut self, n: usize, place: Place) {
        if let Some(intid) = self.intids.get_mut(n) {
            *intid = (place.word.wrapping_mul(32) | place.lane) as u16;
            self.used |= bit(n);
        }
    }

    /// Which interrupts of `word` may be delivered to this vCPU.
    fn reach(&self, word: usize) -> u32 {
        match word.checked_sub(1) {
            None => !0,
            Some(spi_word) => self.routed.get(spi_word).copied().unwrap_or(0),
        }
    }
}

/// Where an interrupt is kept: word 0 is private, word n > 0 holds SPIs from INTID 32 * n.
#[derive(Clone, Copy, Debug)]
struct Place {
    word: usize,
    bank: usize,
    lane: usize,
}

impl Vgic {
    /// A GIC in its reset state, with nothing mapped to hardware.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let config = Config {
            vcpus: config.vcpus.clamp(1, MAX_VCPUS),
            spis: config.spis.min(MAX_SPIS) & !31,
            list_registers: config.list_registers.clamp(1, MAX_LIST_REGISTERS),
            priority_bits: config.priority_bits.clamp(5, 8),
        };
        let banks = config.vcpus.saturating_add(config.spis / 32);
        let mut vgic = Self {
            config,
            control: 0,
            banks: vec![Bank::new(); banks].into_boxed_slice(),
            vcpus: vec![Vcpu::new(0); config.vcpus].into_boxed_slice(),
            owed_spis: 0,
        };
        vgic.reset();
        vgic
    }

    /// The number of vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> usize {
        self.vcpus.len()
    }

    /// Back to the state after [`Vgic::new`], for a restart of the VM; hardware mappings stay.
    ///
    /// Every vCPU must be unloaded. Physical interrupts that the old guest left active are reported
    /// by the next [`Vgic::sync`] or [`Vgic::load`]: SPIs to whichever vCPU comes first, PPIs to
    /// their own; [`Vgic::take_deactivations`] asks for them at once.
    pub fn reset(&mut self) {
        self.control = 0;
        let vcpus = self.vcpus.len();
        for (index, bank) in self.banks.iter_mut().enumerate() {
            bank.reset(index < vcpus);
            if bank.owed != 0 && index >= vcpus {
                self.owed_spis |= bit(index.wrapping_sub(vcpus));
            }
        }
        for (index, vcpu) in self.vcpus.iter_mut().enumerate() {
            // GICD_IROUTER resets to 0 here: every SPI goes to vCPU 0.
            *vcpu = Vcpu::new(if index == 0 { !0 } else { 0 });
        }
    }

    /// Ties `intid` to the physical interrupt `pintid`: for a PPI on all vCPUs, otherwise an SPI of a
    /// passed-through device. SGIs, absent INTIDs and physical SGIs or LPIs are refused with `false`.
    pub fn map_hw(&mut self, intid: u32, pintid: u32) -> bool {
        let vcpus = self.vcpus.len();
        if intid < 16 || !(16..1020).contains(&pintid) {
            return false;
        }
        let Some(place) = self.place(0, intid) else { return false };
        let banks = if place.word == 0 { 0..vcpus } else { place.bank..place.bank.wrapping_add(1) };
        for bank in self.banks.get_mut(banks).into_iter().flatten() {
            bank.map(place.lane, pintid);
        }
        true
    }

    /// Whether an interrupt waits for this vCPU: pending, enabled, its group enabled in GICD_CTLR.
    ///
    /// This is the wake-up rule of WFI without the CPU interface's masks (priority mask, running
    /// priority, ICC_IGRPEN). Exact after [`Vgic::sync`]; otherwise list registers count as last seen.
    #[must_use]
    pub fn has_pending(&self, vcpu: usize) -> bool {
        let Some(v) = self.vcpus.get(vcpu) else { return false };
        v.used & !v.active != 0
            || bits::ones(v.ready_words).any(|word| self.candidates(vcpu, v, word).is_some_and(|c| c.1 != 0))
    }

    /// The most urgent interrupt that waits for a vCPU whose list registers are empty, of the groups that
    /// bits 0 and 1 of `groups` name.
    #[must_use]
    pub fn most_urgent(&self, vcpu: usize, groups: u64) -> Option<Waiting> {
        let v = self.vcpus.get(vcpu)?;
        let mut best: Option<Waiting> = None;
        for word in bits::ones(v.ready_words) {
            let (bank, ready) = self.candidates(vcpu, v, word)?;
            for lane in bits::ones(ready) {
                let (priority, group1) = (bank.priority_of(lane), bank.group1 & bit(lane) != 0);
                let wanted = groups >> u32::from(group1) & 1 != 0;
                if wanted && best.is_none_or(|b| priority < b.priority) {
                    best = Some(Waiting { priority, group1 });
                }
            }
        }
        best
    }

    /// Whether the physical interrupt behind `intid` is active on behalf of this vCPU's guest, which
    /// has not deactivated it yet. Exact after [`Vgic::unload`]; a vCPU switch restores the active
    /// state of PPIs at the physical redistributor from it.
    #[must_use]
    pub fn pending_hw_active(&self, vcpu: usize, intid: u32) -> bool {
        let Some(place) = self.place(vcpu, intid) else { return false };
        self.banks.get(place.bank).is_some_and(|b| (b.hw_active | b.lr_hw) & bit(place.lane) != 0)
    }

    fn place(&self, vcpu: usize, intid: u32) -> Option<Place> {
        let intid = intid as usize;
        let (word, lane) = (intid / 32, intid % 32);
        if vcpu >= self.vcpus.len() {
            return None;
        }
        let bank = self.bank_of(vcpu, word);
        (bank < self.banks.len()).then_some(Place { word, bank, lane })
    }

    /// The index of the bank that is word `word` for `vcpu`.
    fn bank_of(&self, vcpu: usize, word: usize) -> usize {
        if word == 0 { vcpu } else { self.vcpus.len().wrapping_add(word).wrapping_sub(1) }
    }

    /// The word that bank `bank` is.
    fn word_of(&self, bank: usize) -> usize {
        if bank < self.vcpus.len() { 0 } else { bank.wrapping_sub(self.vcpus.len()).wrapping_add(1) }
    }

    /// The bank of `word` and which of its interrupts are ready for delivery to `vcpu`.
    fn candidates(&self, vcpu: usize, v: &Vcpu, word: usize) -> Option<(&Bank, u32)> {
        let bank = self.banks.get(self.bank_of(vcpu, word))?;
        Some((bank, bank.ready() & v.reach(word)))
    }

    /// Notes that interrupts `changed` of a bank changed: whoever must look at them gets to know.
    #[inline]
    fn touched(&mut self, index: usize, changed: u32) -> Kick {
        let Some(bank) = self.banks.get(index) else { return Kick::NONE };
        let live = changed & (bank.ready() | bank.resident | bank.owed);
        if live == 0 {
            return Kick::NONE;
        }
        match self.vcpus.get_mut(index) {
            Some(v) => {
                v.ready_words |= 1;
                Kick::one(index)
            }
            None => self.touched_spis(index, live),
        }
    }

    #[inline(never)]
    fn touched_spis(&mut self, index: usize, live: u32) -> Kick {
        let Some(bank) = self.banks.get(index) else { return Kick::NONE };
        let spi_word = index.wrapping_sub(self.vcpus.len());
        if bank.owed != 0 {
            self.owed_spis |= bit(spi_word);
        }
        let mut kick = Kick::NONE;
        for lane in bits::ones(live) {
            let target = bank.target(lane);
            if let Some(v) = self.vcpus.get_mut(target) {
                v.ready_words |= bit(spi_word.wrapping_add(1));
                kick |= Kick::one(target);
            }
            if (bank.resident | bank.owed) & bit(lane) != 0 {
                kick |= Kick::one(bank.holder(lane));
            }
        }
        kick
    }
}
