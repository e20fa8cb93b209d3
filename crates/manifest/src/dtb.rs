//! The compiled manifest, `manifest.dtb`: a flattened device tree (Devicetree Specification v0.4,
//! chapter 5) with one node per VM and, below it, one per region.
//!
//! ```dts
//! / {
//!     compatible = "tagvisor,manifest-v1";
//!     taggable = "ranges";                    // "none", "all"
//!     taggable-ranges = <PA64 SIZE64 ...>;
//!     tag-storage = <PA64 SIZE64 ...>;
//!     vm@0 {
//!         name = "linux"; cpus = <0 1>; cmdline = "..."; priority = <100>; on-serror = "inject";
//!         mte; sve = "if-present"; sve-vl = <BITS>; autostart; background; no-debug;
//!         tag-quota = <PAGES64>; lazy-unit = "4KiB";
//!         nested = "vhe";
//!         kernel = "FILE"; kernel-at = <IPA64>; entry = <IPA64>; dtb-at = <IPA64>;
//!         initrd = "FILE"; initrd-at = <IPA64>;
//!         control-all;                        // or control = <VM ...>
//!         cpu-fields = [REGISTER LSB VALUE ...]; cpu-names = "LINE\nLINE...";
//!         region@0 {
//!             name = "ram"; reg = <IPA64 SIZE64>; kind = "ram"; file = "FILE";
//!             tags = "backed"; on-tag-access = "stop"; without-mte-perm = "refuse";
//!             cmo = "emulate";                // read-only
//!             share = "NAME";                 // shared
//!             pa = <PA64>; memory-type = "device"; interrupts = <PHYSICAL GUEST EDGE ...>;
//!         };
//!     };
//! };
//! ```
//! Properties that a reader does not know are refused: they would change what the others mean.
//! [`read`] refuses what has no meaning, [`check`](crate::check()) what makes no sense.

use crate::error::Result;
use crate::{
    Cmo, Control, CpuField, CpuSpec, DeviceInterrupt, DeviceMemory, Error, KernelSpec, LazyUnit,
    MAX_CPU_FIELDS, MAX_REGIONS, MAX_VCPUS, MAX_VMS, MachineSpec, Named, Nested, OnSError, OnTagAccess,
    Placed, RegionKind, RegionSpec, Sve, Taggable, Tags, VmSpec, WithoutMtePerm,
};
use addr::{Ipa, IpaRange, Pa, PaRange};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use dtoolkit::fdt::{Fdt, FdtNode, FdtProperty};
use dtoolkit::{FromPropertyValue, Node, Property};

/// What a compiled manifest is compatible with.
pub const COMPATIBLE: &str = "tagvisor,manifest-v1";

const MACHINE: &[&str] = &["compatible", "taggable", "taggable-ranges", "tag-storage"];
const VM: &[&str] = &[
    "name",
    "cpus",
    "cmdline",
    "priority",
    "on-serror",
    "mte",
    "sve",
    "sve-vl",
    "nested",
    "autostart",
    "background",
    "no-debug",
    "tag-quota",
    "lazy-unit",
    "kernel",
    "kernel-at",
    "entry",
    "dtb-at",
    "initrd",
    "initrd-at",
    "control-all",
    "control",
    "cpu-fields",
    "cpu-names",
];
const REGION: &[&str] = &[
    "name",
    "reg",
    "kind",
    "file",
    "tags",
    "on-tag-access",
    "without-mte-perm",
    "cmo",
    "share",
    "pa",
    "memory-type",
    "interrupts",
];

/// Reads a compiled manifest.
pub fn read(dtb: &[u8]) -> core::result::Result<MachineSpec, Error> {
    machine(dtb).map_err(|error| *error)
}

fn machine(dtb: &[u8]) -> Result<MachineSpec> {
    let malformed = |e| Error::machine("", &format_args!("the compiled manifest is no device tree: {e}"));
    let fdt = Fdt::new(dtb).map_err(malformed)?;
    let root = Entry::new(fdt.root(), String::new());
    if root.get::<&str>("compatible")? != Some(COMPATIBLE) {
        let message = format_args!("the compiled manifest is not compatible with \"{COMPATIBLE}\"");
        return Err(Error::machine("", &message));
    }
    root.known(MACHINE)?;
    Ok(MachineSpec {
        taggable: taggable(&root)?,
        tag_storage: ranges(&root, "tag-storage")?,
        vms: root.children("vm", MAX_VMS, vm)?,
    })
}

