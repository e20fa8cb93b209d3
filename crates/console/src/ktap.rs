//! Reads a VM's output for test reports: KTAP version 1 (Linux, Documentation/dev-tools/ktap.rst),
//! and TAP as far as it differs only in leaving out numbers or giving the plan last.
//!
//! What counts stands at the start of a line: subtests are indented, and their parent's line sums
//! them up. Reports may follow one another; each one's plan must be complete. `not ok` is no failure
//! with the directive TODO, XFAIL or SKIP. A VM that prints no plan does not speak KTAP.

/// As much of a line's start as decides what it is: `not ok 4294967295` and a little more.
const HEAD: usize = 24;

/// Longest directive.
const WORD: usize = 5;

const NOT_OK: &str = "a test is not ok";
const BAILED_OUT: &str = "the tests bailed out";
const INCOMPLETE: &str = "the test plan is not complete";
const DISORDER: &str = "the results are not numbered in order";
const NO_PLAN: &str = "there is no test plan";

/// What a VM's output has said so far.
#[derive(Clone, Debug)]
pub struct Ktap {
    head: [u8; HEAD],
    /// Bytes of the line that are in `head`.
    len: usize,
    scan: Scan,
    /// The line has a directive by which `not ok` is no failure.
    excused: bool,
    /// A version line announced a report.
    announced: bool,
    plan: Option<u32>,
    /// Results since the plan, or without one so far.
    seen: u32,
    /// The first thing that was wrong.
    wrong: Option<&'static str>,
}

/// Where in a line the search for `# DIRECTIVE` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    Text,
    /// Behind `\`, which takes the meaning from a `#`.
    Escape,
    /// Behind `#`: the letters of the word so far, in upper case.
    Word([u8; WORD], usize),
}

impl Default for Ktap {
    fn default() -> Self {
        Self::new()
    }
}

impl Ktap {
    /// Nothing said.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: [0; HEAD],
            len: 0,
            scan: Scan::Text,
            excused: false,
            announced: false,
            plan: None,
            seen: 0,
            wrong: None,
        }
    }

    /// Another byte of output, as the guest sent it.
    pub fn push(&mut self, byte: u8) {
        if byte == b'\r' || byte == b'\n' {
            self.end_line();
            return;
        }
        if let Some(slot) = self.head.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
        self.scan(byte);
    }

    /// `None` if the VM did not speak KTAP; else whether all plans are complete without a failure,
    /// or why not.
    #[must_use]
    pub fn verdict(&self) -> Option<Result<(), &'static str>> {
        if self.wrong == Some(BAILED_OUT) {
            return Some(Err(BAILED_OUT));
        }
        let Some(plan) = self.plan else { return self.announced.then_some(Err(NO_PLAN)) };
        Some(match self.wrong {
            Some(wrong) => Err(wrong),
            None if self.seen != plan => Err(INCOMPLETE),
            None => Ok(()),
        })
    }

    fn scan(&mut self, byte: u8) {
        self.scan = match (self.scan, byte) {
            (Scan::Escape, _) => Scan::Text,
            (_, b'#') => {
                self.end_word();
                Scan::Word([0; WORD], 0)
            }
            (Scan::Word(word, 0), b' ' | b'\t') => Scan::Word(word, 0),
            (Scan::Word(mut word, len), letter) if letter.is_ascii_alphabetic() => {
                if let Some(slot) = word.get_mut(len) {
                    *slot = letter.to_ascii_uppercase();
                }
                Scan::Word(word, len.saturating_add(1))
            }
            (Scan::Text | Scan::Word(..), other) => {
                self.end_word();
                if other == b'\\' { Scan::Escape } else { Scan::Text }
            }
        };
    }

    fn end_word(&mut self) {
        if let Scan::Word(word, len) = self.scan {
            // TAP has it that anything that begins with SKIP skips.
            self.excused |= word.starts_with(b"SKIP")
                || len == 4 && word.starts_with(b"TODO")
                || len == 5 && word == *b"XFAIL";
        }
    }

    fn end_line(&mut self) {
        self.end_word();
        let (head, len) = (self.head, core::mem::take(&mut self.len));
        let excused = core::mem::take(&mut self.excused);
        self.scan = Scan::Text;
        let line = head.get(..len).unwrap_or_default();
        if let Some(rest) = line.strip_prefix(b"not ok").filter(|rest| ends_word(rest)) {
            self.result(rest);
            if !excused {
                self.fail(NOT_OK);
            }
        } else if let Some(rest) = line.strip_prefix(b"ok").filter(|rest| ends_word(rest)) {
            self.result(rest);
        } else if let Some(count) = line.strip_prefix(b"1..").and_then(plan) {
            self.begin(count);
        } else if line.starts_with(b"Bail out!") {
            // Worse than a failed test.
            self.wrong = Some(BAILED_OUT);
        } else if line.starts_with(b"KTAP version ") || line.starts_with(b"TAP version ") {
            self.announced = true;
        }
    }

    /// A result, with or without its number.
    fn result(&mut self, rest: &[u8]) {
        self.seen = self.seen.saturating_add(1);
        if let Some((number, rest)) = number(rest.strip_prefix(b" ").unwrap_or(rest))
            && ends_word(rest)
            && number != self.seen
        {
            self.fail(DISORDER);
        }
    }

    /// A plan. One behind results without a plan is theirs; else a report begins.
    fn begin(&mut self, count: u32) {
        if let Some(before) = self.plan.replace(count) {
            if self.seen != before {
                self.fail(INCOMPLETE);
            }
            self.seen = 0;
        }
    }

    fn fail(&mut self, why: &'static str) {
        self.wrong.get_or_insert(why);
    }
}

