//! A machine for tests: virtual CPU interfaces, a physical GIC, and a hypervisor that obeys kicks.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::indexing_slicing, reason = "test code may panic")]

use std::collections::BTreeSet;

use vgic::{Access, Changes, Config, Kick, ListRegisters, Vgic, hcr};

pub(crate) const IDLE: u32 = 0x100;

/// The virtual CPU interface of one CPU, as IHI 0069H describes ICH_* and ICV_*.
#[derive(Clone, Debug)]
pub(crate) struct CpuInterface {
    pub(crate) lrs: Vec<u64>,
    pub(crate) hcr: u64,
    pub(crate) writes: usize,
    /// Active priorities, the running one last.
    pub(crate) running: Vec<u32>,
    pub(crate) split_eoi: bool,
}

impl ListRegisters for CpuInterface {
    fn read_lr(&mut self, n: usize) -> u64 {
        self.lrs[n]
    }
    fn write_lr(&mut self, n: usize, value: u64) {
        self.writes += 1;
        assert_ne!(state(value), 3, "pending and active");
        self.lrs[n] = value;
        let mut seen = BTreeSet::new();
        for lr in self.lrs.iter().filter(|&&lr| state(lr) != 0) {
            assert!(seen.insert(*lr as u32), "INTID {} in two list registers", *lr as u32);
        }
    }
    fn elrsr(&mut self) -> u32 {
        (0..self.lrs.len())
            .filter(|&n| state(self.lrs[n]) == 0 && (self.lrs[n] >> 61 & 1 == 1 || !eoi(self.lrs[n])))
            .fold(0, |mask, n| mask | 1 << n)
    }
    fn read_hcr(&mut self) -> u64 {
        self.hcr
    }
    fn write_hcr(&mut self, value: u64) {
        self.hcr = value;
    }
}

pub(crate) fn state(lr: u64) -> u64 {
    lr >> 62
}
fn eoi(lr: u64) -> bool {
    lr >> 41 & 1 == 1
}
fn priority(lr: u64) -> u32 {
    (lr >> 48 & 0xff) as u32
}

/// What became of the end of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Virtual,
    Physical(u32),
    Trapped,
}

impl CpuInterface {
    pub(crate) fn new(lrs: usize, split_eoi: bool) -> Self {
        Self { lrs: vec![0; lrs], hcr: 1, writes: 0, running: vec![], split_eoi }
    }

    pub(crate) fn running(&self) -> u32 {
        self.running.last().copied().unwrap_or(IDLE)
    }

    /// ICC_IAR: the INTID acknowledged.
    pub(crate) fn ack(&mut self) -> Option<u32> {
        let n = (0..self.lrs.len())
            .filter(|&n| state(self.lrs[n]) == 1)
            .min_by_key(|&n| (priority(self.lrs[n]), self.lrs[n] as u32))?;
        if priority(self.lrs[n]) >= self.running() {
            return None;
        }
        self.running.push(priority(self.lrs[n]));
        self.lrs[n] = self.lrs[n] & !(3 << 62) | 2 << 62;
        Some(self.lrs[n] as u32)
    }

    /// ICC_EOIR.
    pub(crate) fn end(&mut self, intid: u32) -> Ended {
        self.running.pop();
        if self.split_eoi { Ended::Virtual } else { self.deactivate(intid) }
    }

    /// ICC_DIR.
    pub(crate) fn dir(&mut self, intid: u32) -> Ended {
        if self.hcr & hcr::TDIR != 0 { Ended::Trapped } else { self.deactivate(intid) }
    }

    fn deactivate(&mut self, intid: u32) -> Ended {
        match self.lrs.iter_mut().find(|lr| **lr >> 63 == 1 && **lr as u32 == intid) {
            Some(lr) => {
                *lr &= !(1 << 63);
                if *lr >> 61 & 1 == 1 { Ended::Physical((*lr >> 32 & 0x3ff) as u32) } else { Ended::Virtual }
            }
            None => {
                self.hcr += 1 << hcr::EOICOUNT_SHIFT;
                Ended::Virtual
            }
        }
    }

