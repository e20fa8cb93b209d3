//! What a VM sees of its CPU: ID registers, one table row per field, and how everything that they
//! hide is closed.
//!
//! [`HostIds`] are the values of the machine, combined over its CPUs. A VM begins with a [`Draft`]: the
//! most that it may have there, which its manifest and its control VM may lower. When it first runs the
//! draft is frozen ([`Freeze`]) into [`GuestIds`], what the VM reads, immutable from then on, and
//! [`TrapConfig`], the EL2 control registers that make a hidden feature unusable. [`policy`] says what
//! becomes of a trapped system register that is no ID register. The table is [`table::ROWS`]: a field
//! that no row names is hidden. Its order, its values, and that it says how each hidden field is closed,
//! are proved before it builds; [`check_tables`] repeats at start what the image still holds.
//! [`baseline`] and [`name`] are for the host, which turns names into positions.
//!
//! "Arm" is the Arm Architecture Reference Manual for A-profile (DDI 0487).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod baseline;
mod cache;
mod check;
pub mod closing;
mod contradiction;
mod draft;
mod field;
mod freeze;
mod guest;
mod host;
mod maintenance;
pub mod name;
mod nesting;
mod policy;
mod register;
mod required;
pub mod table;

pub use check::{TableError, check as check_entries, check_tables};
pub use closing::{FgtLevel, TrapConfig};
pub use contradiction::{Contradiction, address_bits};
pub use draft::{Bound, Draft, Refused};
pub use field::{Closed, Entry, Field, How, Offer, Reg, Row, Rule, index};
pub use freeze::{Denied, Freeze};
pub use guest::{Features, GuestIds, vmpidr};
pub use host::{HostIds, Lack, Mixed};
pub use nesting::VirtualEl2;
pub use policy::{CacheRegister, DebugRegister, ICC_SRE, Policy, policy, refusal};
pub use register::{from_encoding, index_of, register_at};
pub use required::check_required;

/// Number of feature ID registers: op0 3, op1 0, CRn 0, CRm 1 to 7, op2 0 to 7.
pub const FEATURE_REGISTERS: usize = 56;
/// Number of registers in a VM's table: these, and those of [`index`].
pub const REGISTERS: usize = 65;

#[cfg(test)]
mod tests;
