//! The runtime under the tests: entry, exceptions, translation, GIC, UART, timer, other CPUs.

#[macro_use]
mod frame;
#[macro_use]
pub(crate) mod sysreg;
#[macro_use]
pub(crate) mod uart;
pub(crate) mod cpu;
pub(crate) mod el0;
pub(crate) mod el2;
pub(crate) mod entry;
pub(crate) mod exception;
pub(crate) mod gic;
pub(crate) mod irq;
pub(crate) mod machine;
pub(crate) mod mem;
pub(crate) mod mmu;
pub(crate) mod mte;
pub(crate) mod smccc;
pub(crate) mod timer;
