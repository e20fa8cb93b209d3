//! Reads a VM's output for test reports (KTAP version 1: `1..N`, `ok`, `not ok`).

/// Longest line that is looked at; what follows on it doesn't matter.
const LINE: usize = 48;

/// What a VM's output has said so far.
#[derive(Debug)]
pub(crate) struct Ktap {
    line: [u8; LINE],
    len: usize,
    plan: Option<u32>,
    seen: u32,
    failed: bool,
}

impl Ktap {
    /// Nothing said.
    pub(crate) const fn new() -> Self {
        Self { line: [0; LINE], len: 0, plan: None, seen: 0, failed: false }
    }

    /// Another byte of output.
    pub(crate) fn push(&mut self, byte: u8) {
        if byte == b'\r' || byte == b'\n' {
            self.end_line();
        } else if let Some(slot) = self.line.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn end_line(&mut self) {
        let line = self.line.get(..self.len).unwrap_or(&[]);
        if line.starts_with(b"ok ") {
            self.seen = self.seen.saturating_add(1);
        } else if line.starts_with(b"not ok ") {
            self.seen = self.seen.saturating_add(1);
            self.failed = true;
        } else if let Some(count) = line.strip_prefix(b"1..").and_then(number) {
            self.plan = Some(count);
        }
        self.len = 0;
    }

    /// `None` if there is no plan; else whether the plan is complete without a failure, or why not.
    pub(crate) fn verdict(&self) -> Option<Result<(), &'static str>> {
        let plan = self.plan?;
        Some(if self.failed {
            Err("a test is not ok")
        } else if self.seen != plan {
            Err("the test plan is not complete")
        } else {
            Ok(())
        })
    }
}

/// The decimal number that `text` begins with.
fn number(text: &[u8]) -> Option<u32> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit());
    let mut value: Option<u32> = None;
    for d in digits {
        value = Some(value.unwrap_or(0).checked_mul(10)?.checked_add(u32::from(d - b'0'))?);
    }
    value
}
