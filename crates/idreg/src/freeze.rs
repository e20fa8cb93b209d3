//! When the ID registers of a VM stop changing.
//!
//! [`Freeze`] is a value that lives behind a lock. Whoever changes it holds the lock, and so does
//! whoever freezes it, which every vCPU of the VM does before it begins: what the first of them got, all
//! others get. Guests read through the reference that came out of it, without a lock, and nothing
//! changes behind it. Since a setter looks at the state while it holds the lock that a freeze needs, it
//! comes before the freeze, and all vCPUs see its value, or after, and it is refused.

/// Something that is changed as a `D`, until it is frozen into an `S`.
#[derive(Debug)]
pub struct Freeze<D, S> {
    /// `None` once it is frozen.
    draft: Option<D>,
    frozen: Option<S>,
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
    /// Open to changes.
    pub const fn new(draft: D) -> Self {
        Self { draft: Some(draft), frozen: None }
    }

    /// Changes the draft. After the freeze, only what is the `same` as it is already is accepted.
    ///
    /// # Errors
    /// [`Denied::Frozen`] after the freeze, or what `change` says.
    pub fn change<E>(
        &mut self,
        same: impl FnOnce(S) -> bool,
        change: impl FnOnce(&mut D) -> Result<(), E>,
    ) -> Result<(), Denied<E>> {
        match (&mut self.draft, self.frozen) {
            (Some(draft), None) => change(draft).map_err(Denied::Wrong),
            (_, Some(frozen)) if same(frozen) => Ok(()),
            (_, _) => Err(Denied::Frozen),
        }
    }

    /// Freezes, unless `check` finds something wrong; what was frozen already stays as it is.
    ///
    /// # Errors
    /// What `check` says; `None` cannot happen: there is always a draft or what became of it.
    pub fn freeze<E>(
        &mut self,
        check: impl FnOnce(&mut D) -> Result<(), E>,
        seal: impl FnOnce(D) -> S,
    ) -> Result<S, Option<E>> {
        if let Some(frozen) = self.frozen {
            return Ok(frozen);
        }
        let mut draft = self.draft.take().ok_or(None)?;
        match check(&mut draft) {
            Ok(()) => Ok(*self.frozen.insert(seal(draft))),
            Err(why) => {
                self.draft = Some(draft);
                Err(Some(why))
            }
        }
    }

    /// The draft, while there is one.
    pub const fn draft(&self) -> Option<&D> {
        self.draft.as_ref()
    }

    /// What it was frozen into.
    pub const fn frozen(&self) -> Option<S> {
        self.frozen
    }
}
