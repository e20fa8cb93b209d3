//! Translation tables: descriptors, the stage-2 builder, walkers.
#![no_std]
#![forbid(unsafe_code)]
