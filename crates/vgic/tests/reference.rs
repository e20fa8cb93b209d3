//! Random guests on the vGIC against a naive GICv3 that has no list registers at all.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "test code may panic")]

mod machine;

use std::collections::BTreeMap;

use machine::{IDLE, Machine, config};
use proptest::prelude::*;
use vgic::Access;

const CPUS: usize = 2;
const SPIS: u32 = 32;
const INTIDS: u32 = 32 + SPIS;
/// Tied to physical interrupts.
const HW_PPI: u32 = 27;
const HW_SPI: u32 = 40;
/// Edge-triggered besides the SGIs; all others are level-sensitive.
const EDGE: [u32; 3] = [20, 41, 42];

/// One interrupt of the naive GIC.
#[derive(Clone, Copy, Debug, Default)]
struct Irq {
    enabled: bool,
    latch: bool,
    line: bool,
    edge: bool,
    active: bool,
    group1: bool,
    priority: u32,
    route: usize,
}

impl Irq {
    fn pending(&self) -> bool {
        self.latch || self.line && !self.edge
    }
}

/// A GICv3 in which everything is visible at once.
struct Naive {
    irqs: BTreeMap<(usize, u32), Irq>,
    groups: u32,
}

fn key(cpu: usize, intid: u32) -> (usize, u32) {
    (if intid < 32 { cpu } else { 0 }, intid)
}

impl Naive {
    fn new() -> Self {
        let mut irqs = BTreeMap::new();
        for intid in 0..INTIDS {
            for cpu in 0..if intid < 32 { CPUS } else { 1 } {
                let edge = intid < 16 || EDGE.contains(&intid);
                irqs.insert((cpu, intid), Irq { edge, ..Irq::default() });
            }
        }
        Self { irqs, groups: 3 }
    }

    fn irq(&mut self, cpu: usize, intid: u32) -> &mut Irq {
        self.irqs.get_mut(&key(cpu, intid)).unwrap()
    }

    /// What could be delivered to `cpu` if nothing ran there: INTID and priority.
    fn deliverable(&self, cpu: usize) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.irqs.iter().filter_map(move |(&(owner, intid), irq)| {
            let mine = if intid < 32 { owner == cpu } else { irq.route == cpu };
            let open = irq.enabled && self.groups >> u32::from(irq.group1) & 1 == 1;
            (mine && open && irq.pending() && !irq.active).then_some((intid, irq.priority))
        })
    }
}

#[derive(Clone, Debug)]
enum Op {
    Enable(usize, u32, bool),
    Pend(usize, u32, bool),
    Activate(usize, u32),
    Priority(usize, u32, u8),
    Group(usize, u32),
    Groups(u32),
    Route(u32, usize),
    Sgi(usize, usize, u32),
    Line(usize, u32, bool),
    Pulse(usize, u32),
    Ack(usize),
    End(usize),
    Deactivate(usize, usize, bool),
    Switch(usize),
    Sync(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0..CPUS;
    // Few interrupts, so that operations meet.
    let intid = prop::sample::select(vec![0u32, 1, 15, 16, 20, HW_PPI, 32, 33, HW_SPI, 41, 42, 63]);
    let spi = prop::sample::select(vec![32u32, 33, HW_SPI, 41, 42, 63]);
    prop_oneof![
        2 => (cpu.clone(), intid.clone(), prop::bool::weighted(0.7)).prop_map(|(c, i, e)| Op::Enable(c, i, e)),
        3 => (cpu.clone(), intid.clone(), prop::bool::weighted(0.7)).prop_map(|(c, i, e)| Op::Pend(c, i, e)),
        1 => (cpu.clone(), intid.clone()).prop_map(|(c, i)| Op::Activate(c, i)),
        2 => (cpu.clone(), intid.clone(), any::<u8>()).prop_map(|(c, i, p)| Op::Priority(c, i, p)),
        1 => (cpu.clone(), intid.clone()).prop_map(|(c, i)| Op::Group(c, i)),
        1 => (0..4u32).prop_map(Op::Groups),
        2 => (spi, 0..CPUS + 1).prop_map(|(i, c)| Op::Route(i, c)),
        4 => (cpu.clone(), cpu.clone(), 0..16u32).prop_map(|(f, t, i)| Op::Sgi(f, t, i)),
        6 => (cpu.clone(), intid.clone(), any::<bool>()).prop_map(|(c, i, l)| Op::Line(c, i, l)),
        4 => (cpu.clone(), intid).prop_map(|(c, i)| Op::Pulse(c, i)),
        12 => cpu.clone().prop_map(Op::Ack),
        10 => cpu.clone().prop_map(Op::End),
        8 => (cpu.clone(), any::<usize>(), any::<bool>()).prop_map(|(c, n, d)| Op::Deactivate(c, n, d)),
        2 => cpu.clone().prop_map(Op::Switch),
        2 => cpu.prop_map(Op::Sync),
    ]
}

/// Both machines, driven in step.
struct Pair {
    machine: Machine,
    naive: Naive,
    split_eoi: bool,
    /// Acknowledged and without priority drop, per CPU; and (EOImode = 1) still to be deactivated.
    nest: Vec<Vec<u32>>,
    dropped: Vec<Vec<u32>>,
}

impl Pair {
    fn new(lrs: usize, split_eoi: bool) -> Self {
        let mut machine = Machine::new(config(CPUS, SPIS as usize, lrs), split_eoi);
        assert!(machine.vgic.map_hw(HW_PPI, HW_PPI) && machine.vgic.map_hw(HW_SPI, HW_SPI));
        machine.redist(0, 0xc04, 2 << ((20 - 16) * 2));
        machine.redist(1, 0xc04, 2 << ((20 - 16) * 2));
        machine.dist(0xc08, 2 << ((41 - 32) * 2) | 2 << ((42 - 32) * 2));
        let mut pair =
            Self { machine, naive: Naive::new(), split_eoi, nest: vec![vec![]; 2], dropped: vec![vec![]; 2] };
        for intid in 0..INTIDS {
            for cpu in 0..if intid < 32 { CPUS } else { 1 } {
                pair.step(Op::Group(cpu, intid));
                pair.step(Op::Priority(cpu, intid, 0x80 + (intid % 4) as u8 * 8));
                pair.step(Op::Enable(cpu, intid, true));
            }
        }
        pair
    }

