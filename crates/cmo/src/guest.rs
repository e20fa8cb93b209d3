//! What becomes of a guest's cache maintenance that EL2 gets to see: by a stage-2 fault, or by a trap.
//!
//! | hits | becomes |
//! |---|---|
//! | memory that the guest may write | carried out on EL2's alias of the line; the page stays clean if it is write-protected for a while |
//! | read-only memory, `emulate` | carried out; an invalidation cleans too, so no change of whoever wrote the memory is lost |
//! | read-only memory, `architectural` | carried out, but DC IVAC and its tag forms, which need write permission, get an external abort |
//! | a device, nothing | stepped over: nothing of it is in a cache |
//! | memory that stage 2 maps all the same (its tables changed meanwhile) | retried |
//!
//! The guest's own stage 1 comes first, always: a fault of it is the guest's, and EL2 hears of it only
//! after a trap, which comes before translation ([`demand`]).
//!
//! Sources: DDI 0487, D7.5.9 (permissions and promotion), ESR_ELx "Data Abort" (CM, WnR, FnV).

use crate::operation::{Content, How, Line, Operation};
use crate::{Kind, Point};
use trap::{DataAbort, FaultKind};

/// What maintenance of a read-only region does where the architecture wants write permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The line is cleaned and invalidated.
    Emulate,
    /// The guest gets a synchronous external abort.
    Architectural,
}

/// What stage 2 has where the instruction hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Nothing, or an emulated device.
    Absent,
    /// A device of the machine that is mapped uncached.
    Device,
    /// Memory that the guest may write, though perhaps not at the moment.
    Writable,
    /// Memory that the guest may not write.
    ReadOnly(Policy),
}

/// How the guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// This is done to the line, on EL2's alias of it; then behind the instruction.
    Perform(Line),
    /// All instruction caches forget; then behind the instruction.
    ForgetInstructions,
    /// Behind the instruction.
    Skip,
    /// At the instruction once more: it cannot fail like that now.
    Retry,
    /// It takes an external abort.
    ExternalAbort,
    /// It cannot be told without the instruction: read it and ask again.
    Fetch,
    /// This is no maintenance, or its fault is not about maintenance: like any other access.
    Access,
}

/// What is known of the instruction that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// It has not been read.
    NotRead,
    /// It is no maintenance and no translation; the guest may have changed it meanwhile.
    Other,
    /// It is where EL2 reads nothing: in a device.
    Unreadable,
    /// It is this.
    This(Operation),
}

/// Decides about a data abort. `place`: what is at the faulting IPA.
///
/// WnR says nothing: it is 1 for all maintenance. The stage-2 permission that matters is that of the
/// *original* operation, even where the hardware promotes it (D7.5.9.2).
///
/// QEMU 11.1 performs no maintenance, so it has no such faults, with one exception: DC CVAP and DC CVADP
/// load from the address, and fault as loads do, with CM = 0. That is why a load without a syndrome is
/// looked at, too.
#[must_use]
pub const fn after_fault(abort: &DataAbort, place: Place, found: Found) -> Action {
    if !abort.cm() && (abort.isv() || abort.wnr()) {
        return Action::Access;
    }
    // The walk hit something, or the machine refused the access: what was to be accessed does not matter.
    // Nor can anything be done for an address that is not known.
    if abort.s1ptw() || abort.fnv() {
        return Action::Access;
    }
    match (abort.kind(), place) {
        (
            FaultKind::Translation(_) | FaultKind::AccessFlag(_) | FaultKind::AddressSize(_),
            Place::Absent | Place::Device,
        ) => {}
        // Stage 2 maps it: by now, or again.
        (
            FaultKind::Translation(_) | FaultKind::AccessFlag(_) | FaultKind::AddressSize(_),
            Place::Writable | Place::ReadOnly(_),
        ) => return if abort.cm() { Action::Retry } else { Action::Access },
        (FaultKind::Permission(_), _) => {}
        (
            FaultKind::SynchronousExternal
            | FaultKind::ExternalOnWalk(_)
            | FaultKind::Parity
            | FaultKind::ParityOnWalk(_)
            | FaultKind::TagCheck
            | FaultKind::Alignment
            | FaultKind::GranuleProtection
            | FaultKind::GranuleProtectionOnWalk(_)
            | FaultKind::TlbConflict
            | FaultKind::UnsupportedAtomicUpdate
            | FaultKind::UnsupportedExclusive
            | FaultKind::Other(_),
            _,
        ) => return Action::Access,
    }
    match (found, place) {
        // Whatever it is, the same is done; and a guest may do it often.
        (Found::NotRead, Place::ReadOnly(Policy::Emulate)) if abort.cm() => Action::Perform(Line::THOROUGH),
        (Found::NotRead, _) => Action::Fetch,
        (Found::Other, _) if abort.cm() => Action::Retry,
        // What it is cannot be told, and a retry would never end.
        (Found::Unreadable, _) => Action::ExternalAbort,
        (Found::Other, _) => Action::Access,
        (Found::This(operation), place) => carry_out(operation, place),
    }
}

