//! The manifests under `manifests/test`, each on the machines that it asks for.
//!
//! Comments that start with `#@` say how a manifest is tested, as TOML:
//! ```toml
//! #@ [[run]]
//! #@ cpu = ["max", "neoverse-n2"]  # default ["max"]
//! #@ smp = [1, 2, 4]               # default [4]
//! #@ opt = ["fwb=off"]             # options of the hypervisor, default []
//! #@ mem = "1G"                    # default "2G"
//! #@ icount = true                 # default false
//! #@ timeout = 60                  # seconds, default 900
//! #@ result = "fail"               # the verdict, default "pass"
//! #@ contains = ["a sentence"]     # what the log must contain, default []
//! #@ lacks = ["panic"]             # what it must not contain, default []; of tests without their number
//! #@ same = ["free RAM:"]          # lines with this, two at least, are equal; default []
//! #@ times = [{ text = "a warning", least = 1, most = 9 }]  # how many lines have this; default []
//! #@ within = [{ before = " KiB", least = 1, most = 9 }]  # the number before this, wherever; default []
//! #@ unjudged = ["noise"]          # VMs whose reports do not count, default []
//! #@ alike = "guests/x.toml"        # what passes with this manifest passes here too, default none
//! #@ except = ["sve."]             # but tests whose names start so, default []
//! #@ qemu = ["-m", "1G"]           # further arguments, default []
//! #@ keys = [{ wait = "$ ", send = "\u0001x" }]  # on a terminal: wait for, then press
//! ```
//! A log with `log=trace` must make a table of ID registers. Without any, the defaults hold. The category is `linux` if the file's name starts so, `pty` for
//! runs with keys, `payload` for all others.

use super::{machine, terminal};
use crate::build::{self, Binary};
use crate::bundle;
use crate::idregs;
use crate::ktap::Ktap;
use crate::paths;
use crate::qemu::{Firmware, Machine};
use crate::trial::{Tally, Trial};
use crate::uart::Verdict;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a manifest is tested.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Directives {
    run: Vec<Directive>,
}

/// The runs with the same expectation.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Directive {
    cpu: Vec<String>,
    smp: Vec<u32>,
    opt: Vec<String>,
    mem: String,
    icount: bool,
    timeout: u64,
    result: Expectation,
    contains: Vec<String>,
    lacks: Vec<String>,
    same: Vec<String>,
    times: Vec<Times>,
    within: Vec<Within>,
    unjudged: Vec<String>,
    alike: Option<PathBuf>,
    except: Vec<String>,
    qemu: Vec<String>,
    keys: Vec<Key>,
}

/// How many lines of the log have a text.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Times {
    text: String,
    least: usize,
    most: usize,
}

/// Bounds of a number in the log.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Within {
    /// What follows the number.
    before: String,
    least: u64,
    most: u64,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expectation {
    Pass,
    Fail,
}

/// A step at the terminal.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What must appear first.
    pub wait: String,
    /// What is typed then.
    pub send: String,
}

impl Default for Directive {
    fn default() -> Directive {
        Directive {
            cpu: vec!["max".into()],
            smp: vec![4],
            opt: Vec::new(),
            mem: "2G".into(),
            icount: false,
            timeout: machine::PATIENCE.as_secs(),
            result: Expectation::Pass,
            contains: Vec::new(),
            lacks: Vec::new(),
            same: Vec::new(),
            times: Vec::new(),
            within: Vec::new(),
            unjudged: Vec::new(),
            alike: None,
            except: Vec::new(),
            qemu: Vec::new(),
            keys: Vec::new(),
        }
    }
}

/// One boot of one manifest.
struct Boot {
    name: String,
    manifest: PathBuf,
    cpu: String,
    smp: u32,
    directive: Directive,
}

pub fn trials() -> Result<Vec<Trial<'static>>> {
    let directory = paths::root().join("manifests/test");
    let mut manifests: Vec<PathBuf> = match directory.read_dir() {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(_) => Vec::new(),
    };
    manifests.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    // The benchmarks are a category of their own.
    manifests
        .retain(|path| path.file_stem().is_some_and(|stem| !stem.to_string_lossy().starts_with("bench")));
    manifests.sort();
    let mut trials = Vec::new();
    for manifest in manifests {
        let text = std::fs::read_to_string(&manifest)?;
        let directives = directives(&text).with_context(|| format!("{}: #@", manifest.display()))?;
        for boot in boots(&manifest, &directives) {
            trials.push(Trial::new(boot.name.clone(), move || boot.run()));
        }
    }
    Ok(trials)
}

fn directives(manifest: &str) -> Result<Vec<Directive>> {
    let lines: Vec<&str> = manifest.lines().filter_map(|line| line.trim_start().strip_prefix("#@")).collect();
    if lines.is_empty() {
        return Ok(vec![Directive::default()]);
    }
    Ok(toml::from_str::<Directives>(&lines.join("\n"))?.run)
}

