//! A machine that runs by itself: its UART goes to a log, and it is killed when its time is over.

use crate::ktap::Ktap;
use crate::paths;
use crate::qemu::Machine;
use crate::trial::Tally;
use crate::uart::Lines;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time of a machine: one that works ends sooner, however busy the host.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// How a run ended.
pub struct Run {
    /// What the UART printed.
    pub lines: Vec<String>,
    /// Where that is kept, with what QEMU itself said.
    pub log: PathBuf,
    /// Why the machine did not end by itself, if so.
    pub hung: Option<String>,
}

/// Starts the machine and reads its UART until it ends or `timeout` is over.
pub fn run(name: &str, machine: &Machine, timeout: Duration) -> Result<Run> {
    run_on(name, machine, timeout, None)
}

/// The same for a machine that may halt: it gets no more than `rest` behind its verdict.
pub fn run_on(name: &str, machine: &Machine, timeout: Duration, rest: Option<Duration>) -> Result<Run> {
    let log = paths::log(name)?;
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = machine.command()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone()?);
    let mut child = command.spawn().context("cannot start QEMU")?;
    let output = child.stdout.take().context("QEMU has no output")?;
    let (lines, hung) = collect(output, file, Instant::now() + timeout, rest);
    let hung = end(&mut child, hung).map(|why| format!("{why} ({}s)", timeout.as_secs()));
    Ok(Run { lines, log, hung })
}

/// Reads lines until the stream ends; the flag says that the deadline came first.
fn collect(
    output: impl Read + Send + 'static,
    mut log: File,
    mut deadline: Instant,
    rest: Option<Duration>,
) -> (Vec<String>, bool) {
    let bytes = chunks(output);
    let mut cutter = Lines::default();
    let mut lines = Vec::new();
    let hung = loop {
        match bytes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => {
                // A full disk must not lose the verdict.
                let _ = log.write_all(&chunk);
                cutter.feed(&chunk, |line| {
                    if let Some(rest) = rest.filter(|_| line.starts_with("tagvisor: result: ")) {
                        deadline = Instant::now() + rest;
                    }
                    lines.push(line.to_owned());
                });
            }
            Err(RecvTimeoutError::Timeout) => break true,
            Err(RecvTimeoutError::Disconnected) => break false,
        }
    };
    cutter.flush(|line| lines.push(line.to_owned()));
    (lines, hung)
}

/// Reads a stream on a thread of its own, so that the reader can wait with a deadline.
pub fn chunks(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = stream.read(&mut buffer) {
            let chunk = buffer.get(..count).unwrap_or_default().to_vec();
            if chunk.is_empty() || sender.send(chunk).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Waits for the process, by force if it hangs or left its output without ending.
pub fn end(child: &mut Child, hung: bool) -> Option<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !hung && Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(_)) => return None,
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Some(error.to_string()),
        }
    }
    // It may have ended since; both calls are harmless then.
    let _ = child.kill();
    let _ = child.wait();
    Some("killed because it did not end in time".into())
}

impl Run {
    /// Counts what the payloads reported, and adds what was expected of the log as a whole.
    pub fn tally(&self, complaints: Vec<String>) -> Tally {
        let mut notes = complaints;
        notes.extend(self.hung.clone());
        let ktap = Ktap::of(self.lines.iter().map(String::as_str));
        let sums = ktap.sums();
        // What is wrong with the run as a whole is one failure, however it shows.
        let failed = sums.failed + usize::from(!notes.is_empty());
        let mut tally = Tally { passed: sums.passed, failed, skipped: sums.skipped, notes };
        if ktap.is_empty() && tally.failed == 0 {
            tally.passed = 1;
        }
        tally.notes.extend(sums.failures);
        if tally.failed > 0 {
            tally.notes.push(format!("log: {}", self.log.display()));
            tally.notes.extend(self.lines.iter().rev().take(8).rev().map(|line| format!("| {line}")));
        }
        tally
    }

    /// Complains about each of `wanted` that no line contains.
    pub fn missing(&self, wanted: &[String]) -> Vec<String> {
        let absent = |text: &&String| !self.lines.iter().any(|line| line.contains(text.as_str()));
        wanted.iter().filter(absent).map(|text| format!("no line contains {text:?}")).collect()
    }
}
