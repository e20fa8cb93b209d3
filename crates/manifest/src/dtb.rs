//! The compiled manifest, `manifest.dtb`: a flattened device tree (Devicetree Specification v0.4,
//! chapter 5) with one node per VM and, below it, one per region.
//!
//! ```dts
//! / {
//!     compatible = "tagvisor,manifest-v1";
//!     taggable = "ranges";                    // "none", "all"
//!     taggable-ranges = <PA64 SIZE64 ...>;
//!     vm@0 {
//!         name = "linux"; cpus = <0 1>; cmdline = "..."; priority = <100>; on-serror = "inject";
//!         mte; autostart; tag-quota = <PAGES64>;
//!         kernel = "FILE"; kernel-at = <IPA64>; entry = <IPA64>; dtb-at = <IPA64>;
//!         initrd = "FILE"; initrd-at = <IPA64>;
//!         control-all;                        // or control = <VM ...>
//!         region@0 {
//!             name = "ram"; reg = <IPA64 SIZE64>; kind = "ram"; file = "FILE";
//!             tags = "backed"; on-tag-access = "stop"; without-mte-perm = "refuse";
//!             share = "NAME";                 // shared
//!             pa = <PA64>; memory-type = "device"; interrupts = <PHYSICAL GUEST EDGE ...>;
//!         };
//!     };
//! };
//! ```
//! Properties that a reader does not know are refused: they would change what the others mean.
//! [`read`] refuses what has no meaning, [`check`](crate::check()) what makes no sense.

use crate::{
    Control, DeviceInterrupt, DeviceMemory, Error, KernelSpec, MAX_REGIONS, MAX_VCPUS, MAX_VMS, MachineSpec,
    Named, OnSError, OnTagAccess, Placed, RegionKind, RegionSpec, Taggable, Tags, VmSpec, WithoutMtePerm,
};
use addr::{Ipa, IpaRange, Pa, PaRange};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{FromPropertyValue, Node, Property};

/// What a compiled manifest is compatible with.
pub const COMPATIBLE: &str = "tagvisor,manifest-v1";

const MACHINE: &[&str] = &["compatible", "taggable", "taggable-ranges"];
const VM: &[&str] = &[
    "name",
    "cpus",
    "cmdline",
    "priority",
    "on-serror",
    "mte",
    "autostart",
    "tag-quota",
    "kernel",
    "kernel-at",
    "entry",
    "dtb-at",
    "initrd",
    "initrd-at",
    "control-all",
    "control",
];
const REGION: &[&str] = &[
    "name",
    "reg",
    "kind",
    "file",
    "tags",
    "on-tag-access",
    "without-mte-perm",
    "share",
    "pa",
    "memory-type",
    "interrupts",
];

/// Reads a compiled manifest.
pub fn read(dtb: &[u8]) -> Result<MachineSpec, Error> {
    let malformed = |e| Error::machine("", format!("the compiled manifest is no device tree: {e}"));
    let fdt = Fdt::new(dtb).map_err(malformed)?;
    let root = Entry { node: fdt.root(), path: String::new() };
    if root.get::<&str>("compatible")? != Some(COMPATIBLE) {
        let message = format!("the compiled manifest is not compatible with \"{COMPATIBLE}\"");
        return Err(Error::machine("", message));
    }
    root.known(MACHINE)?;
    let vms = root.children("vm", MAX_VMS)?;
    Ok(MachineSpec { taggable: taggable(&root)?, vms: vms.iter().map(vm).collect::<Result<_, _>>()? })
}

fn taggable(root: &Entry<'_>) -> Result<Taggable, Error> {
    let key = "taggable";
    match root.need::<&str>(key)? {
        "none" => Ok(Taggable::None),
        "all" => Ok(Taggable::All),
        "ranges" => {
            let pairs = root.tuples::<u64, 2>("taggable-ranges")?.unwrap_or_default();
            let range = |&[pa, size]: &[u64; 2]| PaRange::new(Pa::new(pa), size).ok_or(root.malformed(key));
            Ok(Taggable::Ranges(pairs.iter().map(range).collect::<Result<_, _>>()?))
        }
        _ => Err(root.malformed(key)),
    }
}

fn vm(entry: &Entry<'_>) -> Result<VmSpec, Error> {
    entry.known(VM)?;
    let cpus = entry.list("cpus", MAX_VCPUS)?.ok_or_else(|| entry.missing("cpus"))?;
    let control = match (entry.flag("control-all")?, entry.list("control", MAX_VMS)?) {
        (false, None) => Control::None,
        (true, None) => Control::All,
        (false, Some(vms)) => Control::Vms(vms),
        (true, Some(_)) => return Err(entry.malformed("control")),
    };
    let image = entry.placed("kernel", "kernel-at")?.ok_or_else(|| entry.missing("kernel"))?;
    let regions = entry.children("region", MAX_REGIONS)?;
    Ok(VmSpec {
        name: entry.need("name")?,
        cpus,
        regions: regions.iter().map(region).collect::<Result<_, _>>()?,
        kernel: KernelSpec { image, entry: Ipa::new(entry.need("entry")?) },
        initrd: entry.placed("initrd", "initrd-at")?,
        dtb: Ipa::new(entry.need("dtb-at")?),
        cmdline: entry.need("cmdline")?,
        mte: entry.flag("mte")?,
        priority: narrow(entry, "priority", entry.need::<u32>("priority")?)?,
        control,
        autostart: entry.flag("autostart")?,
        on_serror: entry.named::<OnSError>("on-serror")?,
        tag_quota: entry.get("tag-quota")?,
    })
}

