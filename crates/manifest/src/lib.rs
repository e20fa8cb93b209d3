//! What a machine runs: VMs, their memory and their files.
//!
//! [`spec`] holds the values that all others use; [`layout`] the fixed part of a VM's address
//! space. A bundle is a [`cpio`] archive with the compiled manifest, which [`dtb`] reads, and the
//! files that it names; [`check()`] tells whether the two make a machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod check;
pub mod cpio;
pub mod dtb;
mod error;
pub mod layout;
mod names;
mod shares;
pub mod spec;
mod taggable;
#[cfg(any(test, feature = "write"))]
pub mod write;

pub use check::{check, is_name};
pub use error::Error;
pub use names::Named;
pub use spec::*;
#[cfg(any(test, feature = "write"))]
pub use write::write;

/// Name of the compiled manifest in the bundle.
pub const MANIFEST_FILE: &str = "manifest.dtb";
