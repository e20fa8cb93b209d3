//! Lines of the hypervisor itself: `tagvisor: TEXT`.

use core::fmt::{self, Write as _};

/// What each line of the hypervisor begins with.
pub const PREFIX: &str = "tagvisor: ";

/// After a line end inside a text: the text may quote what a device tree or a guest wrote, and that
/// shall not be able to begin a line as the hypervisor would. Other control characters become `?`.
const CONTINUATION: &str = "tagvisor: | ";

/// Writes one line with its prefix. It has no state beyond the line, so a panic can use it when the
/// [`Console`](crate::Console) is locked; it should print a line break of its own first.
pub struct OwnLine<'a> {
    out: &'a mut dyn FnMut(&[u8]),
    prefix: &'static str,
    at_start: bool,
}

impl<'a> OwnLine<'a> {
    /// Prints `text` as a line; empty text prints nothing.
    pub fn print(text: fmt::Arguments<'_>, out: &'a mut dyn FnMut(&[u8])) {
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

impl fmt::Write for OwnLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.as_bytes().chunk_by(|a, b| !a.is_ascii_control() && !b.is_ascii_control()) {
            if matches!(piece, b"\r" | b"\n") {
                self.end();
                continue;
            }
            if self.at_start {
                (self.out)(self.prefix.as_bytes());
                self.at_start = false;
            }
            (self.out)(if piece.first().is_some_and(u8::is_ascii_control) { b"?" } else { piece });
        }
        Ok(())
    }
}