fn region(entry: &Entry<'_>) -> Result<RegionSpec, Error> {
    entry.known(REGION)?;
    let reg = entry.tuples::<u64, 2>("reg")?.ok_or_else(|| entry.missing("reg"))?;
    let &[[ipa, size]] = reg.as_slice() else { return Err(entry.malformed("reg")) };
    let ipa = IpaRange::new(Ipa::new(ipa), size).ok_or_else(|| entry.malformed("reg"))?;
    let kind = match entry.need::<&str>("kind")? {
        "ram" => RegionKind::Ram,
        "read-only" => RegionKind::ReadOnly,
        "shared" => RegionKind::Shared { share: entry.need("share")? },
        "device" => RegionKind::Device {
            pa: Pa::new(entry.need("pa")?),
            memory_type: entry.named::<DeviceMemory>("memory-type")?,
            interrupts: interrupts(entry)?,
        },
        _ => return Err(entry.malformed("kind")),
    };
    Ok(RegionSpec {
        name: entry.need("name")?,
        ipa,
        kind,
        file: entry.get("file")?,
        tags: entry.named::<Tags>("tags")?,
        on_tag_access: entry.named::<OnTagAccess>("on-tag-access")?,
        without_mte_perm: entry.named::<WithoutMtePerm>("without-mte-perm")?,
    })
}

fn interrupts(entry: &Entry<'_>) -> Result<Vec<DeviceInterrupt>, Error> {
    let key = "interrupts";
    let interrupt = |&[physical, guest, edge]: &[u32; 3]| match edge {
        0 | 1 => Ok(DeviceInterrupt { physical, guest, edge: edge == 1 }),
        _ => Err(entry.malformed(key)),
    };
    entry.tuples::<u32, 3>(key)?.unwrap_or_default().iter().map(interrupt).collect()
}

fn narrow<T: TryFrom<u32>>(entry: &Entry<'_>, key: &str, value: u32) -> Result<T, Error> {
    T::try_from(value).map_err(|_| entry.malformed(key))
}

/// A node, with its path for sentences.
struct Entry<'a> {
    node: FdtNode<'a>,
    path: String,
}

impl<'a> Entry<'a> {
    fn refuse(&self, what: &str, name: &str) -> Error {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        Error::machine("", format!("the compiled manifest has {what} \"{name}\" at {path}"))
    }

    fn missing(&self, name: &str) -> Error {
        self.refuse("no property", name)
    }

    fn malformed(&self, name: &str) -> Error {
        self.refuse("a malformed property", name)
    }

    /// Refuses properties other than these.
    fn known(&self, names: &[&str]) -> Result<(), Error> {
        match self.node.properties().find(|p| !names.contains(&p.name())) {
            Some(property) => Err(self.refuse("an unknown property", property.name())),
            None => Ok(()),
        }
    }

    /// The children, all of which must be `NAME@...`, and at most `max`.
    fn children(&self, name: &str, max: usize) -> Result<Vec<Entry<'a>>, Error> {
        let mut children = Vec::new();
        for node in self.node.children() {
            if node.name_without_address() != name {
                return Err(self.refuse("an unknown node", node.name()));
            }
            if children.len() == max {
                return Err(self.refuse("too many nodes", name));
            }
            let path = format!("{}/{}", self.path, node.name());
            children.push(Entry { node, path });
        }
        Ok(children)
    }

    fn get<T: FromPropertyValue<'a>>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(property) = self.node.property(name) else { return Ok(None) };
        property.value_as().map(Some).map_err(|_| self.malformed(name))
    }

    fn need<T: FromPropertyValue<'a>>(&self, name: &str) -> Result<T, Error> {
        self.get(name)?.ok_or_else(|| self.missing(name))
    }

    fn flag(&self, name: &str) -> Result<bool, Error> {
        Ok(self.get::<[u8; 0]>(name)?.is_some())
    }

    fn named<T: Named>(&self, name: &str) -> Result<T, Error> {
        T::from_name(self.need(name)?).ok_or_else(|| self.malformed(name))
    }

    fn placed(&self, file: &str, at: &str) -> Result<Option<Placed>, Error> {
        let Some(file) = self.get(file)? else { return Ok(None) };
        Ok(Some(Placed { file, at: Ipa::new(self.need(at)?) }))
    }

    /// A list of at most `max` numbers.
    fn list(&self, name: &str, max: usize) -> Result<Option<Vec<u16>>, Error> {
        let Some(numbers) = self.tuples::<u32, 1>(name)? else { return Ok(None) };
        if numbers.len() > max {
            return Err(self.malformed(name));
        }
        numbers.iter().map(|&[n]| narrow(self, name, n)).collect::<Result<_, _>>().map(Some)
    }

    fn tuples<T: BigEndian, const N: usize>(&self, name: &str) -> Result<Option<Vec<[T; N]>>, Error> {
        let Some(bytes) = self.get::<&[u8]>(name)? else { return Ok(None) };
        let size = size_of::<[T; N]>();
        if !bytes.len().is_multiple_of(size) {
            return Err(self.malformed(name));
        }
        let tuple = |chunk: &[u8]| {
            let mut numbers = chunk.chunks_exact(size_of::<T>()).map(T::from_bytes);
            core::array::from_fn(|_| numbers.next().unwrap_or_default())
        };
        Ok(Some(bytes.chunks_exact(size).map(tuple).collect()))
    }
}

/// Numbers of one cell (u32) or two (u64).
trait BigEndian: Default {
    /// The number in exactly its size of bytes.
    fn from_bytes(bytes: &[u8]) -> Self;
}

impl BigEndian for u32 {
    fn from_bytes(bytes: &[u8]) -> Self {
        bytes.try_into().map(Self::from_be_bytes).unwrap_or_default()
    }
}

impl BigEndian for u64 {
    fn from_bytes(bytes: &[u8]) -> Self {
        bytes.try_into().map(Self::from_be_bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
