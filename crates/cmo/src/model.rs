//! A model of memory, a data cache and an instruction cache: what a guest that runs and EL2 see of each other
//! while EL2 copies. Lines come into the data cache at any time, as speculation brings them; none leaves it
//! unless it is made to or another one needs the place.

use addr::Va;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;

use std::vec;
use std::vec::Vec;

use crate::{CacheOps, Kind, Line, LineSize, Lines, Point, access, fill, replace};

/// Bytes of memory, and of a line.
const SIZE: usize = 64;
const LINE: usize = 16;

#[derive(Clone, Debug)]
struct Caches {
    memory: [u8; SIZE],
    /// Content, and whether it is newer than memory.
    data: BTreeMap<usize, ([u8; LINE], bool)>,
    instructions: BTreeMap<usize, [u8; LINE]>,
}

impl Caches {
    fn new() -> Self {
        Self { memory: [0; SIZE], data: BTreeMap::new(), instructions: BTreeMap::new() }
    }

    fn line_of_memory(&self, at: usize) -> [u8; LINE] {
        *self.memory[at / LINE * LINE..].first_chunk().unwrap()
    }

    fn cached(&mut self, at: usize) -> &mut ([u8; LINE], bool) {
        let line = self.line_of_memory(at);
        self.data.entry(at / LINE).or_insert((line, false))
    }

    fn load(&mut self, at: usize, cached: bool) -> u8 {
        if cached { self.cached(at).0[at % LINE] } else { self.memory[at] }
    }

    fn store(&mut self, at: usize, byte: u8, cached: bool) {
        if cached {
            let (line, newer) = self.cached(at);
            (line[at % LINE], *newer) = (byte, true);
        } else {
            self.memory[at] = byte;
        }
    }

    /// The line leaves the data cache.
    fn evict(&mut self, at: usize) {
        if let Some((line, true)) = self.data.remove(&(at / LINE)) {
            self.memory[at / LINE * LINE..][..LINE].copy_from_slice(&line);
        }
    }

    /// What a CPU executes: instructions are fetched behind the point of coherency, at the worst.
    fn fetch(&mut self, at: usize) -> u8 {
        let line = self.line_of_memory(at);
        self.instructions.entry(at / LINE).or_insert(line)[at % LINE]
    }
}

/// EL2's hold of them.
struct Ops<'a> {
    caches: &'a RefCell<Caches>,
    bypass: bool,
}

impl CacheOps for Ops<'_> {
    fn lines(&self) -> Lines {
        // Shorter than this CPU's own, as another CPU's may be.
        let line = LineSize::from_log2(3);
        Lines { data: line, tags: line }
    }

    fn guests_bypass(&self) -> bool {
        self.bypass
    }

    fn clean_invalidate_line(&mut self, line: Va) {
        self.caches.borrow_mut().evict(line.get() as usize);
    }

    fn clean_invalidate_tags_line(&mut self, line: Va) {
        self.clean_invalidate_line(line);
    }

    fn maintain_line(&mut self, line: Va, _: Line) {
        self.clean_invalidate_line(line);
    }

    fn farthest(&self) -> Point {
        Point::Coherency
    }

    fn invalidate_line(&mut self, line: Va) {
        self.caches.borrow_mut().data.remove(&(line.get() as usize / LINE));
    }

    fn invalidate_instructions(&mut self) {
        self.caches.borrow_mut().instructions.clear();
    }

    fn complete(&mut self) {}

    fn synchronize(&mut self) {}
}

impl Ops<'_> {
    /// How EL2 itself loads and stores by a window of this kind.
    fn read(&mut self, at: usize, size: usize, kind: Kind) -> Vec<u8> {
        let caches = self.caches;
        access(self, Va::new(at as u64), size as u64, kind, || {
            (at..at + size).map(|at| caches.borrow_mut().load(at, kind != Kind::NonCacheable)).collect()
        })
    }

    fn write(&mut self, at: usize, bytes: &[u8], kind: Kind) {
        let caches = self.caches;
        fill(self, Va::new(at as u64), bytes.len() as u64, kind, || {
            for (at, byte) in (at..).zip(bytes) {
                caches.borrow_mut().store(at, *byte, kind != Kind::NonCacheable);
            }
        });
    }
}

