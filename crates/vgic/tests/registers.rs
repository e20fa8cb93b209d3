//! The registers of GICD and GICR, and that no access can break anything.

mod machine;

use machine::{CpuInterface, Machine, config};
use proptest::prelude::*;
use vgic::{Access, Kick, Vgic};

const SGI: u32 = 0x1_0000;

fn vgic() -> Vgic {
    Vgic::new(config(4, 64, 4))
}

fn dist(v: &Vgic, offset: u32) -> u64 {
    v.dist_read(0, offset, Access::Word)
}

/// Writes a distributor register and reads it back.
fn dist_echo(v: &mut Vgic, offset: u32, value: u64) -> u64 {
    let _ = v.dist_write(0, offset, Access::Word, value);
    dist(v, offset)
}

fn redist_echo(v: &mut Vgic, offset: u32, value: u64) -> u64 {
    let _ = v.redist_write(1, SGI + offset, Access::Word, value);
    assert_eq!(
        v.redist_read(0, SGI + offset, Access::Word),
        vgic().redist_read(0, SGI + offset, Access::Word)
    );
    v.redist_read(1, SGI + offset, Access::Word)
}

#[test]
fn distributor_identification() {
    let v = vgic();
    assert_eq!(dist(&v, 0x0), 0x50);
    assert_eq!(dist(&v, 0x4), 0x0348_0002);
    assert_eq!(dist(&v, 0x8), 0x5400_0000);
    assert_eq!(dist(&v, 0xc), 0);
    assert_eq!(dist(&v, 0xffe8), 0x3b);
    assert_eq!(dist(&Vgic::new(config(1, 256, 4)), 0x4) & 31, 8);
}

#[test]
fn control() {
    let mut v = vgic();
    let kick = v.dist_write(0, 0, Access::Word, !0);
    assert_eq!((dist(&v, 0), kick.bits()), (0x53, 0xf));
    assert!(v.dist_write(0, 0, Access::Word, 3).is_empty());
    assert_eq!(dist_echo(&mut v, 0, 2), 0x52);
}

#[test]
fn distributor_banks() {
    let mut v = vgic();
    // Group, enables, pending, active of SPIs 32 to 63.
    assert_eq!(dist_echo(&mut v, 0x84, 0xffff_0001), 0xffff_0001);
    assert_eq!(dist_echo(&mut v, 0x84, 1), 1);
    for (set, clear) in [(0x104, 0x184), (0x204, 0x284), (0x304, 0x384)] {
        assert_eq!(dist_echo(&mut v, set, 0x105), 0x105);
        assert_eq!(dist_echo(&mut v, set, 0), 0x105);
        assert_eq!(dist_echo(&mut v, clear, 4), 0x101);
        assert_eq!(dist(&v, set), 0x101);
        assert_eq!(dist(&v, set + 4), 0);
    }
    // The words of private interrupts and of absent SPIs are RES0.
    for base in [0x80, 0x100, 0x200, 0x300] {
        assert_eq!(dist_echo(&mut v, base, !0), 0);
        assert_eq!(dist_echo(&mut v, base + 12, !0), 0);
    }
}

#[test]
fn priorities() {
    let mut v = vgic();
    assert_eq!(dist_echo(&mut v, 0x420, 0xff47_2110), 0xf840_2010);
    assert_eq!(v.dist_read(0, 0x423, Access::Byte), 0xf8);
    let _ = v.dist_write(0, 0x421, Access::Byte, 0x1a9);
    assert_eq!(dist(&v, 0x420), 0xf840_a810);
    assert_eq!(dist_echo(&mut v, 0x400, !0), 0);
    assert_eq!(dist_echo(&mut v, 0x460, !0), 0);
    assert_eq!(redist_echo(&mut v, 0x41c, 0x8040_2010), 0x8040_2010);
    assert_eq!(v.redist_read(1, SGI + 0x41f, Access::Byte), 0x80);
    assert_eq!(redist_echo(&mut v, 0x420, !0), 0);
    // Halves do not exist; bytes only here.
    assert_eq!(v.dist_read(0, 0x420, Access::Half), 0);
    assert_eq!(v.dist_read(0, 0x0, Access::Byte), 0);
}

#[test]
fn configuration() {
    let mut v = vgic();
    assert_eq!(dist_echo(&mut v, 0xc08, !0), 0xaaaa_aaaa);
    assert_eq!(dist_echo(&mut v, 0xc0c, 0x8000_0002), 0x8000_0002);
    assert_eq!(dist_echo(&mut v, 0xc08, 0x8), 0x8);
    assert_eq!(dist(&v, 0xc0c), 0x8000_0002);
    assert_eq!(dist_echo(&mut v, 0xc00, !0), 0);
    assert_eq!(redist_echo(&mut v, 0xc00, 0), 0xaaaa_aaaa);
    assert_eq!(redist_echo(&mut v, 0xc04, 0x80), 0x80);
}

#[test]
fn routes() {
    let mut v = vgic();
    let double = |v: &Vgic, n: u32| v.dist_read(0, 0x6000 + 8 * n, Access::Double);
    let _ = v.dist_write(0, 0x6000 + 8 * 33, Access::Double, !0);
    // Interrupt_Routing_Mode is RAZ/WI.
    assert_eq!(double(&v, 33), 0xff_00ff_ffff);
    let _ = v.dist_write(0, 0x6000 + 8 * 33, Access::Word, 2);
    assert_eq!(double(&v, 33), 0xff_0000_0002);
    let _ = v.dist_write(0, 0x6004 + 8 * 33, Access::Word, 0x100);
    assert_eq!(double(&v, 33), 2);
    assert_eq!((dist(&v, 0x6108), dist(&v, 0x610c)), (2, 0));
    for absent in [0, 31, 96, 1019, 1020] {
        let _ = v.dist_write(0, 0x6000 + 8 * absent, Access::Double, 1);
        assert_eq!(double(&v, absent), 0);
    }
    // Misaligned.
    assert_eq!(v.dist_read(0, 0x6104 + 8, Access::Double), 0);
}

