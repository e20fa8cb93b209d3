//! Trials: named pieces of the test run, two at a time, each counted by what it reports.

use crate::paths;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// Trials that run at the same time; each may start one QEMU.
const PARALLEL: usize = 2;
/// Lines that a trial may print.
const LONGEST: usize = 40;

/// What a trial found. A trial with many tests inside counts each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// What failed or why it was skipped, a line each.
    pub notes: Vec<String>,
}

impl Tally {
    /// One test that passed.
    pub fn pass() -> Tally {
        Tally { passed: 1, ..Tally::default() }
    }

    /// One test that failed.
    pub fn fail(why: impl Into<String>) -> Tally {
        Tally { failed: 1, notes: vec![why.into()], ..Tally::default() }
    }

    /// One test that could not run here.
    pub fn skip(why: impl Into<String>) -> Tally {
        Tally { skipped: 1, notes: vec![why.into()], ..Tally::default() }
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.notes.extend(other.notes);
    }

    const fn word(&self) -> &'static str {
        match (self.failed, self.passed) {
            (0, 0) => "skip",
            (0, _) => "ok",
            (_, _) => "FAIL",
        }
    }
}

/// A named piece of the test run. An error is one failed test.
pub struct Trial<'a> {
    pub name: String,
    pub run: Box<dyn FnOnce() -> Result<Tally> + Send + 'a>,
}

impl<'a> Trial<'a> {
    pub fn new(name: impl Into<String>, run: impl FnOnce() -> Result<Tally> + Send + 'a) -> Trial<'a> {
        Trial { name: name.into(), run: Box::new(run) }
    }
}

/// Runs all, in order, and prints each as it ends; returns the sums.
pub fn run(trials: Vec<Trial<'_>>) -> Tally {
    let bar = ProgressBar::new(trials.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    let queue = Mutex::new(trials.into_iter());
    let total = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(trial) = next(&queue) {
                    let start = Instant::now();
                    let tally = (trial.run)().unwrap_or_else(|error| Tally::fail(format!("{error:#}")));
                    let line = report(&trial.name, &tally, start.elapsed().as_secs_f32());
                    bar.suspend(|| println!("{line}"));
                    bar.inc(1);
                    if let Ok(mut total) = total.lock() {
                        total.add(tally);
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn next<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    queue.lock().ok()?.next()
}

fn report(name: &str, tally: &Tally, seconds: f32) -> String {
    let mut line = format!("{:4} {name}", tally.word());
    if tally.passed + tally.failed + tally.skipped != 1 {
        line += &format!(" ({} passed, {} failed, {} skipped)", tally.passed, tally.failed, tally.skipped);
    }
    line += &format!(" {seconds:.1}s");
    let notes = tally.notes.join("\n");
    let all: Vec<&str> = notes.trim_end().lines().collect();
    for note in all.iter().take(LONGEST) {
        line += &format!("\n       {note}");
    }
    if all.len() > LONGEST {
        line += &format!("\n       {} more lines: {}", all.len() - LONGEST, keep(name, &notes));
    }
    line
}

/// Keeps what is too long to print, and says where.
fn keep(name: &str, notes: &str) -> String {
    let written = paths::log(&format!("{name}.notes")).and_then(|path| {
        paths::replace(&path, notes.as_bytes())?;
        Ok(path.display().to_string())
    });
    written.unwrap_or_else(|error| format!("lost: {error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_errors() {
        let trials = vec![
            Trial::new("a", || Ok(Tally::pass())),
            Trial::new("b", || Ok(Tally::skip("no such feature"))),
            Trial::new("c", || anyhow::bail!("broken")),
            Trial::new("d", || Ok(Tally { passed: 3, ..Tally::default() })),
        ];
        let total = run(trials);
        assert_eq!((total.passed, total.failed, total.skipped), (4, 1, 1));
    }
}
