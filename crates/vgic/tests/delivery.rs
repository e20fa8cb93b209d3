//! The rules of delivery, one by one.

mod machine;

use machine::{Machine, config};
use proptest::prelude::*;
use vgic::{Access, Kick, ListRegisters, hcr};

fn machine(lrs: usize) -> Machine {
    let mut m = Machine::new(config(2, 64, lrs), false);
    m.enable_all();
    m
}

fn split(lrs: usize) -> Machine {
    let mut m = Machine::new(config(2, 64, lrs), true);
    m.enable_all();
    m
}

/// Acknowledges and ends everything; the INTIDs in order.
fn drain(m: &mut Machine, cpu: usize) -> Vec<u32> {
    let mut order = vec![];
    while let Some(intid) = m.ack(cpu) {
        order.push(intid);
        m.end(cpu, intid);
    }
    order
}

#[test]
fn an_sgi_is_a_latch() {
    let mut m = machine(4);
    m.sgi(0, 1, 3);
    m.sgi(1, 1, 3);
    assert_eq!(m.cpus[1].lrs[0], 0x50a0_0000_0000_0003);
    assert_eq!(drain(&mut m, 1), [3]);
    assert_eq!(m.ack(0), None);
}

#[test]
fn sgi_targets() {
    let mut m = Machine::new(config(16, 0, 4), false);
    m.enable_all();
    let v = &mut m.vgic;
    assert_eq!(v.sgi(0, 1 << 24 | 0x8005, true).bits(), 0x8005);
    // All but the sender; the target list counts for nothing.
    assert_eq!(v.sgi(3, 1 << 40 | 2 << 24 | 0xff_0001, true).bits(), 0xfff7);
    for far in [1 << 16, 1 << 32, 1 << 44, 1 << 48] {
        assert!(v.sgi(0, far | 0xffff, true).is_empty());
    }
    // ICC_SGI0R_EL1 raises no SGI of group 1.
    assert!(v.sgi(0, 4 << 24 | 1, false).is_empty());
    let _ = v.redist_write(0, 0x1_0080, Access::Word, 0);
    assert!(v.sgi(0, 4 << 24 | 1, false).contains(0));
    assert!(v.sgi(0, 5 << 24 | 1, true).contains(0));
}

#[test]
fn the_most_urgent_of_some_groups() {
    let v = &mut machine(4).vgic;
    let _ = v.redist_write(0, 0x1_0080, Access::Word, !(1 << 3));
    let _ = v.redist_write(0, 0x1_0400, Access::Word, 0x20a0_a0a0);
    assert!(v.sgi(0, 3 << 24 | 1, false).contains(0));
    assert!(v.sgi(0, 5 << 24 | 1, true).contains(0));
    let best = |groups| v.most_urgent(0, groups).map(|w| (w.priority, w.group1));
    let (zero, one) = (Some((0x20, false)), Some((0xa0, true)));
    assert_eq!([0, 1, 2, 3].map(best), [None, zero, one, zero]);
}

#[test]
fn an_edge_during_its_handler_comes_again() {
    let mut m = machine(4);
    m.sgi(0, 0, 1);
    assert_eq!(m.ack(0), Some(1));
    m.sgi(0, 0, 1);
    assert_eq!(m.ack(0), None);
    m.end(0, 1);
    assert_eq!(drain(&mut m, 0), [1]);
    assert_eq!(m.maintenance, 1);
}

#[test]
fn a_level_that_stays_comes_again_and_one_that_falls_does_not() {
    let mut m = machine(4);
    m.line(0, 33, true);
    assert_eq!(m.ack(0), Some(33));
    m.end(0, 33);
    assert_eq!(m.ack(0), Some(33));
    let before = m.maintenance;
    m.line(0, 33, false);
    m.end(0, 33);
    assert_eq!((m.ack(0), m.maintenance), (None, before));
    m.line(0, 33, true);
    m.line(0, 33, false);
    assert_eq!(m.ack(0), None);
}

#[test]
fn a_software_pending_level_is_delivered_once() {
    let mut m = machine(4);
    m.write_bit(0, 0x200, 33);
    m.line(0, 33, true);
    m.line(0, 33, false);
    assert_eq!(drain(&mut m, 0), [33]);
    m.write_bit(0, 0x200, 33);
    m.write_bit(0, 0x280, 33);
    assert_eq!(m.ack(0), None);
    // ICPENDR does not lower a line.
    m.line(0, 33, true);
    m.write_bit(0, 0x280, 33);
    assert_eq!(m.ack(0), Some(33));
}

