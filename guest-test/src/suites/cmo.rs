//! Cache maintenance by DC and IC, wherever it hits: what it may change, and which faults it may take. The
//! command line says what the device tree does not: `ro=` regions that are read-only, `strict=` those of
//! them where DC IVAC and its tag forms give an external abort.

use crate::harness::{Outcome, Stop, check, check_eq, skip, suite};
use crate::rt::exception::{
    EC_DABT_EL0, EC_DABT_EL1, EC_SYSREG, EC_UNKNOWN, FSC_EXTERNAL, Fault, expect_fault,
};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, scratch, write64};
use crate::rt::mmu::{self, SCTLR, WINDOW, tagged};
use crate::rt::smccc::tagvisor;
use crate::rt::{gic, mte};
use form::{ALL_FETCHES, BY_ADDRESS, Form, SET_WAY, Way, ZEROING, execute, present};

mod form;
mod meanwhile;
mod place;

use meanwhile::{absent_tables, code_changes_meanwhile, flags_and_btype, mapping_changes_meanwhile};
use place::{Place, places};

suite!(
    "cmo",
    true,
    [
        at_el1,
        with_mmu_off,
        at_el0,
        at_el0_without_uci,
        stores_survive,
        tags_survive,
        strict_regions,
        zeroing_is_a_store,
        zeroing_at_el0,
        own_faults,
        own_faults_at_el0,
        all_instructions,
        set_and_way,
        set_and_way_at_el0,
        translations,
        flags_and_btype,
        mapping_changes_meanwhile,
        code_changes_meanwhile,
        absent_tables,
    ]
);

/// Aligned, and anywhere else in a line.
const OFFSETS: [u64; 3] = [0, 1, 63];
/// Nothing is mapped there.
const UNMAPPED: u64 = 7 * WINDOW;

fn word_of(name: &str) -> u32 {
    BY_ADDRESS.iter().find(|f| f.name == name).map_or(0, |f| f.word)
}

/// Whether this machine translates the address of the instruction: hardware does, and so does the
/// hypervisor after a trap. QEMU alone does not.
fn is_translated(word: u32) -> Result<bool, Stop> {
    Ok(execute(Way::El1, word, UNMAPPED)?.is_some())
}

/// Each form at one place: no fault but those that belong there, and nothing changes.
fn each_form(way: Way, place: &Place, va: u64) -> Outcome {
    let strict = place.strict && is_translated(word_of("DC IVAC"))?;
    for form in present() {
        let state = place.state();
        for offset in OFFSETS {
            let fault = execute(way, form.word, va + offset)?;
            let name = form.name;
            if way == Way::El0 && form.writes {
                let undefined = fault.is_some_and(|f| f.ec() == EC_UNKNOWN);
                check!(undefined, "{name} at EL0, {}: {fault:x?}", place.name);
            } else if !form.may_be_undefined(fault) {
                if strict && form.writes {
                    external(fault, va + offset, name)?;
                } else {
                    check!(fault.is_none(), "{name}, {way:?}, {}: {fault:x?}", place.name);
                }
            }
            check!(place.state() == state, "{} changes by {name}, {way:?}", place.name);
        }
    }
    Ok(())
}

/// A synchronous external abort of maintenance at EL1.
fn external(fault: Option<Fault>, va: u64, name: &str) -> Outcome {
    let Some(fault) = fault else {
        check!(false, "{name} does not fault");
        return Ok(());
    };
    // IL, CM, WnR.
    check_eq!(fault.esr, EC_DABT_EL1 << 26 | 1 << 25 | 1 << 8 | 1 << 6 | FSC_EXTERNAL, "ESR of {name}");
    check_eq!(fault.far, va, "FAR of {name}");
    Ok(())
}

fn at_el1(machine: &Machine) -> Outcome {
    for place in places(machine) {
        each_form(Way::El1, &place, place.va)?;
        if place.memory {
            each_form(Way::El1, &place, tagged(place.ipa))?;
        }
    }
    Ok(())
}

fn with_mmu_off(machine: &Machine) -> Outcome {
    for place in places(machine) {
        each_form(Way::El1MmuOff, &place, place.ipa)?;
    }
    Ok(())
}

