//! The keys of a manifest: which there are, their types and defaults, and which go together.
//!
//! What concerns values alone (overlaps, limits, alignment) is left to `manifest::check`, which the
//! hypervisor applies too.

mod cpu;
mod region;

use crate::Error;
use crate::source::{Table, Value, suggestion};
use addr::{Ipa, PAGE_SIZE, Pa, PaRange};
use manifest::{Control, KernelSpec, LazyUnit, MAX_VCPUS, MachineSpec, OnSError, Placed, Taggable, VmSpec};

const VM: &[&str] = &[
    "name",
    "cpus",
    "vcpus",
    "kernel",
    "kernel-offset",
    "initrd",
    "cmdline",
    "cpu",
    "mte",
    "sve",
    "sve-vl",
    "nested",
    "priority",
    "control",
    "autostart",
    "background",
    "debug",
    "on-serror",
    "tag-quota",
    "lazy-unit",
    "memory",
    "region",
];

/// The manifest without its files.
pub(crate) struct MachineEntry<'a> {
    pub(crate) taggable: Taggable,
    pub(crate) tag_storage: Vec<PaRange>,
    pub(crate) vms: Vec<VmEntry<'a>>,
}

/// A VM without its files: places in `spec` are 0.
pub(crate) struct VmEntry<'a> {
    pub(crate) table: Table<'a>,
    pub(crate) spec: VmSpec,
    pub(crate) kernel: Value<'a>,
    pub(crate) kernel_offset: Option<Value<'a>>,
    pub(crate) initrd: Option<Value<'a>>,
    /// The file of each region of `spec`.
    pub(crate) files: Vec<Option<Value<'a>>>,
}

pub(crate) fn machine<'a>(root: &Table<'a>) -> Result<MachineEntry<'a>, Error> {
    root.known(&["machine", "vm"])?;
    let (mut taggable, mut tag_storage) = (Taggable::None, Vec::new());
    if let Some(machine) = root.get("machine") {
        let machine = machine.table()?;
        machine.known(&["taggable", "tag-storage"])?;
        if let Some(value) = machine.get("taggable") {
            taggable = taggable_memory(&value)?;
        }
        if let Some(value) = machine.get("tag-storage") {
            tag_storage = ranges(&value)?;
        }
    }
    let tables = root.tables("vm")?;
    let mut names = Vec::new();
    for table in &tables {
        names.push(table.need("name")?.str()?);
    }
    let vm = |(table, name): (Table<'a>, &&str)| vm(table.called(format!("vm \"{name}\": ")), name, &names);
    let vms = tables.into_iter().zip(&names).map(vm).collect::<Result<_, _>>()?;
    Ok(MachineEntry { taggable, tag_storage, vms })
}

fn taggable_memory(value: &Value<'_>) -> Result<Taggable, Error> {
    if value.is_str() {
        return match value.str()? {
            "all" => Ok(Taggable::All),
            "none" => Ok(Taggable::None),
            _ => Err(value.error("is not \"all\", \"none\" or a list of ranges")),
        };
    }
    Ok(Taggable::Ranges(ranges(value)?))
}

/// A list of physical ranges.
fn ranges(value: &Value<'_>) -> Result<Vec<PaRange>, Error> {
    let mut ranges = Vec::new();
    for value in value.list()? {
        let range = value.table()?;
        range.known(&["pa", "size"])?;
        let (pa, size) = (range.need("pa")?.number()?, range.need("size")?.number()?);
        let range = PaRange::new(Pa::new(pa), size);
        ranges.push(range.ok_or_else(|| value.error("has a range that does not fit in 64 bits"))?);
    }
    Ok(ranges)
}

