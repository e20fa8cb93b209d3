//! Whose stage-2 fault it is: what L2 did is judged by L1's tables first, then by the VM's own.

use trap::{DataAbort, InstructionAbort};
use vmsa::attr::S2Attr;

use crate::attributes::{Own, is_device};
use crate::stage2::{Access, Fault, FaultKind, Leaf, Privilege};

/// What an access of L2 that faulted wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How it accesses memory. A tag write is a write, a tag read or checked load a read.
    pub access: Access,
    /// It accesses a tag, or is checked against one: ISS2.TagAccess of the fault.
    pub tag: bool,
    /// It is a walk of stage 1 that lacked a permission, under HCR_EL2.PTW: that of reading Device memory,
    /// perhaps.
    pub protected: bool,
}

impl Attempt {
    /// What a data abort of L2's wanted that is not about tags; `el0`: L2's EL0 executed it; `ptw`: L1's
    /// HCR_EL2.PTW.
    ///
    /// A walk reads tables, unless what it lacks is a permission: then it updates one. Cache maintenance
    /// always reports a write, but needs more than to be mapped only to invalidate, at EL1, and to read at
    /// EL0 (DDI 0487, D7.5.9).
    #[must_use]
    pub const fn of_data(abort: &DataAbort, el0: bool, ptw: bool) -> Self {
        let permission = matches!(abort.kind(), trap::FaultKind::Permission(_));
        let reads = abort.s1ptw() && !permission || abort.cm() && (!permission || el0 && !abort.s1ptw());
        let access = if abort.wnr() && !reads { Access::Write } else { Access::Read };
        Self { access, tag: false, protected: ptw && abort.s1ptw() && permission }
    }

    /// What an instruction abort of L2's wanted: a fetch, unless its walk did not get that far.
    #[must_use]
    pub const fn of_fetch(abort: &InstructionAbort, el0: bool, ptw: bool) -> Self {
        let permission = matches!(abort.kind(), trap::FaultKind::Permission(_));
        let privilege = if el0 { Privilege::El0 } else { Privilege::El1 };
        let access = if abort.s1ptw() { Access::Read } else { Access::Execute(privilege) };
        Self { access, tag: false, protected: ptw && abort.s1ptw() && permission }
    }
}

/// Who has to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// L1's tables forbid it: L1 gets the fault.
    L1(Fault),
    /// The same for a tag access: L1 gets a permission fault with ISS2.TagAccess.
    L1Tag(Fault),
    /// The VM itself has nothing there: as if L1 had accessed it, a device or an external abort.
    Absent,
    /// The VM itself may not do that: the policy of the region decides, as if L1 had.
    L0,
    /// The VM itself has no tags there: the policy of the region decides (on-tag-access, or promotion).
    L0Tag,
    /// Both allow it: the shadow lacks the translation, or a TLB held an old one.
    Nobody,
}

/// Judges an attempt by L1's leaf and the VM's own, in the order in which two real stages would be
/// (D8.6.4): L1's permission before L1's tags, and all of L1's before the VM's own.
#[must_use]
pub const fn judge(attempt: Attempt, leaf: &Leaf, own: Option<&Own>) -> Blame {
    if let Err(fault) = leaf.check(attempt.access) {
        return Blame::L1(fault);
    }
    if attempt.protected && leaf.attributes.is_device() {
        return Blame::L1(Fault { kind: FaultKind::Permission, level: leaf.level });
    }
    if attempt.tag && leaf.attributes.no_tag() {
        return Blame::L1Tag(Fault { kind: FaultKind::Permission, level: leaf.level });
    }
    let Some(own) = own else { return Blame::Absent };
    if attempt.protected && is_device(own.attr.memory) {
        // L1 knows of no device: no table is there.
        return Blame::Absent;
    }
    if !allows(own.attr, attempt.access) {
        return Blame::L0;
    }
    // L1's own non-cacheable or device type leaves no tags to access.
    let tagged = attempt.tag && matches!(leaf.attributes.memory, vmsa::attr::S2Memory::WriteBack);
    if tagged && matches!(own.attr.memory, vmsa::attr::S2Memory::WriteBackNoTag) {
        return Blame::L0Tag;
    }
    Blame::Nobody
}

/// Whether a leaf of the VM's own allows an access.
#[must_use]
pub const fn allows(attr: S2Attr, access: Access) -> bool {
    match access {
        Access::Read => attr.read,
        Access::Write => attr.write,
        Access::Execute(Privilege::El1) => attr.exec.el1(),
        Access::Execute(Privilege::El0) => attr.exec.el0(),
    }
}

#[cfg(test)]
mod tests;
