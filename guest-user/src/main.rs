//! A static Linux program without any library that proves memory tagging from user space: it maps
//! tagged memory, sets tags, and sees the faults that the kernel reports; and that FP and SVE registers
//! of processes are kept apart. It prints KTAP and is what `/init` of the test RAM disk runs.
//!
//! [`linux`] makes system calls, [`signal`] catches faults, [`tag`] has the tag instructions.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bar;
#[cfg(target_os = "none")]
mod fp;
#[cfg(target_os = "none")]
mod linux;
#[cfg(target_os = "none")]
mod mte;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod signal;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod sve;
#[cfg(target_os = "none")]
mod tag;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program runs in an arm64 Linux guest");
}
