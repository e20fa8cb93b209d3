//! The ledger against a model: memory, tags and a map that carry out what it says.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::vec::Vec;

const BASE: u64 = 0x4000_0000;
const OTHER: u64 = 0x8000_0000;
/// Units of the region whose home has tag storage, and of the one whose home has none.
const UNITS: u64 = 4;

fn ipa(region: u64, unit: u64, size: Size) -> Ipa<Canonical> {
    Ipa::new([BASE, OTHER][region as usize] + unit * size.bytes())
}

fn ledger(size: Size, quota: Option<u64>) -> Ledger {
    let bytes = UNITS * size.bytes();
    let mut ledger = Ledger::new(size, quota, Ledger::reserve_needed(size, quota, bytes));
    for (start, in_place) in [(BASE, true), (OTHER, false)] {
        ledger.add(IpaRange::new(Ipa::new(start), bytes).unwrap(), in_place).unwrap();
    }
    ledger
}

/// A frame of some unit: the unit's own, or one of the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Home(u64),
    Reserve(u32),
}

/// What a guest finds at the start of a unit, and what is in memory. Data and tags are kept for each
/// 32 KiB, the finest step of a large unit.
struct World {
    ledger: Ledger,
    /// Unit to its frame and whether tags can be reached; absent while it is not mapped.
    map: HashMap<u64, (Place, bool, bool)>,
    data: HashMap<(Place, u64), u32>,
    tags: HashMap<(Place, u64), u8>,
    /// What the guest stored last.
    expected: HashMap<(u64, u64), u32>,
    /// Tags the guest stored since the unit turned tagged.
    expected_tags: HashMap<(u64, u64), u8>,
    steps: Vec<u64>,
}

impl World {
    fn new(size: Size, quota: Option<u64>) -> Self {
        let ledger = ledger(size, quota);
        let all = [0, 1].into_iter().flat_map(|r| (0..UNITS).map(move |u| ipa(r, u, size).get()));
        let map = all.map(|unit| (unit, (Place::Home(unit), false, true))).collect();
        let steps = (0..size.bytes().div_ceil(COPY_STEP)).collect();
        // Tags that somebody left in every frame.
        let tags = HashMap::new();
        Self {
            ledger,
            map,
            data: HashMap::new(),
            tags,
            expected: HashMap::new(),
            expected_tags: HashMap::new(),
            steps,
        }
    }

    fn place(unit: u64, frame: Frame) -> Place {
        match frame {
            Frame::Home => Place::Home(unit),
            Frame::Reserve(n) => Place::Reserve(n),
        }
    }

    fn tag(&self, place: Place, step: u64) -> u8 {
        // What nobody zeroed is stale.
        self.tags.get(&(place, step)).copied().unwrap_or(0xf)
    }

    fn carry_out(&mut self, unit: u64, action: Action) {
        let steps = |at: u64, size: u64| at / COPY_STEP..(at + size).div_ceil(COPY_STEP);
        match action {
            Action::ZeroTags { frame, at, size } => {
                let place = Self::place(unit, frame);
                let reached = self.map.values().any(|(there, tagged, _)| *there == place && *tagged);
                assert!(!reached, "tags are zeroed that a guest can reach");
                for step in steps(at, size) {
                    self.tags.insert((place, step), 0);
                }
            }
            Action::Break => {
                let (_, _, writable) = self.map.remove(&unit).expect("broken twice");
                self.ledger.set_writable(Ipa::new(unit), writable);
            }
            Action::Copy { from, to, at, size } => {
                assert!(!self.map.contains_key(&unit), "the guest can store while data moves");
                for step in steps(at, size) {
                    let value = self.data.get(&(Self::place(unit, from), step)).copied().unwrap_or(0);
                    self.data.insert((Self::place(unit, to), step), value);
                }
            }
            Action::Publish { frame, tagged, writable } => {
                let place = Self::place(unit, frame);
                let others = self.map.iter().filter(|(other, _)| **other != unit);
                assert!(
                    others.map(|(_, (there, ..))| *there).all(|there| there != place),
                    "two units, one frame"
                );
                let writable = self.map.get(&unit).map_or(writable, |(_, _, w)| *w);
                self.map.insert(unit, (place, tagged, writable));
                let steps = self.steps.clone();
                for step in steps {
                    if tagged {
                        assert_eq!(self.tag(place, step), 0, "stale tags become visible");
                    }
                    self.expected_tags.remove(&(unit, step));
                }
            }
        }
    }

