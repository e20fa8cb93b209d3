//! KTAP: what payloads print about their tests, one stream for each VM.

use std::collections::BTreeMap;

/// All results of a run, by the VM that printed them (empty without hypervisor).
#[derive(Default)]
pub struct Ktap {
    streams: BTreeMap<String, Stream>,
}

/// The results of one VM.
#[derive(Default)]
struct Stream {
    planned: Option<usize>,
    passed: usize,
    skipped: Vec<String>,
    failed: Vec<String>,
}

/// One line of KTAP that counts.
enum Report<'a> {
    Plan(usize),
    Passed,
    Failed(&'a str),
    Skipped(&'a str),
}

impl Report<'_> {
    fn parse(line: &str) -> Option<Report<'_>> {
        if let Some(count) = line.strip_prefix("1..") {
            return Some(Report::Plan(count.trim().parse().ok()?));
        }
        let (ok, name) = match line.strip_prefix("not ok ") {
            Some(name) => (false, name),
            None => (true, line.strip_prefix("ok ")?),
        };
        name.starts_with(|first: char| first.is_ascii_digit()).then_some(
            match (name.contains("# SKIP"), ok) {
                (true, _) => Report::Skipped(name),
                (false, true) => Report::Passed,
                (false, false) => Report::Failed(name),
            },
        )
    }
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

impl Ktap {
    /// Takes in the lines of a log.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Ktap {
        let mut ktap = Ktap::default();
        for line in lines {
            let (vm, text) = split_prefix(line);
            ktap.add(vm, text);
        }
        ktap
    }

    /// Whether any VM spoke KTAP.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    fn add(&mut self, vm: &str, text: &str) {
        let Some(report) = Report::parse(text) else {
            return;
        };
        let stream = self.streams.entry(vm.into()).or_default();
        match report {
            Report::Plan(count) => stream.planned = Some(count),
            Report::Passed => stream.passed += 1,
            Report::Failed(name) => stream.failed.push(name.into()),
            Report::Skipped(name) => stream.skipped.push(name.into()),
        }
    }

    /// Adds all up; an incomplete plan is a failure.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for (vm, stream) in &self.streams {
            let from = if vm.is_empty() { String::new() } else { format!("{vm}: ") };
            sums.passed += stream.passed;
            sums.skipped += stream.skipped.len();
            sums.failures.extend(stream.failed.iter().map(|name| format!("{from}not ok {name}")));
            let reported = stream.passed + stream.skipped.len() + stream.failed.len();
            match stream.planned {
                Some(planned) if planned == reported => {}
                Some(planned) => sums.failures.push(format!("{from}{reported} of {planned} planned results")),
                None => sums.failures.push(format!("{from}{reported} results without a plan")),
            }
        }
        sums.failed = sums.failures.len();
        sums
    }
}

/// Splits the hypervisor's `[vm] ` off a line.
pub fn split_prefix(line: &str) -> (&str, &str) {
    line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).unwrap_or(("", line))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let sums = Ktap::of(log).sums();
        assert_eq!((sums.passed, sums.failed, sums.skipped), (1, 1, 1));
        assert_eq!(sums.failures, ["b: not ok 1 y"]);
    }

    #[test]
    fn a_plan_must_be_complete() {
        assert_eq!(Ktap::of(["1..2", "ok 1 x"]).sums().failed, 1);
        assert_eq!(Ktap::of(["ok 1 x"]).sums().failed, 1);
        assert!(Ktap::of(["hello"]).is_empty());
    }
}
