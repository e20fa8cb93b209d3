//! Lazy tags: which units of a VM's memory have tags, and how one gets or loses them.
//!
//! A *unit* is 4 KiB or 2 MiB of a region with tags `lazy`. Its state is `Untagged -> Initialising ->
//! Valid -> Retiring -> Untagged`; its data lies in its *home*, the memory that the region always had,
//! or, where the home has no tag storage, in a frame of the VM's *reserve* while it is tagged.
//!
//! The [`Ledger`] of a VM is asked what to do next, and whoever asks carries that out at once, under the
//! lock that also guards the VM's stage 2. So a change has no owner that could be stopped halfway: large
//! units change step by step, and any vCPU that needs one carries on where the last one stopped. The
//! orders are:
//!
//! | from, to | home has tag storage | home has none |
//! |---|---|---|
//! | untagged, tagged | zero tags, publish | zero tags of a reserve frame, break, copy, publish it |
//! | tagged, untagged | publish without tag access | break, copy back, publish without tag access |
//!
//! Tags are zero before a leaf lets the guest reach them. While data moves, the unit is not mapped, so no
//! store is lost.

use addr::{BLOCK_2M, Canonical, Ipa, IpaRange, PAGE_SIZE};
use alloc::vec::Vec;

mod action;

pub use action::{Action, Frame, Next, Refusal};

/// Bytes whose tags are zeroed in one action: at most 3 * 8192 instructions with STGM of 64 bytes.
const ZERO_STEP: u64 = 512 << 10;
/// Bytes copied in one action.
const COPY_STEP: u64 = 32 << 10;

/// How much memory turns tagged at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 4 KiB.
    Page,
    /// 2 MiB.
    Block,
}

impl Size {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Page => PAGE_SIZE,
            Self::Block => BLOCK_2M,
        }
    }

    /// In pages.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.bytes() / PAGE_SIZE
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Untagged,
    Initialising,
    Valid,
    Retiring,
}

/// A unit in eight bytes: there may be many.
#[derive(Clone, Copy, Debug)]
struct Unit {
    phase: Phase,
    writable: bool,
    /// Actions of this phase that were handed out.
    step: u16,
    /// Number of the reserve frame, or [`HOME`].
    frame: u32,
}

/// Where a unit is: number of its region, and its own there.
type At = (usize, usize);

const HOME: u32 = u32::MAX;
const _: () = assert!(size_of::<Unit>() == 8);

impl Unit {
    const UNTAGGED: Self = Self { phase: Phase::Untagged, writable: true, step: 0, frame: HOME };

    const fn place(self) -> Frame {
        if self.frame == HOME { Frame::Home } else { Frame::Reserve(self.frame) }
    }
}

/// A region's part of the ledger.
#[derive(Clone, Debug)]
struct Region {
    range: IpaRange,
    /// Whether its own memory has tag storage.
    in_place: bool,
    tagged: u64,
    units: Vec<Unit>,
}

/// What a VM did with lazy tags, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tagged now, or on the way to or from it: they count against the quota.
    pub used: u64,
    /// Turned tagged since the VM was built.
    pub promoted: u64,
    /// Turned back.
    pub demoted: u64,
    /// Refused because the quota was used up.
    pub refused: u64,
}

/// The lazy memory of one VM.
#[derive(Clone, Debug)]
pub struct Ledger {
    size: Size,
    /// Units that may be tagged at a time, and at most ever.
    quota: u64,
    most: u64,
    counts: Counts,
    /// Reserve frames that no unit has.
    free: Vec<u32>,
    regions: Vec<Region>,
}

impl Ledger {
    /// A VM without lazy memory. `quota` in pages of 4 KiB, `None` for no limit; `reserve`: frames of
    /// this size, with tag storage, for units whose home has none.
    #[must_use]
    pub fn new(size: Size, quota: Option<u64>, reserve: u32) -> Self {
        let quota = quota.map_or(u64::MAX, |pages| pages.checked_div(size.pages()).unwrap_or(0));
        // The lowest first.
        let free = (0..reserve).rev().collect();
        Self { size, quota, most: quota, counts: Counts::default(), free, regions: Vec::new() }
    }

