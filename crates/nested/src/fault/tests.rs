use super::*;
use addr::{Ipa, PAGE_SIZE, Pa};
use vmsa::attr::{Exec, S2Memory};

use crate::attributes::Attributes;

const RW: (bool, bool) = (true, true);
const RO: (bool, bool) = (true, false);

fn leaf(memory: S2Memory, (read, write): (bool, bool), exec: Exec) -> Leaf {
    let attributes = Attributes { memory, read, write, exec, reserved: false };
    Leaf { output: Ipa::new(0x8000_0000), level: 2, size: 2 << 20, attributes, clean: false, descriptor: 0 }
}

fn own(memory: S2Memory, (read, write): (bool, bool)) -> Own {
    let attr = S2Attr { memory, read, write, exec: Exec::All };
    Own { pa: Pa::new(0x4000_0000), attr, size: PAGE_SIZE }
}

const L1: Blame = Blame::L1(Fault { kind: FaultKind::Permission, level: 2 });
const L1_TAG: Blame = Blame::L1Tag(Fault { kind: FaultKind::Permission, level: 2 });

fn blame(access: Access, tag: bool, leaf: &Leaf, own: &Own) -> Blame {
    judge(Attempt { access, tag, protected: false }, leaf, Some(own))
}

#[test]
fn a_store_that_only_l0_forbids_is_not_reflected() {
    // docs/testing.md, M5: L1 RW, L0 RO.
    let (theirs, ours) = (leaf(S2Memory::WriteBack, RW, Exec::All), own(S2Memory::WriteBack, RO));
    assert_eq!(blame(Access::Write, false, &theirs, &ours), Blame::L0);
    assert_eq!(blame(Access::Read, false, &theirs, &ours), Blame::Nobody);
    let (theirs, ours) = (leaf(S2Memory::WriteBack, RO, Exec::All), own(S2Memory::WriteBack, RO));
    assert_eq!(blame(Access::Write, false, &theirs, &ours), L1);
}

#[test]
fn tags_are_routed_to_whose_table_forbids_them() {
    // docs/testing.md, M22: vP x hP, for a tag write (STG), a tag read (LDG) or checked load, and an
    // unchecked one.
    use S2Memory::{WriteBack, WriteBackNoTag};
    for (l1, l0, expected) in [
        (WriteBack, WriteBack, Blame::Nobody),
        (WriteBack, WriteBackNoTag, Blame::L0Tag),
        (WriteBackNoTag, WriteBack, L1_TAG),
        (WriteBackNoTag, WriteBackNoTag, L1_TAG),
    ] {
        let (theirs, ours) = (leaf(l1, RW, Exec::All), own(l0, RW));
        for access in [Access::Write, Access::Read] {
            assert_eq!(blame(access, true, &theirs, &ours), expected, "{l1:?} {l0:?} {access:?}");
            assert_eq!(blame(access, false, &theirs, &ours), Blame::Nobody);
        }
    }
}

#[test]
fn a_denied_write_comes_before_a_denied_tag() {
    // As real stages would: L1's permission, then L1's tags, then the VM's own of both.
    use S2Memory::{WriteBack, WriteBackNoTag};
    let (theirs, ours) = (leaf(WriteBackNoTag, RO, Exec::All), own(WriteBackNoTag, RO));
    assert_eq!(blame(Access::Write, true, &theirs, &ours), L1);
    assert_eq!(blame(Access::Read, true, &theirs, &ours), L1_TAG);
    let (theirs, ours) = (leaf(WriteBack, RW, Exec::All), own(WriteBackNoTag, RO));
    assert_eq!(blame(Access::Write, true, &theirs, &ours), Blame::L0);
    assert_eq!(blame(Access::Read, true, &theirs, &ours), Blame::L0Tag);
}

#[test]
fn l1s_untagged_types_have_no_tags_to_miss() {
    for memory in [S2Memory::NonCacheable, S2Memory::DeviceNGnRE] {
        let (theirs, ours) = (leaf(memory, RW, Exec::All), own(S2Memory::WriteBackNoTag, RW));
        assert_eq!(blame(Access::Write, true, &theirs, &ours), Blame::Nobody);
    }
}

#[test]
fn execution_is_judged_by_exception_level() {
    let ours = own(S2Memory::WriteBack, RW);
    for (exec, el1, el0) in [
        (Exec::All, Blame::Nobody, Blame::Nobody),
        (Exec::El0, L1, Blame::Nobody),
        (Exec::El1, Blame::Nobody, L1),
        (Exec::Nobody, L1, L1),
    ] {
        let theirs = leaf(S2Memory::WriteBack, RW, exec);
        assert_eq!(blame(Access::Execute(Privilege::El1), false, &theirs, &ours), el1);
        assert_eq!(blame(Access::Execute(Privilege::El0), false, &theirs, &ours), el0);
    }
}

