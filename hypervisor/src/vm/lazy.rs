//! A VM's lazy memory: carries out what `tags::lazy` decides, on frames, tags and stage 2.
//!
//! All of it happens under `vm.map`, in pieces that are short enough to hold it: a unit of 4 KiB in one
//! go, one of 2 MiB action by action, each time that a vCPU that needs it exits.

use super::Vm;
use super::map::GuestMap;
use crate::arch::cache;
use crate::log;
use crate::mem::window;
use addr::{Canonical, Ipa, IpaRange, PAGE_SIZE, Pa, PaRange};
use alloc::vec::Vec;
use cmo::{Chunk, Kind, chunks};
use manifest::LazyUnit;
use tags::lazy::{Action, Frame, Ledger, Next, Size};
use vmsa::attr::{S2Attr, S2Memory};
use vmsa::descriptor::Level;

/// Units that one step of a start looks at, and that it brings home.
const LOOK_STEP: usize = 512;
const HOME_STEP: usize = 16;

/// What became of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is, or was already, as asked. `true`: this call did it.
    Done(bool),
    /// It is on the way: ask again.
    Underway,
    /// It stays as it is: not lazy, or no quota left.
    Refused,
}

/// Where a piece of a lazy region's own memory is.
#[derive(Clone, Copy, Debug)]
struct Home {
    ipa: IpaRange,
    pa: Pa,
    /// What the guest may do there.
    attr: S2Attr,
}

/// The lazy memory of a VM.
#[derive(Debug)]
pub(crate) struct LazyMemory {
    /// Who has tags.
    pub(crate) ledger: Ledger,
    homes: Vec<Home>,
    /// Frames with tag storage for units whose home has none.
    reserve: Vec<Pa>,
    /// How far a start has looked for units to bring home.
    cursor: Option<Ipa<Canonical>>,
}

impl LazyMemory {
    /// None yet. `quota` in pages; the frames of `reserve` are of the unit's size.
    pub(crate) fn new(unit: LazyUnit, quota: Option<u64>, reserve: Vec<Pa>) -> Self {
        let ledger = Ledger::new(size(unit), quota, reserve.len() as u32);
        Self { ledger, homes: Vec::new(), reserve, cursor: None }
    }

    /// Adds a region with its memory: IPA, physical address. False if it is not made of units.
    pub(crate) fn add(
        &mut self,
        region: IpaRange,
        in_place: bool,
        attr: S2Attr,
        pieces: impl Iterator<Item = (IpaRange, Pa)>,
    ) -> bool {
        self.homes.extend(pieces.map(|(ipa, pa)| Home { ipa, pa, attr }));
        self.ledger.add(region, in_place).is_some()
    }

    /// The piece of a region's own memory that `ipa` is in.
    fn home(&self, ipa: Ipa<Canonical>) -> &Home {
        match self.homes.iter().find(|home| home.ipa.contains(ipa)) {
            Some(home) => home,
            None => panic!("lazy memory at {ipa} has no home"),
        }
    }

    /// The physical memory of `size` bytes from `at` on of a unit's frame, piece by piece.
    fn memory(&self, unit: IpaRange, frame: Frame, at: u64, size: u64) -> impl Iterator<Item = PaRange> {
        let mut done = 0;
        core::iter::from_fn(move || {
            let left = size.checked_sub(done).filter(|left| *left != 0)?;
            let piece = match frame {
                Frame::Home => {
                    let ipa = unit.start().checked_add(at + done)?;
                    let home = self.home(ipa);
                    let offset = ipa.offset_from(home.ipa.start())?;
                    PaRange::new(home.pa.checked_add(offset)?, left.min(home.ipa.size() - offset))?
                }
                Frame::Reserve(n) => {
                    let frame = self.reserve.get(n as usize)?;
                    PaRange::new(frame.checked_add(at + done)?, left)?
                }
            };
            done += piece.size();
            Some(piece)
        })
    }
}

/// The unit as `tags` names it.
pub(crate) const fn size(unit: LazyUnit) -> Size {
    match unit {
        LazyUnit::Page => Size::Page,
        LazyUnit::Block => Size::Block,
    }
}

impl GuestMap {
    /// Physical address of `ipa` if it is lazy memory: of the frame that has its data now, even if it is
    /// not mapped. Good as long as the lock is held.
    pub(crate) fn lazy_memory(&self, ipa: Ipa<Canonical>) -> Option<Pa> {
        let unit = self.lazy.ledger.unit(ipa)?;
        let frame = self.lazy.ledger.data(ipa)?;
        self.lazy.memory(unit, frame, ipa.offset_from(unit.start())?, 1).next().map(|memory| memory.start())
    }

    /// Gives the unit of `ipa` tags, or carries on with that.
    pub(crate) fn promote(&mut self, ipa: Ipa<Canonical>) -> Change {
        self.change(ipa, Ledger::promote)
    }

    /// Takes them away, or carries on with that.
    pub(crate) fn demote(&mut self, ipa: Ipa<Canonical>) -> Change {
        self.change(ipa, Ledger::demote)
    }

    /// Carries on with what the unit of `ipa` is in the middle of: who found it unmapped asks.
    pub(crate) fn settle(&mut self, ipa: Ipa<Canonical>) -> Change {
        self.change(ipa, Ledger::resume)
    }

