//! The one physical UART that all VMs and the hypervisor share.
//!
//! [`Console`] turns characters of VMs and lines of the hypervisor into bytes for the UART, and
//! bytes from the UART into characters for the VM in focus or [`Action`]s. It does no I/O: bytes
//! leave through a closure. [`mod@line`] holds the rules for one VM's line, [`keys`] the escape keys,
//! [`own`] the hypervisor's lines, which also work without a [`Console`], in a panic. Beside it stand
//! [`ring`] and [`output`], where bytes wait for a transmitter, [`ktap`], which judges what a VM printed, and [`budget`],
//! which limits what it may have others print.
//!
//! What the output looks like, split at every CR and LF into pieces:
//! - A piece that is not empty begins with `[NAME] `, and is then that VM's, or with `tagvisor: `,
//!   and is then the hypervisor's. No guest can make a piece that begins otherwise.
//! - A line of a VM that others interrupt is repeated when it goes on: each piece of it holds the
//!   line so far, from its start, or from the last multiple of [`line::CAPACITY`] bytes.
//! - CR LF, LF and CR CR LF of a guest all end a line (as CR LF). CR alone goes back to its start.
//!
//! Other control characters pass. So a guest can move the cursor of a terminal by escape sequences
//! and paint there what it likes; it can not do that to the bytes, which is what programs read.
//! (Form feed, vertical tab and the like are no line ends here: split at CR and LF only.)
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod budget;
pub mod keys;
pub mod ktap;
pub mod line;
pub mod output;
pub mod own;
pub mod ring;

use alloc::boxed::Box;
use core::fmt;

pub use keys::Action;
use keys::{Key, Keys};
use line::{Line, Screen};
use own::OwnLine;

/// How long characters of a VM without focus wait for the end of their line, in milliseconds.
pub const PARTIAL_LINE_MS: u64 = 100;

/// The shared UART.
pub struct Console {
    lines: Box<[Line]>,
    screen: Screen,
    focus: usize,
    keys: Keys,
}

impl Console {
    /// A console for the VMs of these names, in the order of their numbers; the first has the focus.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            lines: names.into_iter().map(Line::new).collect(),
            screen: Screen::default(),
            focus: 0,
            keys: Keys::default(),
        }
    }

    /// The VM that gets the input.
    #[must_use]
    pub const fn focus(&self) -> usize {
        self.focus
    }

    /// A VM prints a character. At once for the VM in focus, else when its line ends, when its
    /// buffer is full, or when [`Console::tick`] finds it waiting for too long.
    pub fn guest(&mut self, vm: usize, byte: u8, out: &mut impl FnMut(&[u8])) {
        let Some(line) = self.lines.get_mut(vm) else { return };
        line.push(byte, vm, &mut self.screen, out);
        if vm == self.focus {
            line.show(vm, &mut self.screen, out);
        }
    }

    /// The hypervisor prints a line: `tagvisor: TEXT`.
    pub fn say(&mut self, text: fmt::Arguments<'_>, out: &mut impl FnMut(&[u8])) {
        self.screen.interrupt(out);
        OwnLine::print(text, out);
    }

    /// Time passes: shows what VMs without focus have left unfinished for [`PARTIAL_LINE_MS`].
    /// Returns whether anything still waits, so that another tick is needed.
    pub fn tick(&mut self, now_ms: u64, out: &mut impl FnMut(&[u8])) -> bool {
        let mut waiting = false;
        for (vm, line) in self.lines.iter_mut().enumerate() {
            if line.overdue(now_ms, PARTIAL_LINE_MS) {
                line.show(vm, &mut self.screen, out);
            }
            waiting |= line.waits();
        }
        waiting
    }

    /// A VM has stopped: shows what it left unfinished and forgets it, so that its next start begins
    /// a new line.
    pub fn end_line(&mut self, vm: usize, out: &mut impl FnMut(&[u8])) {
        let Some(line) = self.lines.get_mut(vm) else { return };
        line.show(vm, &mut self.screen, out);
        if self.screen.owned_by(vm) {
            self.screen.interrupt(out);
        }
        line.forget();
    }

    /// The machine is about to end: shows what all VMs have left unfinished.
    pub fn flush(&mut self, out: &mut impl FnMut(&[u8])) {
        for (vm, line) in self.lines.iter_mut().enumerate() {
            line.show(vm, &mut self.screen, out);
        }
        self.screen.interrupt(out);
    }

    /// A byte has come from the UART. What concerns only the console (focus, help) is done; the rest
    /// is for the caller.
    pub fn input(&mut self, byte: u8, out: &mut impl FnMut(&[u8])) -> Action {
        match self.keys.press(byte) {
            Key::Nothing => Action::None,
            Key::Text(byte) if self.focus < self.lines.len() => Action::Send { vm: self.focus, byte },
            Key::Text(_) => Action::None,
            Key::Focus(vm) => {
                if self.exists(vm, out) {
                    self.set_focus(vm, out);
                }
                Action::None
            }
            Key::Stop(vm) if self.exists(vm, out) => Action::Stop(vm),
            Key::Restart(vm) if self.exists(vm, out) => Action::Restart(vm),
            Key::Start(vm) if self.exists(vm, out) => Action::Start(vm),
            Key::Stop(_) | Key::Restart(_) | Key::Start(_) => Action::None,
            Key::List => Action::List,
            Key::Memory => Action::Memory,
            Key::Exits => Action::Exits,
            Key::End => Action::End,
            Key::Help => {
                for text in keys::HELP {
                    self.say(format_args!("{text}"), out);
                }
                Action::None
            }
            Key::Unknown => {
                self.say(format_args!("no such key; Ctrl-A h lists them"), out);
                Action::None
            }
        }
    }

    /// Moves the focus and repeats that VM's unfinished line (its prompt, perhaps).
    fn set_focus(&mut self, vm: usize, out: &mut impl FnMut(&[u8])) {
        let Some(line) = self.lines.get_mut(vm) else { return };
        self.focus = vm;
        self.screen.interrupt(out);
        OwnLine::print(format_args!("input goes to {}", line.name()), out);
        line.repeat(vm, &mut self.screen, out);
    }

    /// Whether there is such a VM; says so if not.
    fn exists(&mut self, vm: usize, out: &mut impl FnMut(&[u8])) -> bool {
        let there = vm < self.lines.len();
        if !there {
            self.say(format_args!("there is no VM {vm}"), out);
        }
        there
    }
}

#[cfg(test)]
mod tests;
