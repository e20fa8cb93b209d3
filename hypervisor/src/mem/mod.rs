//! EL2's own memory: the heap, the map, the windows into guest memory.

pub(crate) mod heap;
pub(crate) mod map;
#[cfg(feature = "provoke")]
pub(crate) mod provoke;
pub(crate) mod tables;
pub(crate) mod window;
