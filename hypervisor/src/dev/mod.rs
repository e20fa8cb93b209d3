//! The machine's own devices: the console UART and the physical GIC, driven by their own crates.

pub(crate) mod gic;
pub(crate) mod uart;
