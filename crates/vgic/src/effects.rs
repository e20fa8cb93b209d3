//! What a call asks the hypervisor to do: [`Kick`] and [`Changes`].

use core::ops::{BitOr, BitOrAssign};

/// The vCPUs that must run [`Vgic::sync`](crate::Vgic::sync) before they next enter their guest; the
/// caller's own may be among them. A vCPU that waits in WFI must be looked at with `has_pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the vCPUs named here do not see the change until they sync"]
pub struct Kick(u16);

impl Kick {
    /// Nobody.
    pub const NONE: Self = Self(0);

    pub(crate) const fn one(vcpu: usize) -> Self {
        if vcpu < 16 { Self(1u16.wrapping_shl(vcpu as u32)) } else { Self::NONE }
    }

    pub(crate) const fn first(vcpus: usize) -> Self {
        Self(!(!0u16).unbounded_shl(vcpus as u32))
    }

    pub(crate) const fn without(self, vcpu: usize) -> Self {
        Self(self.0 & !Self::one(vcpu).0)
    }

    /// The vCPUs as a bitmap.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether nobody is named.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `vcpu` is named.
    #[must_use]
    pub const fn contains(self, vcpu: usize) -> bool {
        self.0 & Self::one(vcpu).0 != 0
    }

    /// The vCPUs named, in ascending order.
    #[must_use]
    pub const fn iter(self) -> VcpuIter {
        VcpuIter(self.0)
    }
}

impl BitOr for Kick {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Kick {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl IntoIterator for Kick {
    type Item = usize;
    type IntoIter = VcpuIter;
    fn into_iter(self) -> VcpuIter {
        self.iter()
    }
}

/// The vCPUs of a [`Kick`].
#[derive(Clone, Debug)]
pub struct VcpuIter(u16);

impl Iterator for VcpuIter {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let n = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        Some(n)
    }
}

/// A few physical INTIDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhysIntids {
    len: usize,
    ids: [u16; Self::CAPACITY],
}

impl PhysIntids {
    const CAPACITY: usize = 8;

    /// The INTIDs.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ids.iter().take(self.len).map(|&id| u32::from(id))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `id`, or says `false` because it is full.
    pub(crate) fn push(&mut self, id: u16) -> bool {
        let Some(slot) = self.ids.get_mut(self.len) else { return false };
        *slot = id;
        self.len = self.len.wrapping_add(1);
        true
    }
}

/// What the hypervisor must do after list registers were synchronized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "physical interrupts stay active and other vCPUs stale until this is applied"]
pub struct Changes {
    /// Other vCPUs that got work, because an SPI that left this vCPU's list registers is theirs; the
    /// vCPU itself if `deactivate` was too small for all.
    pub kick: Kick,
    /// Physical interrupts to deactivate at the physical GIC (on the CPU of this vCPU, for PPIs):
    /// the model took them back, so no EOI of the guest will.
    pub deactivate: PhysIntids,
}
