//! The device tree that a VM boots with.
