//! The suites, one file each.

use crate::harness::Suite;

mod abort;
mod bar;
mod cmo;
pub(crate) mod control;
mod copy;
pub(crate) mod device;
mod entry;
mod fp;
mod gic;
mod idregs;
mod isolation;
mod mte;
pub(crate) mod nested;
mod psci;
mod region;
mod sched;
pub(crate) mod shadow;
mod share;
mod smccc;
mod smp;
mod stage2;
mod sve;
mod sysreg;
pub(crate) mod tags;
mod timer;
mod wake;

/// All suites in the order in which they run.
pub(crate) static ALL: &[&Suite] = &[
    &entry::SUITE,
    &stage2::SUITE,
    &psci::SUITE,
    &smccc::SUITE,
    &gic::SUITE,
    &timer::SUITE,
    &fp::SUITE,
    &sve::SUITE,
    &sysreg::SUITE,
    &idregs::SUITE,
    &mte::SUITE,
    &nested::SUITE,
    &nested::sve::SUITE,
    &shadow::SUITE,
    &abort::SUITE,
    &cmo::SUITE,
    &smp::SUITE,
    &wake::SUITE,
    &control::SUITE,
    &copy::SUITE,
    &copy::moving::SUITE,
    &isolation::SUITE,
    &region::SUITE,
    &device::SUITE,
    &bar::SUITE,
    &share::SUITE,
    &sched::SUITE,
    &tags::SUITE,
];
