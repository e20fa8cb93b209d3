//! The hardware: all assembly, nearly all unsafe. Nothing here decides.
//!
//! UNSAFETY: this is the room for it. Each file owns one concept of the architecture and offers the
//! rest of the hypervisor functions with checkable contracts.

pub(crate) mod cache;
pub(crate) mod copy;
pub(crate) mod cpu;
pub(crate) mod el1;
pub(crate) mod entry;
pub(crate) mod errata;
mod fixup;
pub(crate) mod fp;
pub(crate) mod gic;
pub(crate) mod guest;
pub(crate) mod ids;
pub(crate) mod mmu;
pub(crate) mod nested;
pub(crate) mod sve;
pub(crate) mod syndrome;
mod sysreg;
pub(crate) mod tags;
pub(crate) mod timer;
pub(crate) mod tlb;
pub(crate) mod translate;
pub(crate) mod traps;
pub(crate) mod vectors;
