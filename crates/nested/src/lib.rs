//! Guest hypervisors: a VM (L1) that runs at virtual EL2 and has guests (L2) of its own.
//!
//! **CPU.**
//! - `page`, `registers`, `format`: the registers of vEL2: in memory, trapped, and as the hardware has
//!   them
//! - `controls`, `fine`, `route`: L1's controls of L2, and whose a trap is
//! - `exception`: into vEL2, and ERET from it
//! - `timer`, `lists`: timers outside the hardware, L1's list registers
//!
//! **Memory.** L1's stage 2 is never used by the hardware. When L2 faults, [`stage2`] walks it in
//! software, [`attributes`] joins what it says with the VM's own stage 2, and [`shadow`] keeps the result
//! in tables for the hardware; [`fault`] says whose fault it is otherwise. [`tlbi`] says what L1's TLB
//! maintenance means for them, and [`at`] answers its AT instructions.
//!
//! All section numbers are of the Arm Architecture Reference Manual, DDI 0487.
#![no_std]
#![forbid(unsafe_code)]

pub mod at;
pub mod attributes;
pub mod controls;
pub mod exception;
pub mod fault;
pub mod fine;
pub mod format;
pub mod lists;
pub mod page;
pub mod pauth;
pub mod registers;
pub mod route;
pub mod shadow;
pub mod stage2;
pub mod timer;
pub mod tlbi;

extern crate alloc;
#[cfg(test)]
extern crate std;
