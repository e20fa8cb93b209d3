//! Tagvisor: an MTE-first EL2 type-1 micro-hypervisor.
//!
//! Start reading at [`boot`]; the road of an exit is [`vcpu::run`].
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod bundle;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod dev;
#[cfg(target_os = "none")]
mod exit;
#[cfg(target_os = "none")]
mod firmware;
#[cfg(target_os = "none")]
mod lock;
#[cfg(target_os = "none")]
mod log;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod mem;
#[cfg(target_os = "none")]
mod nested;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
mod vcpu;
#[cfg(target_os = "none")]
mod vm;

/// The image exists for the bare machine only; on the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {}
