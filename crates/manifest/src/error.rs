//! Why a manifest is refused: one sentence, and the entry that it blames.

use crate::{RegionSpec, VmSpec};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::fmt;

/// Why a manifest is refused. `Display` is one sentence that names the VM, the entry and, where
/// two entries collide, both.
///
/// The fields tell a tool that has the source where to point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Name of the VM to blame; `None` is the machine.
    pub vm: Option<String>,
    /// Name of its region to blame, if it is one.
    pub region: Option<String>,
    /// Key of the manifest to blame; empty if it is the whole entry.
    pub key: &'static str,
    /// What is wrong, without the VM's name.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(vm) = &self.vm {
            write!(f, "vm \"{vm}\": ")?;
        }
        f.write_str(&self.message)
    }
}

impl core::error::Error for Error {}

/// What a check inside the crate returns: the error boxed, because it goes through many hands.
pub(crate) type Result<T> = core::result::Result<T, Box<Error>>;

impl Error {
    /// Blames the machine.
    #[cold]
    #[inline(never)]
    pub(crate) fn machine(key: &'static str, message: &dyn fmt::Display) -> Box<Self> {
        Box::new(Self { vm: None, region: None, key, message: message.to_string() })
    }

    /// Blames a VM.
    #[cold]
    #[inline(never)]
    pub(crate) fn vm(vm: &VmSpec, key: &'static str, message: &dyn fmt::Display) -> Box<Self> {
        let mut error = Self::machine(key, message);
        error.vm = Some(vm.name.clone());
        error
    }

    /// Blames a region: the sentence starts with its name and place.
    #[cold]
    #[inline(never)]
    pub(crate) fn region(
        vm: &VmSpec,
        region: &RegionSpec,
        key: &'static str,
        what: &dyn fmt::Display,
    ) -> Box<Self> {
        let mut error = Self::vm(vm, key, &format_args!("{} {what}", Named(region)));
        error.region = Some(region.name.clone());
        error
    }
}

/// A region as sentences name it.
pub(crate) struct Named<'a>(pub(crate) &'a RegionSpec);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RegionSpec { name, ipa, .. } = self.0;
        write!(f, "region \"{name}\" ({})", Span(ipa.start().get(), ipa.end().get()))
    }
}

/// A range of addresses as sentences write it; its end is the first address behind it.
pub(crate) struct Span(pub(crate) u64, pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} - {:#x}", self.0, self.1)
    }
}