#[test]
fn disabling_takes_back_and_enabling_gives_again() {
    for (gate, off, on) in [(0x184, 2, 0), (0x84, 0, !0)] {
        let mut m = machine(4);
        m.dist(0, 2);
        m.pulse(0, 33);
        m.dist(gate, off);
        assert_eq!((m.ack(0), m.vgic.has_pending(0)), (None, false));
        assert!(m.read_bit(0, 0x200, 33));
        m.dist(gate, on);
        m.dist(0x104, 2);
        assert!(m.vgic.has_pending(0));
        assert_eq!(drain(&mut m, 0), [33]);
    }
    let mut m = machine(4);
    m.pulse(0, 33);
    m.dist(0, 1);
    assert_eq!(m.ack(0), None);
    m.dist(0, 2);
    assert_eq!(drain(&mut m, 0), [33]);
}

#[test]
fn group_0_is_signalled_as_such() {
    let mut m = machine(4);
    m.dist(0x84, 0);
    m.pulse(0, 33);
    assert_eq!(m.cpus[0].lrs[0], 0x40a0_0000_0000_0021);
}

#[test]
fn a_higher_priority_displaces_a_pending_one() {
    let mut m = machine(1);
    m.pulse(0, 33);
    m.set_priority(0, 34, 0x20);
    m.pulse(0, 34);
    m.set_priority(0, 35, 0xf0);
    m.pulse(0, 35);
    assert_eq!(m.cpus[0].lrs[0] as u32, 34);
    assert_eq!(m.cpus[0].hcr & hcr::OWNED, hcr::NPIE);
    assert_eq!(drain(&mut m, 0), [34, 33, 35]);
    assert_eq!(m.cpus[0].hcr, 1);
}

#[test]
fn a_new_priority_reorders_what_waits() {
    let mut m = machine(1);
    m.pulse(0, 33);
    m.pulse(0, 34);
    m.set_priority(0, 33, 0xb0);
    assert_eq!(drain(&mut m, 0), [34, 33]);
}

#[test]
fn sixty_four_of_each_drain() {
    for lrs in [4, 1, 2, 16].into_iter().take(if cfg!(miri) { 1 } else { 4 }) {
        for mut m in [machine(lrs), split(lrs)] {
            let mut expected = vec![];
            for intid in (0..16).chain(32..96) {
                m.set_priority(0, intid, (intid as u8 % 16) << 4);
                if intid < 16 {
                    m.sgi(1, 0, intid)
                } else {
                    m.pulse(0, intid)
                }
                expected.push(intid);
            }
            expected.sort_by_key(|i| (i % 16, *i));
            let mut order = vec![];
            while let Some(intid) = m.ack(0) {
                order.push(intid);
                m.end(0, intid);
                if m.cpus[0].split_eoi {
                    m.dir(0, intid);
                }
            }
            assert_eq!(order.len(), 80);
            let priorities: Vec<_> = order.iter().map(|i| i % 16).collect();
            assert!(priorities.is_sorted(), "{priorities:?}");
            order.sort_by_key(|i| (i % 16, *i));
            assert_eq!(order, expected);
        }
    }
}

#[test]
fn a_deep_nest_over_few_list_registers() {
    for lrs in 1..=4 {
        let mut m = machine(lrs);
        for level in (0..8u32).rev() {
            m.set_priority(0, 40 + level, level as u8 * 0x10);
            m.pulse(0, 40 + level);
            assert_eq!(m.ack(0), Some(40 + level));
        }
        for level in 0..8u32 {
            m.sync(0);
            assert!(m.read_bit(0, 0x300, 40 + level));
            m.end(0, 40 + level);
            m.sync(0);
            assert!(!m.read_bit(0, 0x300, 40 + level), "{lrs} {level}");
        }
        assert_eq!(m.cpus[0].hcr, 1);
    }
}