    fn step(&mut self, op: Op) {
        let m = &mut self.machine;
        let n = &mut self.naive;
        match op {
            Op::Enable(cpu, intid, on) => {
                m.write_bit(cpu, if on { 0x100 } else { 0x180 }, intid);
                n.irq(cpu, intid).enabled = on;
            }
            Op::Pend(cpu, intid, on) => {
                // The latch first: a physical interrupt that is handed back fires at once.
                n.irq(cpu, intid).latch = on;
                m.write_bit(cpu, if on { 0x200 } else { 0x280 }, intid);
            }
            Op::Activate(cpu, intid) if self.split_eoi => {
                let irq = n.irq(cpu, intid);
                let holder = if intid < 32 { cpu } else { irq.route };
                // Only where somebody can deactivate it again.
                if !irq.active && holder < CPUS {
                    irq.active = true;
                    m.write_bit(cpu, 0x300, intid);
                    self.dropped[holder].push(intid);
                }
            }
            Op::Activate(..) => {}
            Op::Priority(cpu, intid, priority) => {
                let irq = n.irq(cpu, intid);
                // Changing that of an active interrupt is not defined.
                if !irq.active {
                    irq.priority = u32::from(priority & 0xf8);
                    m.set_priority(cpu, intid, priority);
                }
            }
            Op::Group(cpu, intid) => {
                let irq = n.irq(cpu, intid);
                irq.group1 = !irq.group1;
                let (bank, base) = if intid < 32 { (0, 0x80) } else { (intid / 32, 0x80) };
                let old = if intid < 32 {
                    m.vgic.redist_read(cpu, 0x1_0080, Access::Word)
                } else {
                    m.vgic.dist_read(cpu, base + bank * 4, Access::Word)
                } as u32;
                let new = old ^ 1 << (intid % 32);
                if intid < 32 { m.redist(cpu, base, new) } else { m.dist(base + bank * 4, new) }
            }
            Op::Groups(groups) => {
                // Mostly on.
                let groups = if groups == 0 { 0 } else { groups | 2 };
                n.groups = groups;
                m.dist(0, groups);
            }
            Op::Route(intid, cpu) => {
                n.irq(0, intid).route = cpu;
                m.route(intid, cpu as u64);
            }
            Op::Sgi(from, to, intid) => {
                n.irq(to, intid).latch = true;
                m.sgi(from, to, intid);
            }
            Op::Line(cpu, intid, level) if intid == HW_PPI || intid == HW_SPI => m.hw_line(cpu, intid, level),
            Op::Line(_, 0..16, _) => {}
            Op::Line(cpu, intid, level) => {
                let irq = n.irq(cpu, intid);
                irq.latch |= irq.edge && level && !irq.line;
                irq.line = level;
                m.line(cpu, intid, level);
            }
            Op::Pulse(cpu, intid) => {
                if intid >= 16 {
                    n.irq(cpu, intid).latch = true;
                    m.pulse(cpu, intid);
                }
            }
            Op::Ack(cpu) => self.ack(cpu),
            Op::End(cpu) => {
                if m.loaded[cpu]
                    && let Some(intid) = self.nest[cpu].pop()
                {
                    if self.split_eoi {
                        self.dropped[cpu].push(intid);
                    } else {
                        n.irq(cpu, intid).active = false;
                    }
                    m.end(cpu, intid);
                }
            }
            Op::Deactivate(cpu, which, dir) => {
                let dropped = &mut self.dropped[cpu];
                if m.loaded[cpu] && !dropped.is_empty() {
                    let intid = dropped.remove(which % dropped.len());
                    n.irq(cpu, intid).active = false;
                    if dir { m.dir(cpu, intid) } else { m.write_bit(cpu, 0x380, intid) }
                }
            }
            Op::Switch(cpu) => {
                if m.loaded[cpu] {
                    m.unload(cpu);
                } else {
                    m.load(cpu);
                }
            }
            Op::Sync(cpu) => {
                if m.loaded[cpu] {
                    m.sync(cpu);
                }
            }
        }
        self.follow();
    }

