//! What a VM sees of its CPU: ID registers, one table row per field, and how everything that they
//! hide is closed.
//!
//! [`HostIds`] are the values of the machine, combined over its CPUs; [`GuestIds`] what a VM reads,
//! immutable from then on; [`TrapConfig`] the EL2 control registers that make a hidden feature
//! unusable; [`policy`] what becomes of a trapped system register that is no ID register. The table
//! is [`table::ROWS`]: a field that no row names is hidden. Its order, its values, and that it says how
//! each hidden field is closed, are proved before it builds; [`check_tables`] repeats at start what
//! the image still holds.
//!
//! "Arm" is the Arm Architecture Reference Manual for A-profile (DDI 0487).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod cache;
mod check;
pub mod closing;
mod field;
mod guest;
mod host;
mod maintenance;
mod nesting;
mod policy;
mod required;
pub mod table;

pub use check::{TableError, check_tables};
pub use closing::{FgtLevel, TrapConfig};
pub use field::{Closed, Entry, Field, Offer, Reg, Row, Rule};
pub use guest::{Features, GuestIds, vmpidr};
pub use host::HostIds;
pub use nesting::VirtualEl2;
pub use policy::{CacheRegister, DebugRegister, Policy, policy, refusal};
pub use required::check_required;

/// Number of feature ID registers: op0 3, op1 0, CRn 0, CRm 1 to 7, op2 0 to 7.
pub const FEATURE_REGISTERS: usize = 56;

#[cfg(test)]
mod tests;
