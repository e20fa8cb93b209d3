//! Two vCPUs on one page, under loom: every interleaving of their stores, faults and the steps between.
//!
//! A guest's access holds the leaf for reading, as the translation that it uses lives until TLB
//! maintenance has waited for it; a change of the leaf takes it for writing. Data and tags are relaxed
//! atomics, each CPU having its own word.
#![cfg(not(miri))]
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

use addr::{Ipa, IpaRange, PAGE_SIZE};
use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::sync::{Arc, Mutex, RwLock};
use loom::thread;
use tags::lazy::{Action, Frame, Ledger, Next, Size};

const UNIT: u64 = 0x4000_0000;
const CPUS: usize = 2;

/// Where the page's data and tags are: at home, or in the one frame of the reserve.
#[derive(Clone, Copy)]
struct Leaf {
    frame: usize,
    tagged: bool,
}

struct Machine {
    ledger: Mutex<Ledger>,
    leaf: RwLock<Option<Leaf>>,
    data: [[AtomicU32; CPUS]; 2],
    tags: [[AtomicU32; CPUS]; 2],
}

fn number(frame: Frame) -> usize {
    match frame {
        Frame::Home => 0,
        Frame::Reserve(_) => 1,
    }
}

impl Machine {
    fn new(in_place: bool) -> Self {
        let mut ledger = Ledger::new(Size::Page, None, 1);
        ledger.add(IpaRange::new(Ipa::new(UNIT), PAGE_SIZE).unwrap(), in_place).unwrap();
        let words = |value| [(); 2].map(|()| [(); CPUS].map(|()| AtomicU32::new(value)));
        Self {
            ledger: Mutex::new(ledger),
            leaf: RwLock::new(Some(Leaf { frame: 0, tagged: false })),
            data: words(0),
            // Somebody's stale tags.
            tags: words(15),
        }
    }

    /// An exit: one action at most, as with large units.
    fn exit(&self, ask: fn(&mut Ledger, Ipa<addr::Canonical>) -> Next) {
        let mut ledger = self.ledger.lock().unwrap();
        let Next::Act(action) = ask(&mut ledger, Ipa::new(UNIT)) else { return };
        match action {
            Action::ZeroTags { frame, .. } => {
                self.tags[number(frame)].iter().for_each(|t| t.store(0, Relaxed))
            }
            Action::Break => *self.leaf.write().unwrap() = None,
            Action::Copy { from, to, .. } => {
                for cpu in 0..CPUS {
                    let value = self.data[number(from)][cpu].load(Relaxed);
                    self.data[number(to)][cpu].store(value, Relaxed);
                }
            }
            Action::Publish { frame, tagged, .. } => {
                *self.leaf.write().unwrap() = Some(Leaf { frame: number(frame), tagged });
            }
        }
    }

    /// An unchecked store.
    fn store(&self, cpu: usize, value: u32) {
        loop {
            let leaf = self.leaf.read().unwrap();
            if let Some(leaf) = *leaf {
                self.data[leaf.frame][cpu].store(value, Relaxed);
                return;
            }
            drop(leaf);
            self.exit(Ledger::resume);
        }
    }

    fn store_tag(&self, cpu: usize, tag: u32) {
        loop {
            let leaf = self.leaf.read().unwrap();
            let fault: fn(&mut Ledger, _) -> Next = match *leaf {
                Some(leaf) if leaf.tagged => {
                    self.tags[leaf.frame][cpu].store(tag, Relaxed);
                    return;
                }
                Some(_) => Ledger::promote,
                None => Ledger::resume,
            };
            drop(leaf);
            self.exit(fault);
        }
    }
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn both_store(in_place: bool) {
    explore(move || {
        let machine = Arc::new(Machine::new(in_place));
        let other = machine.clone();
        let thread = thread::spawn(move || {
            other.store_tag(1, 2);
            other.store(1, 200);
        });
        machine.store(0, 100);
        machine.store_tag(0, 1);
        thread.join().unwrap();
        assert_eq!(machine.ledger.lock().unwrap().counts().promoted, 1, "promoted once");
        let leaf = machine.leaf.read().unwrap().unwrap();
        assert!(leaf.tagged);
        let read = |words: &[AtomicU32; CPUS]| [words[0].load(Relaxed), words[1].load(Relaxed)];
        assert_eq!(read(&machine.data[leaf.frame]), [100, 200], "no store is lost");
        assert_eq!(read(&machine.tags[leaf.frame]), [1, 2], "no tag is lost");
    });
}

#[test]
fn both_tag_one_page_in_place() {
    both_store(true);
}

#[test]
fn both_tag_one_page_that_moves() {
    both_store(false);
}

/// One stores while a control VM takes the tags away.
#[test]
fn a_store_while_tags_go() {
    explore(|| {
        let machine = Arc::new(Machine::new(false));
        machine.store_tag(0, 3);
        let other = machine.clone();
        let control = thread::spawn(move || {
            while other.ledger.lock().unwrap().counts().used != 0 {
                other.exit(Ledger::demote);
            }
        });
        machine.store(0, 7);
        control.join().unwrap();
        let leaf = machine.leaf.read().unwrap().unwrap();
        assert_eq!((leaf.frame, leaf.tagged), (0, false));
        assert_eq!(machine.data[0][0].load(Relaxed), 7, "no store is lost");
    });
}
