//! The TLBI decoder, and what it does to shadows: any instruction with any operand between faults, in any
//! order. After each, no shadow under the VMID holds what was named, and tables are well formed.

use crate::input::Input;
use addr::{BLOCK_1G, BLOCK_2M, Ipa, Nested, PAGE_SIZE, Pa, Range};
use nested::attributes::{Attributes, Own, compose};
use nested::shadow::{Config, Key, Shadows, TableMemory, Tlbs};
use nested::stage2::{Leaf, Offered, Registers};
use nested::tlbi::{self, Extent, Host, Stage2, Tlbi};
use std::collections::BTreeMap;
use trap::SysReg;
use vmsa::attr::{Exec, S2Attr, S2Features, S2Memory};
use vmsa::descriptor::{Kind, Level, kind};
use vmsa::memory::Flush;

const BASE: u64 = 0x7000_0000;
const SIZES: [u64; 6] = [PAGE_SIZE, 16 << 10, 64 << 10, BLOCK_2M, 32 << 20, BLOCK_1G];

#[derive(Default)]
struct Frames(BTreeMap<u64, u64>);

impl TableMemory for Frames {
    fn read(&self, entry: Pa) -> u64 {
        assert!(entry.get() >= BASE && entry.is_aligned(8));
        self.0.get(&entry.get()).copied().unwrap_or(0)
    }
    fn write(&mut self, entry: Pa, descriptor: u64) {
        assert!(entry.get() >= BASE && entry.is_aligned(8));
        self.0.insert(entry.get(), descriptor);
    }
    fn zero(&mut self, table: Pa) {
        self.0.retain(|at, _| *at < table.get() || *at >= table.get() + PAGE_SIZE);
    }
}

struct Count(u64);

impl Tlbs for Count {
    fn flush(&mut self, _: usize, flush: Flush<Ipa<Nested>>) {
        assert!(flush.start < flush.end);
        self.0 += 1;
    }
    fn flush_all(&mut self, _: usize) {
        self.0 += 1;
    }
    fn publish(&mut self) {}
}

/// Whether shadow `slot` has a leaf for `at`.
fn is_mapped(shadows: &Shadows, mem: &Frames, slot: usize, at: u64) -> bool {
    let Some((root, vtcr)) = shadows.loaded(slot).and_then(|loaded| Some((loaded.root?, loaded.vtcr))) else {
        return false;
    };
    let mut level = match vtcr >> 6 & 3 {
        0 => Level::Two,
        1 => Level::One,
        _ => Level::Zero,
    };
    let bits = 64 - (vtcr & 0x3f);
    if at >> bits != 0 {
        return false;
    }
    let mut table = root;
    let mut index = at >> level.shift();
    loop {
        match kind(mem.read(Pa::new(table.get() + 8 * index)), level) {
            Kind::Invalid => return false,
            Kind::Leaf => return true,
            Kind::Table(next) => {
                let Some(below) = level.next() else { panic!("a table below pages") };
                (table, level) = (next, below);
                index = at >> level.shift() & 511;
            }
        }
    }
}

