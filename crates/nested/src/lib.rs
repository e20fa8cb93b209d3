//! Guest hypervisors: a VM (L1) that runs at virtual EL2 and has guests (L2) of its own.
//!
//! **Memory.** L1's stage 2 is never used by the hardware. When L2 faults, [`stage2`] walks it in
//! software, [`attributes`] joins what it says with the VM's own stage 2, and [`shadow`] keeps the result
//! in tables for the hardware; [`fault`] says whose fault it is otherwise. [`tlbi`] says what L1's TLB
//! maintenance means for them.
//!
//! All section numbers are of the Arm Architecture Reference Manual, DDI 0487.
#![no_std]
#![forbid(unsafe_code)]

pub mod attributes;
pub mod fault;
pub mod shadow;
pub mod stage2;
pub mod tlbi;

extern crate alloc;
#[cfg(test)]
extern crate std;
