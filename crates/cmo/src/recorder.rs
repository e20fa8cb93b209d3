//! A backend that writes down what it is asked for.

use addr::Va;
use std::cell::RefCell;
use std::vec::Vec;

use crate::{CacheOps, Line, LineSize, Lines, Point};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// What the caller's closure does.
    Wrote,
    CleanInvalidate(u64),
    CleanInvalidateTags(u64),
    Maintain(u64, Line),
    Invalidate(u64),
    InvalidateInstructions,
    Complete,
    Synchronize,
}

pub(crate) struct Recorder<'a> {
    pub(crate) lines: Lines,
    pub(crate) bypass: bool,
    pub(crate) did: &'a RefCell<Vec<Did>>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(data: u8, tags: u8, did: &'a RefCell<Vec<Did>>) -> Self {
        let lines = Lines { data: LineSize::from_log2(data), tags: LineSize::from_log2(tags) };
        Self { lines, bypass: false, did }
    }

    fn note(&self, did: Did) {
        self.did.borrow_mut().push(did);
    }
}

impl CacheOps for Recorder<'_> {
    fn lines(&self) -> Lines {
        self.lines
    }

    fn guests_bypass(&self) -> bool {
        self.bypass
    }

    fn clean_invalidate_line(&mut self, line: Va) {
        self.note(Did::CleanInvalidate(line.get()));
    }

    fn clean_invalidate_tags_line(&mut self, line: Va) {
        self.note(Did::CleanInvalidateTags(line.get()));
    }

    fn maintain_line(&mut self, line: Va, what: Line) {
        self.note(Did::Maintain(line.get(), what));
    }

    fn farthest(&self) -> Point {
        Point::Persistence
    }

    fn invalidate_line(&mut self, line: Va) {
        self.note(Did::Invalidate(line.get()));
    }

    fn invalidate_instructions(&mut self) {
        self.note(Did::InvalidateInstructions);
    }

    fn complete(&mut self) {
        self.note(Did::Complete);
    }

    fn synchronize(&mut self) {
        self.note(Did::Synchronize);
    }
}
