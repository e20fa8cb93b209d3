//! Virtual devices: PL011, PSCI power states, SMCCC TRNG.
#![no_std]
#![forbid(unsafe_code)]
