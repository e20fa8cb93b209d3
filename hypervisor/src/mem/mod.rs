//! EL2's own memory: the heap, the map, the windows into guest memory, and the frames of the machine.

pub(crate) mod frames;
pub(crate) mod heap;
pub(crate) mod map;
pub(crate) mod tables;
pub(crate) mod window;
