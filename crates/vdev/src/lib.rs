//! Virtual devices: what a VM meets besides memory and the GIC, as values without a machine.
//!
//! [`pl011`] is the guest's UART, [`power`] the PSCI power states of its vCPUs, [`smccc`] tells
//! which call an HVC or SMC makes and answers those that need no state. All of it takes values and
//! returns effects; the hypervisor applies them.
#![no_std]
#![forbid(unsafe_code)]

pub mod pl011;
pub mod power;
pub mod smccc;