    /// Physical interrupts that fired.
    fn follow(&mut self) {
        for (cpu, intid) in std::mem::take(&mut self.machine.fired) {
            self.naive.irq(cpu, intid).latch = true;
        }
    }

    fn ack(&mut self, cpu: usize) {
        if !self.machine.loaded[cpu] {
            return;
        }
        let running = self.machine.cpus[cpu].running();
        let due: Vec<_> = self.naive.deliverable(cpu).filter(|&(_, p)| p < running.min(IDLE)).collect();
        let best = due.iter().map(|&(_, p)| p).min();
        let got = self.machine.ack(cpu);
        match got {
            None => assert_eq!(best, None, "lost: {due:x?}"),
            Some(intid) => {
                let irq = self.naive.irq(cpu, intid);
                assert!(due.iter().any(|&(i, _)| i == intid), "{intid} is not due: {irq:x?}");
                assert_eq!(Some(irq.priority), best, "{intid} is not the best of {due:x?}");
                irq.active = true;
                irq.latch = false;
                self.nest[cpu].push(intid);
            }
        }
    }

    fn check(&mut self) {
        for cpu in 0..CPUS {
            if self.machine.loaded[cpu] {
                self.machine.sync(cpu);
                self.follow();
                let writes = self.machine.cpus[cpu].writes;
                self.machine.sync(cpu);
                assert_eq!(self.machine.cpus[cpu].writes, writes, "an unchanged LR was written");
            }
            let due = self.naive.deliverable(cpu).next().is_some();
            assert_eq!(self.machine.vgic.has_pending(cpu), due, "has_pending({cpu})");
        }
        for (&(cpu, intid), irq) in &self.naive.irqs {
            assert_eq!(self.machine.read_bit(cpu, 0x200, intid), irq.pending(), "{cpu} {intid} {irq:x?}");
            assert_eq!(self.machine.read_bit(cpu, 0x300, intid), irq.active, "{cpu} {intid} {irq:x?}");
            let physical = self.machine.physical.contains(&(cpu, intid));
            let claimed = self.machine.vgic.pending_hw_active(cpu, intid);
            assert!(!claimed || irq.latch || irq.active, "{cpu} {intid} is active for nobody");
            // A vCPU that is not loaded hands physical interrupts back when it is.
            if claimed || self.machine.loaded.iter().all(|&loaded| loaded) {
                assert_eq!(claimed, physical, "{cpu} {intid} {irq:x?}");
            }
        }
    }

    /// Everything that can be delivered is, and then nothing is left.
    fn drain(&mut self) {
        for (cpu, intid) in self.naive.irqs.keys().copied().collect::<Vec<_>>() {
            self.step(Op::Line(cpu, intid, false));
        }
        for cpu in 0..CPUS {
            if !self.machine.loaded[cpu] {
                self.step(Op::Switch(cpu));
            }
        }
        for _ in 0..10 * INTIDS {
            for cpu in 0..CPUS {
                self.step(Op::End(cpu));
                self.step(Op::Deactivate(cpu, 0, true));
                self.step(Op::Ack(cpu));
            }
        }
        self.check();
        assert!((0..CPUS).all(|cpu| self.naive.deliverable(cpu).next().is_none()));
        assert!(self.naive.irqs.values().all(|irq| !irq.active));
        assert!(self.machine.cpus.iter().all(|cpu| cpu.lrs.iter().all(|&lr| machine::state(lr) == 0)));
    }
}

fn run(lrs: usize, split_eoi: bool, ops: Vec<Op>) {
    let mut pair = Pair::new(lrs, split_eoi);
    for op in ops {
        pair.step(op);
        pair.check();
    }
    pair.drain();
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 0..if cfg!(miri) { 20 } else { 120 })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 2,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn four_list_registers(ops in ops(), split in any::<bool>()) {
        run(4, split, ops);
    }

    #[test]
    fn two_list_registers(ops in ops(), split in any::<bool>()) {
        run(2, split, ops);
    }

    #[test]
    fn one_list_register(ops in ops(), split in any::<bool>()) {
        run(1, split, ops);
    }
}