fn at_el0(machine: &Machine) -> Outcome {
    for place in places(machine) {
        each_form(Way::El0, &place, mmu::user(place.ipa))?;
    }
    Ok(())
}

/// SCTLR_EL1.UCI = 0: EL1 hears of it first, wherever it would have hit.
fn at_el0_without_uci(machine: &Machine) -> Outcome {
    const UCI: u64 = 1 << 26;
    const { assert!(SCTLR & UCI != 0) };
    let run = || {
        for place in places(machine) {
            for form in present().filter(|f| !f.writes) {
                let fault = execute(Way::El0, form.word, mmu::user(place.ipa))?;
                let trapped = fault.is_some_and(|f| f.ec() == EC_SYSREG);
                let name = form.name;
                check!(trapped || form.may_be_undefined(fault), "{name}, {}: {fault:x?}", place.name);
            }
        }
        Ok(())
    };
    let sctlr = mrs!("sctlr_el1");
    msr!("sctlr_el1", sctlr & !UCI);
    let outcome = run();
    msr!("sctlr_el1", sctlr);
    outcome
}

/// An invalidation at EL1 never drops what was stored: stage 2 makes it clean, too.
fn stores_survive(machine: &Machine) -> Outcome {
    if !tagvisor() {
        skip!("without stage 2 an invalidation drops stores");
    }
    for place in places(machine).filter(|p| p.writable) {
        let old = read64(place.va);
        for form in present() {
            for n in 0..4 {
                write64(place.va, 0x1234_0000 + n);
                let fault = execute(Way::El1, form.word, place.va + 8)?;
                let allowed = fault.is_none() || form.may_be_undefined(fault);
                check!(allowed, "{} in {}: {fault:x?}", form.name, place.name);
                check_eq!(read64(place.va), 0x1234_0000 + n, "{} after {}", place.name, form.name);
            }
        }
        write64(place.va, old);
    }
    Ok(())
}

fn tags_survive(machine: &Machine) -> Outcome {
    if mte::level() < 2 {
        skip!("no MTE");
    }
    if !tagvisor() {
        skip!("the machine itself may forget tags by DC IGVAC");
    }
    let mut places = places(machine).filter(|p| p.writable && p.tags).peekable();
    check!(places.peek().is_some(), "no memory has tags");
    for place in places {
        let va = tagged(place.ipa);
        for (form, tag) in present().zip((1..16).cycle()) {
            mte::stg(mte::with_tag(va, tag));
            let fault = execute(Way::El1, form.word, mte::with_tag(va, tag ^ 3) + 5)?;
            check!(fault.is_none(), "{} in {}: {fault:x?}", form.name, place.name);
            check_eq!(mte::ldg(va), tag, "tag in {} after {}", place.name, form.name);
        }
        mte::stg(va);
    }
    Ok(())
}

/// `cmo = "architectural"`: a DC IVAC that would write gets an external abort, exactly there.
fn strict_regions(machine: &Machine) -> Outcome {
    if !is_translated(word_of("DC IVAC"))? {
        skip!("maintenance is not translated here");
    }
    let mut found = false;
    for place in places(machine).filter(|p| p.strict) {
        found = true;
        let state = place.state();
        for form in present().filter(|f| f.writes && (!f.tags || mte::level() >= 2)) {
            external(execute(Way::El1, form.word, place.va + 0x321)?, place.va + 0x321, form.name)?;
            external(execute(Way::El1MmuOff, form.word, place.ipa)?, place.ipa, form.name)?;
        }
        check!(place.state() == state, "{} changes", place.name);
    }
    if !found {
        skip!("no strict= region");
    }
    Ok(())
}

