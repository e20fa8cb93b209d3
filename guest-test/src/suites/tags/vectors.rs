//! SVE in memory without tags: loads and stores of vectors have no syndrome (ISV 0), and read the tag of
//! each granule that they touch.

use super::faults::{CHECKED_READ, CHECKED_WRITE, bare, number};
use super::outside::{SELF, fault, fresh, region_stats, stats};
use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::exception::{EC_DABT_EL1, FSC_EXTERNAL, expect_fault};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write64};
use crate::rt::mmu::tagged;
use crate::rt::mte;
use crate::suites::sve::{has_sve, with_sve};
use core::arch::asm;

macro_rules! vectors {
    ($($name:ident $text:literal;)*) => {$(
        /// With checks on; z1 holds 5 in each lane, p0 is all true.
        fn $name(va: u64) {
            mte::set_checks(1, 0);
            // SAFETY: the address is of memory that holds no Rust object; no compiled code uses these registers.
            unsafe {
                asm!(".arch_extension sve", "ptrue p0.d", "mov z1.d, #5", "index z2.d, #0, #8",
                    $text, in("x3") va, options(nostack))
            };
            mte::set_checks(0, 0);
        }
    )*};
}
vectors! {
    load_vector "ldr z0, [x3]";
    store_vector "str z1, [x3]";
    load "ld1d {{z0.d}}, p0/z, [x3]";
    store "st1d {{z1.d}}, p0, [x3]";
    load_first_fault "setffr\nldff1d {{z0.d}}, p0/z, [x3]";
    gather "ld1d {{z0.d}}, p0/z, [x3, z2.d]";
    scatter "st1d {{z1.d}}, p0, [x3, z2.d]";
    load_two "ld2d {{z4.d, z5.d}}, p0/z, [x3]";
    load_predicate "ldr p0, [x3]";
}

/// What it is, what a control VM is told, how it is done, and whether QEMU 11.1 checks it: of loads and stores
/// by element it does not look at tags in memory that has none.
type Kind = (&'static str, u64, fn(u64), bool);

#[rustfmt::skip]
const KINDS: [Kind; 9] = [
    ("LDR of a vector", CHECKED_READ, load_vector, true),
    ("STR of a vector", CHECKED_WRITE, store_vector, true),
    ("LDR of a predicate", CHECKED_READ, load_predicate, true),
    ("LD1D", CHECKED_READ, load, false),
    ("ST1D", CHECKED_WRITE, store, false),
    ("LDFF1D", CHECKED_READ, load_first_fault, false),
    ("LD1D, gather", CHECKED_READ, gather, false),
    ("ST1D, scatter", CHECKED_WRITE, scatter, false),
    ("LD2D", CHECKED_READ, load_two, false),
];

/// ESR_EL2.ISV.
const ISV: u64 = 1 << 24;

/// Each is a tag fault, not taken for an access to a device; nothing is stored.
pub(super) fn vectors(machine: &Machine) -> Outcome {
    let bare = bare(machine)?.start;
    if !has_sve() {
        skip!("no SVE");
    }
    let region = number(machine, bare);
    let length = with_sve(|length| length);
    for (n, (what, access, touch, by_qemu)) in (0..).zip(KINDS) {
        let at = bare + 0x8_0000 + 4096 * n;
        let before = region_stats(machine, region)?;
        mte::set_tco(true);
        let unchecked = with_sve(|_| expect_fault(|| touch(tagged(at))));
        mte::set_tco(false);
        check!(unchecked.is_none(), "{what} with TCO: {unchecked:x?}");
        check_eq!(region_stats(machine, region)?, before, "TAG_STATS after {what} with TCO");
        (at..at + length).step_by(8).for_each(|word| write64(word, 0));
        let seen = with_sve(|_| expect_fault(|| touch(tagged(at))));
        let Some(seen) = seen else {
            check!(!by_qemu, "{what} does not fault");
            check_eq!(region_stats(machine, region)?, before, "TAG_STATS after {what}, unchecked");
            (at..at + length).step_by(8).for_each(|word| write64(word, 0));
            continue;
        };
        check_eq!((seen.ec(), seen.fsc()), (EC_DABT_EL1, FSC_EXTERNAL), "EC and DFSC of {what}");
        let Some(info) = fault(machine, SELF, 0)? else {
            check!(false, "FAULT_INFO knows nothing of {what}");
            return Ok(());
        };
        check_eq!((info.ipa & !0xfff, info.region), (at, region), "IPA and region of {what}");
        // 0: what it was is not looked at while reports are held back.
        check!(info.access == access || info.access == 0, "access of {what}: {}", info.access);
        check_eq!(info.esr & ISV, 0, "ISV of {what}");
        for word in (at..at + length).step_by(8) {
            check_eq!(read64(word), 0, "data at {word:#x} after {what}");
        }
    }
    Ok(())
}

/// A vector across two units of lazy memory: both get tags, and all of it arrives.
pub(super) fn vectors_across_pages(machine: &Machine) -> Outcome {
    let (start, _) = fresh(machine)?;
    if !has_sve() {
        skip!("no SVE");
    }
    let unit = stats(machine)?.unit * 4096;
    let at = start + unit - 8;
    let by_element = [(store as fn(u64), false), (scatter, false), (load, false)];
    for (touch, by_qemu) in
        by_element.into_iter().chain([(store_vector as fn(u64), true), (load_vector, true)])
    {
        let length = with_sve(|length| {
            touch(tagged(at));
            length
        });
        for word in (at..at + length).step_by(8) {
            check_eq!(read64(word), 5, "word at {word:#x}");
        }
        let used = stats(machine)?.used;
        check!(used == 2 * unit / 4096 || !by_qemu && used == 0, "{used} pages have tags");
        fresh(machine)?;
        if by_qemu {
            check_eq!(read64(at), 5, "the first word without tags again");
        }
    }
    Ok(())
}
