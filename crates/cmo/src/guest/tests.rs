//! Every synthetic syndrome against rules written the other way round, and the rows of the table.

use super::*;
use crate::operation::Content::{Both, Data, Tags};
use crate::operation::How::{Clean, CleanInvalidate, Invalidate};
use std::vec::Vec;
use trap::{Exit, FaultRegisters, decode};

struct Registers;

impl FaultRegisters for Registers {
    fn far(&self) -> u64 {
        0xffff_0000_1234_5677
    }
    fn hpfar(&self) -> u64 {
        0x50_0030
    }
}

const CM: u64 = 1 << 8;
const WNR: u64 = 1 << 6;
const S1PTW: u64 = 1 << 7;
const FNV: u64 = 1 << 10;
const EA: u64 = 1 << 9;
const ISV: u64 = 1 << 24;

fn abort(iss: u64) -> DataAbort {
    let exit = decode(0x24 << 26 | 1 << 25 | iss, &Registers);
    let Exit::DataAbort(abort) = exit else { panic!("{exit:?}") };
    abort
}

const PLACES: [Place; 5] = [
    Place::Absent,
    Place::Device,
    Place::Writable,
    Place::ReadOnly(Policy::Emulate),
    Place::ReadOnly(Policy::Architectural),
];

fn lines() -> Vec<Line> {
    let points =
        [Point::Unification, Point::Coherency, Point::Persistence, Point::DeepPersistence].map(Clean);
    let how = [Invalidate, CleanInvalidate].into_iter().chain(points);
    how.flat_map(|how| [Data, Tags, Both].map(|content| Line { how, content })).collect()
}

fn operations() -> Vec<Operation> {
    let rest = [Data, Tags, Both].map(Operation::SetWay).into_iter().chain([
        Operation::Fetch,
        Operation::AllFetches,
        Operation::Zero,
        Operation::Translate,
    ]);
    lines().into_iter().map(Operation::Line).chain(rest).collect()
}

/// Every fault status code with every combination of CM, WnR, S1PTW, FnV, EA and ISV; a few under Miri,
/// which is slow.
fn syndromes() -> impl Iterator<Item = u64> {
    let all = (0..64_u64).flat_map(|fsc| {
        (0..64_u64).map(move |bits| {
            let flags = [CM, WNR, S1PTW, FNV, EA, ISV];
            flags.into_iter().enumerate().fold(fsc, |iss, (n, flag)| iss | (flag * (bits >> n & 1)))
        })
    });
    all.step_by(if cfg!(miri) { 211 } else { 1 })
}

fn is_mapping_fault(iss: u64) -> bool {
    // Levels 0 to 3, and the negative levels' codes.
    matches!(iss & 0x3f, 0x00..=0x0b | 0x29..=0x2c)
}

fn is_permission_fault(iss: u64) -> bool {
    matches!(iss & 0x3f, 0x0c..=0x0f)
}

#[test]
fn every_syndrome_place_and_instruction() {
    for iss in syndromes() {
        let abort = abort(iss);
        let maintenance = iss & CM != 0;
        let may_be = maintenance || iss & (ISV | WNR) == 0;
        let known = iss & (S1PTW | FNV) == 0;
        let about_it = may_be && known && (is_mapping_fault(iss) || is_permission_fault(iss));
        for place in PLACES {
            let mapped = !matches!(place, Place::Absent | Place::Device);
            let first = after_fault(&abort, place, Found::NotRead);
            let other = after_fault(&abort, place, Found::Other);
            // What EL2 cannot read never becomes readable: it must not be asked for again.
            let unreadable = after_fault(&abort, place, Found::Unreadable);
            let decided = about_it && !(mapped && is_mapping_fault(iss));
            assert_eq!(unreadable, if decided { Action::ExternalAbort } else { other }, "{iss:#x} {place:?}");
            if !about_it {
                assert_eq!((first, other), (Action::Access, Action::Access), "{iss:#x} {place:?}");
            } else if mapped && is_mapping_fault(iss) {
                let expected = if maintenance { Action::Retry } else { Action::Access };
                assert_eq!((first, other), (expected, expected), "{iss:#x} {place:?}");
            } else {
                let expected = if maintenance { Action::Retry } else { Action::Access };
                assert_eq!(other, expected, "{iss:#x} {place:?}");
                let often = maintenance && place == Place::ReadOnly(Policy::Emulate);
                let expected = if often { Action::Perform(Line::THOROUGH) } else { Action::Fetch };
                assert_eq!(first, expected, "{iss:#x} {place:?}");
            }
            for operation in operations() {
                let action = after_fault(&abort, place, Found::This(operation));
                if about_it && !(mapped && is_mapping_fault(iss)) {
                    assert_eq!(action, carry_out(operation, place), "{iss:#x} {place:?} {operation:?}");
                } else {
                    assert_eq!(action, first, "{iss:#x} {place:?} {operation:?}");
                }
            }
        }
    }
}

