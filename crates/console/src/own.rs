//! Lines of the hypervisor itself: `tagvisor: TEXT`.

use core::fmt::{self, Write as _};

/// What each line of the hypervisor begins with.
pub const PREFIX: &str = "tagvisor: ";

/// After a line end inside a text: the text may quote what a device tree or a guest wrote, and that
/// shall not be able to begin a line as the hypervisor would.
const CONTINUATION: &str = "tagvisor: | ";

/// Writes one line with its prefix. It has no state beyond the line, so a panic can use it when the
/// [`Console`](crate::Console) is locked; it should print a line break of its own first.
pub struct OwnLine<'a, F: FnMut(&[u8])> {
    out: &'a mut F,
    prefix: &'static str,
    at_start: bool,
}

impl<'a, F: FnMut(&[u8])> OwnLine<'a, F> {
    /// Prints `text` as a line; empty text prints nothing.
    pub fn print(text: fmt::Arguments<'_>, out: &'a mut F) {
        let mut line = Self { out, prefix: PREFIX, at_start: true };
        // Only a Display implementation in `text` can fail; what it wrote until then stands.
        let _ = line.write_fmt(text);
        line.end();
    }

    fn end(&mut self) {
        if !self.at_start {
            (self.out)(b"\r\n");
            self.at_start = true;
            self.prefix = CONTINUATION;
        }
    }
}

impl<F: FnMut(&[u8])> fmt::Write for OwnLine<'_, F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(['\r', '\n']) {
            let body = part.trim_end_matches(['\r', '\n']);
            if !body.is_empty() {
                if self.at_start {
                    (self.out)(self.prefix.as_bytes());
                    self.at_start = false;
                }
                (self.out)(body.as_bytes());
            }
            if body.len() < part.len() {
                self.end();
            }
        }
        Ok(())
    }
}
