//! ID registers: one table row per field.
#![no_std]
#![forbid(unsafe_code)]