/// Whether a word that came before `rest` ends there.
fn ends_word(rest: &[u8]) -> bool {
    rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'))
}

/// The count of a plan line behind its `1..`; a comment may follow.
fn plan(text: &[u8]) -> Option<u32> {
    let (count, rest) = number(text)?;
    ends_word(rest).then_some(count)
}

/// The decimal number that `text` begins with, and what follows.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((core::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn judge(output: &str) -> Option<Result<(), &'static str>> {
        let mut ktap = Ktap::new();
        output.bytes().for_each(|byte| ktap.push(byte));
        ktap.verdict()
    }

    #[test]
    fn complete_plans_pass() {
        for output in [
            "KTAP version 1\n1..2\nok 1 a\nok 2 b\n",
            "1..2\r\nok 1\r\nok 2 - with a dash\r\n",
            "1..2\nok\nok without a number\n",
            "1..1\nok 1 a # SKIP no MTE\n",
            "1..0 # SKIP nothing to do\n",
            "1..2\nnot ok 1 a # TODO later\nnot ok 2 # XFAIL\n",
            "1..1\nnot ok 1 a name that is much longer than what is kept of a line # TODO\n",
            "1..1\nnot ok 1 issue #5 #todo: fix\n",
            "1..1\nnot ok 1 # skipped: no RNG\n",
            "ok 1 a\nok 2 b\n1..2\n",
            "1..1\nok 1\n1..2\nok 1\nok 2\n",
            "boot\n# comment\n1..1\n  KTAP version 1\n  1..2\n  not ok 1 x\n    ok 2 y\n\tnot ok 2\nok 1 a\nbye",
            "1..1\nokay 7\nok1\nnot okay\nok 1\n",
            "1..2\nok 1 1st\nok 2nd\n",
        ] {
            assert_eq!(judge(output), Some(Ok(())), "{output:?}");
        }
    }

    #[test]
    fn failures_have_reasons() {
        for (output, why) in [
            ("1..2\nok 1\nnot ok 2 b\n", NOT_OK),
            ("1..1\nnot ok\n", NOT_OK),
            ("1..1\nnot ok 1 a \\# TODO\n", NOT_OK),
            ("1..1\nnot ok 1 a # TODOS\n", NOT_OK),
            ("1..1\nnot ok 1 TODO\n", NOT_OK),
            ("1..2\nnot ok 1\nok 2 # TODO\n", NOT_OK),
            ("1..2\nok 1\n", INCOMPLETE),
            ("1..1\nok 1\nok 2\n", INCOMPLETE),
            ("1..1\nok 1", INCOMPLETE),
            ("1..2\nok 1\n1..1\nok 1\n", INCOMPLETE),
            ("1..2\nok 1\nok 1\n", DISORDER),
            ("1..2\nok 2\nok 1\n", DISORDER),
            ("1..1\nBail out! no memory\n", BAILED_OUT),
            ("Bail out!\n", BAILED_OUT),
            ("1..1\nnot ok 1\nBail out!\n", BAILED_OUT),
            ("KTAP version 1\nok 1\n", NO_PLAN),
            ("TAP version 13\n", NO_PLAN),
        ] {
            assert_eq!(judge(output), Some(Err(why)), "{output:?}");
        }
    }

    #[test]
    fn other_output_is_no_report() {
        for output in
            ["", "hello\n", "ok 3 files\n", " 1..2\n", "1..x\n", "1..5a\n", "1..99999999999\n", "1..4"]
        {
            assert_eq!(judge(output), None, "{output:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..if cfg!(miri) { 20 } else { 400 })) {
            let mut ktap = Ktap::new();
            bytes.iter().for_each(|byte| ktap.push(*byte));
            let _ = ktap.verdict();
        }

        #[test]
        fn lines_in_between_change_nothing(
            noise in prop::collection::vec("[ \t#a-z\\\\][ -~]{0,60}", 0..8),
            results in prop::collection::vec(any::<bool>(), 0..8),
        ) {
            let mut lines: Vec<std::string::String> = std::vec![std::format!("1..{}", results.len())];
            for (index, passed) in results.iter().enumerate() {
                lines.push(std::format!("{} {}", if *passed { "ok" } else { "not ok" }, index + 1));
                // What begins like a result is one.
                let quiet = noise.get(index).filter(|n| !n.starts_with("ok") && !n.starts_with("not ok"));
                lines.extend(quiet.cloned());
            }
            lines.push("".into());
            let expected = if results.iter().all(|r| *r) { Ok(()) } else { Err(NOT_OK) };
            prop_assert_eq!(judge(&lines.join("\n")), Some(expected));
        }
    }
}
