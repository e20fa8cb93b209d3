//! What comes out of the UART: lines, and the hypervisor's verdict.

use std::mem;

/// Cuts a stream of bytes into lines at CR and LF, as the hypervisor does before it prefixes them.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Longer lines are cut: a guest may never end one.
    const LONGEST: usize = 4096;

    /// Adds bytes and hands each line that became complete to `each`; empty lines are left out.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for &byte in bytes {
            if byte != b'\r' && byte != b'\n' {
                self.partial.push(byte);
            }
            if byte == b'\r' || byte == b'\n' || self.partial.len() >= Self::LONGEST {
                self.flush(&mut each);
            }
        }
    }

    /// Hands out what is left at the end.
    pub fn flush(&mut self, mut each: impl FnMut(&str)) {
        let line = mem::take(&mut self.partial);
        if !line.is_empty() {
            each(&String::from_utf8_lossy(&line));
        }
    }
}

/// The hypervisor's last line: `tagvisor: result: pass|fail REASON`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub pass: bool,
    pub reason: String,
}

impl Verdict {
    /// Understands the line, if it is one. Lines of guests are prefixed and so never match.
    pub fn parse(line: &str) -> Option<Verdict> {
        let result = line.strip_prefix("tagvisor: result: ")?;
        let (word, reason) = result.split_once(' ').unwrap_or((result, ""));
        let pass = match word {
            "pass" => true,
            "fail" => false,
            _ => return None,
        };
        Some(Verdict { pass, reason: reason.into() })
    }

    /// The last verdict of a whole log.
    pub fn of(lines: &[String]) -> Option<Verdict> {
        lines.iter().rev().find_map(|line| Verdict::parse(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_cr_and_lf_and_survive_cuts() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for part in ["a", "b\r\nc\rd", "\n\ne"] {
            lines.feed(part.as_bytes(), |line| seen.push(line.to_owned()));
        }
        lines.flush(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["ab", "c", "d", "e"]);
    }

    #[test]
    fn a_guest_cannot_forge_the_verdict() {
        assert_eq!(Verdict::parse("tagvisor: result: pass 3 VMs").map(|v| v.pass), Some(true));
        assert_eq!(Verdict::parse("tagvisor: result: fail").map(|v| v.pass), Some(false));
        assert_eq!(Verdict::parse("[vm] tagvisor: result: pass"), None);
        assert_eq!(Verdict::parse("tagvisor: result: passed"), None);
    }
}
