//! Random tables: what AT at EL2 says, which is worked out in software while the guest does not run, against
//! what becomes of the guest's own accesses and its own AT.

use super::super::nested::{guest_code, need_el2, slot};
use super::tables::{NESTED, PAGE, Stage2, data};
use super::translate::ask;
use super::{EC_DABT, EC_HVC, FWB, VM, el1_with_map, load64, run_as, store64};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{El1, Exit, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write64};
use crate::rt::mmu::TABLE;
use core::arch::asm;

guest_code! {
    /// AT S1E1R of x1, and PAR_EL1.
    at_read "at s1e1r, x1\n isb\n mrs x0, PAR_EL1";
    /// AT S1E1W.
    at_write "at s1e1w, x1\n isb\n mrs x0, PAR_EL1";
    /// AT S1E0R.
    at_read_el0 "at s1e0r, x1\n isb\n mrs x0, PAR_EL1";
    /// AT S1E0W.
    at_write_el0 "at s1e0w, x1\n isb\n mrs x0, PAR_EL1";
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % n
    }

    fn one_of(&mut self, values: &[u64]) -> u64 {
        values[self.below(values.len() as u64) as usize]
    }
}

/// Leaves of one table that are tried.
const LEAVES: u64 = 48;
const ADDRESS: u64 = 0xffff_ffff_f000;

/// A random leaf of level 3 of stage 2: mostly valid, all rights, all memory types, with and without access
/// flag, to memory, to nothing, or beyond the size of addresses.
fn stage2_leaf(random: &mut Random, absent: u64) -> u64 {
    let page = data(random.below(8));
    let to = random.one_of(&[page, page, page, page, absent, 1 << 44]);
    let kind = random.one_of(&[0b11, 0b11, 0b11, 0b11, 0b11, 0b01, 0b00]);
    let flag = random.one_of(&[1, 1, 1, 0]) << 10;
    let attributes = random.one_of(&[0b1111, 0b1111, 0b0101, 0b0001, 0b1010]) << 2;
    to | kind | flag | attributes | random.below(4) << 6 | random.below(4) << 8 | random.below(4) << 53
}

pub(super) fn random_stage_2(machine: &Machine) -> Outcome {
    need_el2!();
    let mut random = Random(0x1234_5678_9abc_def1);
    let absent = machine.absent() & !(PAGE - 1);
    for round in 0..4 {
        let stage2 = Stage2::new(0, 1);
        for n in 0..LEAVES {
            write64(stage2.leaf(NESTED + n * PAGE), stage2_leaf(&mut random, absent));
        }
        stage2.forget();
        for n in 0..LEAVES {
            let ipa = NESTED + n * PAGE + 8 * random.below(500);
            let leaf = read64(stage2.leaf(ipa));
            let (read, write) = at_el2(|| {
                stage2.install();
                (ask!("s12e1r", el1_with_map(), VM, ipa), ask!("s12e1w", el1_with_map(), VM, ipa))
            });
            for (code, par) in [(load64(), read), (store64(), write)] {
                let (exit, guest) = run_as(&el1_with_map(), &stage2, VM, code, 0x55, ipa);
                let what = (round, n, leaf, par);
                check_eq!(exit, Exit::Sync, "{what:x?}");
                if par & 1 == 0 {
                    let nothing = leaf & ADDRESS == absent;
                    let want = if nothing { slot(4) } else { 0 };
                    check_eq!(
                        (guest.ec(), guest.esr & 0xffff),
                        (EC_HVC, want),
                        "{what:x?} ESR {:x}",
                        guest.esr
                    );
                    check_eq!(par & ADDRESS, leaf & ADDRESS, "{what:x?}: PAR_EL1.PA");
                } else {
                    check_eq!(
                        (guest.ec(), par >> 9 & 1),
                        (EC_DABT, 1),
                        "{what:x?} ESR {:x}: EC, S",
                        guest.esr
                    );
                    check_eq!(guest.esr & 0x3f, par >> 1 & 0x3f, "{what:x?}: status");
                }
            }
        }
    }
    Ok(())
}

/// A random leaf of level 3 of stage 1.
fn stage1_leaf(random: &mut Random) -> u64 {
    let to = data(random.below(8));
    let kind = random.one_of(&[0b11, 0b11, 0b11, 0b11, 0b11, 0b01, 0b00]);
    let flag = random.one_of(&[1, 1, 1, 0]) << 10;
    // Attribute, AP, SH, nG, PXN and UXN.
    let rights = random.below(4) << 2 | random.below(4) << 6 | random.below(4) << 8 | random.below(2) << 11;
    to | kind | flag | rights | random.below(4) << 53
}

/// Tables of the guest's: AT at EL2 for it, against the same instruction that it executes itself.
pub(super) fn random_stage_1(_: &Machine) -> Outcome {
    need_el2!();
    // The last GiB of the payload's map.
    const AT: u64 = 511 << 30;
    let mut random = Random(0xfeed_5678_9abc_def1);
    let (level1, level2, level3) = (Stage2::room(), Stage2::room() + PAGE, Stage2::room() + 2 * PAGE);
    for round in 0..4u64 {
        for n in 0..512 {
            write64(level1 + 8 * n, TABLE.0[n as usize]);
            write64(level2 + 8 * n, 0);
        }
        // APTable, UXNTable, PXNTable: from the second round on.
        let narrowed = if round == 0 { 0 } else { random.below(16) << 59 };
        write64(level1 + 8 * 511, level2 | 0b11);
        write64(level2, level3 | narrowed | 0b11);
        for n in 0..LEAVES {
            write64(level3 + 8 * n, stage1_leaf(&mut random));
        }
        let stage2 = Stage2::new(0, 1);
        stage2.forget();
        let el1 = El1 { ttbr0: level1, ..el1_with_map() };
        for n in 0..=LEAVES {
            // The last one has no table at all.
            let va = if n == LEAVES { AT + (5 << 21) } else { AT + n * PAGE };
            let answers = at_el2(|| {
                stage2.install();
                [
                    (at_read(), ask!("s1e1r", el1, VM, va)),
                    (at_write(), ask!("s1e1w", el1, VM, va)),
                    (at_read_el0(), ask!("s1e0r", el1, VM, va)),
                    (at_write_el0(), ask!("s1e0w", el1, VM, va)),
                ]
            });
            for (which, (code, par)) in answers.into_iter().enumerate() {
                let (exit, guest) = run_as(&el1, &stage2, VM, code, 0, va);
                let leaf = read64(level3 + 8 * n);
                check_eq!((exit, guest.ec()), (Exit::Sync, EC_HVC), "ESR {:#x}", guest.esr);
                // NS is unknown outside of Secure state, and there only where the translation succeeded.
                let ns = if par & 1 == 0 { 1 << 9 } else { 0 };
                check_eq!(
                    par & !ns,
                    guest.x[0] & !ns,
                    "round {round}, leaf {n} {leaf:#x}, {narrowed:#x}, AT {which}"
                );
            }
        }
    }
    Ok(())
}
