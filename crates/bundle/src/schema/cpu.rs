//! The key `cpu` of a VM: a named CPU, or a table of ID register fields.
//!
//! Names are resolved here, so that the hypervisor needs none; what it says about a field that the
//! machine does not have, it takes from the names that go with the values.

use crate::Error;
use crate::source::{Table, Value, nearest, one_of};
use idreg::baseline::{BASELINES, Baseline};
use idreg::name;
use idreg::{Offer, Row};
use manifest::{CpuField, CpuSpec, MAX_CPU_FIELDS, MAX_VECTOR, Sve};

/// The CPU that is the machine's own.
const HOST: &str = "host";

/// What a VM is to see of its CPUs, and what its CPU implies.
pub(super) struct Cpu {
    pub(super) spec: CpuSpec,
    pub(super) mte: bool,
    pub(super) sve: Sve,
    pub(super) sve_vl: Option<u16>,
}

pub(super) fn read(vm: &Table<'_>) -> Result<Cpu, Error> {
    let mut choice = Choice { fields: Vec::new(), sve: asks_for_sve(vm)? };
    let mut baseline = None;
    if let Some(cpu) = vm.get("cpu") {
        if cpu.is_str() {
            baseline = choice.baseline(&cpu)?;
        } else {
            let table = cpu.table()?;
            if let Some(value) = table.get("baseline") {
                baseline = choice.baseline(&value)?;
            }
            for (register, value) in table.all().filter(|(key, _)| *key != "baseline") {
                choice.register(register, &value)?;
            }
        }
    }
    let mte = mte(vm, baseline)?;
    let (sve, sve_vl) = sve(vm, baseline)?;
    Ok(Cpu { spec: choice.spec(), mte, sve, sve_vl })
}

/// Whether the entry says that the VM has SVE.
fn asks_for_sve(vm: &Table<'_>) -> Result<bool, Error> {
    match (vm.get("sve"), vm.get("sve-vl")) {
        (Some(value), Some(vl)) if !value.bool()? => Err(vl.error("is given, but sve is false")),
        (Some(value), _) => value.bool(),
        (None, vl) => Ok(vl.is_some()),
    }
}

/// Whether the VM has SVE: if its entry does not say, as the machine has, but none with a named CPU, which
/// is to be the same on all machines.
fn sve(vm: &Table<'_>, baseline: Option<Baseline>) -> Result<(Sve, Option<u16>), Error> {
    let vl = vm.get("sve-vl").map(|value| value.small(MAX_VECTOR).map(|bits| (value, bits))).transpose()?;
    if let Some((value, bits)) = &vl
        && (!(128..=MAX_VECTOR).contains(bits) || bits % 128 != 0)
    {
        return Err(value.error(format!("is {bits}, not a multiple of 128 from 128 to {MAX_VECTOR}")));
    }
    let key = vm.get("sve").or_else(|| vm.get("sve-vl"));
    let sve = match (key, baseline) {
        (None, None) => Sve::IfPresent,
        (None, Some(_)) => Sve::No,
        (Some(_), _) if !asks_for_sve(vm)? => Sve::No,
        (Some(value), Some(Baseline { name, .. })) if !baseline.is_some_and(Baseline::sve) => {
            return Err(value.error(format!("is given, but cpu is \"{name}\", which has no SVE")));
        }
        (Some(_), _) => Sve::Yes,
    };
    Ok((sve, vl.map(|(_, bits)| bits)))
}

/// Whether the VM has MTE: as its baseline has, if it has one.
fn mte(vm: &Table<'_>, baseline: Option<Baseline>) -> Result<bool, Error> {
    let Some(value) = vm.get("mte") else { return Ok(baseline.is_some_and(|b| b.memtag)) };
    let mte = value.bool()?;
    match baseline {
        Some(Baseline { name, memtag, .. }) if memtag != mte => {
            let has = if memtag { "MTE" } else { "no MTE" };
            Err(value.error(format!("is {mte}, but cpu is \"{name}\", which has {has}")))
        }
        Some(_) | None => Ok(mte),
    }
}

/// A field, its value, and what sentences call it.
struct Choice {
    fields: Vec<(&'static Row, u8, String)>,
    /// The VM has SVE: a named CPU says something about it.
    sve: bool,
}

impl Choice {
    fn baseline(&mut self, value: &Value<'_>) -> Result<Option<Baseline>, Error> {
        let name = value.str()?;
        if name == HOST {
            return Ok(None);
        }
        let Some(baseline) = Baseline::by_name(name) else {
            let names: Vec<&str> = [HOST].into_iter().chain(BASELINES.map(|b| b.name)).collect();
            return Err(value.error(one_of(&names)));
        };
        let sve = self.sve;
        let is_sve = |row: &Row| matches!(row.entry.offer, Offer::WithSve(_));
        for (row, field) in baseline.fields().filter(|(row, _)| sve || !is_sve(row)) {
            self.set(row, field, format!("line {}: {name}: {}", value.line(), full_name(row)));
        }
        Ok(Some(baseline))
    }

    fn register(&mut self, register: &str, value: &Value<'_>) -> Result<(), Error> {
        let Some(reg) = name::register(register) else {
            let known = name::REGISTER_NAMES.into_iter().map(|(_, name)| name);
            return Err(value.error(format!("is no ID register with fields{}", nearest(register, known))));
        };
        let mut seen: Vec<&Row> = Vec::new();
        for (field, value) in value.table()?.all() {
            let Some(row) = name::field(reg, field) else {
                let known = name::fields(reg).map(|row| row.name);
                return Err(value.error(format!("is no field of it{}", nearest(field, known))));
            };
            if seen.contains(&row) {
                return Err(value.error("is there twice"));
            }
            seen.push(row);
            let number = allowed(row, &value)?;
            self.set(row, number, format!("line {}: {}", value.line(), full_name(row)));
        }
        Ok(())
    }

    /// The last one holds.
    fn set(&mut self, row: &'static Row, value: u8, name: String) {
        self.fields.retain(|(other, ..)| *other != row);
        self.fields.push((row, value, name));
    }

    fn spec(self) -> CpuSpec {
        // The table has fewer fields than that.
        debug_assert!(self.fields.len() <= MAX_CPU_FIELDS);
        let field = |(row, value, _): &(&Row, u8, String)| CpuField {
            register: row.entry.reg as u8,
            lsb: row.entry.field.lsb,
            value: *value,
        };
        let fields = self.fields.iter().map(field).collect();
        let names: Vec<String> = self.fields.into_iter().map(|(_, _, name)| name).collect();
        CpuSpec { fields, names: names.join("\n") }
    }
}

fn full_name(row: &Row) -> String {
    format!("{}.{}", name::register_name(row.entry.reg), row.name)
}

/// The value of a field, if any VM can have it.
fn allowed(row: &Row, value: &Value<'_>) -> Result<u8, Error> {
    let number = value.number()?;
    let ones = row.entry.field.ones();
    let Some(number) = u8::try_from(number).ok().filter(|n| u64::from(*n) <= ones) else {
        return Err(value.error(format!("is {number}, but the field ends at {ones}")));
    };
    let fixed = match row.entry.offer {
        Offer::Hidden => Some(row.entry.field.absent),
        Offer::Value(value) => Some(value),
        Offer::Host | Offer::AtMost(_) | Offer::WithMte(_) | Offer::WithSve(_) => None,
    };
    match fixed {
        Some(fixed) if fixed != number => {
            Err(value.error(format!("is {number}, but every VM has {fixed} there: {}", row.why)))
        }
        Some(_) | None => Ok(number),
    }
}
