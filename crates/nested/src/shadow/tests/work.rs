//! How much one call does at most: descriptors looked at and written, and TLBs invalidated, with as many
//! shadows, tables and records as a VM can have (16 vCPUs, 1 GiB or more). What it costs in instructions,
//! `cargo xtask bench` measures on the same shapes (`bench-shadows`).

use super::*;

const SLOTS: usize = 25;
const TABLES: usize = 896;
const RECORDS: usize = 1 << 14;
/// Descriptors that one call reads at most, and that it writes.
const MOST_READ: usize = 4096;
const MOST_WRITTEN: usize = 4096;

impl Vm {
    /// Runs one call and holds what it did against the bounds.
    fn bounded<R>(&mut self, what: &str, f: impl FnOnce(&mut Self) -> R) -> R {
        let before = (self.mem.read.get(), self.mem.written, self.tlbs.flushes, self.tlbs.whole.len());
        let result = f(self);
        let read = self.mem.read.get() - before.0;
        let written = self.mem.written - before.1;
        let flushes = self.tlbs.flushes - before.2 + self.tlbs.whole.len() - before.3;
        assert!(read <= MOST_READ, "{what}: {read} descriptors read");
        assert!(written <= MOST_WRITTEN, "{what}: {written} descriptors written");
        assert!(flushes <= 2 * SLOTS + 8, "{what}: {flushes} invalidations");
        result
    }

    /// A fault as the others, without TLBs that hold what was found.
    fn touch(&mut self, slot: usize, ipa: u64, canonical: u64, size: u64) {
        self.bounded("a fault", |vm| {
            let output = Ipa::new(canonical);
            let leaf = Leaf { output, level: 3, size, attributes: ALL, clean: false, descriptor: 0 };
            let own = Own { pa: Pa::new(canonical + (64 << 30)), attr: ATTR, size: BLOCK_1G };
            let mapping = compose(Ipa::new(ipa), &leaf, &own).unwrap();
            let generation = vm.shadows.generation();
            vm.shadows.map(&mut vm.mem, &mut vm.tlbs, slot, &mapping, generation).unwrap();
        });
    }
}

/// What all shadows are filled with.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Gibs,
    PageInEachGib,
    PageInEach2M,
    PageInEach512Gib,
    OnePage,
}

use Shape::{Gibs, OnePage, PageInEach2M, PageInEach512Gib, PageInEachGib};

/// All shadows filled, under one VMID or each under its own.
fn full(shape: Shape, one_vmid: bool, pa_bits: u8) -> Vm {
    let mut vm = Vm::with_pa_bits(SLOTS, TABLES, RECORDS, pa_bits);
    let wide = 16 | 2 << 6 | 5 << 16;
    let narrow = 25 | 1 << 6 | 5 << 16;
    // Of 42 bits, where 8 tables may be a root.
    let widest = 22 | 1 << 6 | 5 << 16;
    let vtcr = match shape {
        PageInEach512Gib if pa_bits == 48 => wide,
        Gibs if pa_bits < 44 => widest,
        Gibs | PageInEachGib | PageInEach2M | PageInEach512Gib | OnePage => narrow,
    };
    for n in 0..SLOTS as u64 {
        let slot = vm.attach(key_with(if one_vmid { 1 } else { n }, n << 12, vtcr));
        for i in 0..512 {
            match shape {
                Gibs if pa_bits < 44 => vm.touch(slot, i * 8 * BLOCK_1G, 0, BLOCK_1G),
                Gibs => vm.touch(slot, i * BLOCK_1G, 0, BLOCK_1G),
                PageInEachGib => vm.touch(slot, i * BLOCK_1G, 0x5000, 4096),
                PageInEach2M => vm.touch(slot, i * BLOCK_2M, 0x5000, 4096),
                PageInEach512Gib if pa_bits == 48 => vm.touch(slot, i << 39, 0x5000, 4096),
                PageInEach512Gib | OnePage => vm.touch(slot, i << 12, 0x5000, 4096),
            }
        }
    }
    vm
}

#[test]
#[cfg_attr(miri, ignore = "half a million faults")]
fn no_call_is_long() {
    for (shape, one_vmid, pa_bits) in [
        (Gibs, true, 48),
        (Gibs, false, 42),
        (PageInEachGib, true, 48),
        (PageInEach2M, true, 48),
        (PageInEach512Gib, true, 48),
        (OnePage, false, 48),
    ] {
        let full = || full(shape, one_vmid, pa_bits);
        full().bounded("TLBI ALLE1", |vm| vm.shadows.forget_all(&mut vm.mem, &mut vm.tlbs));
        full().bounded("2 MiB are lost", |vm| vm.lose(0, BLOCK_2M));
        full().bounded("TLBI RIPAS2E1", |vm| vm.tlbi(1, 0x1_0000, Extent::Bytes(128 << 30)));
        let mut vm = full();
        vm.bounded("TLBI IPAS2E1", |vm| vm.tlbi(1, 0x5000, Extent::Leaf));
        vm.bounded("a page is lost", |vm| vm.lose(0x5000, 4096));
        // Another stage 2 takes a place; then its tables are taken one by one.
        let mut vm = full();
        vm.shadows.detach(3);
        let slot = vm.bounded("VTTBR_EL2", |vm| vm.attach(key(200, 0x1000)));
        for i in 0..8 {
            vm.touch(slot, i << 30, 0x5000, 4096);
        }
        vm.bounded("TLBI RIPAS2E1", |vm| vm.tlbi(1, 0x3_1000, Extent::Bytes(BLOCK_1G)));
        vm.bounded("TLBI VMALLS12E1", |vm| vm.shadows.forget_vmid(&mut vm.mem, &mut vm.tlbs, 1));
    }
}

#[test]
fn what_one_call_does_not_come_to_goes_whole() {
    // A table full of tables in every shadow under one VMID, more than one invalidation looks at.
    let mut vm = Vm::new(SLOTS, TABLES, RECORDS);
    for n in 0..SLOTS as u64 {
        let slot = vm.attach(key(1, n << 12));
        for i in [0, 1, 511] {
            vm.touch(slot, i * BLOCK_2M, 0x5000, 4096);
        }
    }
    vm.fill_tlbs();
    assert_eq!(vm.leaves().len(), 3 * SLOTS);
    vm.tlbi(1, 4096, Extent::Bytes(BLOCK_1G - 8192));
    let left = vm.leaves();
    assert!(left.iter().all(|(_, start, ..)| *start == 0), "{left:?}");
    assert!((1..SLOTS).contains(&left.len()), "{left:?}");
    assert_eq!(vm.tlbs.held, left);
}
