//! One UART for all VMs: prefixes, focus, escape keys.
#![no_std]
#![forbid(unsafe_code)]