/// Decides about an instruction that was trapped and may access `place`, or that faulted there.
#[must_use]
#[inline(always)]
pub const fn carry_out(operation: Operation, place: Place) -> Action {
    match (operation, place) {
        // Stage 2 never fails AT but on a walk; DC ZVA and its tag forms store.
        (Operation::Translate | Operation::Zero | Operation::SetWay(_), _) => Action::Access,
        (Operation::AllFetches, _) => Action::ForgetInstructions,
        (_, Place::Absent | Place::Device) => Action::Skip,
        (Operation::Fetch, _) => Action::ForgetInstructions,
        (Operation::Line(Line { how: How::Invalidate, .. }), Place::ReadOnly(Policy::Architectural)) => {
            Action::ExternalAbort
        }
        (Operation::Line(line), _) => Action::Perform(line),
    }
}

/// SCTLR_EL1.UCI: maintenance at EL0 does not trap to EL1.
const SCTLR_UCI: u64 = 1 << 26;
/// SCTLR_EL1.CMOW: DC CIVAC, its tag forms and IC IVAU at EL0 need write permission (FEAT_CMOW).
const SCTLR_CMOW: u64 = 1 << 32;

/// What has to be looked at before a trapped instruction may be carried out, in the order in which the
/// hardware would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Demand {
    /// It is UNDEFINED for who executes it.
    Undefined,
    /// It traps to EL1 as exception class 0x18.
    Trap,
    /// Its address is translated by stage 1 for this access, and a fault of that is the guest's.
    Translate {
        /// As EL0 would.
        el0: bool,
        /// For a store; otherwise for a load.
        write: bool,
    },
    /// The instruction caches of all CPUs are to forget; there is no address.
    ForgetInstructions,
    /// All the VM's memory is to be cleaned and invalidated.
    Sweep,
}

/// Whether maintenance by set and way can do without [`Sweep`](crate::Sweep): stage 2 forces all of the
/// VM's cacheable memory to be write-back (`forced`: FEAT_S2FWB), so that the VM reads it through the
/// caches even with its MMU off, and so do instruction fetches (CTR_EL0.IDC).
#[must_use]
pub const fn needs_no_sweep(forced: bool, ctr: u64) -> bool {
    const IDC: u64 = 1 << 28;
    forced && ctr & IDC != 0
}

/// What a trapped instruction demands. `mte`: the VM's ID_AA64PFR1_EL1.MTE: tag forms that EL0 may execute
/// come with 1, DC IGVAC, IGDVAC and those by set and way with 2. `sctlr`: its SCTLR_EL1, where it matters.
///
/// At EL1 nothing but DC IVAC and its tag forms needs a permission, and any mapping that EL1 has is
/// readable to it; PSTATE.PAN does not count (D7.5.9.1). A trap to EL1 comes before one to EL2, so UCI is
/// 1 wherever the hardware trapped; it is looked at because a guest may have changed what was executed.
#[must_use]
#[inline(always)]
pub fn demand(operation: Operation, el0: bool, mte: u64, sctlr: impl Fn() -> u64) -> Demand {
    let content = match operation {
        Operation::Line(line) => line.content,
        Operation::SetWay(content) => content,
        Operation::Fetch | Operation::AllFetches | Operation::Zero | Operation::Translate => Content::Data,
    };
    let tags = !matches!(content, Content::Data);
    match operation {
        // Nothing traps these in a VM that has them.
        Operation::Zero | Operation::Translate => Demand::Undefined,
        _ if tags && mte == 0 => Demand::Undefined,
        Operation::SetWay(_) | Operation::Line(Line { how: How::Invalidate, .. }) if tags && mte < 2 => {
            Demand::Undefined
        }
        Operation::SetWay(_) | Operation::AllFetches | Operation::Line(Line { how: How::Invalidate, .. })
            if el0 =>
        {
            Demand::Undefined
        }
        Operation::SetWay(_) => Demand::Sweep,
        Operation::AllFetches => Demand::ForgetInstructions,
        Operation::Line(_) | Operation::Fetch if el0 && sctlr() & SCTLR_UCI == 0 => Demand::Trap,
        Operation::Line(Line { how: How::Invalidate, .. }) => Demand::Translate { el0: false, write: true },
        Operation::Line(Line { how: How::CleanInvalidate, .. }) | Operation::Fetch if el0 => {
            Demand::Translate { el0, write: sctlr() & SCTLR_CMOW != 0 }
        }
        Operation::Line(_) | Operation::Fetch => Demand::Translate { el0, write: false },
    }
}

impl Line {
    /// What EL2 executes for it on memory of this kind, if anything: never an invalidation that drops
    /// changes, as the hardware never does one for EL1 (D7.5.9.2); tags only where guests see some, since
    /// elsewhere the instructions may not exist; and no point of persistence beyond `farthest`.
    #[must_use]
    pub fn on(self, kind: Kind, farthest: impl FnOnce() -> Point) -> Option<Self> {
        let content = match (self.content, kind) {
            (content, Kind::Tagged) => content,
            (Content::Data | Content::Both, Kind::WriteBack | Kind::NonCacheable) => Content::Data,
            (Content::Tags, Kind::WriteBack | Kind::NonCacheable) => return None,
        };
        let how = match self.how {
            How::Invalidate | How::CleanInvalidate => How::CleanInvalidate,
            How::Clean(point @ (Point::Unification | Point::Coherency)) => How::Clean(point),
            How::Clean(point) => How::Clean(point.min(farthest())),
        };
        Some(Self { how, content })
    }
}

#[cfg(test)]
mod tests;