#[test]
fn dir_in_any_order_over_few_list_registers() {
    let mut m = split(2);
    for intid in 40..46 {
        m.pulse(0, intid);
        assert_eq!(m.ack(0), Some(intid));
        m.end(0, intid);
    }
    m.pulse(0, 50);
    assert_eq!(m.cpus[0].hcr & hcr::TDIR, hcr::TDIR);
    for intid in [43, 40, 45, 42, 44, 41] {
        m.dir(0, intid);
        m.sync(0);
        assert!(!m.read_bit(0, 0x300, intid));
        m.pulse(0, intid);
    }
    let mut rest = drain(&mut m, 0);
    rest.sort_unstable();
    assert_eq!(rest, [40, 41, 42, 43, 44, 45, 50]);
}

#[test]
fn a_mapped_interrupt_ends_at_the_physical_gic() {
    let mut m = machine(4);
    assert!(m.vgic.map_hw(27, 27));
    m.hw_line(1, 27, true);
    assert_eq!(m.cpus[1].lrs[0], 0x70a0_001b_0000_001b);
    assert_eq!(m.ack(1), Some(27));
    m.hw_line(1, 27, false);
    assert!(m.vgic.pending_hw_active(1, 27) && !m.vgic.pending_hw_active(0, 27));
    m.end(1, 27);
    m.sync(1);
    assert!(m.physical.is_empty() && !m.vgic.pending_hw_active(1, 27));
    assert_eq!((m.ack(1), m.maintenance), (None, 0));
    // Reprogrammed before the end: it fires again.
    m.hw_line(1, 27, true);
    assert_eq!(m.ack(1), Some(27));
    m.end(1, 27);
    assert_eq!(m.ack(1), Some(27));
}

#[test]
fn holders_of_what_a_read_shows() {
    const ISPENDR1: u32 = 0x204;
    const ISACTIVER2: u32 = 0x308;
    let mut m = machine(4);
    m.sgi(0, 1, 3);
    assert_eq!(m.vgic.redist_holders(0, 1).bits(), 2);
    assert!(m.vgic.redist_holders(1, 1).is_empty());
    assert!(m.vgic.redist_holders(1, 0).is_empty() && m.vgic.redist_holders(0, 9).is_empty());
    assert!(m.vgic.dist_holders(0, ISPENDR1).is_empty());
    m.pulse(0, 40);
    assert!(m.vgic.dist_holders(1, ISPENDR1).contains(0));
    assert!(m.vgic.dist_holders(0, ISPENDR1).is_empty());
    assert!(m.vgic.dist_holders(1, ISACTIVER2).is_empty() && m.vgic.dist_holders(1, 0x200).is_empty());
    // Out of its list register, it is held by nobody.
    let _ = m.vgic.unload(0, &mut m.cpus[0]);
    assert!(m.vgic.dist_holders(1, ISPENDR1).is_empty());
}

#[test]
fn a_mapped_interrupt_taken_back_is_handed_back() {
    for how in 0..4 {
        let mut m = machine(4);
        assert!(m.vgic.map_hw(27, 27));
        m.hw_line(0, 27, true);
        m.high.clear();
        match how {
            0 => m.write_bit(0, 0x280, 27),
            1 => m.line(0, 27, false),
            2 => {
                m.ack(0);
                m.write_bit(0, 0x380, 27);
            }
            _ => {
                m.unload(0);
                assert!(m.vgic.pending_hw_active(0, 27));
                m.vgic.reset();
                m.load(0);
            }
        }
        assert!(m.physical.is_empty(), "{how}");
        assert!(!m.vgic.pending_hw_active(0, 27));
    }
    // Disabled, it waits, and the physical one with it.
    let mut m = machine(4);
    assert!(m.vgic.map_hw(27, 27));
    m.hw_line(0, 27, true);
    m.write_bit(0, 0x180, 27);
    assert_eq!((m.ack(0), m.physical.len()), (None, 1));
    m.write_bit(0, 0x100, 27);
    assert_eq!(m.ack(0), Some(27));
}

#[test]
fn many_are_handed_back_in_portions() {
    let mut m = machine(4);
    for intid in 32..64 {
        assert!(m.vgic.map_hw(intid, intid));
        m.hw_line(0, intid, true);
    }
    m.high.clear();
    assert_eq!(m.physical.len(), 32);
    m.dist(0x284, !0);
    assert!(m.physical.is_empty());
}

