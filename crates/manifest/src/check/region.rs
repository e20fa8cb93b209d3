//! The rules for one region.

use super::{ADDRESS_END, Files, is_name};
use crate::error::{Error, Result};
use crate::{MAX_NAME, Named, RegionKind, RegionSpec, Tags, VmSpec, WithoutMtePerm};
use addr::{PAGE_SIZE, PaRange};
use core::fmt::Display;

pub(super) fn check(vm: &VmSpec, region: &RegionSpec, files: Files<'_>) -> Result<()> {
    let refuse = |key, what: &dyn Display| Err(Error::region(vm, region, key, what));
    if !is_name(&region.name) {
        let what = format_args!("has a name that is not 1 to {MAX_NAME} characters of a-z, 0-9, _ and -");
        return refuse("name", &what);
    }
    if region.ipa.size() == 0 {
        return refuse("size", &"is empty");
    }
    if !region.ipa.start().is_aligned(PAGE_SIZE) {
        return refuse("ipa", &"does not start at a multiple of 4 KiB");
    }
    if !region.ipa.is_aligned(PAGE_SIZE) {
        return refuse("size", &"has a size that is no multiple of 4 KiB");
    }
    if region.ipa.end().get() > ADDRESS_END {
        return refuse("ipa", &"ends above the 48 bits of an IPA");
    }
    let unit = vm.lazy_unit.bytes();
    if region.tags == Tags::Lazy && !(region.ipa.is_aligned(unit)) {
        let what = format_args!("has tags \"lazy\", but is not aligned to lazy-unit {}", vm.lazy_unit.name());
        return refuse("tags", &what);
    }
    if region.without_mte_perm == WithoutMtePerm::NonCacheable && region.tags != Tags::None {
        return refuse(
            "without-mte-perm",
            &"has without-mte-perm \"noncacheable\", which needs tags \"none\"",
        );
    }
    content(vm, region, files)?;
    kind(vm, region)
}

fn content(vm: &VmSpec, region: &RegionSpec, files: Files<'_>) -> Result<()> {
    let Some(file) = &region.file else { return Ok(()) };
    let size = region.ipa.size();
    let refuse = |what: &dyn Display| Err(Error::region(vm, region, "file", what));
    match files(file) {
        None => refuse(&format_args!("has the file \"{file}\", which is not in the bundle")),
        Some(len) if len > size => {
            refuse(&format_args!("has the file \"{file}\" of {len} bytes, more than its own {size}"))
        }
        Some(_) => Ok(()),
    }
}

fn kind(vm: &VmSpec, region: &RegionSpec) -> Result<()> {
    let refuse = |key, what: &dyn Display| Err(Error::region(vm, region, key, what));
    match &region.kind {
        RegionKind::Ram | RegionKind::ReadOnly { .. } => Ok(()),
        RegionKind::Shared { share } => {
            if !is_name(share) {
                let what =
                    format_args!("has a share that is not 1 to {MAX_NAME} characters of a-z, 0-9, _ and -");
                return refuse("share", &what);
            }
            // A first tag access by one VM would have to change the other's mapping.
            if region.tags == Tags::Lazy {
                return refuse("tags", &"is shared and cannot have tags \"lazy\"");
            }
            Ok(())
        }
        RegionKind::Device { pa, .. } => {
            if !pa.is_aligned(PAGE_SIZE) {
                return refuse("pa", &format_args!("has pa {pa}, which is no multiple of 4 KiB"));
            }
            match PaRange::new(*pa, region.ipa.size()) {
                Some(range) if range.end().get() <= ADDRESS_END => {}
                Some(_) | None => {
                    return refuse("pa", &format_args!("has pa {pa}, which ends above 48 bits"));
                }
            }
            if region.tags != Tags::None {
                return refuse("tags", &"is a device and can only have tags \"none\"");
            }
            if region.file.is_some() {
                return refuse("file", &"is a device and cannot have a file");
            }
            Ok(())
        }
    }
}