/// Every combination, each with a name of its own.
fn boots(manifest: &Path, directives: &[Directive]) -> Vec<Boot> {
    let stem = manifest.file_stem().unwrap_or_default().to_string_lossy();
    let mut boots: Vec<Boot> = Vec::new();
    for directive in directives {
        let category = match (stem.starts_with("linux"), directive.keys.is_empty()) {
            (_, false) => "pty",
            (true, true) => "linux",
            (false, true) => "payload",
        };
        for cpu in &directive.cpu {
            for &smp in &directive.smp {
                let mut name = format!("{category}::{stem}@{cpu}.smp{smp}");
                directive.opt.iter().for_each(|option| name += &format!(".{option}"));
                let twins = boots.iter().filter(|boot| boot.name.split('#').next() == Some(&name)).count();
                if twins > 0 {
                    name += &format!("#{}", twins + 1);
                }
                let (manifest, cpu) = (manifest.to_owned(), cpu.clone());
                boots.push(Boot { name, manifest, cpu, smp, directive: directive.clone() });
            }
        }
    }
    boots
}

/// A line of KTAP without the number of its test: `ok 7 cmo.at_el1` becomes `ok cmo.at_el1`.
fn unnumbered(line: &str) -> String {
    let Some((head, tail)) = line.split_once("ok ") else { return line.into() };
    let name = tail.trim_start_matches(|c: char| c.is_ascii_digit());
    if name.len() < tail.len() && name.starts_with(' ') { format!("{head}ok{name}") } else { line.into() }
}

impl Boot {
    fn run(&self) -> Result<Tally> {
        let image = build::image(Binary::Hypervisor)?;
        let initrd = Some(bundle::write(&self.manifest)?);
        let firmware = Firmware::Kernel { image, initrd, append: self.directive.opt.join(" ") };
        let machine = Machine {
            cpu: self.cpu.clone(),
            smp: self.smp,
            mem: self.directive.mem.clone(),
            icount: self.directive.icount,
            extra: self.directive.qemu.clone(),
            ..Machine::new(firmware)
        };
        let timeout = Duration::from_secs(self.directive.timeout);
        let mut run = if self.directive.keys.is_empty() {
            machine::run(&self.name, &machine, timeout)?
        } else {
            terminal::run(&self.name, &machine, &self.directive.keys, timeout)?
        };
        let mut complaints = run.missing(&self.directive.contains);
        complaints.extend(self.verdict(&run));
        if self.directive.opt.iter().any(|option| option == "log=trace") {
            let table = idregs::table(&run.lines.join("\n"), None, false);
            complaints.extend(table.err().map(|e| format!("idregs: {e:#}")));
        }
        for text in &self.directive.lacks {
            // It would say nothing any more as soon as there is another test in front of it.
            if unnumbered(text) != *text {
                complaints.push(format!("`lacks` names the number of a test: {text:?}"));
            }
            complaints.extend(
                run.lines
                    .iter()
                    .find(|line| line.contains(text.as_str()) || unnumbered(line).contains(text.as_str()))
                    .map(|line| format!("says {line:?}")),
            );
        }
        if let Some(other) = &self.directive.alike {
            complaints.extend(self.lost(&machine, other, &run.lines)?);
        }
        for vm in &self.directive.unjudged {
            let prefix = format!("[{vm}] ");
            run.lines.retain(|line| !line.starts_with(&prefix));
        }
        complaints.extend(self.directive.times.iter().filter_map(|times| miscounted(&run.lines, times)));
        complaints.extend(self.directive.within.iter().filter_map(|bounds| outside(&run.lines, bounds)));
        complaints.extend(self.directive.same.iter().filter_map(|text| differing(&run.lines, text)));
        Ok(match self.directive.result {
            Expectation::Pass => run.tally(complaints),
            // The payloads are meant to fail: only the whole counts.
            Expectation::Fail if complaints.is_empty() && run.hung.is_none() => Tally::pass(),
            Expectation::Fail => run.tally(complaints),
        })
    }

    /// Tests that pass on this machine with the manifest `other`, but are not among those of `lines`.
    fn lost(&self, machine: &Machine, other: &Path, lines: &[String]) -> Result<Vec<String>> {
        let other = self.manifest.parent().unwrap_or(Path::new("")).join(other);
        let initrd = Some(bundle::write(&other)?);
        let image = build::image(Binary::Hypervisor)?;
        let firmware = Firmware::Kernel { image, initrd, append: self.directive.opt.join(" ") };
        let machine = Machine { firmware, ..machine.clone() };
        let timeout = Duration::from_secs(self.directive.timeout);
        let alone = machine::run(&format!("{}.alike", self.name), &machine, timeout)?;
        let passed = |lines: &[String]| Ktap::of(lines.iter().map(String::as_str)).passed();
        let (expected, here) = (passed(&alone.lines), passed(lines));
        let mut complaints = Vec::new();
        if !Verdict::of(&alone.lines).is_some_and(|verdict| verdict.pass) {
            complaints.push(format!("{} itself does not pass: {}", other.display(), alone.log.display()));
        }
        let excepted = |test: &&String| {
            let name = test.split_once(' ').map_or("", |(_, name)| name);
            self.directive.except.iter().any(|prefix| name.starts_with(prefix.as_str()))
        };
        let lost = expected.difference(&here).filter(|test| !excepted(test));
        complaints.extend(lost.map(|test| format!("{test} passes with {}, but not here", other.display())));
        Ok(complaints)
    }

