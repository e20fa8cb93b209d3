//! What guests see: SMCCC function ids, hypercalls and their results.
//!
//! The one normative list; `docs/hypercalls.md` explains each call. All calls follow the SMC
//! Calling Convention (Arm DEN0028, 1.2 and later): function id in w0, arguments from x1, results
//! from x0, everything else preserved. Guests use HVC (a VM at virtual EL2 uses SMC).
#![no_std]
#![forbid(unsafe_code)]

pub mod hypercall;
pub mod psci;
pub mod smccc;
