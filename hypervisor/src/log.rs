//! Messages of the hypervisor itself, by level.
//!
//! Levels are those of the crate `log`, but not its macros: they keep module, file and line of each
//! message, which nothing prints.

use crate::console::say;
use ::log::{Level, LevelFilter, max_level, set_max_level};
use core::fmt::Arguments;

/// Sets up to which level messages are printed; none are before.
pub(crate) fn init(level: LevelFilter) {
    set_max_level(level);
}

/// Whether messages of this level are printed.
#[inline]
pub(crate) fn is_on(level: Level) -> bool {
    level <= max_level()
}

/// `tagvisor: text`, with the level where it is not `info`. Called by the macros below.
#[cold]
#[inline(never)]
pub(crate) fn write(level: Level, text: Arguments<'_>) {
    match level {
        Level::Error => say(format_args!("error: {text}")),
        Level::Warn => say(format_args!("warn: {text}")),
        Level::Info => say(text),
        Level::Debug | Level::Trace => say(format_args!("debug: {text}")),
    }
}

macro_rules! at {
    ($level:ident, $($text:tt)+) => {
        if $crate::log::is_on(::log::Level::$level) {
            $crate::log::write(::log::Level::$level, format_args!($($text)+));
        }
    };
}

// `warn` is also a built-in attribute, which a `macro_rules` of that name would collide with.
macro_rules! warning {
    ($($text:tt)+) => { $crate::log::at!(Warn, $($text)+) };
}

macro_rules! info {
    ($($text:tt)+) => { $crate::log::at!(Info, $($text)+) };
}

macro_rules! debug {
    ($($text:tt)+) => { $crate::log::at!(Debug, $($text)+) };
}

macro_rules! trace {
    ($($text:tt)+) => { $crate::log::at!(Trace, $($text)+) };
}

pub(crate) use {at, debug, info, trace, warning as warn};
