//! The keys of a region.

use crate::Error;
use crate::source::{Table, Value, one_of};
use addr::{Ipa, IpaRange, Pa};
use manifest::layout::RAM_BASE;
use manifest::{
    Cmo, DeviceInterrupt, DeviceMemory, Named, OnTagAccess, RegionKind, RegionSpec, Tags, WithoutMtePerm,
};

const KEYS: &[&str] = &[
    "name",
    "ipa",
    "size",
    "kind",
    "share",
    "file",
    "pa",
    "interrupts",
    "memory-type",
    "dma",
    "tags",
    "on-tag-access",
    "without-mte-perm",
    "cmo",
];
/// Keys that only some kinds have.
const OF_KIND: &[(&str, &str)] = &[
    ("cmo", "read-only"),
    ("share", "shared"),
    ("pa", "device"),
    ("interrupts", "device"),
    ("memory-type", "device"),
    ("dma", "device"),
];

type Region<'a> = (RegionSpec, Option<Value<'a>>);

/// All regions of a VM with their files; `memory` is short for the first.
pub(super) fn all<'a>(vm: &Table<'a>, mte: bool) -> Result<Vec<Region<'a>>, Error> {
    let mut regions = Vec::new();
    if let Some(memory) = vm.get("memory") {
        let ipa = IpaRange::new(Ipa::new(RAM_BASE), memory.number()?);
        let ram = RegionSpec {
            name: "ram".into(),
            ipa: ipa.ok_or_else(|| memory.error("does not fit in the address space"))?,
            kind: RegionKind::Ram,
            file: None,
            tags: Tags::Backed,
            on_tag_access: OnTagAccess::Stop,
            without_mte_perm: WithoutMtePerm::Refuse,
        };
        regions.push((ram, None));
    }
    for table in vm.tables("region")? {
        regions.push(one(vm, table, mte)?);
    }
    Ok(regions)
}

fn one<'a>(vm: &Table<'a>, table: Table<'a>, mte: bool) -> Result<Region<'a>, Error> {
    let name = table.clone().called(format!("{}region: ", vm.name())).need("name")?.str()?;
    let table = table.called(format!("{}region \"{name}\": ", vm.name()));
    table.known(KEYS)?;
    let kind = kind(&table)?;
    let size = table.need("size")?;
    let ipa = IpaRange::new(Ipa::new(table.need("ipa")?.number()?), size.number()?);
    let tags = word(&table, "tags", if kind == RegionKind::Ram { Tags::Backed } else { Tags::None })?;
    if mte && kind == RegionKind::Ram && tags == Tags::None && table.get("on-tag-access").is_none() {
        let what = "is RAM with tags \"none\" in a VM with MTE: write out on-tag-access";
        return Err(table.called(format!("{}region \"{name}\" ", vm.name())).error(what));
    }
    let spec = RegionSpec {
        name: name.into(),
        ipa: ipa.ok_or_else(|| size.error("does not fit in the address space"))?,
        kind,
        file: None,
        tags,
        on_tag_access: word(&table, "on-tag-access", OnTagAccess::Stop)?,
        without_mte_perm: word(&table, "without-mte-perm", WithoutMtePerm::Refuse)?,
    };
    Ok((spec, table.get("file")))
}

fn word<T: Named>(table: &Table<'_>, key: &str, default: T) -> Result<T, Error> {
    table.get(key).map_or(Ok(default), |value| value.word())
}

fn kind(table: &Table<'_>) -> Result<RegionKind, Error> {
    let name = table.get("kind").map(|v| v.str()).transpose()?.unwrap_or("ram");
    for &(key, needs) in OF_KIND {
        if name != needs && table.get(key).is_some() {
            return Err(table.error(format!("key \"{key}\" is only for kind \"{needs}\"")));
        }
    }
    match name {
        "ram" => Ok(RegionKind::Ram),
        "read-only" => Ok(RegionKind::ReadOnly { cmo: word(table, "cmo", Cmo::Emulate)? }),
        "shared" => Ok(RegionKind::Shared { share: table.need("share")?.str()?.into() }),
        "device" => device(table),
        _ => Err(table.need("kind")?.error(one_of(&RegionKind::NAMES))),
    }
}

fn device(table: &Table<'_>) -> Result<RegionKind, Error> {
    let dma = table.need("dma")?;
    if dma.str()? != "none" {
        return Err(dma.error("is not \"none\": devices with DMA need an SMMU driver, which does not exist"));
    }
    let mut interrupts = Vec::new();
    if let Some(list) = table.get("interrupts") {
        for item in list.list()? {
            interrupts.push(interrupt(&item.table()?)?);
        }
    }
    Ok(RegionKind::Device {
        pa: Pa::new(table.need("pa")?.number()?),
        memory_type: word(table, "memory-type", DeviceMemory::Device)?,
        interrupts,
    })
}

fn interrupt(table: &Table<'_>) -> Result<DeviceInterrupt, Error> {
    table.known(&["physical", "guest", "trigger"])?;
    let physical = table.need("physical")?.small(u32::MAX)?;
    let guest = table.get("guest").map_or(Ok(physical), |v| v.small(u32::MAX))?;
    let edge = match table.get("trigger") {
        None => false,
        Some(trigger) => match trigger.str()? {
            "level" => false,
            "edge" => true,
            _ => return Err(trigger.error(one_of(&["level", "edge"]))),
        },
    };
    Ok(DeviceInterrupt { physical, guest, edge })
}