fn taggable(root: &Entry<'_>) -> Result<Taggable> {
    let key = "taggable";
    match root.need::<&str>(key)? {
        "none" => Ok(Taggable::None),
        "all" => Ok(Taggable::All),
        "ranges" => Ok(Taggable::Ranges(ranges(root, "taggable-ranges")?)),
        _ => Err(root.malformed(key)),
    }
}

/// Physical ranges; none if there is no such property.
fn ranges(root: &Entry<'_>, key: &str) -> Result<Vec<PaRange>> {
    let mut ranges = Vec::new();
    for pair in root.numbers(key, 8, 2)?.unwrap_or_default().chunks_exact(2) {
        let &[pa, size] = pair else { continue };
        ranges.push(PaRange::new(Pa::new(pa), size).ok_or_else(|| root.malformed(key))?);
    }
    Ok(ranges)
}

fn vm(entry: &Entry<'_>) -> Result<VmSpec> {
    entry.known(VM)?;
    let cpus = entry.list("cpus", MAX_VCPUS)?.ok_or_else(|| entry.missing("cpus"))?;
    let control = match (entry.flag("control-all")?, entry.list("control", MAX_VMS)?) {
        (false, None) => Control::None,
        (true, None) => Control::All,
        (false, Some(vms)) => Control::Vms(vms),
        (true, Some(_)) => return Err(entry.malformed("control")),
    };
    let image = entry.placed("kernel", "kernel-at")?.ok_or_else(|| entry.missing("kernel"))?;
    Ok(VmSpec {
        name: entry.need("name")?,
        cpus,
        regions: entry.children("region", MAX_REGIONS, region)?,
        kernel: KernelSpec { image, entry: Ipa::new(entry.need("entry")?) },
        initrd: entry.placed("initrd", "initrd-at")?,
        dtb: Ipa::new(entry.need("dtb-at")?),
        cmdline: entry.need("cmdline")?,
        mte: entry.flag("mte")?,
        sve: entry.named::<Sve>("sve")?,
        sve_vl: entry.get::<u32>("sve-vl")?.map(|bits| entry.narrow("sve-vl", bits.into())).transpose()?,
        nested: entry.has("nested").then(|| entry.named::<Nested>("nested")).transpose()?,
        priority: entry.narrow("priority", entry.need::<u32>("priority")?.into())?,
        control,
        autostart: entry.flag("autostart")?,
        background: entry.flag("background")?,
        debug: !entry.flag("no-debug")?,
        on_serror: entry.named::<OnSError>("on-serror")?,
        tag_quota: entry.get("tag-quota")?,
        cpu: cpu(entry)?,
        lazy_unit: entry.named::<LazyUnit>("lazy-unit")?,
    })
}

fn cpu(entry: &Entry<'_>) -> Result<CpuSpec> {
    let Some(bytes) = entry.get::<&[u8]>("cpu-fields")? else { return Ok(CpuSpec::default()) };
    let names: String = entry.need("cpu-names")?;
    let (triples, rest) = bytes.as_chunks();
    if !rest.is_empty() || triples.len() > MAX_CPU_FIELDS || names.lines().count() != triples.len() {
        return Err(entry.malformed("cpu-fields"));
    }
    let fields = triples.iter().map(|&[register, lsb, value]| CpuField { register, lsb, value }).collect();
    Ok(CpuSpec { fields, names })
}

