//! Memory and a naive walker: the oracle of the property tests and of the fuzz target. What it uses of
//! `stage2`, its parent names.

use super::*;

/// Memory in which every word that nobody wrote has some value.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) words: RefCell<BTreeMap<u64, u64>>,
    /// For words that nobody wrote: 0 is no descriptor at all.
    pub(crate) seed: u64,
    /// Tables are readable below, and writable below half of it.
    pub(crate) limit: u64,
    /// Whom a compare-and-swap meets: one that writes this first.
    pub(crate) rival: RefCell<Vec<u64>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { limit: u64::MAX, ..Self::default() }
    }

    pub(crate) fn set(&self, at: u64, word: u64) {
        self.words.borrow_mut().insert(at, word);
    }

    pub(crate) fn get(&self, at: u64) -> u64 {
        self.words.borrow().get(&at).copied().unwrap_or_else(|| noise(self.seed, at))
    }
}

/// A descriptor that is likely to lead on.
fn noise(seed: u64, at: u64) -> u64 {
    if seed == 0 {
        return 0;
    }
    let mut x = (seed ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    let kind = [0b11, 0b11, 0b11, 0b01, 0b01, 0b11, 0b11, 0b10][(x >> 60) as usize & 7];
    let address_bits = [30, 34, 38, 48][(x >> 57) as usize & 3];
    x & !0xffff_ffff_f003 | x.rotate_left(17) & ((1 << address_bits) - 1) & !0xfff | kind
}

impl Tables for Memory {
    fn read(&self, ipa: Ipa<Canonical>) -> Option<u64> {
        assert!(ipa.is_aligned(8));
        (ipa.get() < self.limit).then(|| self.get(ipa.get()))
    }
    fn compare_exchange(&self, ipa: Ipa<Canonical>, old: u64, new: u64) -> Option<u64> {
        if ipa.get() >= self.limit / 2 {
            return None;
        }
        if let Some(other) = self.rival.borrow_mut().pop() {
            self.set(ipa.get(), other);
        }
        let found = self.get(ipa.get());
        if found == old {
            self.set(ipa.get(), new);
        }
        Some(found)
    }
}

/// Address, level, bytes, the descriptor as it is afterwards; or the fault.
pub(crate) type Verdict = Result<(u64, u8, u64, u64), Fault>;

/// A walker that shares nothing with the real one: shapes are looked up in the manual's tables
/// (D8.2.5 to D8.2.9), one row for each granule, and the walk goes from a list of levels.
pub(crate) fn naive(
    memory: &Memory,
    registers: &Registers,
    offered: &Offered,
    ipa: u64,
    write: bool,
) -> Verdict {
    let Registers { vttbr, vtcr, big_endian, .. } = *registers;
    let fail = |kind, level| Err(Fault { kind, level });
    // Shift of levels 0 to 3; level of SL0 = 0 to 3; where blocks may be; runs of blocks and pages.
    let tg = (vtcr >> 14) % 4;
    let choice = match tg {
        0 if offered.granule4 => 4,
        2 if offered.granule16 => 16,
        _ if offered.granule64 => 64,
        _ if offered.granule16 => 16,
        _ => 4,
    };
    type Row = ([u32; 4], [Option<usize>; 4], &'static [usize], [u32; 4]);
    let (shifts, starts, blocks, runs): Row = match choice {
        4 => ([39, 30, 21, 12], [Some(2), Some(1), Some(0), Some(3)], &[1, 2], [0; 4]),
        16 => ([47, 36, 25, 14], [Some(3), Some(2), Some(1), None], &[2], [0, 0, 30, 21]),
        _ => ([99, 42, 29, 16], [Some(3), Some(2), Some(1), None], &[2], [0, 0, 34, 21]),
    };
    let wide = match choice {
        4 => [0, 0, 44, 0],
        16 => [0, 0, 42, 0],
        _ => [0, 0, 44, 0],
    };
    let sl0 = (vtcr >> 6) as usize % 4;
    let bits = 64 - (vtcr % 64) as u32;
    let Some(first) = starts[sl0] else { return fail(FaultKind::Translation, 0) };
    let first_resolves = bits as i64 - i64::from(shifts[first]);
    let entries_bits = match choice {
        4 => 9,
        16 => 11,
        _ => 13,
    };
    let legal = bits <= 48
        && bits <= u32::from(offered.pa_bits)
        && bits >= if offered.small { 16 } else { 25 }
        && u32::from(offered.pa_bits) >= wide[sl0]
        && !(choice == 4 && sl0 == 3 && !offered.small)
        && (1..=entries_bits + 4).contains(&first_resolves);
    if !legal || u128::from(ipa) >= 1_u128 << bits {
        return fail(FaultKind::Translation, 0);
    }
    let out = [32, 36, 40, 42, 44, 48, 48, 48][(vtcr >> 16) as usize % 8].min(u32::from(offered.pa_bits));
    let size = 8_u128 << first_resolves;
    let mut table = u128::from(vttbr % (1 << 48)) / size * size;
    if first_resolves == 0 {
        table = u128::from(vttbr % (1 << 48));
    }
    if table >= 1 << out {
        return fail(FaultKind::AddressSize, 0);
    }
    let ha = offered.access_flag && (vtcr >> 21) % 2 == 1;
    let hd = ha && offered.dirty_state && (vtcr >> 22) % 2 == 1;
    for level in first..4 {
        let shift = shifts[level];
        let index = if level == first { ipa >> shift } else { (ipa >> shift) % (1 << entries_bits) };
        let at = table as u64 + 8 * index;
        let number = level as u8;
        if at >= memory.limit {
            return fail(FaultKind::External, number);
        }
        let swap = |x: u64| if big_endian { x.swap_bytes() } else { x };
        let descriptor = swap(memory.get(at));
        let is_table = match (descriptor % 4, level) {
            (0b11, 0..=2) => true,
            (0b11, 3) => false,
            (0b01, _) if blocks.contains(&level) => false,
            _ => return fail(FaultKind::Translation, number),
        };
        let unit = 1_u64 << if is_table { shifts[3] } else { shift };
        let output = descriptor % (1 << 48) / unit * unit;
        if output >= 1 << out {
            return fail(FaultKind::AddressSize, number);
        }
        if is_table {
            table = u128::from(output);
            continue;
        }
        let mut after = descriptor;
        if descriptor >> 10 & 1 == 0 {
            if !ha {
                return fail(FaultKind::AccessFlag, number);
            }
            after |= 1 << 10;
        }
        let clean = hd && descriptor >> 51 & 1 == 1;
        if clean && write {
            after |= 1 << 7;
        }
        if after != descriptor {
            if at >= memory.limit / 2 {
                return fail(FaultKind::External, number);
            }
            memory.set(at, swap(after));
        }
        let run = runs[level];
        let in_step = run == 0 || ipa % (1 << run) / unit == output % (1 << run) / unit;
        let wider = descriptor >> 52 & 1 == 1 && !clean && run != 0 && in_step && run <= bits;
        return Ok((output + ipa % unit, number, 1 << if wider { run } else { shift }, after));
    }
    unreachable!("level 3 has no tables")
}
