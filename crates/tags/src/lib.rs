//! Allocation tags of VMs.
//!
//! [`lazy`] is the state of memory that gets tags at its first tag access: which pages have some, what
//! turns one tagged and back, in which order, and how many there may be. [`access`] tells by its
//! instruction what an access wanted of a tag. [`copy`] is what control VMs ask for when they copy tags and
//! memory, and how that looks in their buffers; [`dirty`] is the log of what was written meanwhile.
//!
//! Section numbers are of the Arm Architecture Reference Manual, DDI 0487.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod access;
pub mod copy;
pub mod dirty;
pub mod lazy;

#[cfg(test)]
extern crate std;
