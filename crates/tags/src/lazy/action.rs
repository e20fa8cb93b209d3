//! What is done to a unit, and why not.

/// Where a unit's data can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// The memory that the region always had.
    Home,
    /// This frame of the VM's reserve.
    Reserve(u32),
}

/// What is to be done with a unit, before the ledger is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Zero the tags of `size` bytes at `at` in `frame`.
    ZeroTags {
        /// The frame that the unit gets. No guest can reach its tags.
        frame: Frame,
        /// Offset in bytes.
        at: u64,
        /// Bytes.
        size: u64,
    },
    /// Unmap the unit, everywhere. Whether the guest could write it is told to
    /// [`set_writable`](super::Ledger::set_writable).
    Break,
    /// Copy `size` bytes at `at`.
    Copy {
        /// From here.
        from: Frame,
        /// To the same offset here.
        to: Frame,
        /// Offset in bytes.
        at: u64,
        /// Bytes.
        size: u64,
    },
    /// Map the unit to `frame`, whether it is mapped or not, and leave no old translation.
    Publish {
        /// Where its data is.
        frame: Frame,
        /// With tag access.
        tagged: bool,
        /// Whether the guest may write it, if it is not mapped now.
        writable: bool,
    },
}

/// Why a unit gets no tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No region with lazy tags is there.
    NotLazy,
    /// The quota is used up.
    Quota,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an action has to be carried out"]
pub enum Next {
    /// Carry this out and ask again.
    Act(Action),
    /// Nothing: the unit is as it was asked to be.
    Done,
    /// Nothing, and it stays as it is.
    Refused(Refusal),
}
