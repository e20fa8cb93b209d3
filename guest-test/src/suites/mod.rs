//! The suites, one file each.

use crate::harness::Suite;

mod entry;

/// All suites in the order in which they run.
pub(crate) static ALL: &[&Suite] = &[&entry::SUITE];
