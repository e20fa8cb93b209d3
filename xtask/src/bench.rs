//! `cargo xtask bench`: counts the instructions of each operation as the guest sees them, and holds
//! them against `bench/reach.toml` and the committed `bench/figures.json`.

mod pages;

use crate::build::{self, Binary};
use crate::qemu::{Firmware, Machine};
use crate::test::machine;
use crate::trial::{Tally, Trial};
use crate::uart::Verdict;
use crate::{bundle, elf, ktap, paths};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fmt::Write, fs};

#[derive(clap::Args)]
pub struct Arguments {
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write them as the committed ones; the commit says why they changed
    #[arg(long)]
    update: bool,
}

/// Name and value of each entry: instructions, or bytes for sizes.
type Figures = BTreeMap<String, u64>;

/// `bench/reach.toml`: the entries in their order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reach {
    entry: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    /// What is measured.
    what: String,
    /// The value that must not be passed; without it the entry is only reported.
    reach: Option<u64>,
    /// The reach is not met yet: passing it is shown, but fails only above the committed figure.
    #[serde(default)]
    open: bool,
}

/// A figure may rise by this much, in per cent, above the committed one.
const TOLERANCE: u64 = 5;

pub fn command(arguments: &Arguments) -> Result<bool> {
    let figures = measure("bench")?;
    let json = serde_json::to_string_pretty(&figures)? + "\n";
    if let Some(path) = &arguments.json {
        fs::write(path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if arguments.update {
        fs::write(committed_path(), &json)?;
        pages::update(&figures)?;
    }
    let (table, complaints) = compare(&figures, &reach()?, &committed()?);
    print!("{table}");
    for complaint in &complaints {
        println!("FAIL {complaint}");
    }
    Ok(complaints.is_empty())
}

pub fn trials() -> Vec<Trial<'static>> {
    vec![Trial::new("bench::figures", || {
        let (table, complaints) = compare(&measure("bench::figures")?, &reach()?, &committed()?);
        let mut tally =
            if complaints.is_empty() { Tally::pass() } else { Tally::fail(complaints.join("\n")) };
        tally.notes.push(table);
        Ok(tally)
    })]
}

/// Boots the benchmarks, where each instruction takes one nanosecond, and reads their figures.
fn measure(name: &str) -> Result<Figures> {
    let mut figures = Figures::new();
    let several = boot(name, "bench", 4)?;
    figures.extend(several.iter().filter_map(|line| figure(line)));
    let copies = boot(&format!("{name}-tags"), "bench-tags", 1)?;
    figures.extend(copies.iter().filter_map(|line| figure(line)));
    let stays = copies.iter().filter_map(|line| between(line, "longest stay at EL2: ", " counts"));
    figures.extend(stays.max().map(|stay| ("max_copy_stay".into(), stay)));
    // On one CPU nobody else's instructions count.
    let one = boot(&format!("{name}-one"), "bench-one", 1)?;
    figures.extend(one.iter().filter_map(|line| figure(line)));
    let nested = boot(&format!("{name}-nested"), "bench-nested", 1)?;
    figures.extend(nested.iter().filter_map(|line| figure(line)));
    let itself = boot(&format!("{name}-self"), "bench-self", 1)?;
    figures.extend(itself.iter().filter_map(|line| figure(line)));
    let stays = one.iter().filter_map(|line| between(line, "longest stay at EL2: ", " counts"));
    figures.extend(stays.max().map(|stay| ("max_el2_stay".into(), stay)));
    let noise = boot(&format!("{name}-noise"), "bench-noise", 1)?;
    let full = boot(&format!("{name}-shadows"), "bench-shadows", 1)?;
    let both = noise.iter().chain(&full);
    let stays = both.filter_map(|line| between(line, "longest stay at EL2: ", " counts"));
    figures.extend(stays.max().map(|stay| ("max_nested_stay".into(), stay)));
    let first = one.iter().find_map(|line| between(line, "debug: ", " counts to the first guest"));
    figures.extend(first.map(|counts| ("boot_to_guest".into(), counts)));
    let tables = one.iter().find_map(|line| between(line, "VM big: ", " bytes of stage-2 tables"));
    figures.extend(tables.map(|bytes| ("stage2_table_bytes_1gib".into(), bytes)));
    figures.insert("image_bytes".into(), elf::loaded_bytes(&fs::read(Binary::Hypervisor.elf())?)?);
    Ok(figures)
}

/// Boots a manifest of `manifests/test` to its end; returns what it printed.
fn boot(name: &str, manifest: &str, smp: u32) -> Result<Vec<String>> {
    let image = build::image(Binary::Hypervisor)?;
    let initrd =
        Some(bundle::write(&paths::root().join("manifests/test").join(manifest).with_extension("toml"))?);
    let firmware = Firmware::Kernel { image, initrd, append: "log=debug cmo-trap=on".into() };
    let machine = Machine { smp, icount: true, mem: "4G".into(), ..Machine::new(firmware) };
    let run = machine::run(name, &machine, machine::PATIENCE)?;
    if let Some(hung) = run.hung {
        bail!("{hung}; log: {}", run.log.display());
    }
    match Verdict::of(&run.lines) {
        Some(verdict) if verdict.pass => Ok(run.lines),
        Some(verdict) => bail!("the result is fail: {}; log: {}", verdict.reason, run.log.display()),
        None => bail!("no `tagvisor: result:` line; log: {}", run.log.display()),
    }
}

/// The number between two texts of a line.
fn between(line: &str, before: &str, behind: &str) -> Option<u64> {
    let (_, rest) = line.split_once(before)?;
    rest.split_once(behind)?.0.parse().ok()
}

/// Reads `# bench NAME VALUE` behind the prefix of a VM or of the hypervisor.
fn figure(line: &str) -> Option<(String, u64)> {
    let (_, text) = ktap::split_prefix(line);
    let mut words =
        text.strip_prefix("tagvisor: ").unwrap_or(text).strip_prefix("# bench ")?.split_whitespace();
    Some((words.next()?.into(), words.next()?.parse().ok()?))
}

/// The table, and what is wrong with the figures.
fn compare(figures: &Figures, reach: &Reach, committed: &Figures) -> (String, Vec<String>) {
    let mut table = format!("{:24} {:>10} {:>10} {:>10}  what\n", "name", "value", "committed", "reach");
    let mut complaints = Vec::new();
    for Entry { name, what, reach, open } in &reach.entry {
        let (value, before) = (figures.get(name).copied(), committed.get(name).copied());
        let show = |number: Option<u64>| number.map_or("-".into(), |number| number.to_string());
        // Writing to a string cannot fail.
        let missed = if *open { " (reach not met yet)" } else { "" };
        let _ = writeln!(
            table,
            "{name:24} {:>10} {:>10} {:>10}  {what}{missed}",
            show(value),
            show(before),
            show(*reach)
        );
        match (value, *reach) {
            (None, Some(_)) => complaints.push(format!("{name} was not measured")),
            (Some(value), Some(reach)) if value > reach && !open => {
                complaints.push(format!("{name}: {value} is beyond its reach of {reach}"));
            }
            (_, _) => {}
        }
        if let (Some(value), Some(before)) = (value, before)
            && value * 100 > before * (100 + TOLERANCE)
        {
            complaints
                .push(format!("{name}: {value} is more than {TOLERANCE} % above the committed {before}"));
        }
    }
    for name in figures.keys().filter(|name| !reach.entry.iter().any(|entry| entry.name == **name)) {
        complaints.push(format!("{name} is not in bench/reach.toml"));
    }
    (table, complaints)
}

fn reach() -> Result<Reach> {
    let text = fs::read_to_string(paths::root().join("bench/reach.toml"))?;
    toml::from_str(&text).context("bench/reach.toml")
}

fn committed_path() -> PathBuf {
    paths::root().join("bench/figures.json")
}

fn committed() -> Result<Figures> {
    let text = fs::read_to_string(committed_path())?;
    serde_json::from_str(&text).context("bench/figures.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_figures() {
        assert_eq!(figure("[bench] # bench hypercall_null 131"), Some(("hypercall_null".into(), 131)));
        assert_eq!(figure("tagvisor: # bench boot_to_guest 9"), Some(("boot_to_guest".into(), 9)));
        assert_eq!(figure("ok 1 bench"), None);
    }

    #[test]
    fn reads_numbers_between() {
        let line = "tagvisor: debug: longest stay at EL2: 33361 counts";
        assert_eq!(between(line, "longest stay at EL2: ", " counts"), Some(33361));
        assert_eq!(between(line, "VM big: ", " bytes"), None);
    }

    #[test]
    fn complains_beyond_reach_and_above_the_committed_figure() {
        let entry = |name: &str, reach| Entry { name: name.into(), what: String::new(), reach, open: false };
        let reach = Reach { entry: vec![entry("a", Some(100)), entry("b", None), entry("c", Some(1))] };
        let figures = Figures::from([("a".into(), 101), ("b".into(), 106), ("d".into(), 1)]);
        let committed = Figures::from([("b".into(), 100)]);
        let (_, complaints) = compare(&figures, &reach, &committed);
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        assert_eq!(reach_file_names().first().map(String::as_str), Some("hypercall_null"));
    }

    fn reach_file_names() -> Vec<String> {
        super::reach().unwrap().entry.into_iter().map(|entry| entry.name).collect()
    }
}
