//! The in-guest payload: test suites, measurements and noise at EL1, reported by KTAP on the UART.
//!
//! It boots as the kernel of a VM and equally on a bare machine at EL1 (QEMU's `virt`), which is the
//! reference that every suite is checked against: what differs there is a SKIP with its reason.
//! `rt` is the runtime under the tests, `harness` runs and reports them, `suites` holds them, one
//! file each, and `modes` what is not a test: the benchmark and VMs that misbehave on purpose.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(
    target_os = "none",
    expect(clippy::indexing_slicing, reason = "a panic of the payload is a failed test, not a danger")
)]

#[cfg(target_os = "none")]
#[macro_use]
mod rt;

#[cfg(target_os = "none")]
mod harness;
#[cfg(target_os = "none")]
mod modes;
#[cfg(target_os = "none")]
mod suites;

/// The host has nothing to run: this only lets `cargo build --workspace` pass.
#[cfg(not(target_os = "none"))]
fn main() {}
