//! The words of the machine's command line (`/chosen/bootargs`).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use log::LevelFilter;

/// What the command line chooses. Each option has one word.
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

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// A word that is no option.
    Unknown(String),
    /// Two words that choose differently for one option.
    Contradiction(String, String),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(
                f,
                "unknown option `{word}`: the options are fwb=on|off, mte-perm=on|off, cmo-trap=on|off \
                 and log=off|error|warn|info|debug|trace"
            ),
            Self::Contradiction(first, second) => {
                write!(f, "the options `{first}` and `{second}` contradict each other")
            }
        }
    }
}

impl core::error::Error for OptionError {}

impl Options {
    /// Reads the options in `bootargs`, words that white space separates.
    ///
    /// # Errors
    /// A word is not known, or contradicts one before it. None is ignored: a misspelt option must not
    /// pass silently.
    pub fn parse(bootargs: &str) -> Result<Self, OptionError> {
        let mut options = Self::default();
        // The words so far that differ: one for each option.
        let mut chosen: Vec<&str> = Vec::new();
        for word in bootargs.split_ascii_whitespace() {
            options.set(word).ok_or_else(|| OptionError::Unknown(word.to_string()))?;
            match chosen.iter().find(|first| key(first) == key(word)) {
                Some(first) if *first != word => {
                    return Err(OptionError::Contradiction(first.to_string(), word.to_string()));
                }
                Some(_) => {}
                None => chosen.push(word),
            }
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

fn key(word: &str) -> &str {
    word.split_once('=').map_or(word, |(key, _)| key)
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
    }

    #[test]
    fn a_contradiction_is_refused_and_a_repetition_is_not() {
        assert!(!Options::parse("fwb=off log=info fwb=off").unwrap().fwb);
        let error = Options::parse("fwb=off log=info fwb=on").unwrap_err().to_string();
        assert_eq!(error, "the options `fwb=off` and `fwb=on` contradict each other");
    }

    #[test]
    fn an_unknown_word_is_named() {
        for word in ["fbw=off", "fwb", "fwb=", "fwb=no", "log=loud", "LOG=info", "quiet", "=", "fwb=off=on"] {
            let error = Options::parse(&std::format!("log=info {word}")).unwrap_err().to_string();
            assert!(error.contains(&std::format!("`{word}`")) && error.contains("mte-perm"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in ".*") {
            let _ = Options::parse(&text).map_err(|e| e.to_string());
        }
    }
}
