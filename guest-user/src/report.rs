//! KTAP on standard output.

use crate::linux;
use core::fmt::{self, Write};

/// A report under way.
pub(crate) struct Report {
    number: usize,
    failures: u8,
}

/// Collects a line, so that it goes out by one system call.
struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl Report {
    /// Announces the number of tests.
    pub(crate) fn start(tests: usize) -> Report {
        line(format_args!("KTAP version 1"));
        line(format_args!("1..{tests}"));
        Report { number: 0, failures: 0 }
    }

    /// Reports a test.
    pub(crate) fn result(&mut self, name: &str, result: Result<(), &'static str>) {
        self.number += 1;
        match result {
            Ok(()) => line(format_args!("ok {} {name}", self.number)),
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                line(format_args!("not ok {} {name} # {why}", self.number));
            }
        }
    }

    /// Reports a test that cannot run here.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        self.number += 1;
        line(format_args!("ok {} {name} # SKIP {why}", self.number));
    }

    /// How many failed: the status of the program.
    pub(crate) fn failures(&self) -> u8 {
        self.failures
    }
}

fn line(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 160], length: 0 };
    // Too long a line is cut off.
    let _ = writeln!(line, "{text}");
    let text = line.bytes.get(..line.length).and_then(|bytes| core::str::from_utf8(bytes).ok());
    linux::print(text.unwrap_or("# not UTF-8\n"));
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length.saturating_add(text.len());
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
