//! Guest hypervisors: joins `crates/nested` with VMs, vCPUs and the hardware.

pub(crate) mod abort;
pub(crate) mod at;
pub(crate) mod mmu;
pub(crate) mod tlbi;
