//! The words of the manifest for the values of `spec`, in TOML and compiled alike.

use crate::{
    Cmo, DeviceMemory, LazyUnit, Nested, OnSError, OnTagAccess, RegionKind, Sve, Tags, WithoutMtePerm,
};

/// A closed set of values with a word for each.
pub trait Named: Copy + PartialEq + 'static {
    /// All values and their words.
    const NAMES: &'static [(&'static str, Self)];

    /// The word for this value.
    #[must_use]
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, v)| *v == self).map_or("", |(n, _)| n)
    }

    /// The value with this word.
    #[must_use]
    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|&(_, v)| v)
    }
}

impl Named for Tags {
    const NAMES: &'static [(&'static str, Self)] =
        &[("backed", Self::Backed), ("none", Self::None), ("lazy", Self::Lazy)];
}

impl Named for OnTagAccess {
    const NAMES: &'static [(&'static str, Self)] =
        &[("stop", Self::Stop), ("inject", Self::Inject), ("report", Self::Report)];
}

impl Named for WithoutMtePerm {
    const NAMES: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("noncacheable", Self::NonCacheable)];
}

impl Named for LazyUnit {
    const NAMES: &'static [(&'static str, Self)] = &[("4KiB", Self::Page), ("2MiB", Self::Block)];
}

impl Named for Cmo {
    const NAMES: &'static [(&'static str, Self)] =
        &[("emulate", Self::Emulate), ("architectural", Self::Architectural)];
}

impl Named for OnSError {
    const NAMES: &'static [(&'static str, Self)] = &[("inject", Self::Inject), ("stop", Self::Stop)];
}

impl Named for Sve {
    const NAMES: &'static [(&'static str, Self)] =
        &[("no", Self::No), ("if-present", Self::IfPresent), ("yes", Self::Yes)];
}

impl Named for Nested {
    const NAMES: &'static [(&'static str, Self)] = &[("vhe", Self::Vhe), ("nvhe", Self::Nvhe)];
}

impl Named for DeviceMemory {
    const NAMES: &'static [(&'static str, Self)] =
        &[("device", Self::Device), ("noncacheable", Self::NonCacheable), ("writeback", Self::WriteBack)];
}

impl RegionKind {
    /// The words for all kinds.
    pub const NAMES: [&'static str; 4] = ["ram", "read-only", "shared", "device"];

    /// The word for this kind.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::ReadOnly { .. } => "read-only",
            Self::Shared { .. } => "shared",
            Self::Device { .. } => "device",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<T: Named + core::fmt::Debug>() {
        for &(name, value) in T::NAMES {
            assert_eq!((value.name(), T::from_name(name)), (name, Some(value)));
        }
        assert_eq!(T::from_name(""), None);
    }

    #[test]
    fn words_and_values_pair_up() {
        all::<Tags>();
        all::<OnTagAccess>();
        all::<WithoutMtePerm>();
        all::<Cmo>();
        all::<OnSError>();
        all::<LazyUnit>();
        all::<Nested>();
        all::<DeviceMemory>();
    }
}
