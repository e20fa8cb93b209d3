//! One VM's line: what of it is known, and what of that is on the screen.
//!
//! `Line` buffers the characters since the line began; `Screen` knows whose unfinished line the
//! cursor stands in. A line that finds itself interrupted starts anew with its prefix and all that
//! the buffer holds.

use alloc::boxed::Box;
use alloc::format;

/// Bytes that a line holds. When they are full they are shown, and the line goes on after them.
pub const CAPACITY: usize = 256;

const BREAK: &[u8] = b"\r\n";

/// Where the cursor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Screen {
    /// The VM whose unfinished line the cursor stands in; none at the start of a line.
    owner: Option<usize>,
}

impl Screen {
    pub(crate) fn owned_by(self, vm: usize) -> bool {
        self.owner == Some(vm)
    }

    /// Gets the cursor to the start of a line.
    pub(crate) fn interrupt(&mut self, out: &mut impl FnMut(&[u8])) {
        if self.owner.take().is_some() {
            out(BREAK);
        }
    }
}

/// What the latest CR of a VM means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Return {
    /// There is none, or it has been dealt with.
    None,
    /// It was the last character: an LF may follow.
    Last,
    /// Text followed it, which is not on the screen yet: that begins at the line's start again.
    Bare,
}

/// One VM's unfinished line.
pub(crate) struct Line {
    /// `[NAME] `
    prefix: Box<str>,
    text: [u8; CAPACITY],
    len: usize,
    /// How much of the text is on the screen, now or before an interruption.
    shown: usize,
    /// Some of the line has been on the screen: if the cursor has left it, it needs no break.
    begun: bool,
    ret: Return,
    /// When a tick first saw text that is not on the screen.
    since: Option<u64>,
}

impl Line {
    /// The line of a VM. The manifest admits only `[a-z0-9_-]` in names; anything that could end a
    /// line becomes `?` all the same, because the console's promise rests on it.
    pub(crate) fn new(name: &str) -> Self {
        let prefix = format!("[{}] ", name.replace(|c: char| c.is_control(), "?"));
        Self {
            prefix: prefix.into_boxed_str(),
            text: [0; CAPACITY],
            len: 0,
            shown: 0,
            begun: false,
            ret: Return::None,
            since: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.prefix.strip_prefix('[').and_then(|p| p.strip_suffix("] ")).unwrap_or_default()
    }

    /// Takes a character; what is complete by it goes to the screen.
    pub(crate) fn push(&mut self, byte: u8, vm: usize, screen: &mut Screen, out: &mut impl FnMut(&[u8])) {
        match byte {
            b'\n' => self.end(vm, screen, out),
            b'\r' => {
                self.show(vm, screen, out);
                self.clear();
                self.ret = Return::Last;
            }
            _ => {
                if self.ret == Return::Last {
                    self.ret = Return::Bare;
                }
                self.append(byte);
                if self.len >= CAPACITY {
                    self.show(vm, screen, out);
                    self.clear();
                }
            }
        }
    }

    /// Puts on the screen what is not there yet.
    pub(crate) fn show(&mut self, vm: usize, screen: &mut Screen, out: &mut impl FnMut(&[u8])) {
        self.since = None;
        if self.shown >= self.len {
            return;
        }
        if !screen.owned_by(vm) {
            screen.interrupt(out);
            self.begin(vm, screen, out);
        } else if self.ret == Return::Bare {
            out(b"\r");
            self.begin(vm, screen, out);
        }
        out(self.text.get(self.shown..self.len).unwrap_or_default());
        self.shown = self.len;
        self.ret = Return::None;
    }

    /// Puts the whole text on the screen, unless the cursor stands behind it.
    pub(crate) fn repeat(&mut self, vm: usize, screen: &mut Screen, out: &mut impl FnMut(&[u8])) {
        if !screen.owned_by(vm) {
            self.shown = 0;
        }
        self.show(vm, screen, out);
    }

    /// Whether text has not been on the screen since a tick at least `limit` ms before `now`.
    pub(crate) fn overdue(&mut self, now: u64, limit: u64) -> bool {
        self.waits() && now.saturating_sub(*self.since.get_or_insert(now)) >= limit
    }

    /// Whether there is text that has not been on the screen.
    pub(crate) fn waits(&self) -> bool {
        self.shown < self.len
    }

    /// Drops the line: the next character begins a new one.
    pub(crate) fn forget(&mut self) {
        self.clear();
        self.begun = false;
        self.ret = Return::None;
    }

    /// An LF, with or without CR before it. If the line was interrupted, its break is there already.
    fn end(&mut self, vm: usize, screen: &mut Screen, out: &mut impl FnMut(&[u8])) {
        self.show(vm, screen, out);
        if screen.owned_by(vm) {
            screen.interrupt(out);
        } else if !self.begun {
            screen.interrupt(out);
            out(BREAK);
        }
        self.forget();
    }

    /// Prints the prefix at the start of a line; all the text is to follow.
    fn begin(&mut self, vm: usize, screen: &mut Screen, out: &mut impl FnMut(&[u8])) {
        out(self.prefix.as_bytes());
        screen.owner = Some(vm);
        self.begun = true;
        self.shown = 0;
    }

    fn append(&mut self, byte: u8) {
        if let Some(slot) = self.text.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn clear(&mut self) {
        self.len = 0;
        self.shown = 0;
        self.since = None;
    }
}