    /// Whether the maintenance interrupt is asserted.
    pub(crate) fn maintenance(&self) -> bool {
        let eisr = self.lrs.iter().any(|&lr| state(lr) == 0 && lr >> 61 & 1 == 0 && eoi(lr));
        let none_pending = !self.lrs.iter().any(|&lr| state(lr) == 1);
        eisr || self.hcr & hcr::NPIE != 0 && none_pending
            || self.hcr & hcr::LRENPIE != 0 && self.hcr & hcr::EOICOUNT != 0
    }
}

pub(crate) fn config(vcpus: usize, spis: usize, list_registers: usize) -> Config {
    Config { vcpus, spis, list_registers, priority_bits: 5 }
}

/// One VM with one CPU interface per vCPU, and physical interrupts mapped one to one.
pub(crate) struct Machine {
    pub(crate) vgic: Vgic,
    pub(crate) cpus: Vec<CpuInterface>,
    pub(crate) loaded: Vec<bool>,
    /// (vCPU, or 0 for SPIs; INTID) of physical interrupts whose line is high, and that are active.
    pub(crate) high: BTreeSet<(usize, u32)>,
    pub(crate) physical: BTreeSet<(usize, u32)>,
    /// Physical interrupts that fired, for a reference model to follow.
    pub(crate) fired: Vec<(usize, u32)>,
    pub(crate) maintenance: usize,
}

impl Machine {
    pub(crate) fn new(config: Config, split_eoi: bool) -> Self {
        let cpu = CpuInterface::new(config.list_registers, split_eoi);
        let mut machine = Self {
            vgic: Vgic::new(config),
            cpus: vec![cpu; config.vcpus],
            loaded: vec![true; config.vcpus],
            high: BTreeSet::new(),
            physical: BTreeSet::new(),
            fired: vec![],
            maintenance: 0,
        };
        machine.dist(0, 3);
        machine
    }

    /// All private and shared interrupts enabled, in group 1, at priority 0xa0.
    pub(crate) fn enable_all(&mut self) {
        let words = 1 + (self.vgic.dist_read(0, 4, Access::Word) & 31) as u32;
        for cpu in 0..self.cpus.len() {
            self.redist(cpu, 0x80, !0);
            self.redist(cpu, 0x100, !0);
            (0..8).for_each(|n| self.redist(cpu, 0x400 + 4 * n, 0xa0a0_a0a0));
        }
        for word in 1..words {
            self.dist(0x80 + 4 * word, !0);
            self.dist(0x100 + 4 * word, !0);
            (0..8).for_each(|n| self.dist(0x400 + 32 * word + 4 * n, 0xa0a0_a0a0));
        }
    }

    pub(crate) fn dist(&mut self, offset: u32, value: u32) {
        let kick = self.vgic.dist_write(0, offset, Access::Word, value.into());
        self.kick(kick);
    }

    pub(crate) fn redist(&mut self, cpu: usize, offset: u32, value: u32) {
        let kick = self.vgic.redist_write(cpu, 0x1_0000 + offset, Access::Word, value.into());
        self.kick(kick);
    }

    /// Writes the bit of `intid` in a register of one bit per interrupt.
    pub(crate) fn write_bit(&mut self, cpu: usize, base: u32, intid: u32) {
        let bit = 1 << (intid % 32);
        if intid < 32 { self.redist(cpu, base, bit) } else { self.dist(base + intid / 32 * 4, bit) }
    }

    pub(crate) fn read_bit(&self, cpu: usize, base: u32, intid: u32) -> bool {
        let word = if intid < 32 {
            self.vgic.redist_read(cpu, 0x1_0000 + base, Access::Word)
        } else {
            self.vgic.dist_read(cpu, base + intid / 32 * 4, Access::Word)
        };
        word >> (intid % 32) & 1 == 1
    }

    pub(crate) fn set_priority(&mut self, cpu: usize, intid: u32, value: u8) {
        let kick = if intid < 32 {
            self.vgic.redist_write(cpu, 0x1_0400 + intid, Access::Byte, value.into())
        } else {
            self.vgic.dist_write(cpu, 0x400 + intid, Access::Byte, value.into())
        };
        self.kick(kick);
    }

    pub(crate) fn route(&mut self, intid: u32, cpu: u64) {
        let kick = self.vgic.dist_write(0, 0x6000 + 8 * intid, Access::Double, cpu);
        self.kick(kick);
    }