pub(crate) fn run(mut input: Input<'_>) -> u64 {
    let offered = Offered {
        pa_bits: 48,
        granule4: true,
        granule16: true,
        granule64: true,
        small: true,
        access_flag: true,
        dirty_state: true,
        xnx: true,
        mte_perm: true,
    };
    let all = tlbi::Offered { outer: true, range: true, nxs: true, ttl: true };
    let config = Config {
        slots: 3,
        memory: Pa::new(BASE),
        tables: 10,
        records: 16,
        vmid16: true,
        pa_bits: input.choose(&[40, 42, 48], 48),
        features: S2Features { fwb: true, mte_perm: true },
    };
    let Some(mut shadows) = Shadows::new(config) else { panic!("no pool") };
    let (mut mem, mut tlbs) = (Frames::default(), Count(0));
    let mut shape = 0_u64;
    for _ in 0..24 {
        if input.is_empty() {
            break;
        }
        let (what, vmid) = (input.byte(), u16::from(input.byte() & 3));
        let ipa = input.word() & 0xffff_ffff_f000 & ((1 << (input.byte() % 49)) - 1);
        if what < 128 {
            let vtcr = 25 | 1 << 6 | u64::from(what & 3) << 14 | 1 << 19 | 5 << 16;
            let registers = Registers { vttbr: u64::from(vmid) << 48 | 0x1000, vtcr, ..Registers::default() };
            let key = Key::new(registers, what & 4 == 0, &offered, true);
            let Some(slot) = shadows.attach(&mut mem, &mut tlbs, key) else { panic!("all are free") };
            let attributes = Attributes {
                memory: S2Memory::WriteBack,
                read: true,
                write: true,
                exec: Exec::All,
                reserved: false,
            };
            let size = input.choose(&SIZES, PAGE_SIZE);
            let ipa = ipa & ((1 << 39) - 1);
            let output = Ipa::new(ipa ^ (u64::from(input.byte()) << 40));
            let leaf = Leaf { output, level: 2, size, attributes, clean: false, descriptor: 0 };
            let own = input.choose(&[PAGE_SIZE, BLOCK_2M, BLOCK_1G], PAGE_SIZE);
            let own = Own { pa: Pa::new(ipa), attr: S2Attr::rwx(S2Memory::WriteBack), size: own };
            let Some(mapping) = compose(Ipa::new(ipa), &leaf, &own) else { panic!("{ipa:#x}") };
            let generation = shadows.generation();
            if key.is_on() {
                let mapped = shadows.map(&mut mem, &mut tlbs, slot, &mapping, generation);
                assert_eq!(mapped, Ok(()));
                assert!(is_mapped(&shadows, &mem, slot, ipa));
            }
            shadows.detach(slot);
            shape = shape.wrapping_mul(31) ^ (1 + u64::from(size.trailing_zeros()));
        } else if what < 144 {
            let size = input.choose(&SIZES, PAGE_SIZE);
            let Some(range) = Range::<Ipa<_>>::new(Ipa::new(ipa), size) else { continue };
            shadows.forget_canonical(&mut mem, &mut tlbs, range);
            shape = shape.wrapping_mul(31) ^ 2;
        } else {
            let (op1, crn, crm) = (input.byte(), input.byte(), input.byte());
            let op1 = if op1 & 1 == 0 { 4 } else { op1.into() };
            let reg = SysReg::new(1, op1, 8 + u32::from(crn & 1), crm.into(), (crm >> 4).into());
            let host = Host { e2h: what & 1 != 0, tge: what & 2 != 0 };
            let operand = ipa >> 12 | input.word() & !0xf_ffff_ffff;
            let decoded = Tlbi::decode(reg, operand, host, all);
            shape = shape.wrapping_mul(31) ^ (3 + u64::from(reg.crm()) + 16 * u64::from(decoded.is_some()));
            match decoded {
                Some(Tlbi::AllVmids) => shadows.forget_all(&mut mem, &mut tlbs),
                Some(Tlbi::Vmid) => shadows.forget_vmid(&mut mem, &mut tlbs, vmid),
                Some(Tlbi::Stage2(what)) => {
                    shadows.invalidate(&mut mem, &mut tlbs, vmid, what);
                    check(&shadows, &mem, vmid, what);
                }
                Some(Tlbi::Stage1(..)) | None => {}
            }
        }
    }
    shape % 251
}

/// Nothing at both ends and in the middle of what was named.
fn check(shadows: &Shadows, mem: &Frames, vmid: u16, what: Stage2) {
    let (start, bytes) = match what.extent {
        Extent::Leaf => (what.start.get(), PAGE_SIZE),
        Extent::Bytes(bytes) => (what.start.get(), bytes),
    };
    for at in [start, start + bytes / 2, start + bytes - 1] {
        for slot in shadows.of_vmid(vmid) {
            assert!(!is_mapped(shadows, mem, slot, at), "{what:x?} left {at:#x} in {slot}");
        }
    }
}