/// WnR is 1 for all maintenance in the architecture, and must not matter where CM is 1.
#[test]
fn wnr_says_nothing() {
    for iss in syndromes().filter(|iss| iss & CM != 0) {
        for place in PLACES {
            for found in operations().into_iter().map(Found::This).chain([Found::NotRead, Found::Other]) {
                let with = after_fault(&abort(iss | WNR), place, found);
                assert_eq!(with, after_fault(&abort(iss & !WNR), place, found));
            }
        }
    }
}

#[test]
fn what_is_carried_out_where() {
    for place in PLACES {
        for line in lines() {
            let expected = match (place, line.how) {
                (Place::Absent | Place::Device, _) => Action::Skip,
                (Place::ReadOnly(Policy::Architectural), Invalidate) => Action::ExternalAbort,
                _ => Action::Perform(line),
            };
            assert_eq!(carry_out(Operation::Line(line), place), expected);
        }
        for store_or_translation in [Operation::Zero, Operation::Translate, Operation::SetWay(Both)] {
            assert_eq!(carry_out(store_or_translation, place), Action::Access);
        }
        assert_eq!(carry_out(Operation::AllFetches, place), Action::ForgetInstructions);
        let fetch = carry_out(Operation::Fetch, place);
        let absent = matches!(place, Place::Absent | Place::Device);
        assert_eq!(fetch, if absent { Action::Skip } else { Action::ForgetInstructions });
    }
}

const READ_ONLY: Place = Place::ReadOnly(Policy::Emulate);
const STRICT: Place = Place::ReadOnly(Policy::Architectural);
const PERMISSION: u64 = 0x0f | CM | WNR;
const TRANSLATION: u64 = 0x07 | CM | WNR;

fn this(how: How) -> Found {
    Found::This(Operation::Line(Line { how, content: Data }))
}

#[test]
fn clean_of_an_unmapped_read_only_page_is_retried() {
    for how in
        [CleanInvalidate, Clean(Point::Coherency), Clean(Point::Unification), Clean(Point::Persistence)]
    {
        for found in [Found::NotRead, this(how)] {
            assert_eq!(after_fault(&abort(TRANSLATION), READ_ONLY, found), Action::Retry);
            assert_eq!(after_fault(&abort(TRANSLATION), STRICT, found), Action::Retry);
        }
    }
}

#[test]
fn invalidation_of_a_read_only_page_follows_the_policy() {
    let fault = abort(PERMISSION);
    assert_eq!(after_fault(&fault, READ_ONLY, Found::NotRead), Action::Perform(Line::THOROUGH));
    assert_eq!(after_fault(&fault, STRICT, Found::NotRead), Action::Fetch);
    assert_eq!(after_fault(&fault, STRICT, this(Invalidate)), Action::ExternalAbort);
    let tags = Found::This(Operation::Line(Line { how: Invalidate, content: Tags }));
    assert_eq!(after_fault(&fault, STRICT, tags), Action::ExternalAbort);
}

/// With HCRX_EL2.CMOW, which stays 0, DC CIVAC would have the same fault at EL1 and EL0.
#[test]
fn cmow_faults_are_carried_out() {
    let fault = abort(PERMISSION);
    let line = Line { how: CleanInvalidate, content: Data };
    for place in [READ_ONLY, STRICT] {
        assert_eq!(after_fault(&fault, place, this(CleanInvalidate)), Action::Perform(line));
    }
    assert_eq!(after_fault(&fault, READ_ONLY, Found::NotRead), Action::Perform(Line::THOROUGH));
    let fetch = Found::This(Operation::Fetch);
    assert_eq!(after_fault(&fault, STRICT, fetch), Action::ForgetInstructions);
}

