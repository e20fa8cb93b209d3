//! From an exception syndrome to the reason of a guest exit.
#![no_std]
#![forbid(unsafe_code)]