    /// Asks at most `turns` times.
    fn change(
        &mut self,
        unit: u64,
        ask: fn(&mut Ledger, Ipa<Canonical>) -> Next,
        turns: usize,
    ) -> Option<Next> {
        for _ in 0..turns {
            match ask(&mut self.ledger, Ipa::new(unit + 8)) {
                Next::Act(action) => self.carry_out(unit, action),
                done @ (Next::Done | Next::Refused(_)) => return Some(done),
            }
        }
        None
    }

    fn store(&mut self, unit: u64, step: u64, value: u32) {
        if let Some(&(place, _, true)) = self.map.get(&unit) {
            self.data.insert((place, step), value);
            self.expected.insert((unit, step), value);
        }
    }

    fn store_tag(&mut self, unit: u64, step: u64, tag: u8) {
        if let Some(&(place, true, _)) = self.map.get(&unit) {
            self.tags.insert((place, step), tag);
            self.expected_tags.insert((unit, step), tag);
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (unit, (place, tagged, _)) in &self.map {
            prop_assert_eq!(self.ledger.has_tags(Ipa::new(*unit)), *tagged);
            prop_assert!(!self.ledger.is_broken(Ipa::new(*unit)));
            for step in &self.steps {
                let found = self.data.get(&(*place, *step)).copied().unwrap_or(0);
                prop_assert_eq!(found, self.expected.get(&(*unit, *step)).copied().unwrap_or(0));
                if *tagged {
                    let tag = self.expected_tags.get(&(*unit, *step)).copied().unwrap_or(0);
                    prop_assert_eq!(self.tag(*place, *step), tag);
                }
            }
        }
        for region in [0, 1] {
            for n in 0..UNITS {
                let unit = ipa(region, n, self.ledger.size());
                let broken = !self.map.contains_key(&unit.get());
                prop_assert_eq!(self.ledger.is_broken(unit), broken);
                // Whoever reads the guest's memory at this moment finds what the guest stored.
                let place = Self::place(unit.get(), self.ledger.data(unit).unwrap());
                for step in &self.steps {
                    let found = self.data.get(&(place, *step)).copied().unwrap_or(0);
                    prop_assert_eq!(found, self.expected.get(&(unit.get(), *step)).copied().unwrap_or(0));
                }
            }
        }
        let counts = self.ledger.counts();
        let used = [BASE, OTHER].map(|r| self.ledger.tagged(Ipa::new(r)).unwrap()).iter().sum::<u64>();
        prop_assert_eq!(used, counts.used * self.ledger.size().pages());
        prop_assert!(self.ledger.quota().is_none_or(|quota| counts.used <= quota));
        let tagged = self.map.values().filter(|(_, tagged, _)| *tagged).count() as u64;
        prop_assert!(tagged <= counts.used);
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Op {
    Promote(usize),
    Demote(usize),
    Resume(usize),
    Forget,
    Store(u64, u32),
    StoreTag(u64, u8),
    Writable(bool),
}

fn op() -> impl Strategy<Value = (u64, u64, Op)> {
    let op = prop_oneof![
        4 => (1_usize..90).prop_map(Op::Promote),
        3 => (1_usize..90).prop_map(Op::Demote),
        2 => (1_usize..5).prop_map(Op::Resume),
        1 => Just(Op::Forget),
        4 => (0_u64..64, any::<u32>()).prop_map(|(step, value)| Op::Store(step, value)),
        3 => (0_u64..64, 1_u8..16).prop_map(|(step, tag)| Op::StoreTag(step, tag)),
        1 => any::<bool>().prop_map(Op::Writable),
    ];
    (0_u64..2, 0..UNITS, op)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    /// Data and tags are what the guest stored, tags are zero when they come, no unit exceeds the quota,
    /// and no two share a frame, whatever is asked in which order and left half done.
    #[test]
    fn ledger_matches_a_model(
        large in any::<bool>(),
        quota in proptest::option::of(0_u64..6),
        ops in proptest::collection::vec(op(), 1..if cfg!(miri) { 6 } else { 40 }),
    ) {
        let size = if large { Size::Block } else { Size::Page };
        let mut world = World::new(size, quota.map(|units| units * size.pages()));
        let last = world.steps.len() as u64;
        for (region, unit, op) in ops {
            let unit = ipa(region, unit, size).get();
            match op {
                Op::Promote(turns) => {
                    let used = world.ledger.counts().used;
                    let untagged = world.ledger.data(Ipa::new(unit)) == Some(Frame::Home);
                    match world.change(unit, Ledger::promote, turns) {
                        Some(Next::Done) => prop_assert!(world.ledger.has_tags(Ipa::new(unit))),
                        Some(Next::Refused(why)) => {
                            prop_assert_eq!(why, Refusal::Quota);
                            prop_assert!(untagged && Some(used) == world.ledger.quota());
                        }
                        Some(Next::Act(_)) | None => {}
                    }
                }
                Op::Demote(turns) => {
                    if world.change(unit, Ledger::demote, turns).is_some() {
                        prop_assert!(!world.ledger.has_tags(Ipa::new(unit)));
                    }
                }
                Op::Resume(turns) => {
                    let _ = world.change(unit, Ledger::resume, turns);
                }
                Op::Forget => {
                    // The content is of no interest afterwards, so it is made what it was.
                    prop_assert_eq!(world.change(unit, Ledger::forget, 2), Some(Next::Done));
                    for step in world.steps.clone() {
                        let value = world.expected.get(&(unit, step)).copied().unwrap_or(0);
                        world.data.insert((Place::Home(unit), step), value);
                    }
                }
                Op::Store(step, value) => world.store(unit, step % last, value),
                Op::StoreTag(step, tag) => world.store_tag(unit, step % last, tag),
                Op::Writable(writable) => match world.map.get_mut(&unit) {
                    Some((.., w)) => *w = writable,
                    None => world.ledger.set_writable(Ipa::new(unit), writable),
                },
            }
            world.check()?;
        }
    }
}

/// All actions of a change.
fn actions(
    ledger: &mut Ledger,
    unit: Ipa<Canonical>,
    ask: fn(&mut Ledger, Ipa<Canonical>) -> Next,
) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Next::Act(action) = ask(ledger, unit) {
        actions.push(action);
    }
    actions
}

#[test]
fn orders_of_a_page() {
    let mut ledger = ledger(Size::Page, Some(2));
    let (inside, outside) = (ipa(0, 1, Size::Page), ipa(1, 2, Size::Page));
    let zero = |frame| Action::ZeroTags { frame, at: 0, size: 4096 };
    let publish = |frame, tagged| Action::Publish { frame, tagged, writable: true };
    assert_eq!(
        actions(&mut ledger, inside, Ledger::promote),
        [zero(Frame::Home), publish(Frame::Home, true)]
    );
    let reserve = Frame::Reserve(0);
    let copy = |from, to| Action::Copy { from, to, at: 0, size: 4096 };
    assert_eq!(
        actions(&mut ledger, outside, Ledger::promote),
        [zero(reserve), Action::Break, copy(Frame::Home, reserve), publish(reserve, true)]
    );
    assert_eq!(ledger.promote(ipa(0, 0, Size::Page)), Next::Refused(Refusal::Quota));
    assert_eq!(
        actions(&mut ledger, outside, Ledger::demote),
        [Action::Break, copy(reserve, Frame::Home), publish(Frame::Home, false)]
    );
    assert_eq!(actions(&mut ledger, inside, Ledger::demote), [publish(Frame::Home, false)]);
    assert_eq!(ledger.counts(), Counts { used: 0, promoted: 2, demoted: 2, refused: 1 });
}

#[test]
fn large_units_change_in_short_steps() {
    let mut ledger = ledger(Size::Block, None);
    let steps = actions(&mut ledger, ipa(1, 0, Size::Block), Ledger::promote);
    assert_eq!(steps.len(), 4 + 1 + 64 + 1);
    let copied: u64 = steps.iter().map(|a| if let Action::Copy { size, .. } = a { *size } else { 0 }).sum();
    assert_eq!(copied, BLOCK_2M);
    assert_eq!(ledger.counts().used, 1);
    assert_eq!(ledger.tagged(Ipa::new(OTHER)), Some(512));
}

#[test]
fn only_whole_units_and_only_once() {
    let mut ledger = Ledger::new(Size::Block, None, 0);
    let range = |start, size| IpaRange::new(Ipa::new(start), size).unwrap();
    assert_eq!(ledger.add(range(BASE, PAGE_SIZE), true), None);
    assert_eq!(ledger.add(range(BASE + PAGE_SIZE, BLOCK_2M), true), None);
    assert_eq!(ledger.add(range(BASE, BLOCK_2M), true), Some(()));
    assert_eq!(ledger.add(range(BASE, 2 * BLOCK_2M), true), None);
    for ask in [Ledger::promote, Ledger::demote, Ledger::resume, Ledger::forget] {
        assert_eq!(ask(&mut ledger, Ipa::new(OTHER)), Next::Refused(Refusal::NotLazy));
    }
    assert_eq!((ledger.unit(Ipa::new(OTHER)), ledger.data(Ipa::new(OTHER))), (None, None));
}

#[test]
fn a_search_for_tagged_units_is_bounded() {
    let mut ledger = ledger(Size::Page, None);
    let _ = actions(&mut ledger, ipa(0, 2, Size::Page), Ledger::promote);
    let all = IpaRange::new(Ipa::new(BASE), UNITS * PAGE_SIZE).unwrap();
    assert_eq!(ledger.first_tagged(all, 2), (None, Ipa::new(BASE + 2 * PAGE_SIZE)));
    let unit = IpaRange::new(Ipa::new(BASE + 2 * PAGE_SIZE), PAGE_SIZE).unwrap();
    assert_eq!(ledger.first_tagged(all, 3), (Some(unit), unit.start()));
    let rest = IpaRange::new(Ipa::new(BASE + 3 * PAGE_SIZE), PAGE_SIZE).unwrap();
    assert_eq!(ledger.first_tagged(rest, 9), (None, rest.end()));
}

#[test]
fn a_lower_quota_stops_what_is_new() {
    let mut ledger = ledger(Size::Page, Some(2));
    let _ = actions(&mut ledger, ipa(0, 0, Size::Page), Ledger::promote);
    assert_eq!(ledger.set_quota(0), Some(()));
    assert_eq!(ledger.promote(ipa(0, 0, Size::Page)), Next::Done);
    assert_eq!(ledger.promote(ipa(0, 1, Size::Page)), Next::Refused(Refusal::Quota));
    assert_eq!((ledger.set_quota(3), ledger.set_quota(u64::MAX)), (None, None));
    assert_eq!((ledger.set_quota(2), ledger.quota()), (Some(()), Some(2)));
    let mut blocks = Ledger::new(Size::Block, None, 0);
    assert_eq!((blocks.set_quota(511), blocks.set_quota(512), blocks.quota()), (None, Some(()), Some(1)));
    assert_eq!((blocks.set_quota(u64::MAX), blocks.quota()), (Some(()), None));
}

#[test]
fn reserve_covers_the_quota_and_no_more() {
    assert_eq!(Ledger::reserve_needed(Size::Page, None, 3 * PAGE_SIZE), 3);
    assert_eq!(Ledger::reserve_needed(Size::Page, Some(2), 3 * PAGE_SIZE), 2);
    assert_eq!(Ledger::reserve_needed(Size::Block, Some(1024), 3 * BLOCK_2M), 2);
    assert_eq!(Ledger::reserve_needed(Size::Block, None, 0), 0);
}