fn vm<'a>(table: Table<'a>, name: &str, names: &[&str]) -> Result<VmEntry<'a>, Error> {
    table.known(VM)?;
    let cpu::Cpu { spec: cpu, mte, sve, sve_vl } = cpu::read(&table)?;
    let mut regions = region::all(&table, mte)?;
    regions.sort_by_key(|(region, _)| region.ipa.start());
    let (regions, files) = regions.into_iter().unzip();
    let nowhere = || Placed { file: String::new(), at: Ipa::new(0) };
    let spec = VmSpec {
        name: name.into(),
        cpus: cpus(&table)?,
        regions,
        kernel: KernelSpec { image: nowhere(), entry: Ipa::new(0) },
        initrd: None,
        dtb: Ipa::new(0),
        cmdline: table.get("cmdline").map(|v| v.str()).transpose()?.unwrap_or("").into(),
        mte,
        sve,
        sve_vl,
        nested: table.get("nested").map(|v| v.word()).transpose()?,
        priority: table.get("priority").map(|v| v.small(u8::MAX)).transpose()?.unwrap_or(100),
        control: table.get("control").map_or(Ok(Control::None), |v| control(&v, names))?,
        autostart: table.get("autostart").map(|v| v.bool()).transpose()?.unwrap_or(true),
        debug: table.get("debug").map(|v| v.bool()).transpose()?.unwrap_or(true),
        background: table.get("background").map(|v| v.bool()).transpose()?.unwrap_or(false),
        on_serror: table.get("on-serror").map(|v| v.word()).transpose()?.unwrap_or(OnSError::Inject),
        tag_quota: table.get("tag-quota").map(|v| pages(&v)).transpose()?,
        cpu,
        lazy_unit: table.get("lazy-unit").map(|v| v.word()).transpose()?.unwrap_or(LazyUnit::Page),
    };
    let kernel = table.need("kernel")?;
    kernel.str()?;
    let initrd = table.get("initrd");
    Ok(VmEntry { spec, kernel, kernel_offset: table.get("kernel-offset"), initrd, files, table })
}

/// The physical CPU of each vCPU.
fn cpus(table: &Table<'_>) -> Result<Vec<u16>, Error> {
    let mut cpus: Vec<u16> = Vec::new();
    if let Some(value) = table.get("cpus") {
        for cpu in value.list()? {
            cpus.push(cpu.small(u16::MAX)?);
        }
        if cpus.is_empty() {
            return Err(value.error("is empty"));
        }
    }
    let Some(value) = table.get("vcpus") else {
        return Ok(if cpus.is_empty() { vec![0] } else { cpus });
    };
    let count = usize::from(value.small(u16::MAX)?);
    if !(1..=MAX_VCPUS).contains(&count) {
        return Err(value.error(format!("is {count}, not 1 to {MAX_VCPUS}")));
    }
    if count < cpus.len() {
        let what = format!("is {count}, fewer than the {} CPUs of cpus", cpus.len());
        return Err(value.error(what));
    }
    if cpus.is_empty() {
        cpus.extend(0..value.small::<u16>(u16::MAX)?);
    }
    Ok(cpus.iter().copied().cycle().take(count).collect())
}

fn control(value: &Value<'_>, names: &[&str]) -> Result<Control, Error> {
    if let Some(all) = value.as_bool() {
        return Ok(if all { Control::All } else { Control::None });
    }
    let mut vms = Vec::new();
    for item in value.list()? {
        let name = item.str()?;
        let index = names.iter().position(|other| *other == name).and_then(|i| u16::try_from(i).ok());
        vms.push(index.ok_or_else(|| item.error(format!("is no VM{}", suggestion(name, names))))?);
    }
    Ok(Control::Vms(vms))
}

/// A size in bytes, as pages.
fn pages(value: &Value<'_>) -> Result<u64, Error> {
    let bytes = value.number()?;
    if bytes % PAGE_SIZE != 0 {
        return Err(value.error("is no multiple of 4 KiB"));
    }
    Ok(bytes / PAGE_SIZE)
}

/// The last table of an array that has this name.
fn last<'a>(table: &Table<'a>, key: &str, name: &str) -> Option<Table<'a>> {
    let named = |t: &Table<'_>| t.get("name").is_some_and(|v| v.str().is_ok_and(|n| n == name));
    table.tables(key).ok()?.into_iter().rfind(named)
}

/// An error of `manifest::check`, with the line that it blames. Of two entries with one name it is
/// the second that is wrong.
pub(crate) fn blame(root: &Table<'_>, error: &manifest::Error) -> Error {
    let vm = error.vm.as_ref().and_then(|name| last(root, "vm", name));
    let region = vm.as_ref().zip(error.region.as_ref()).and_then(|(vm, name)| last(vm, "region", name));
    let machine = || root.get("machine").and_then(|machine| machine.table().ok());
    let shorthand = if error.region.is_some() && region.is_none() { "memory" } else { error.key };
    let table = region.or(vm).or_else(machine).unwrap_or_else(|| root.clone());
    let message = error.to_string();
    match table.get(shorthand) {
        Some(value) => value.blame(message),
        None => table.called(String::new()).error(message),
    }
}

impl MachineEntry<'_> {
    /// The entry that a VM of the specification came from.
    pub(crate) fn of<'b>(
        &'b self,
        spec: &'b MachineSpec,
    ) -> impl Iterator<Item = (&'b Table<'b>, &'b VmSpec)> {
        self.vms.iter().map(|entry| &entry.table).zip(&spec.vms)
    }
}
