//! Device trees: the machine's own, read; each guest's, written.
//!
//! [`machine::read`] turns the tree that firmware hands over into a [`Machine`];
//! [`early::uart`] finds only the console, without allocating, so that a refusal at boot can be
//! printed. [`guest::write`] makes the tree that a VM boots with, and [`Options`] are the words of
//! the machine's command line.
//!
//! Trees come from anywhere: each flaw is an [`Error`] that names node and property. Sources:
//! Devicetree Specification 0.4, and the Linux kernel's bindings where it defers to them.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod bus;
pub mod early;
mod flat;
pub mod guest;
mod interrupt;
pub mod machine;
pub mod options;
mod tree;
pub mod uart;

pub use machine::{Conduit, Cpu, Gic, GicVersion, Machine, Timer};
pub use options::{OptionError, Options};
pub use tree::{Error, NodePath, total_size};
pub use uart::{Uart, UartKind, Width};
