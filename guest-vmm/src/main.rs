//! A small virtual machine monitor: a static Linux program that runs a payload as guest of KVM, on a
//! machine like those of the hypervisor (`manifest::layout`). What the guest prints goes to standard
//! output, each line behind a prefix, so that it is a stream of its own in the report of the VM around.
//!
//! [`machine`] makes the VM, [`vcpu`] runs it, [`bus`] has its only emulated device, [`tree`] its tree.
//!
//!     guest-vmm --cpus 2 --append 'suite=psci,smp' /payload
#![cfg_attr(not(target_arch = "aarch64"), allow(unused))]

#[cfg(target_arch = "aarch64")]
mod bus;
#[cfg(target_arch = "aarch64")]
mod machine;
#[cfg(target_arch = "aarch64")]
mod tree;
#[cfg(target_arch = "aarch64")]
mod vcpu;

#[cfg(target_arch = "aarch64")]
fn main() -> std::process::ExitCode {
    use clap::Parser;
    match machine::run(&machine::Options::parse()) {
        Ok(vcpu::End::Off) => std::process::ExitCode::SUCCESS,
        Ok(vcpu::End::Reset) => {
            eprintln!("guest-vmm: the guest wants a reset");
            std::process::ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("guest-vmm: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn main() {
    eprintln!("this program runs in an arm64 Linux guest");
}
