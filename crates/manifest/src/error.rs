//! Why a manifest is refused: one sentence, and the entry that it blames.

use crate::{RegionSpec, VmSpec};
use alloc::format;
use alloc::string::String;
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

impl Error {
    /// Blames the machine.
    pub(crate) fn machine(key: &'static str, message: impl Into<String>) -> Self {
        Self { vm: None, region: None, key, message: message.into() }
    }

    /// Blames a VM.
    pub(crate) fn vm(vm: &VmSpec, key: &'static str, message: impl Into<String>) -> Self {
        Self { vm: Some(vm.name.clone()), ..Self::machine(key, message) }
    }

    /// Blames a region: the sentence starts with its name and place.
    pub(crate) fn region(vm: &VmSpec, region: &RegionSpec, key: &'static str, what: &str) -> Self {
        let message = format!("{} {what}", named(region));
        Self { region: Some(region.name.clone()), ..Self::vm(vm, key, message) }
    }
}

/// A region as sentences name it.
pub(crate) fn named(region: &RegionSpec) -> String {
    format!("region \"{}\" ({})", region.name, span(region.ipa.start().get(), region.ipa.end().get()))
}

/// A range of addresses as sentences write it; its end is the first address behind it.
pub(crate) fn span(start: u64, end: u64) -> String {
    format!("{start:#x} - {end:#x}")
}