/// DC ZVA, GVA, GZVA are stores: where the VM may not write, they are no maintenance to be skipped.
fn zeroing_is_a_store(machine: &Machine) -> Outcome {
    let mut found = false;
    for place in places(machine).filter(|p| p.read_only || p.absent) {
        found = true;
        let state = place.state();
        let va = if mte::level() >= 2 { tagged(place.ipa) } else { place.va };
        let mut faults = [Some(expect_fault(|| mte::dc_zva(va))); 3];
        if mte::level() >= 2 {
            faults[1] = Some(expect_fault(|| mte::dc_gva(va)));
            faults[2] = Some(expect_fault(|| mte::dc_gzva(va)));
        }
        for fault in faults.into_iter().flatten() {
            let Some(fault) = fault else {
                check!(false, "DC ZVA or a tag form in {}: no abort", place.name);
                continue;
            };
            check_eq!(
                (fault.ec(), fault.fsc()),
                (EC_DABT_EL1, FSC_EXTERNAL),
                "EC and DFSC in {}",
                place.name
            );
            check!(
                fault.write() && fault.esr & (1 << 8) == 0,
                "WnR and CM in {}: {:#x}",
                place.name,
                fault.esr
            );
        }
        check!(place.state() == state, "{} changes by DC ZVA", place.name);
    }
    if !found {
        skip!("no read-only region");
    }
    Ok(())
}

/// The same at EL0, which SCTLR_EL1.DZE lets zero.
fn zeroing_at_el0(machine: &Machine) -> Outcome {
    const DZE: u64 = 1 << 14;
    const { assert!(SCTLR & DZE != 0) };
    let forms = ZEROING.iter().filter(|(_, _, tags)| !tags || mte::level() >= 2);
    let mut found = false;
    for place in places(machine).filter(|p| p.read_only || p.absent) {
        found = true;
        let state = place.state();
        for (name, word, _) in forms.clone() {
            let Some(fault) = execute(Way::El0, *word, mmu::user(place.ipa))? else {
                check!(false, "{name} at EL0 in {}: no abort", place.name);
                continue;
            };
            let got = (fault.ec(), fault.fsc(), fault.write(), fault.esr >> 8 & 1);
            check_eq!(got, (EC_DABT_EL0, FSC_EXTERNAL, true, 0), "EC, DFSC, WnR and CM in {}", place.name);
        }
        check!(place.state() == state, "{} changes by DC ZVA at EL0", place.name);
    }
    if !found {
        skip!("no read-only region");
    }
    Ok(())
}

/// A fault of stage 1, with an address that nothing rounds.
fn own_fault(form: &Form, way: Way, va: u64, fsc: u64) -> Outcome {
    let fault = execute(way, form.word, va)?;
    let Some(fault) = fault else {
        check!(false, "{} of {va:#x} does not fault", form.name);
        return Ok(());
    };
    let ec = if way == Way::El0 { EC_DABT_EL0 } else { EC_DABT_EL1 };
    check_eq!((fault.ec(), fault.fsc()), (ec, fsc), "EC and DFSC of {}", form.name);
    // QEMU's own faults of DC CVAP and CVADP are those of loads of the line.
    if form.persistence != 0 {
        check_eq!(fault.far & !63, va & !63, "FAR of {}", form.name);
    } else {
        check_eq!(fault.far, va, "FAR of {}", form.name);
        check_eq!(fault.esr & 0x0100_0540, 1 << 8 | 1 << 6, "ISV, FnV, CM and WnR of {}", form.name);
    }
    Ok(())
}

/// Level of the one table that this payload has.
const LEVEL: u64 = 1;

fn own_faults(machine: &Machine) -> Outcome {
    let mut found = false;
    let read_only = mmu::user_code(scratch(21));
    for form in present().filter(|f| !f.tags || mte::level() >= 2) {
        if !is_translated(form.word)? {
            continue;
        }
        found |= form.writes;
        for offset in [0, 0x3_2101] {
            own_fault(form, Way::El1, UNMAPPED + offset, 0b0001 << 2 | LEVEL)?;
            // TBI0: the top byte is part of the address, and of FAR.
            own_fault(form, Way::El1, (UNMAPPED + offset) | (0x6b << 56), 0b0001 << 2 | LEVEL)?;
        }
        for place in places(machine) {
            // What stage 2 has does not matter where stage 1 does not allow it.
            let va = mmu::user_code(place.ipa) + 17;
            match form.writes {
                true => own_fault(form, Way::El1, va, 0b0011 << 2 | LEVEL)?,
                false => check!(execute(Way::El1, form.word, va)?.is_none(), "{} needs a right", form.name),
            }
        }
        if form.writes {
            own_fault(form, Way::El1, read_only, 0b0011 << 2 | LEVEL)?;
        }
    }
    if !found {
        skip!("maintenance is not translated here");
    }
    Ok(())
}