    /// How many reserve frames a VM needs so that the quota alone is its limit: `bytes` of its lazy
    /// memory have no tag storage.
    #[must_use]
    pub fn reserve_needed(size: Size, quota: Option<u64>, bytes: u64) -> u32 {
        let units = bytes.checked_div(size.bytes()).unwrap_or(0);
        let limit = quota.map_or(u64::MAX, |pages| pages.checked_div(size.pages()).unwrap_or(0));
        u32::try_from(units.min(limit)).unwrap_or(HOME)
    }

    /// Adds a region. `None`, and nothing is added, unless it begins and ends at a unit and overlaps no
    /// other.
    pub fn add(&mut self, range: IpaRange, in_place: bool) -> Option<()> {
        let free = !self.regions.iter().any(|r| r.range.overlaps(&range));
        if !free || !range.is_aligned(self.size.bytes()) {
            return None;
        }
        let units = usize::try_from(range.size().checked_div(self.size.bytes())?).ok()?;
        let units = core::iter::repeat_n(Unit::UNTAGGED, units).collect();
        self.regions.push(Region { range, in_place, tagged: 0, units });
        Some(())
    }

    /// How much turns tagged at a time.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.size
    }

    /// The quota in units; `None` is no limit.
    #[must_use]
    pub const fn quota(&self) -> Option<u64> {
        if self.quota == u64::MAX { None } else { Some(self.quota) }
    }

    /// Limits the quota to `pages`: a multiple of the unit, not above what the ledger was made with. `None`,
    /// and nothing changes, otherwise.
    pub fn set_quota(&mut self, pages: u64) -> Option<()> {
        let quota = pages.checked_div(self.size.pages())?;
        let unlimited = pages == u64::MAX && self.most == u64::MAX;
        if !unlimited && (quota > self.most || !pages.is_multiple_of(self.size.pages())) {
            return None;
        }
        self.quota = if unlimited { u64::MAX } else { quota };
        Some(())
    }

    /// What happened so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Pages of the region around `ipa` that count against the quota; `None` if it is not lazy.
    #[must_use]
    pub fn tagged(&self, ipa: Ipa<Canonical>) -> Option<u64> {
        let (region, _) = self.find(ipa)?;
        self.regions.get(region)?.tagged.checked_mul(self.size.pages())
    }

    /// The unit of `ipa`; `None` where memory is not lazy.
    #[must_use]
    pub fn unit(&self, ipa: Ipa<Canonical>) -> Option<IpaRange> {
        let (region, index) = self.find(ipa)?;
        let region = self.regions.get(region)?;
        let offset = (index as u64).checked_mul(self.size.bytes())?;
        IpaRange::new(region.range.start().checked_add(offset)?, self.size.bytes())
    }

    /// Where the data of `ipa`'s unit is, all of it, even while it is being copied; `None` where memory is
    /// not lazy.
    #[must_use]
    pub fn data(&self, ipa: Ipa<Canonical>) -> Option<Frame> {
        let unit = self.look(ipa)?;
        Some(match unit.phase {
            Phase::Untagged | Phase::Initialising => Frame::Home,
            Phase::Valid | Phase::Retiring => unit.place(),
        })
    }

    /// Whether the unit of `ipa` has tags that a guest can reach.
    #[must_use]
    pub fn has_tags(&self, ipa: Ipa<Canonical>) -> bool {
        self.look(ipa).is_some_and(|unit| unit.phase == Phase::Valid)
    }

    /// Whether the unit is not mapped because its data moves: who wants to change what the guest may do
    /// there tells [`set_writable`](Self::set_writable) instead.
    #[must_use]
    pub fn is_broken(&self, ipa: Ipa<Canonical>) -> bool {
        self.look(ipa).is_some_and(|unit| match unit.phase {
            Phase::Untagged | Phase::Valid => false,
            // The actions before the break, and the break itself, are counted.
            Phase::Initialising => unit.frame != HOME && u64::from(unit.step) > self.zero_steps(),
            Phase::Retiring => unit.step > 0,
        })
    }

    /// Says whether the guest may write a unit that is not mapped now, once it is published.
    pub fn set_writable(&mut self, ipa: Ipa<Canonical>, writable: bool) {
        if let Some(unit) = self.look_mut(ipa) {
            unit.writable = writable;
        }
    }

    /// Gives the unit of `ipa` tags.
    pub fn promote(&mut self, ipa: Ipa<Canonical>) -> Next {
        let Some((at, unit)) = self.known(ipa) else { return Next::Refused(Refusal::NotLazy) };
        match unit.phase {
            Phase::Untagged => match self.begin(at) {
                Some(unit) => self.carry_on(at, unit),
                None => {
                    self.counts.refused = self.counts.refused.saturating_add(1);
                    Next::Refused(Refusal::Quota)
                }
            },
            Phase::Valid => Next::Done,
            Phase::Initialising | Phase::Retiring => self.carry_on(at, unit),
        }
    }

    /// Carries on with what the unit of `ipa` is in the middle of.
    pub fn resume(&mut self, ipa: Ipa<Canonical>) -> Next {
        let Some((at, unit)) = self.known(ipa) else { return Next::Refused(Refusal::NotLazy) };
        self.carry_on(at, unit)
    }

    /// Takes the tags of the unit of `ipa` away; its data stays.
    pub fn demote(&mut self, ipa: Ipa<Canonical>) -> Next {
        let Some((at, unit)) = self.known(ipa) else { return Next::Refused(Refusal::NotLazy) };
        match unit.phase {
            Phase::Untagged => Next::Done,
            Phase::Valid => self.carry_on(at, Unit { phase: Phase::Retiring, step: 0, ..unit }),
            // Its data is still at home.
            Phase::Initialising => self.forget(ipa),
            Phase::Retiring => self.carry_on(at, unit),
        }
    }

    /// Takes tags and data of the unit of `ipa` away: it is home again, with whatever is there.
    pub fn forget(&mut self, ipa: Ipa<Canonical>) -> Next {
        match self.known(ipa) {
            Some((at, unit)) if unit.phase != Phase::Untagged => {
                self.end(at, unit);
                Next::Act(Action::Publish { frame: Frame::Home, tagged: false, writable: unit.writable })
            }
            Some(_) => Next::Done,
            None => Next::Refused(Refusal::NotLazy),
        }
    }

    /// The next action of `unit`, which is the one at `at`, or is to be.
    fn carry_on(&mut self, at: At, unit: Unit) -> Next {
        let action = match unit.phase {
            Phase::Untagged | Phase::Valid => return Next::Done,
            Phase::Initialising => self.initialise(unit),
            Phase::Retiring => self.retire(unit),
        };
        match action {
            Action::Publish { tagged: true, .. } => {
                self.counts.promoted = self.counts.promoted.saturating_add(1);
                self.set(at, Unit { phase: Phase::Valid, step: 0, ..unit });
            }
            Action::Publish { tagged: false, .. } => self.end(at, unit),
            Action::ZeroTags { .. } | Action::Break | Action::Copy { .. } => {
                self.set(at, Unit { step: unit.step.saturating_add(1), ..unit });
            }
        }
        Next::Act(action)
    }

    /// The first unit of `range` that is not untagged, among the first `most` units; the second value is
    /// where the search ended.
    #[must_use]
    pub fn first_tagged(&self, range: IpaRange, most: usize) -> (Option<IpaRange>, Ipa<Canonical>) {
        let mut at = range.start();
        for _ in 0..most {
            let Some(unit) = self.unit(at).filter(|_| at < range.end()) else { break };
            if self.look(at).is_some_and(|u| u.phase != Phase::Untagged) {
                return (Some(unit), at);
            }
            at = unit.end();
        }
        (None, at.min(range.end()))
    }

    /// The lazy regions.
    pub fn regions(&self) -> impl Iterator<Item = IpaRange> {
        self.regions.iter().map(|r| r.range)
    }

    /// Counts the unit, and finds a frame with tag storage for it.
    fn begin(&mut self, (region, _): At) -> Option<Unit> {
        if self.counts.used >= self.quota {
            return None;
        }
        let region = self.regions.get_mut(region)?;
        let frame = if region.in_place { HOME } else { self.free.pop()? };
        self.counts.used = self.counts.used.saturating_add(1);
        region.tagged = region.tagged.saturating_add(1);
        Some(Unit { phase: Phase::Initialising, writable: true, step: 0, frame })
    }

    /// The unit is untagged; its quota and its reserve frame are free again.
    fn end(&mut self, at: At, unit: Unit) {
        if unit.frame != HOME {
            self.free.push(unit.frame);
        }
        if unit.phase != Phase::Initialising {
            self.counts.demoted = self.counts.demoted.saturating_add(1);
        }
        self.counts.used = self.counts.used.saturating_sub(1);
        if let Some(region) = self.regions.get_mut(at.0) {
            region.tagged = region.tagged.saturating_sub(1);
        }
        self.set(at, Unit::UNTAGGED);
    }

    const fn zero_steps(&self) -> u64 {
        self.size.bytes().div_ceil(ZERO_STEP)
    }

    /// Bytes `at..at + size` of step `step`, while there are any.
    const fn part(&self, step: u64, length: u64) -> Option<(u64, u64)> {
        let at = step.saturating_mul(length);
        let left = self.size.bytes().saturating_sub(at);
        if left == 0 { None } else { Some((at, if left < length { left } else { length })) }
    }

    fn initialise(&self, unit: Unit) -> Action {
        let (frame, step) = (unit.place(), u64::from(unit.step));
        if let Some((at, size)) = self.part(step, ZERO_STEP) {
            return Action::ZeroTags { frame, at, size };
        }
        let moved = match frame {
            Frame::Home => None,
            Frame::Reserve(_) => self.moved(step.saturating_sub(self.zero_steps()), Frame::Home, frame),
        };
        moved.unwrap_or(Action::Publish { frame, tagged: true, writable: unit.writable })
    }

    fn retire(&self, unit: Unit) -> Action {
        let moved = match unit.place() {
            Frame::Home => None,
            frame @ Frame::Reserve(_) => self.moved(u64::from(unit.step), frame, Frame::Home),
        };
        moved.unwrap_or(Action::Publish { frame: Frame::Home, tagged: false, writable: unit.writable })
    }

    /// The break, then each part of the copy.
    fn moved(&self, step: u64, from: Frame, to: Frame) -> Option<Action> {
        let Some(step) = step.checked_sub(1) else { return Some(Action::Break) };
        self.part(step, COPY_STEP).map(|(at, size)| Action::Copy { from, to, at, size })
    }

    fn find(&self, ipa: Ipa<Canonical>) -> Option<At> {
        let region = self.regions.iter().position(|r| r.range.contains(ipa))?;
        let offset = ipa.offset_from(self.regions.get(region)?.range.start())?;
        Some((region, usize::try_from(offset.checked_div(self.size.bytes())?).ok()?))
    }

    /// The unit of `ipa`, and where it is.
    fn known(&self, ipa: Ipa<Canonical>) -> Option<(At, Unit)> {
        let at = self.find(ipa)?;
        Some((at, self.regions.get(at.0)?.units.get(at.1).copied()?))
    }

    fn set(&mut self, (region, index): At, unit: Unit) {
        if let Some(slot) = self.regions.get_mut(region).and_then(|r| r.units.get_mut(index)) {
            *slot = unit;
        }
    }

    fn look(&self, ipa: Ipa<Canonical>) -> Option<Unit> {
        self.known(ipa).map(|(_, unit)| unit)
    }

    fn look_mut(&mut self, ipa: Ipa<Canonical>) -> Option<&mut Unit> {
        let (region, index) = self.find(ipa)?;
        self.regions.get_mut(region)?.units.get_mut(index)
    }
}

#[cfg(test)]
mod tests;
