//! KTAP: what payloads print about their tests, one stream for each VM. A VM inside of a VM has the
//! prefixes of both.
//!
//! The console may print a line twice: cut off where another VM interrupted it, and whole. So the
//! last line with a number counts, and one that is cut within the number does not.

use std::collections::{BTreeMap, BTreeSet};

/// All results of a run, by the VM that printed them (empty without hypervisor).
#[derive(Default)]
pub struct Ktap {
    streams: BTreeMap<String, Vec<Report>>,
}

/// What a VM reported from one start to the next.
#[derive(Default)]
struct Report {
    planned: Option<usize>,
    results: BTreeMap<usize, (Result, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Result {
    Passed,
    Failed,
    Skipped,
}

/// Sums of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// What failed, one sentence each.
    pub failures: Vec<String>,
}

/// One line that counts.
enum Line<'a> {
    Plan(usize),
    Result(usize, Result, &'a str),
}

impl Line<'_> {
    fn parse(text: &str) -> Option<Line<'_>> {
        if let Some(count) = text.strip_prefix("1..") {
            return Some(Line::Plan(count.trim().parse().ok()?));
        }
        let (failed, rest) = match text.strip_prefix("not ok ") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("ok ")?),
        };
        let (number, name) = rest.split_once(' ')?;
        let result = match (name.contains("# SKIP"), failed) {
            (true, _) => Result::Skipped,
            (false, true) => Result::Failed,
            (false, false) => Result::Passed,
        };
        Some(Line::Result(number.parse().ok()?, result, name))
    }
}

impl Ktap {
    /// Takes in the lines of a log.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Ktap {
        let mut ktap = Ktap::default();
        for line in lines {
            let (vm, text) = split_prefix(line);
            if let Some(line) = Line::parse(text) {
                ktap.add(vm, line);
            }
        }
        ktap
    }

    /// Whether any VM spoke KTAP.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// What passed: `VM SUITE.TEST`, where VM is the innermost.
    pub fn passed(&self) -> BTreeSet<String> {
        let mut passed = BTreeSet::new();
        for (vm, reports) in &self.streams {
            let vm = vm.rsplit('[').next().unwrap_or_default();
            let results = reports.iter().flat_map(|report| report.results.values());
            for (_, test) in results.filter(|(result, _)| *result == Result::Passed) {
                let name = test.split_once(' ').map_or("", |(_, name)| name);
                passed.insert(format!("{vm} {name}"));
            }
        }
        passed
    }

    fn add(&mut self, vm: &str, line: Line<'_>) {
        let reports = self.streams.entry(vm.into()).or_default();
        // A plan behind results is that of a VM that was started again.
        let again =
            matches!(line, Line::Plan(_)) && reports.last().is_some_and(|last| !last.results.is_empty());
        if again || reports.is_empty() {
            reports.push(Report::default());
        }
        let Some(report) = reports.last_mut() else {
            return;
        };
        match line {
            Line::Plan(count) => report.planned = Some(count),
            Line::Result(number, result, name) => {
                report.results.insert(number, (result, format!("{number} {name}")));
            }
        }
    }

    /// Adds all up; an incomplete plan is a failure.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for (vm, reports) in &self.streams {
            let from = if vm.is_empty() { String::new() } else { format!("{vm}: ") };
            for (index, report) in reports.iter().enumerate() {
                // What was stopped and started again need not have come to its end.
                let ended = index + 1 == reports.len();
                report.add_to(&mut sums, &from, ended);
            }
        }
        sums.failed = sums.failures.len();
        sums
    }
}

impl Report {
    fn add_to(&self, sums: &mut Sums, from: &str, ended: bool) {
        for (result, name) in self.results.values() {
            match result {
                Result::Passed => sums.passed += 1,
                Result::Skipped => sums.skipped += 1,
                Result::Failed => sums.failures.push(format!("{from}not ok {name}")),
            }
        }
        let reported = self.results.len();
        match self.planned {
            Some(planned) if planned == reported || !ended => {}
            Some(planned) => sums.failures.push(format!("{from}{reported} of {planned} planned results")),
            None => sums.failures.push(format!("{from}{reported} results without a plan")),
        }
    }
}

/// Splits the hypervisor's `[vm] ` off a line, and those of a hypervisor in that VM.
pub fn split_prefix(line: &str) -> (&str, &str) {
    let mut text = line;
    while let Some((_, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        text = rest;
    }
    let prefix = line.strip_suffix(text).and_then(|prefix| prefix.strip_prefix('['));
    (prefix.and_then(|prefix| prefix.strip_suffix("] ")).unwrap_or(""), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(log: &[&str]) -> (usize, usize, usize) {
        let sums = Ktap::of(log.iter().copied()).sums();
        (sums.passed, sums.failed, sums.skipped)
    }

    #[test]
    fn counts_each_vm() {
        let log = [
            "[a] 1..2",
            "[b] 1..1",
            "[a] ok 1 x",
            "[b] not ok 1 y",
            "[a] ok 2 z # SKIP no FEAT_X",
            "ok then",
        ];
        assert_eq!(counts(&log), (1, 1, 1));
        assert_eq!(Ktap::of(log).sums().failures, ["b: not ok 1 y"]);
    }

    #[test]
    fn a_vm_in_a_vm_has_a_stream() {
        let log = ["[a] [b] 1..1", "[a] 1..1", "[a] [b] not ok 1 y", "[a] ok 1 x"];
        assert_eq!(counts(&log), (1, 1, 0));
        assert_eq!(Ktap::of(log).sums().failures, ["a] [b: not ok 1 y"]);
        assert_eq!(Ktap::of(log).passed().into_iter().collect::<Vec<_>>(), ["a x"]);
        assert_eq!(Ktap::of(["[a] [b] ok 1 y"]).passed(), Ktap::of(["[b] ok 2 y"]).passed());
        assert_eq!(split_prefix("[a] [b"), ("a", "[b"));
        assert_eq!(split_prefix("[x"), ("", "[x"));
    }

    #[test]
    fn a_plan_must_be_complete() {
        assert_eq!(counts(&["1..2", "ok 1 x"]), (1, 1, 0));
        assert_eq!(counts(&["ok 1 x"]), (1, 1, 0));
        assert!(Ktap::of(["hello"]).is_empty());
    }

    #[test]
    fn a_line_that_was_interrupted_counts_once() {
        let log = ["1..1", "1..12", "not ok 1 x", "ok 1", "ok 2 lo", "ok 2 long # SKIP", "not ok"];
        assert_eq!(counts(&log), (0, 2, 1));
    }

    #[test]
    fn a_restarted_vm_reports_again() {
        assert_eq!(counts(&["1..2", "ok 1 x", "1..2", "ok 1 x", "ok 2 y"]), (3, 0, 0));
        assert_eq!(counts(&["1..2", "not ok 1 x", "1..1", "ok 1 x"]), (1, 1, 0));
    }
}