fn own_faults_at_el0(machine: &Machine) -> Outcome {
    if !is_translated(word_of("DC CVAC"))? {
        skip!("DC CVAC is not translated here");
    }
    for form in present().filter(|f| !f.writes && (!f.tags || mte::level() >= 2)) {
        if !is_translated(form.word)? {
            continue;
        }
        own_fault(form, Way::El0, UNMAPPED + 77, 0b0001 << 2 | LEVEL)?;
        for place in places(machine).filter(|p| p.memory) {
            // EL1's alone, and one that EL0 may read.
            own_fault(form, Way::El0, tagged(place.ipa) + 9, 0b0011 << 2 | LEVEL)?;
            let fault = execute(Way::El0, form.word, mmu::user_code(place.ipa) + 9)?;
            check!(fault.is_none(), "{} in {}: {fault:x?}", form.name, place.name);
        }
    }
    Ok(())
}

fn all_instructions(_: &Machine) -> Outcome {
    for (name, word) in ALL_FETCHES {
        for way in [Way::El1, Way::El1MmuOff] {
            check!(execute(way, word, 0)?.is_none(), "{name}, {way:?}");
        }
        let fault = execute(Way::El0, word, 0)?;
        check!(fault.is_some_and(|f| f.ec() == EC_UNKNOWN), "{name} at EL0: {fault:x?}");
    }
    Ok(())
}

/// All memory as it was, after each form and after a loop through all sets and ways.
fn set_and_way(machine: &Machine) -> Outcome {
    if !tagvisor() {
        skip!("a real cache would lose lines");
    }
    let stored = scratch(22);
    for (n, (name, word)) in SET_WAY.into_iter().enumerate() {
        let tags = !matches!(n % 3, 0);
        for way in [Way::El1, Way::El1MmuOff] {
            for at in (stored..stored + 4096).step_by(64) {
                write64(at, at ^ n as u64);
            }
            for place in places(machine).filter(|p| p.memory) {
                let state = place.state();
                let fault = execute(way, word, 0)?;
                let undefined = fault.is_some_and(|f| f.ec() == EC_UNKNOWN);
                let expected = if tags && mte::level() < 2 { undefined } else { fault.is_none() };
                check!(expected, "{name}, {way:?}: {fault:x?}");
                check!(place.state() == state, "{} changes by {name}", place.name);
            }
            for at in (stored..stored + 4096).step_by(64) {
                check_eq!(read64(at), at ^ n as u64, "{at:#x} after {name}");
            }
        }
    }
    Ok(())
}

fn set_and_way_at_el0(_: &Machine) -> Outcome {
    for (name, word) in SET_WAY {
        let fault = execute(Way::El0, word, 0)?;
        check!(fault.is_some_and(|f| f.ec() == EC_UNKNOWN), "{name} at EL0: {fault:x?}");
    }
    Ok(())
}

/// AT is no maintenance, although stage-2 faults report it as such: PAR_EL1 tells what stage 1 has, and
/// stage 2 does not matter.
fn translations(machine: &Machine) -> Outcome {
    let at = |va: u64| {
        // SAFETY: a translation.
        unsafe { core::arch::asm!("at s1e1r, {0}", "isb", in(reg) va, options(nostack)) };
        mrs!("par_el1")
    };
    for place in places(machine) {
        check_eq!(at(place.va) & 0xf_ffff_ffff_f001, place.ipa & !0xfff, "PAR_EL1 of {}", place.name);
    }
    check_eq!(at(UNMAPPED) & 0x7f, (0b0001 << 2 | LEVEL) << 1 | 1, "PAR_EL1 of what is not mapped");
    check_eq!(at(gic::GICD) & 0xf_ffff_ffff_f001, gic::GICD, "PAR_EL1 of the distributor");
    Ok(())
}
