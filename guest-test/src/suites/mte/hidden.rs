//! A VM without MTE on a CPU that has it: nothing of it shows.

use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::exception::expect_fault;
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, scratch, write64};
use crate::rt::mmu::{MAIR_TAGGED, MAIR_UNTAGGED, set_mair, tagged};
use crate::rt::mte::*;

/// Without MTE in the ID registers, tag instructions may be undefined (no MTE at all), but they
/// never reach tags.
pub(super) fn off_tags_do_nothing(_: &Machine) -> Outcome {
    if level() >= 2 {
        skip!("FEAT_MTE2 is there");
    }
    write64(scratch(0), 0x1111);
    set_mair(MAIR_TAGGED);
    let mut tag = 0;
    let fault = expect_fault(|| {
        stg(with_tag(tagged(scratch(0)), 7));
        tag = ldg(tagged(scratch(0)));
        stzg(with_tag(tagged(scratch(1)), 7));
    });
    set_mair(MAIR_UNTAGGED);
    check!(fault.is_none_or(|f| f.undefined()), "ESR {:#x}", fault.map_or(0, |f| f.esr));
    check_eq!(tag, 0, "the tag that was stored");
    check_eq!(read64(scratch(0)), 0x1111, "content");
    Ok(())
}

pub(super) fn off_registers_undefined(_: &Machine) -> Outcome {
    if level() >= 2 {
        skip!("FEAT_MTE2 is there");
    }
    for (name, result) in [
        ("GCR_EL1", probe!("gcr_el1")),
        ("RGSR_EL1", probe!("rgsr_el1")),
        ("TFSR_EL1", probe!("tfsr_el1")),
        ("TFSRE0_EL1", probe!("tfsre0_el1")),
        ("GMID_EL1", probe!("gmid_el1")),
    ] {
        match result {
            Ok(value) => check!(false, "{name} reads {value:#x}"),
            Err(fault) => check!(fault.undefined(), "{name} gives ESR {:#x}", fault.esr),
        }
    }
    Ok(())
}
