//! The walker of L1's stage 2 against the naive one of its property tests: registers, what is offered,
//! and tables are the input's.

use crate::input::Input;
use addr::{Canonical, Ipa};
use nested::stage2::{Fault, FaultKind, Offered, Registers, Stop, Tables, walk};
use std::cell::RefCell;
use std::collections::BTreeMap;

#[expect(clippy::indexing_slicing, reason = "an oracle that panics has found something")]
#[path = "../../crates/nested/src/stage2/tests/naive.rs"]
mod naive;
use naive::{Memory, naive};

pub(crate) fn run(mut input: Input<'_>) -> u64 {
    let bits = input.byte();
    let offered = Offered {
        pa_bits: input.choose(&[32, 36, 40, 42, 44, 48], 48),
        granule4: bits & 1 == 0,
        granule16: bits & 2 == 0,
        granule64: bits & 4 == 0,
        small: bits & 8 == 0,
        access_flag: bits & 16 == 0,
        dirty_state: bits & 32 == 0,
        xnx: bits & 64 == 0,
        mte_perm: bits & 128 == 0,
    };
    let registers = Registers {
        vtcr: u64::from(input.byte()) | u64::from(input.byte()) << 14 | u64::from(input.byte()) << 19,
        vttbr: input.word() >> (input.byte() & 63),
        big_endian: input.bit(),
        fwb: input.bit(),
    };
    let ours = Memory {
        seed: input.word(),
        limit: input.choose(&[1 << 48, 1 << 36, 1 << 20], u64::MAX),
        ..Memory::new()
    };
    let theirs = ours.clone();
    let mut kind = 0;
    for _ in 0..4 {
        let (ipa, write) = (input.word() >> (input.byte() & 63), input.bit());
        // A table entry of the input's own, where the last walk would look.
        let (at, word) = (input.word() & 0xffff_ffff_fff8, input.word());
        if word != 0 {
            ours.set(at, word);
            theirs.set(at, word);
        }
        let found = match walk(&ours, &registers, &offered, Ipa::new(ipa), write) {
            Ok(leaf) => {
                assert!(leaf.size.is_power_of_two() && leaf.level <= 3);
                assert!(leaf.output.get() >> offered.pa_bits == 0);
                let rights = u64::from(leaf.attributes.read) << 6 | u64::from(leaf.attributes.write) << 7;
                Ok((leaf.output.get(), leaf.level, leaf.size, rights))
            }
            Err(Stop::Fault(fault)) => Err(fault),
            Err(Stop::Retry) => panic!("nobody races"),
        };
        let expected = naive(&theirs, &registers, &offered, ipa, write);
        let expected = expected.map(|(output, level, size, leaf)| (output, level, size, leaf & 0xc0));
        assert_eq!(found, expected, "{ipa:#x} {registers:x?} {offered:?}");
        assert_eq!(*ours.words.borrow(), *theirs.words.borrow());
        let step = match found {
            Ok((_, level, size, rights)) => {
                64 + u64::from(level) + 4 * u64::from(size.trailing_zeros()) + rights
            }
            Err(Fault { kind, level }) => 1 + kind as u64 * 4 + u64::from(level),
        };
        kind = kind * 1021 + step;
    }
    // Many combinations of the four are alike.
    kind % 61 + 64 * (registers.vtcr >> 14 & 3)
}