#[test]
fn what_the_vm_has_not_is_absent_unless_l1_forbids_it_too() {
    let theirs = leaf(S2Memory::WriteBack, RO, Exec::All);
    let attempt = |access| Attempt { access, tag: false, protected: false };
    assert_eq!(judge(attempt(Access::Read), &theirs, None), Blame::Absent);
    assert_eq!(judge(attempt(Access::Write), &theirs, None), L1);
}

struct Registers;

impl trap::FaultRegisters for Registers {
    fn far(&self) -> u64 {
        0x1000
    }
    fn hpfar(&self) -> u64 {
        0x10
    }
}

const WNR: u64 = 1 << 6;
const S1PTW: u64 = 1 << 7;
const CM: u64 = 1 << 8;
const TRANSLATION: u64 = 0x07;
const PERMISSION: u64 = 0x0f;

fn data_abort(iss: u64) -> DataAbort {
    let exit = trap::decode(0x24 << 26 | 1 << 25 | iss, &Registers);
    let trap::Exit::DataAbort(abort) = exit else { panic!("{exit:?}") };
    abort
}

fn fetch_abort(iss: u64) -> InstructionAbort {
    let exit = trap::decode(0x20 << 26 | 1 << 25 | iss, &Registers);
    let trap::Exit::InstructionAbort(abort) = exit else { panic!("{exit:?}") };
    abort
}

/// HCR_EL2.PTW: only a walk that lacks a permission is judged by it.
#[test]
fn a_protected_walk_is_one_that_lacks_a_permission() {
    for (iss, expected) in [
        (PERMISSION | S1PTW, true),
        (PERMISSION | S1PTW | WNR, true),
        (TRANSLATION | S1PTW, false),
        (PERMISSION, false),
    ] {
        let (data, fetch) = (data_abort(iss), fetch_abort(iss));
        assert_eq!(Attempt::of_data(&data, false, true).protected, expected, "{iss:#x}");
        assert!(!Attempt::of_data(&data, false, false).protected, "{iss:#x} without PTW");
        if iss & WNR == 0 {
            assert_eq!(Attempt::of_fetch(&fetch, false, true).protected, expected, "fetch {iss:#x}");
            assert!(!Attempt::of_fetch(&fetch, false, false).protected, "fetch {iss:#x} without PTW");
        }
    }
    assert_eq!(Attempt::of_fetch(&fetch_abort(TRANSLATION | S1PTW), true, true).access, Access::Read);
    assert_eq!(
        Attempt::of_fetch(&fetch_abort(TRANSLATION), true, true).access,
        Access::Execute(Privilege::El0)
    );
}

/// HCR_EL2.PTW: tables in L1's devices are L1's fault, and where only the VM has a device there are none.
#[test]
fn protected_walks_read_no_device() {
    use S2Memory::{DeviceNGnRE, DeviceNGnRnE, NonCacheable, WriteBack};
    for access in [Access::Read, Access::Write] {
        let walk = |theirs, ours, protected| {
            let attempt = Attempt { access, tag: false, protected };
            judge(attempt, &leaf(theirs, RW, Exec::All), Some(&own(ours, RW)))
        };
        for device in [DeviceNGnRE, DeviceNGnRnE] {
            for ours in [WriteBack, DeviceNGnRE] {
                assert_eq!([walk(device, ours, true), walk(device, ours, false)], [L1, Blame::Nobody]);
            }
            assert_eq!(walk(WriteBack, device, true), Blame::Absent);
            assert_eq!(walk(WriteBack, device, false), Blame::Nobody);
        }
        assert_eq!(walk(NonCacheable, NonCacheable, true), Blame::Nobody);
    }
    let denied = Attempt { access: Access::Write, tag: false, protected: true };
    assert_eq!(judge(denied, &leaf(DeviceNGnRE, RO, Exec::All), None), L1);
}

/// ISS of a data abort by what L2 did, at EL1 and at EL0.
#[test]
fn what_a_data_abort_wanted() {
    use Access::{Read, Write};
    for (iss, el1, el0) in [
        (TRANSLATION, Read, Read),
        (TRANSLATION | WNR, Write, Write),
        (PERMISSION | WNR, Write, Write),
        // A table that is not there is read; one that is read-only is to be updated.
        (TRANSLATION | S1PTW | WNR, Read, Read),
        (PERMISSION | S1PTW | WNR, Write, Write),
        (PERMISSION | S1PTW, Read, Read),
        // Maintenance says that it writes, whatever it does.
        (TRANSLATION | CM | WNR, Read, Read),
        (PERMISSION | CM | WNR, Write, Read),
        (TRANSLATION | CM | WNR | S1PTW, Read, Read),
        (PERMISSION | CM | WNR | S1PTW, Write, Write),
    ] {
        let abort = data_abort(iss);
        let wanted = [false, true].map(|el0| Attempt::of_data(&abort, el0, false).access);
        assert_eq!(wanted, [el1, el0], "{iss:#x}");
    }
}