/// A page of RAM that is write-protected while it is logged: the line is not lost, and the page stays
/// clean, since no data changes.
#[test]
fn invalidation_under_a_dirty_log_is_no_write() {
    let fault = abort(PERMISSION);
    assert_eq!(after_fault(&fault, Place::Writable, Found::NotRead), Action::Fetch);
    let line = Line { how: Invalidate, content: Data };
    assert_eq!(after_fault(&fault, Place::Writable, this(Invalidate)), Action::Perform(line));
    assert_eq!(line.on(Kind::Tagged, || Point::Coherency).map(|l| l.how), Some(CleanInvalidate));
    // DC ZVA would be a write: the log's business.
    assert_eq!(after_fault(&fault, Place::Writable, Found::This(Operation::Zero)), Action::Access);
}

#[test]
fn dc_zva_is_a_store() {
    // CM = 0, WnR = 1, no syndrome.
    for place in PLACES {
        for found in [Found::NotRead, Found::This(Operation::Zero)] {
            assert_eq!(after_fault(&abort(0x0f | WNR), place, found), Action::Access);
        }
    }
}

/// AT reports CM = 1 too, and faults at stage 2 only on its walk.
#[test]
fn at_is_told_apart_and_walks_are_not_maintenance() {
    let walk = abort(TRANSLATION | S1PTW);
    for place in PLACES {
        for found in [Found::NotRead, Found::This(Operation::Translate), this(Invalidate)] {
            assert_eq!(after_fault(&walk, place, found), Action::Access);
        }
        assert_eq!(carry_out(Operation::Translate, place), Action::Access);
    }
}

/// QEMU 11.1: DC CVAP of what is absent is reported as a load without a syndrome.
#[test]
fn clean_to_persistence_that_is_reported_as_a_load() {
    let fault = abort(0x07);
    assert_eq!(after_fault(&fault, Place::Absent, Found::NotRead), Action::Fetch);
    assert_eq!(after_fault(&fault, Place::Absent, this(Clean(Point::Persistence))), Action::Skip);
    assert_eq!(after_fault(&fault, Place::Absent, Found::Other), Action::Access);
    // A load with a syndrome, or a store, is not looked at.
    assert_eq!(after_fault(&abort(0x07 | ISV), Place::Absent, Found::NotRead), Action::Access);
    assert_eq!(after_fault(&abort(0x07 | WNR), Place::Absent, Found::NotRead), Action::Access);
}

#[test]
fn demands_of_every_instruction() {
    const OPEN: u64 = SCTLR_UCI;
    for operation in operations() {
        for (el0, mte, sctlr) in [false, true].into_iter().flat_map(|el0| {
            [0, 1, 2, 3]
                .into_iter()
                .flat_map(move |mte| [0, OPEN, OPEN | SCTLR_CMOW].map(|sctlr| (el0, mte, sctlr)))
        }) {
            let got = demand(operation, el0, mte, || sctlr);
            let translate = |write| Demand::Translate { el0, write };
            let tags = match operation {
                Operation::Line(line) => line.content != Data,
                Operation::SetWay(content) => content != Data,
                Operation::Fetch | Operation::AllFetches | Operation::Zero | Operation::Translate => false,
            };
            let expected = match operation {
                Operation::Zero | Operation::Translate => Demand::Undefined,
                // FEAT_MTE2 has those that EL0 never executes.
                Operation::SetWay(_) | Operation::Line(Line { how: Invalidate, .. }) if tags && mte < 2 => {
                    Demand::Undefined
                }
                _ if tags && mte == 0 => Demand::Undefined,
                Operation::SetWay(_) if !el0 => Demand::Sweep,
                Operation::AllFetches if !el0 => Demand::ForgetInstructions,
                Operation::Line(Line { how: Invalidate, .. }) if !el0 => translate(true),
                Operation::SetWay(_)
                | Operation::AllFetches
                | Operation::Line(Line { how: Invalidate, .. }) => Demand::Undefined,
                _ if el0 && sctlr & OPEN == 0 => Demand::Trap,
                Operation::Line(Line { how: CleanInvalidate, .. }) | Operation::Fetch
                    if el0 && sctlr & SCTLR_CMOW != 0 =>
                {
                    translate(true)
                }
                Operation::Line(_) | Operation::Fetch => translate(false),
            };
            assert_eq!(got, expected, "{operation:?} EL0 {el0} MTE {mte} SCTLR {sctlr:#x}");
        }
    }
}

