//! When the ID registers of a VM stop changing.
//!
//! [`Freeze`] is a value that lives behind a lock. Whoever changes it holds the lock, and so does
//! whoever freezes it, which every vCPU of the VM does before it begins: what the first of them got, all
//! others get. Guests read through the reference that came out of it, without a lock, and nothing
//! changes behind it. Since a setter looks at the state while it holds the lock that a freeze needs, it
//! comes before the freeze, and all vCPUs see its value, or after, and it is refused.

/// Something that is changed as a `D`, until it is frozen into an `S`.
#[derive(Debug)]
pub enum Freeze<D, S> {
    /// Open to changes.
    Open(D),
    /// As it stays.
    Frozen(S),
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied<E> {
    /// It comes after the freeze.
    Frozen,
    /// The change itself is wrong.
    Wrong(E),
}

impl<D, S: Copy> Freeze<D, S> {
    /// Changes the draft. After the freeze, only what is the `same` as it is already is accepted.
    ///
    /// # Errors
    /// [`Denied::Frozen`] after the freeze, or what `change` says.
    pub fn change<E>(
        &mut self,
        same: impl FnOnce(S) -> bool,
        change: impl FnOnce(&mut D) -> Result<(), E>,
    ) -> Result<(), Denied<E>> {
        match self {
            Self::Open(draft) => change(draft).map_err(Denied::Wrong),
            Self::Frozen(frozen) if same(*frozen) => Ok(()),
            Self::Frozen(_) => Err(Denied::Frozen),
        }
    }

    /// Freezes the draft into what `seal` makes of it; what was frozen already stays as it is.
    ///
    /// # Errors
    /// What `seal` says; the draft stays open to changes then.
    pub fn freeze<E>(&mut self, seal: impl FnOnce(&mut D) -> Result<S, E>) -> Result<S, E> {
        match self {
            Self::Frozen(frozen) => Ok(*frozen),
            Self::Open(draft) => {
                let frozen = seal(draft)?;
                *self = Self::Frozen(frozen);
                Ok(frozen)
            }
        }
    }

    /// What it was frozen into.
    pub const fn frozen(&self) -> Option<S> {
        match self {
            Self::Open(_) => None,
            Self::Frozen(frozen) => Some(*frozen),
        }
    }
}
