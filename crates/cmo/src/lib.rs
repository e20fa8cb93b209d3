//! Cache maintenance: what must be cleaned or invalidated, in which order, for whom.
//!
//! QEMU has no caches, boards do; so the sequences are proved here, on a backend that records. The rules:
//!
//! | who reads it how | what is done | function |
//! |---|---|---|
//! | a guest, at first with its MMU off, past the caches | what was written or zeroed, tags too, is cleaned to the point of coherency, then all instruction caches forget | [`fill`], [`publish_instructions`] |
//! | a guest that reaches write-back memory past the caches (without FEAT_S2FWB) while EL2 copies it | what the caches hold of it is cleaned and invalidated before EL2 looks or writes a part of a line, and again afterwards | [`access`], [`fill`] |
//! | a guest that executes what EL2 replaced while it runs | cleaned, then all instruction caches forget, once for all that a call wrote | [`replace`] |
//! | another CPU, before its MMU is on | cleaned to the point of coherency | [`publish_uncached`] |
//! | this CPU through its caches, what it wrote with its MMU off | stale lines over it are invalidated before the MMU is on | [`before_mmu_on`] |
//! | this CPU with its MMU off, what a loader may have left in the caches | cleaned first | [`publish_uncached`] |
//!
//! Translation tables need none of it while the MMU is on: walks are cacheable and inner shareable.
//!
//! [`Preparation`] is the order in which a VM's memory is zeroed and filled, in short steps.
//!
//! What guests do themselves seldom concerns EL2. Where it does, [`Operation`] says what the instruction is,
//! [`guest`] what becomes of it, [`maintain`] does it, and [`Sweep`] is maintenance by set and way.
//!
//! Source: Arm DDI 0487, D7.5 "Cache maintenance instructions", B2.10 "Mismatched memory attributes".
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod guest;
mod lines;
mod operation;
mod preparation;
mod sequence;
mod sweep;

pub use lines::{LineSize, Lines};
pub use operation::{Content, How, Line, Operation, Point};
pub use preparation::{Chunk, Contents, Item, Preparation, Region, Work, chunks};
pub use sequence::{
    access, before_mmu_on, clean_invalidate, fill, maintain, publish_instructions, publish_uncached, replace,
};
pub use sweep::Sweep;

use addr::Va;

/// The instructions that the sequences are made of.
pub trait CacheOps {
    /// Line sizes that reach every line of every CPU.
    fn lines(&self) -> Lines;

    /// Whether guests can reach write-back memory past the caches: by a stage 1 that is off or not cacheable,
    /// where stage 2 does not force the type (FEAT_S2FWB is absent, or not in use).
    fn guests_bypass(&self) -> bool;

    /// DC CIVAC: cleans and invalidates the data of the line to the point of coherency.
    fn clean_invalidate_line(&mut self, line: Va);

    /// DC CIGDVAC: the same for data and allocation tags.
    fn clean_invalidate_tags_line(&mut self, line: Va);

    /// The DC instruction for this maintenance of the line.
    fn maintain_line(&mut self, line: Va, what: Line);

    /// The farthest point that this CPU's instructions clean to.
    fn farthest(&self) -> Point;

    /// DC IVAC: forgets the line, changed or not.
    fn invalidate_line(&mut self, line: Va);

    /// IC IALLUIS: all CPUs' instruction caches forget everything.
    fn invalidate_instructions(&mut self);

    /// DSB SY: all of this CPU's accesses and maintenance so far are complete.
    fn complete(&mut self);

    /// ISB: what was fetched before is fetched again.
    fn synchronize(&mut self);
}

/// How EL2 reaches memory of a guest: as the region's stage-2 leaf has it, so that no location is
/// ever seen under two types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Normal write-back; its allocation tags are nobody's, or it has none.
    WriteBack,
    /// Normal write-back with allocation tags that the guest sees.
    Tagged,
    /// Normal non-cacheable.
    NonCacheable,
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod tests;
