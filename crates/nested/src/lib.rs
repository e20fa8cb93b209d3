//! Guest hypervisors: a VM (L1) that runs at virtual EL2 and has guests (L2) of its own.
//!
//! All section numbers are of the Arm Architecture Reference Manual, DDI 0487.
#![no_std]
#![forbid(unsafe_code)]

pub mod tlbi;

#[cfg(test)]
extern crate std;
