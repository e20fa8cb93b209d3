//! Guest hypervisors: a VM (L1) that runs at virtual EL2 and has guests (L2) of its own.
//!
//! - `page`, `registers`, `format`: the registers of vEL2: in memory, trapped, and as the hardware has
//!   them
//! - `controls`, `route`: L1's controls of L2, and whose a trap is
//! - `exception`: into vEL2, and ERET from it
//! - `timer`, `lists`: timers outside the hardware, L1's list registers
//!
//! All section numbers are of the Arm Architecture Reference Manual, DDI 0487.
#![no_std]
#![forbid(unsafe_code)]

pub mod controls;
pub mod exception;
pub mod format;
pub mod lists;
pub mod page;
pub mod registers;
pub mod route;
pub mod timer;

#[cfg(test)]
extern crate std;
