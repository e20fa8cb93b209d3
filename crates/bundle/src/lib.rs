//! Compiles a manifest in TOML into the bundle that the hypervisor boots.
#![forbid(unsafe_code)]