#[test]
fn sweeps_are_needed_unless_the_vm_cannot_see_past_the_caches() {
    let (with_idc, without) = (0x9444_c004, 0x8444_c004);
    assert!(needs_no_sweep(true, with_idc));
    assert!(!needs_no_sweep(true, without) && !needs_no_sweep(false, with_idc));
}

/// What EL2 executes never drops a change, never names tags where there are none, and never goes beyond
/// what the CPU has.
#[test]
fn what_el2_executes_for_a_line() {
    for line in lines() {
        for kind in [Kind::WriteBack, Kind::Tagged, Kind::NonCacheable] {
            for farthest in [Point::Coherency, Point::Persistence, Point::DeepPersistence] {
                let Some(done) = line.on(kind, || farthest) else {
                    assert!(line.content == Tags && kind != Kind::Tagged);
                    continue;
                };
                assert_ne!(done.how, Invalidate);
                assert!(kind == Kind::Tagged || done.content == Data);
                assert!(kind != Kind::Tagged || done.content == line.content);
                match (line.how, done.how) {
                    (Clean(asked), Clean(point)) => assert!(point == asked.min(farthest)),
                    (how, done) => {
                        assert!(matches!(how, Invalidate | CleanInvalidate) && done == CleanInvalidate)
                    }
                }
            }
        }
    }
}

/// The architectural traps: their encodings in ISS are decoded like the instructions themselves.
#[test]
fn trapped_instructions_decode() {
    // ESR_EL2 as measured for Rt = 0: TPCP, TPU, TOCU, TSW, TDZ, HFGITR_EL2.
    let rows: &[(u64, Operation)] = &[
        (0x6212_1c0c, Operation::Line(Line { how: Invalidate, content: Data })),
        (0x6216_1c0c, Operation::Line(Line { how: Invalidate, content: Tags })),
        (0x621a_1c0c, Operation::Line(Line { how: Invalidate, content: Both })),
        (0x6212_dc14, Operation::Line(Line { how: Clean(Point::Coherency), content: Data })),
        (0x6212_dc18, Operation::Line(Line { how: Clean(Point::Persistence), content: Data })),
        (0x621a_dc18, Operation::Line(Line { how: Clean(Point::Persistence), content: Both })),
        (0x6212_dc1a, Operation::Line(Line { how: Clean(Point::DeepPersistence), content: Data })),
        (0x6212_dc1c, Operation::Line(Line { how: CleanInvalidate, content: Data })),
        (0x6216_dc1c, Operation::Line(Line { how: CleanInvalidate, content: Tags })),
        (0x6212_dc16, Operation::Line(Line { how: Clean(Point::Unification), content: Data })),
        (0x6212_dc0a, Operation::Fetch),
        (0x6210_1fea & !0x3e0, Operation::AllFetches),
        (0x6210_1fe2 & !0x3e0, Operation::AllFetches),
        (0x6214_1d2c, Operation::SetWay(Data)),
        (0x6218_1d2c, Operation::SetWay(Tags)),
        (0x621c_1d34, Operation::SetWay(Both)),
        (0x6212_dc08, Operation::Zero),
        (0x6216_dc08, Operation::Zero),
        (0x6218_dc08, Operation::Zero),
    ];
    for &(esr, operation) in rows {
        let Exit::SystemInstruction(access) = decode(esr, &Registers) else { panic!("{esr:#x}") };
        assert_eq!(Operation::from_encoding(access.reg), Some(operation), "{esr:#x}");
    }
}
