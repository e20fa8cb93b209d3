//! Device trees: the machine's own, read; each guest's, written.
#![no_std]
#![forbid(unsafe_code)]
