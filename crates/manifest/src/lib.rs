//! What a machine runs: VMs, their memory and their files.
//!
//! [`spec`] holds the validated values that all others use; [`layout`] the fixed part of a VM's
//! address space.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod layout;
pub mod spec;

pub use spec::*;
