//! Real guests: the distribution's kernels, and initial RAM disks for them.

pub mod cpio;
pub mod fetch;
pub mod initrd;