/// The page is read, the guest stores past the caches, and it is read again, for the dirty log says so.
#[test]
fn a_second_read_has_what_the_guest_stored_past_the_caches() {
    let caches = RefCell::new(Caches::new());
    let mut ops = Ops { caches: &caches, bypass: true };
    assert_eq!(ops.read(0, SIZE, Kind::WriteBack), [0; SIZE]);
    caches.borrow_mut().store(5, 17, false);
    assert_eq!(ops.read(4, 2, Kind::WriteBack), [0, 17]);
}

/// A device writes beside what the guest stored past the caches.
#[test]
fn a_write_beside_a_guests_store_keeps_it() {
    let caches = RefCell::new(Caches::new());
    let mut ops = Ops { caches: &caches, bypass: true };
    // A line from before: of a read, or of speculation.
    caches.borrow_mut().load(0, true);
    caches.borrow_mut().store(1, 17, false);
    ops.write(8, &[3; 8], Kind::WriteBack);
    assert_eq!((caches.borrow().memory[1], caches.borrow().memory[8]), (17, 3));
}

/// A debugger replaces an instruction that the guest has executed.
#[test]
fn the_guest_executes_what_replaced_an_instruction() {
    let caches = RefCell::new(Caches::new());
    assert_eq!(caches.borrow_mut().fetch(4), 0);
    let write = || {
        Ops { caches: &caches, bypass: false }.write(4, &[9; 4], Kind::WriteBack);
        4
    };
    replace(&mut Ops { caches: &caches, bypass: false }, write, |done| *done != 0);
    assert_eq!(caches.borrow_mut().fetch(4), 9);
}

#[derive(Clone, Debug)]
enum Event {
    Guest(usize, u8),
    Read(usize, usize),
    Write(usize, Vec<u8>),
    /// Speculation.
    Appear(usize),
    Evict(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let range = || (0..SIZE, 1..SIZE).prop_map(|(at, size)| (at, size.min(SIZE - at)));
    let event = prop_oneof![
        (0..SIZE, any::<u8>()).prop_map(|(at, byte)| Event::Guest(at, byte)),
        range().prop_map(|(at, size)| Event::Read(at, size)),
        (range(), any::<u8>()).prop_map(|((at, size), byte)| Event::Write(at, vec![byte; size])),
        (0..SIZE).prop_map(Event::Appear),
        (0..SIZE).prop_map(Event::Evict),
    ];
    proptest::collection::vec(event, 0..if cfg!(miri) { 12 } else { 40 })
}

proptest! {
    /// A guest that always reaches its memory in one way, and EL2, see each other's stores and lose none.
    #[test]
    fn guest_and_el2_agree(events in events(), way in 0_usize..4) {
        // Through the caches, past them in write-back memory, or in memory that EL2 has non-cacheable too,
        // of which lines are left from another life.
        let (cached, bypass, kind) = [
            (true, false, Kind::WriteBack),
            (true, true, Kind::WriteBack),
            (false, true, Kind::WriteBack),
            (false, false, Kind::NonCacheable),
        ][way];
        let caches = RefCell::new(Caches::new());
        let mut ops = Ops { caches: &caches, bypass };
        if kind == Kind::NonCacheable {
            for at in 0..SIZE {
                caches.borrow_mut().store(at, 0xff, true);
            }
            ops.write(0, &[0; SIZE], kind);
        }
        let mut truth = [0; SIZE];
        for event in events {
            match event {
                Event::Guest(at, byte) => {
                    caches.borrow_mut().store(at, byte, cached);
                    truth[at] = byte;
                }
                Event::Read(at, size) => prop_assert_eq!(&ops.read(at, size, kind)[..], &truth[at..at + size]),
                Event::Write(at, bytes) => {
                    ops.write(at, &bytes, kind);
                    truth[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                // Nobody maps it cacheable any more.
                Event::Appear(_) if kind == Kind::NonCacheable => {}
                Event::Appear(at) => _ = caches.borrow_mut().cached(at),
                Event::Evict(at) => caches.borrow_mut().evict(at),
            }
            for at in (0..SIZE).step_by(if cfg!(miri) { 13 } else { 1 }) {
                prop_assert_eq!(caches.clone().into_inner().load(at, cached), truth[at], "byte {}", at);
            }
        }
    }
}
