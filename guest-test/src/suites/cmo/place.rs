//! Where maintenance is tried: each kind of region, and nothing.

use crate::rt::machine::Machine;
use crate::rt::mem::{read64, scratch};
use crate::rt::mmu::tagged;
use crate::rt::smccc::tagvisor;
use crate::rt::{gic, mte, uart};

/// A place.
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) ipa: u64,
    /// Where EL1 sees it.
    pub(super) va: u64,
    /// It can be read without an effect.
    pub(super) memory: bool,
    pub(super) writable: bool,
    /// The VM may not write it.
    pub(super) read_only: bool,
    /// It has allocation tags.
    pub(super) tags: bool,
    /// Nothing is there.
    pub(super) absent: bool,
    /// DC IVAC gives an external abort.
    pub(super) strict: bool,
}

/// Words and tags around a place; zero where they cannot be read.
#[derive(PartialEq, Eq)]
pub(super) struct State([u64; 64], [u64; 32]);

impl Place {
    const fn new(name: &'static str, ipa: u64) -> Self {
        Self {
            name,
            ipa,
            va: ipa,
            memory: false,
            writable: false,
            read_only: false,
            tags: false,
            absent: false,
            strict: false,
        }
    }

    /// What is there now: several lines from the place on.
    pub(super) fn state(&self) -> State {
        let mut state = State([0; 64], [0; 32]);
        if self.memory {
            for (word, at) in state.0.iter_mut().zip((self.ipa..).step_by(8)) {
                *word = read64(at);
            }
        }
        if self.memory && self.tags && mte::level() >= 2 {
            for (tag, at) in state.1.iter_mut().zip((tagged(self.ipa)..).step_by(16)) {
                *tag = mte::ldg(at);
            }
        }
        state
    }
}

/// All of them.
pub(super) fn places(machine: &Machine) -> impl Iterator<Item = Place> {
    let ram = Place { memory: true, writable: true, tags: true, ..Place::new("ram", scratch(21) + 256) };
    let regions = machine.regions().map(|region| Place {
        memory: !region.device,
        // What other VMs use at the same time is left as it is.
        writable: !region.read_only && !region.device && !machine.lists("share", region.name),
        read_only: region.read_only,
        tags: region.tags == "backed",
        strict: machine.lists("strict", region.name),
        ..Place::new(region.name, region.start + if region.device { 0 } else { region.size - 4096 })
    });
    // A machine without stage 2 may have something there, or may not like maintenance of nothing.
    let absent = Place { absent: true, ..Place::new("nothing", machine.absent()) };
    let emulated = [absent, Place::new("distributor", gic::GICD), Place::new("UART", uart::BASE)];
    // The first memory is that of the payload; others may get their tags on demand.
    let more = machine.memory().get(1).map(|&(start, size)| Place {
        memory: true,
        writable: true,
        tags: true,
        ..Place::new("memory", start + size - 4096)
    });
    core::iter::once(ram).chain(more).chain(regions).chain(emulated.into_iter().filter(|_| tagvisor()))
}