#[test]
fn a_rerouted_spi_moves() {
    let mut m = machine(4);
    m.line(0, 33, true);
    m.route(33, 1);
    assert_eq!((m.ack(0), m.vgic.has_pending(0)), (None, false));
    assert_eq!(m.ack(1), Some(33));
    // While it is active it stays; then it goes.
    m.route(33, 0);
    assert_eq!(m.ack(0), None);
    m.end(1, 33);
    assert_eq!(m.ack(0), Some(33));
    m.line(0, 33, false);
    m.end(0, 33);
    m.route(33, 7);
    m.pulse(0, 33);
    assert_eq!((m.ack(0), m.ack(1)), (None, None));
}

#[test]
fn active_state_by_register() {
    let mut m = machine(4);
    m.line(0, 33, true);
    m.write_bit(0, 0x300, 33);
    assert_eq!(m.ack(0), None);
    assert!(!m.vgic.has_pending(0));
    m.write_bit(0, 0x380, 33);
    assert_eq!(m.ack(0), Some(33));
    // Another vCPU ends it.
    m.write_bit(1, 0x380, 33);
    assert!(!m.read_bit(0, 0x300, 33));
}

#[test]
fn a_switch_keeps_everything() {
    let mut m = machine(2);
    assert!(m.vgic.map_hw(27, 27));
    for intid in [33, 34, 35] {
        m.line(0, intid, true);
    }
    m.set_priority(0, 27, 0x10);
    m.hw_line(0, 27, true);
    assert_eq!(m.ack(0), Some(27));
    m.unload(0);
    assert!(m.vgic.pending_hw_active(0, 27) && m.vgic.has_pending(0) && m.read_bit(0, 0x300, 27));
    m.load(0);
    m.high.clear();
    m.end(0, 27);
    for intid in [33, 34, 35] {
        assert_eq!(m.ack(0), Some(intid));
        m.line(0, intid, false);
        m.end(0, intid);
    }
    assert!(m.physical.is_empty() && m.ack(0).is_none());
}

#[test]
fn kicks_name_only_who_must_look() {
    let mut m = machine(4);
    let v = &mut m.vgic;
    assert!(v.dist_write(0, 0x104, Access::Word, !0).is_empty());
    assert!(v.set_line(0, 33, false).is_empty());
    assert_eq!(v.pulse(0, 33).bits(), 1);
    assert_eq!(v.pulse(1, 20).bits(), 2);
    assert_eq!(v.dist_write(1, 0x6000 + 8 * 33, Access::Double, 1).bits(), 2);
    let _ = v.sync(1, &mut m.cpus[1]);
    assert_eq!(v.dist_write(0, 0x6000 + 8 * 33, Access::Double, 0).bits(), 3);
    assert_eq!(Kick::NONE.iter().next(), None);
}

/// Counts accesses, for what the hypervisor pays.
#[test]
fn an_idle_sync_writes_nothing() {
    let mut m = machine(4);
    m.line(0, 33, true);
    m.ack(0);
    m.sync(0);
    let writes = m.cpus[0].writes;
    m.sync(0);
    assert_eq!(m.cpus[0].writes, writes);
    m.end(0, 33);
    assert_ne!(m.cpus[0].elrsr() & 2, 0);
}

proptest! {
    /// Kicks may reach a running vCPU late: then an edge may count as one that came later, but none
    /// is lost, and none is made up.
    #[test]
    fn late_kicks(lrs in 1..=4usize, ops in prop::collection::vec((0..4u32, 32..40u32), 1..if cfg!(miri) { 20 } else { 200 })) {
        let mut m = machine(lrs);
        let mut owed = [0u32; 8];
        let mut due = [false; 8];
        let mut late = Kick::NONE;
        let mut nest = vec![];
        let all = ops.into_iter().chain((0..64).flat_map(|_| [(3, 0), (1, 0), (2, 0)]));
        for (op, intid) in all {
            match op {
                0 => {
                    late |= m.vgic.pulse(0, intid);
                    owed[intid as usize - 32] += 1;
                    due[intid as usize - 32] = true;
                }
                1 => if let Some(intid) = m.cpus[0].ack() {
                    let n = intid as usize - 32;
                    prop_assert!(owed[n] > 0, "{} made up", intid);
                    owed[n] -= 1;
                    due[n] = false;
                    nest.push(intid);
                },
                2 => if let Some(intid) = nest.pop() {
                    m.cpus[0].end(intid);
                },
                _ => {
                    m.kick(late);
                    late = Kick::NONE;
                }
            }
        }
        prop_assert_eq!(due, [false; 8], "lost");
    }
}