    fn verdict(&self, run: &machine::Run) -> Option<String> {
        match Verdict::of(&run.lines) {
            None => Some("no `tagvisor: result:` line".into()),
            Some(verdict) if verdict.pass == (self.directive.result == Expectation::Pass) => None,
            Some(verdict) => Some(format!(
                "the result is {}: {}",
                if verdict.pass { "pass" } else { "fail" },
                verdict.reason
            )),
        }
    }
}

/// What is wrong with the number of lines that contain a text.
fn miscounted(lines: &[String], times: &Times) -> Option<String> {
    let count = lines.iter().filter(|line| line.contains(&times.text)).count();
    let wrong = !(times.least..=times.most).contains(&count);
    wrong.then(|| {
        format!("{count} lines have {:?}: not within {} and {}", times.text, times.least, times.most)
    })
}

/// What is wrong with the numbers in front of a text: there is none, or one is out of bounds.
fn outside(lines: &[String], bounds: &Within) -> Option<String> {
    let number = |line: &String| {
        let (front, _) = line.split_once(&bounds.before)?;
        front.rsplit(' ').next()?.parse::<u64>().ok()
    };
    let mut numbers = lines.iter().filter_map(number).peekable();
    if numbers.peek().is_none() {
        return Some(format!("there is no number before {:?}", bounds.before));
    }
    let wrong = numbers.find(|number| !(bounds.least..=bounds.most).contains(number))?;
    Some(format!("{wrong}{}: not within {} and {}", bounds.before, bounds.least, bounds.most))
}

/// What is wrong with the lines that contain `text` and have to be equal.
fn differing(lines: &[String], text: &str) -> Option<String> {
    let mut lines = lines.iter().filter(|line| line.contains(text));
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else {
        return Some(format!("there are not two lines with {text:?}"));
    };
    let other = [second].into_iter().chain(lines).find(|line| *line != first)?;
    Some(format!("{first:?} became {other:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_without_their_number() {
        assert_eq!(unnumbered("[all] ok 17 cmo.x # SKIP no"), "[all] ok cmo.x # SKIP no");
        assert_eq!(unnumbered("not ok 3 a.b"), "not ok a.b");
        for same in ["ok", "ok 3rd", "a look at 7 things", "1..18", "[all] ok cmo.x # SKIP"] {
            assert_eq!(unnumbered(same), same);
        }
    }

    #[test]
    fn every_combination_has_a_name() {
        let text = "#@ [[run]]\n#@ cpu = [\"max\", \"neoverse-n2\"]\n#@ smp = [1, 2]\n[machine]\n#@ [[run]]\n#@ smp = [1]\n";
        let directives = directives(text).unwrap();
        let names: Vec<_> =
            boots(Path::new("x/gic.toml"), &directives).into_iter().map(|boot| boot.name).collect();
        assert_eq!(names.len(), 5);
        assert_eq!(names.first().unwrap(), "payload::gic@max.smp1");
        assert_eq!(names.last().unwrap(), "payload::gic@max.smp1#2");
    }

    #[test]
    fn lines_that_must_be_equal() {
        let lines = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(differing(&lines(&["free: 4", "x", "free: 4"]), "free:"), None);
        assert!(differing(&lines(&["free: 4"]), "free:").is_some());
        assert!(differing(&lines(&["free: 4", "free: 4", "free: 3"]), "free:").unwrap().contains("3"));
    }

    #[test]
    fn lines_are_counted() {
        let times = Times { text: "warn".into(), least: 1, most: 2 };
        let lines = |count| vec!["a warning".to_owned(); count];
        assert!(miscounted(&lines(0), &times).is_some() && miscounted(&lines(3), &times).is_some());
        assert!(miscounted(&lines(1), &times).is_none() && miscounted(&lines(2), &times).is_none());
    }

    #[test]
    fn numbers_out_of_bounds() {
        let bounds = Within { before: " of 9 KiB".into(), least: 2, most: 4 };
        let outside = |line: &str| outside(&[line.to_owned(), "x".into()], &bounds);
        assert_eq!(outside("vm: 4 of 9 KiB have tags"), None);
        assert!(outside("vm: 5 of 9 KiB have tags").is_some_and(|why| why.starts_with("5 of 9")));
        assert!(outside("vm: 1 of 9 KiB").is_some() && outside("vm: 4 of 8 KiB").is_some());
    }

    #[test]
    fn unknown_directives_are_refused() {
        assert!(directives("#@ [[run]]\n#@ cpus = 1").is_err());
        assert_eq!(directives("[machine]").unwrap().len(), 1);
    }
}
