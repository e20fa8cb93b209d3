//! Translation tables of the Virtual Memory System Architecture, as pure values over a table memory.
//!
//! [`descriptor`] is the format that both stages share, [`memory`] what tables need of the machine,
//! [`tree`] the engine that changes a tree of tables (plan, then a commit that cannot fail),
//! [`attr`] the stage-2 attributes, [`stage2`] a VM's IPA space, [`stage1`] the hypervisor's own
//! address space, and [`walk`] a walk of a guest's stage 1 in software.
//!
//! All section numbers are of the Arm Architecture Reference Manual, DDI 0487.
#![no_std]
#![forbid(unsafe_code)]

pub mod attr;
pub mod descriptor;
pub mod memory;
pub mod par;
pub mod stage1;
pub mod stage2;
pub mod tree;
pub mod vmid;
pub mod walk;

#[cfg(test)]
extern crate std;
#[cfg(test)]
mod fake;
