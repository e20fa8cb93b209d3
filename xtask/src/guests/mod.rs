//! Real guests: the distribution's kernels and QEMU, and initial RAM disks for them.

pub mod cpio;
pub mod emulator;
pub mod fetch;
pub mod initrd;