#[test]
fn redistributor() {
    let mut v = vgic();
    assert_eq!(v.redist_read(3, 0x8, Access::Double), 0x3_0000_0310);
    assert_eq!(v.redist_read(2, 0x8, Access::Word), 0x200);
    assert_eq!(v.redist_read(2, 0xc, Access::Word), 2);
    assert_eq!(v.redist_read(2, 0x0, Access::Word), 0);
    assert_eq!(v.redist_read(2, 0x4, Access::Word), 0x5400_0000);
    assert_eq!(v.redist_read(2, 0xffe8, Access::Word), 0x3b);
    assert_eq!(v.redist_read(2, 0x14, Access::Word), 6);
    let _ = v.redist_write(2, 0x14, Access::Word, 0);
    assert_eq!(v.redist_read(2, 0x14, Access::Word), 0);
    assert_eq!(v.redist_read(1, 0x14, Access::Word), 6);
    for (set, clear) in [(0x100, 0x180), (0x200, 0x280), (0x300, 0x380)] {
        assert_eq!(redist_echo(&mut v, set, 0x8001_0001), 0x8001_0001);
        assert_eq!(redist_echo(&mut v, clear, 1), 0x8001_0000);
        // There is one word of each.
        assert_eq!(redist_echo(&mut v, set + 4, 1), 0);
    }
    assert_eq!(redist_echo(&mut v, 0x80, 0x1234), 0x1234);
    assert_eq!(redist_echo(&mut v, 0xd00, !0), 0);
}

#[test]
fn reset_is_new() {
    let mut m = Machine::new(config(2, 64, 4), false);
    m.enable_all();
    m.pulse(1, 33);
    m.ack(0);
    m.unload(0);
    m.unload(1);
    m.vgic.reset();
    assert_eq!(format!("{:?}", m.vgic), format!("{:?}", Vgic::new(config(2, 64, 4))));
}

#[test]
fn mappings() {
    let mut v = vgic();
    assert!(v.map_hw(27, 27) && v.map_hw(33, 1019));
    for (intid, pintid) in [(3, 27), (27, 3), (96, 40), (27, 1020), (!0, 27)] {
        assert!(!v.map_hw(intid, pintid));
    }
    // Nothing stands behind it.
    let _ = v.hw_fired(0, 30);
    assert_eq!(v.redist_read(0, SGI + 0x200, Access::Word), 0);
}

#[test]
fn sizes_are_clamped() {
    let huge = Vgic::new(vgic::Config { vcpus: 99, spis: 999, list_registers: 0, priority_bits: 99 });
    assert_eq!(huge.vcpus(), 16);
    assert_eq!(dist(&huge, 4) & 31, 8);
    assert_eq!(Vgic::new(config(0, 31, 99)).vcpus(), 1);
}

fn size() -> impl Strategy<Value = Access> {
    prop::sample::select(vec![Access::Byte, Access::Half, Access::Word, Access::Double])
}

/// Offsets, mostly inside the frames.
fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => 0..0x1000u32, 8 => 0x6000..0x8000u32, 8 => 0x1_0000..0x1_1000u32, 1 => any::<u32>(),
        8 => (0..0x400u32).prop_map(|n| n * 4),
    ]
}

proptest! {
    #[test]
    fn nothing_panics(
        accesses in prop::collection::vec(
            (0..18usize, offset(), size(), any::<u64>(), any::<u32>(), any::<[bool; 3]>()), 1..100),
        lrs in 1..=16usize, vcpus in 1..=16usize, spis in 0..=8usize,
    ) {
        let mut v = Vgic::new(config(vcpus, spis * 32, lrs));
        v.map_hw(27, 27);
        v.map_hw(40, 40);
        // Sixteen list registers with anything in them.
        let mut cpu = CpuInterface::new(16, false);
        let mut kicks = Kick::NONE;
        for (who, offset, size, value, word, [fire, level, full]) in accesses {
            let intid = if full { word } else { word % 300 };
            kicks |= v.dist_write(who, offset, size, value);
            kicks |= v.redist_write(who, offset, size, value);
            kicks |= v.sgi(who, value, level);
            kicks |= v.set_line(who, intid, level);
            kicks |= v.pulse(who, intid);
            kicks |= v.deactivate(who, intid);
            if fire {
                kicks |= v.hw_fired(who, intid);
            }
            let _ = v.dist_read(who, offset, size);
            let _ = v.redist_read(who, offset, size);
            let _ = (v.has_pending(who), v.pending_hw_active(who, intid));
            let changes = if fire { v.sync(who, &mut cpu) } else { v.unload(who, &mut cpu) };
            kicks |= changes.kick;
            for lr in &mut cpu.lrs {
                *lr = lr.rotate_left(word) & !(3 << 62) | u64::from(word & 3).min(2) << 62 & 1 << 63;
            }
            cpu.lrs.iter_mut().enumerate().for_each(|(n, lr)| *lr = *lr & !0xffff_ffff | n as u64);
            cpu.hcr = value;
        }
        prop_assert!(kicks.iter().all(|n| n < vcpus));
    }
}