    pub(crate) fn sgi(&mut self, from: usize, to: usize, intid: u32) {
        let kick = self.vgic.sgi(from, u64::from(intid) << 24 | 1 << to, true);
        self.kick(kick);
    }

    pub(crate) fn pulse(&mut self, cpu: usize, intid: u32) {
        let kick = self.vgic.pulse(cpu, intid);
        self.kick(kick);
    }

    pub(crate) fn line(&mut self, cpu: usize, intid: u32, level: bool) {
        let kick = self.vgic.set_line(cpu, intid, level);
        self.kick(kick);
    }

    /// The line of a physical interrupt.
    pub(crate) fn hw_line(&mut self, cpu: usize, intid: u32, level: bool) {
        let key = (if intid < 32 { cpu } else { 0 }, intid);
        if level {
            self.high.insert(key)
        } else {
            self.high.remove(&key)
        };
        self.settle();
    }

    pub(crate) fn kick(&mut self, kick: Kick) {
        for cpu in kick {
            if self.loaded[cpu] {
                let changes = self.vgic.sync(cpu, &mut self.cpus[cpu]);
                self.apply(cpu, changes);
            }
        }
        self.settle();
    }

    fn apply(&mut self, cpu: usize, changes: Changes) {
        for id in changes.deactivate.iter() {
            let key = (if id < 32 { cpu } else { 0 }, id);
            assert!(self.physical.remove(&key), "{key:?} handed back but not active");
        }
        self.kick(changes.kick);
    }

    /// Lets physical and maintenance interrupts come in until all is quiet.
    pub(crate) fn settle(&mut self) {
        let ready: Vec<_> = self.high.difference(&self.physical).copied().collect();
        for (cpu, intid) in ready {
            if self.physical.insert((cpu, intid)) {
                self.fired.push((cpu, intid));
                let kick = self.vgic.hw_fired(cpu, intid);
                self.kick(kick);
            }
        }
        for cpu in 0..self.cpus.len() {
            for round in 0.. {
                if !self.loaded[cpu] || !self.cpus[cpu].maintenance() {
                    break;
                }
                assert!(round < 8, "maintenance interrupt storm: {:x?}", self.cpus[cpu]);
                self.maintenance += 1;
                let changes = self.vgic.sync(cpu, &mut self.cpus[cpu]);
                self.apply(cpu, changes);
            }
        }
    }

    pub(crate) fn sync(&mut self, cpu: usize) {
        self.kick(Kick::NONE);
        let changes = self.vgic.sync(cpu, &mut self.cpus[cpu]);
        self.apply(cpu, changes);
    }

    pub(crate) fn unload(&mut self, cpu: usize) {
        let changes = self.vgic.unload(cpu, &mut self.cpus[cpu]);
        self.loaded[cpu] = false;
        assert_eq!(self.cpus[cpu].elrsr().count_ones() as usize, self.cpus[cpu].lrs.len());
        assert_eq!(self.cpus[cpu].hcr, 1);
        self.apply(cpu, changes);
    }

    pub(crate) fn load(&mut self, cpu: usize) {
        let changes = self.vgic.load(cpu, &mut self.cpus[cpu]);
        self.loaded[cpu] = true;
        self.apply(cpu, changes);
        self.settle();
    }

    pub(crate) fn ack(&mut self, cpu: usize) -> Option<u32> {
        let intid = self.cpus[cpu].ack();
        self.settle();
        intid
    }

    pub(crate) fn end(&mut self, cpu: usize, intid: u32) {
        let ended = self.cpus[cpu].end(intid);
        self.ended(cpu, intid, ended);
    }

    pub(crate) fn dir(&mut self, cpu: usize, intid: u32) {
        let ended = self.cpus[cpu].dir(intid);
        self.ended(cpu, intid, ended);
    }

    fn ended(&mut self, cpu: usize, intid: u32, ended: Ended) {
        match ended {
            Ended::Virtual => {}
            Ended::Physical(id) => {
                let key = (if id < 32 { cpu } else { 0 }, id);
                assert!(self.physical.remove(&key), "{key:?} ended by the guest but not active");
            }
            Ended::Trapped => {
                self.sync(cpu);
                let kick = self.vgic.deactivate(cpu, intid);
                self.kick(kick);
            }
        }
        self.settle();
    }
}