fn region(entry: &Entry<'_>) -> Result<RegionSpec> {
    entry.known(REGION)?;
    let reg = entry.numbers("reg", 8, 2)?.ok_or_else(|| entry.missing("reg"))?;
    let &[ipa, size] = reg.as_slice() else { return Err(entry.malformed("reg")) };
    let ipa = IpaRange::new(Ipa::new(ipa), size).ok_or_else(|| entry.malformed("reg"))?;
    let kind = match entry.need::<&str>("kind")? {
        "ram" => RegionKind::Ram,
        "read-only" => RegionKind::ReadOnly { cmo: entry.named::<Cmo>("cmo")? },
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

fn interrupts(entry: &Entry<'_>) -> Result<Vec<DeviceInterrupt>> {
    let key = "interrupts";
    let mut interrupts = Vec::new();
    for triple in entry.numbers(key, 4, 3)?.unwrap_or_default().chunks_exact(3) {
        let &[physical, guest, edge @ (0 | 1)] = triple else { return Err(entry.malformed(key)) };
        let (physical, guest) = (entry.narrow(key, physical)?, entry.narrow(key, guest)?);
        interrupts.push(DeviceInterrupt { physical, guest, edge: edge == 1 });
    }
    Ok(interrupts)
}

/// A node, with its path for sentences.
struct Entry<'a> {
    node: FdtNode<'a>,
    /// Its properties: each is asked for by name, and the blob would be read from the node's start for it.
    properties: Vec<FdtProperty<'a>>,
    path: String,
}

impl<'a> Entry<'a> {
    fn new(node: FdtNode<'a>, path: String) -> Self {
        Self { node, properties: node.properties().collect(), path }
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, what: &str, name: &str) -> Box<Error> {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        Error::machine("", &format_args!("the compiled manifest has {what} \"{name}\" at {path}"))
    }

    fn missing(&self, name: &str) -> Box<Error> {
        self.refuse("no property", name)
    }

    fn malformed(&self, name: &str) -> Box<Error> {
        self.refuse("a malformed property", name)
    }

    /// Refuses properties other than these.
    fn known(&self, names: &[&str]) -> Result<()> {
        match self.properties.iter().find(|p| !names.contains(&p.name())) {
            Some(property) => Err(self.refuse("an unknown property", property.name())),
            None => Ok(()),
        }
    }

    /// What `read` makes of the children, all of which must be `NAME@...`, and at most `max`.
    fn children<T>(&self, name: &str, max: usize, read: fn(&Entry<'a>) -> Result<T>) -> Result<Vec<T>> {
        let mut children = Vec::new();
        for node in self.node.children() {
            children.push(read(&self.child(node, name, children.len() < max)?)?);
        }
        Ok(children)
    }

    /// A child that must be `NAME@...` and have a place.
    fn child(&self, node: FdtNode<'a>, name: &str, has_place: bool) -> Result<Entry<'a>> {
        if node.name_without_address() != name {
            return Err(self.refuse("an unknown node", node.name()));
        }
        if !has_place {
            return Err(self.refuse("too many nodes", name));
        }
        Ok(Entry::new(node, format!("{}/{}", self.path, node.name())))
    }

    fn has(&self, name: &str) -> bool {
        self.properties.iter().any(|p| p.name() == name)
    }

    fn get<T: FromPropertyValue<'a>>(&self, name: &str) -> Result<Option<T>> {
        let Some(property) = self.properties.iter().find(|p| p.name() == name) else { return Ok(None) };
        property.value_as().map(Some).map_err(|_| self.malformed(name))
    }

    fn need<T: FromPropertyValue<'a>>(&self, name: &str) -> Result<T> {
        self.get(name)?.ok_or_else(|| self.missing(name))
    }

    fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.get::<[u8; 0]>(name)?.is_some())
    }

    fn named<T: Named>(&self, name: &str) -> Result<T> {
        T::from_name(self.need(name)?).ok_or_else(|| self.malformed(name))
    }

    fn placed(&self, file: &str, at: &str) -> Result<Option<Placed>> {
        let Some(file) = self.get(file)? else { return Ok(None) };
        Ok(Some(Placed { file, at: Ipa::new(self.need(at)?) }))
    }

    /// A list of at most `max` numbers.
    fn list(&self, name: &str, max: usize) -> Result<Option<Vec<u16>>> {
        let Some(numbers) = self.numbers(name, 4, 1)? else { return Ok(None) };
        if numbers.len() > max {
            return Err(self.malformed(name));
        }
        let mut list = Vec::new();
        for number in numbers {
            list.push(self.narrow(name, number)?);
        }
        Ok(Some(list))
    }

    /// Numbers of `size` bytes, which come in groups of `group`.
    fn numbers(&self, name: &str, size: usize, group: usize) -> Result<Option<Vec<u64>>> {
        let Some(bytes) = self.get::<&[u8]>(name)? else { return Ok(None) };
        if !bytes.len().is_multiple_of(size.saturating_mul(group)) {
            return Err(self.malformed(name));
        }
        let number = |chunk: &[u8]| chunk.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        Ok(Some(bytes.chunks_exact(size).map(number).collect()))
    }

    fn narrow<T: TryFrom<u64>>(&self, name: &str, value: u64) -> Result<T> {
        T::try_from(value).map_err(|_| self.malformed(name))
    }
}

#[cfg(test)]
mod tests;