    /// Before a start, when no vCPU runs and the content does not matter: brings some units home. False if
    /// there are no more.
    pub(crate) fn bring_home(&mut self) -> bool {
        if self.lazy.ledger.counts().used == 0 {
            self.lazy.cursor = None;
            return false;
        }
        let cursor = self.lazy.cursor.unwrap_or(Ipa::new(0));
        let rest = self.lazy.ledger.regions().filter(|r| r.end() > cursor).min_by_key(|r| r.start());
        let Some(rest) = rest.and_then(|r| {
            let start = r.start().max(cursor);
            IpaRange::new(start, r.end().offset_from(start)?)
        }) else {
            self.lazy.cursor = None;
            return true;
        };
        let mut at = rest.start();
        for _ in 0..HOME_STEP {
            let Some(range) = rest.end().offset_from(at).and_then(|left| IpaRange::new(at, left)) else {
                break;
            };
            let (unit, end) = self.lazy.ledger.first_tagged(range, LOOK_STEP / HOME_STEP);
            at = end;
            if let Some(unit) = unit {
                self.change(unit.start(), Ledger::forget);
            }
        }
        self.lazy.cursor = Some(at);
        true
    }

    /// Asks the ledger and does what it says, until it has nothing to say or a large unit has had a turn.
    fn change(&mut self, ipa: Ipa<Canonical>, ask: fn(&mut Ledger, Ipa<Canonical>) -> Next) -> Change {
        let mut acted = false;
        // Regions begin and end at units; what is not lazy is refused.
        let size = self.lazy.ledger.size().bytes();
        let Some(unit) = IpaRange::new(ipa.align_down(size), size) else { return Change::Refused };
        loop {
            if acted && self.lazy.ledger.size() == Size::Block {
                return Change::Underway;
            }
            match ask(&mut self.lazy.ledger, ipa) {
                Next::Done => return Change::Done(acted),
                Next::Refused(_) => return Change::Refused,
                Next::Act(action) => {
                    self.carry_out(unit, action);
                    acted = true;
                    if matches!(action, Action::Publish { .. }) {
                        return Change::Done(true);
                    }
                }
            }
        }
    }

    fn carry_out(&mut self, unit: IpaRange, action: Action) {
        match action {
            Action::ZeroTags { frame, at, size } => {
                for memory in self.lazy.memory(unit, frame, at, size) {
                    if size == PAGE_SIZE {
                        zero_tags(Chunk { memory, kind: Kind::Tagged });
                    } else {
                        chunks(memory, Kind::Tagged).for_each(zero_tags);
                    }
                }
            }
            Action::Break => {
                let writable = self.is_writable(unit);
                self.lazy.ledger.set_writable(unit.start(), writable);
                changed(self.unmap(unit));
            }
            Action::Copy { from, to, at, size } => {
                for at in (at..at + size).step_by(PAGE_SIZE as usize) {
                    let page = |frame| self.lazy.memory(unit, frame, at, PAGE_SIZE).next();
                    let copied = page(from).zip(page(to));
                    let copied = copied.and_then(|(from, to)| window::copy_page(from.start(), to.start()));
                    assert!(copied.is_some(), "no window for a VM's memory");
                }
            }
            Action::Publish { frame, tagged, writable } => self.publish(unit, frame, tagged, writable),
        }
    }

    fn publish(&mut self, unit: IpaRange, frame: Frame, tagged: bool, mut writable: bool) {
        let memory = if tagged { S2Memory::WriteBack } else { S2Memory::WriteBackNoTag };
        if tagged && frame == Frame::Home {
            // It never left.
            changed(self.retype(unit, memory));
            return;
        }
        let wanted = self.lazy.memory(unit, frame, 0, PAGE_SIZE).next().map(|page| page.start());
        if let Some(leaf) = self.leaf(unit.start()) {
            if Some(leaf.pa) == wanted {
                changed(self.retype(unit, memory));
                return;
            }
            writable = self.is_writable(unit);
            changed(self.unmap(unit));
        }
        // The data moved: what CPUs fetched from where it is now is of something else.
        cache::publish_instructions();
        let attr = self.lazy.home(unit.start()).attr;
        let attr = S2Attr { memory, write: attr.write && writable, ..attr };
        let mut done = 0;
        loop {
            let Some(piece) = self.lazy.memory(unit, frame, done, unit.size() - done).next() else { break };
            let at = unit.start().checked_add(done);
            let Some(range) = at.and_then(|at| IpaRange::new(at, piece.size())) else { break };
            changed(self.map(range, piece.start(), attr));
            done += piece.size();
        }
    }

    /// Whether the guest may write all of a unit.
    fn is_writable(&self, unit: IpaRange) -> bool {
        let mut at = unit.start();
        while at < unit.end() {
            let Some(leaf) = self.leaf(at).filter(|leaf| leaf.attr.write) else { return false };
            if leaf.level != Level::Three {
                break;
            }
            let Some(next) = at.checked_add(PAGE_SIZE) else { break };
            at = next;
        }
        true
    }
}

fn zero_tags(chunk: Chunk) {
    assert!(window::zero_tags(chunk).is_some(), "no window for a VM's memory");
}

impl Vm {
    /// A line about how much of its lazy memory has tags, if it has some.
    pub(crate) fn report_lazy_memory(&self) {
        let map = self.map.lock();
        let all: u64 = map.lazy.ledger.regions().map(|r| r.size()).sum();
        let tagged = map.lazy.ledger.counts().used.saturating_mul(map.lazy.ledger.size().bytes());
        drop(map);
        if all != 0 && self.may_report() {
            log::info!("{}: {} of {} KiB of lazy memory have tags", self.spec.name, tagged >> 10, all >> 10);
        }
    }
}

/// Tables for all changes are set aside, and all lazy memory is mapped or known not to be.
fn changed(result: Result<(), super::map::Refusal>) {
    assert!(result.is_ok(), "the map of lazy memory is not as it was left");
}
