//! The words of the machine's command line (`/chosen/bootargs`).

use alloc::string::{String, ToString};
use core::fmt;
use log::LevelFilter;

/// What the command line chooses. Each option has one word; a later word overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `fwb`: use FEAT_S2FWB where there is one.
    pub fwb: bool,
    /// `mte-perm`: use FEAT_MTE_PERM where there is one.
    pub mte_perm: bool,
    /// `cmo-trap`: trap cache maintenance by guests.
    pub cmo_trap: bool,
    /// `log`: what is printed of the hypervisor's own messages.
    pub log: LevelFilter,
}

impl Default for Options {
    fn default() -> Self {
        Self { fwb: true, mte_perm: true, cmo_trap: false, log: LevelFilter::Info }
    }
}

/// A word that is no option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownOption(pub String);

impl fmt::Display for UnknownOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown option `{}`: the options are fwb=on|off, mte-perm=on|off, cmo-trap=on|off \
             and log=off|error|warn|info|debug|trace",
            self.0.escape_debug()
        )
    }
}

impl core::error::Error for UnknownOption {}

impl Options {
    /// Reads the options in `bootargs`, words that white space separates.
    ///
    /// # Errors
    /// A word is not known. None is ignored: a misspelt option must not pass silently.
    pub fn parse(bootargs: &str) -> Result<Self, UnknownOption> {
        let mut options = Self::default();
        for word in bootargs.split_ascii_whitespace() {
            options.set(word).ok_or_else(|| UnknownOption(word.to_string()))?;
        }
        Ok(options)
    }

    fn set(&mut self, word: &str) -> Option<()> {
        let (key, value) = word.split_once('=')?;
        match key {
            "fwb" => self.fwb = switch(value)?,
            "mte-perm" => self.mte_perm = switch(value)?,
            "cmo-trap" => self.cmo_trap = switch(value)?,
            "log" => self.log = level(value)?,
            _ => return None,
        }
        Some(())
    }
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn level(value: &str) -> Option<LevelFilter> {
    match value {
        "off" => Some(LevelFilter::Off),
        "error" => Some(LevelFilter::Error),
        "warn" => Some(LevelFilter::Warn),
        "info" => Some(LevelFilter::Info),
        "debug" => Some(LevelFilter::Debug),
        "trace" => Some(LevelFilter::Trace),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_words_are_read() {
        assert_eq!(Options::parse(" \n"), Ok(Options::default()));
        let all = Options::parse("fwb=off mte-perm=off\tcmo-trap=on log=trace").unwrap();
        let want = Options { fwb: false, mte_perm: false, cmo_trap: true, log: LevelFilter::Trace };
        assert_eq!(all, want);
        assert!(Options::parse("fwb=off fwb=on").unwrap().fwb);
    }

    #[test]
    fn an_unknown_word_is_named() {
        for word in ["fbw=off", "fwb", "fwb=", "fwb=no", "log=loud", "LOG=info", "quiet", "=", "fwb=off=on"] {
            let error = Options::parse(&std::format!("log=info {word}")).unwrap_err().to_string();
            assert!(error.contains(&std::format!("`{word}`")) && error.contains("mte-perm"), "{error}");
        }
        assert!(!Options::parse("a\u{1b}[2J").unwrap_err().to_string().contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in ".*") {
            let _ = Options::parse(&text).map_err(|e| e.to_string());
        }
    }
}
