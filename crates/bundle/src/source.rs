//! The text of a manifest: tables, keys and values that know their line.
//!
//! A [`Table`] refuses keys that it does not know, a [`Value`] types that do not fit; both say so
//! with the entry's name and line.

use crate::Error;
use manifest::Named;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A manifest as it was written.
pub(crate) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|why| Error {
            file: path.to_owned(),
            line: None,
            message: format!("cannot be read: {why}"),
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    pub(crate) fn parse(&self) -> Result<Spanned<DeTable<'_>>, Error> {
        DeTable::parse(&self.text).map_err(|e| self.error(e.span().map(|s| s.start), e.message().into()))
    }

    pub(crate) fn root<'a>(&'a self, root: &'a Spanned<DeTable<'a>>) -> Table<'a> {
        Table { source: self, name: String::new(), at: 0, entries: root.get_ref() }
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|&b| b == b'\n').count().saturating_add(1)
    }

    fn error(&self, at: Option<usize>, message: String) -> Error {
        Error { file: self.path.clone(), line: at.map(|at| self.line(at)), message }
    }
}

/// A table of the manifest.
#[derive(Clone)]
pub(crate) struct Table<'a> {
    source: &'a Source,
    /// What sentences start with, like `vm "a": `.
    name: String,
    at: usize,
    entries: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    /// The same table, called `name` in sentences.
    pub(crate) fn called(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// What sentences about it start with.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Refuses keys other than these.
    pub(crate) fn known(&self, keys: &[&str]) -> Result<(), Error> {
        for (key, _) in self.entries {
            let name: &str = key.get_ref();
            if !keys.contains(&name) {
                let message = format!("{}unknown key \"{name}\"{}", self.name, suggestion(name, keys));
                return Err(self.source.error(Some(key.span().start), message));
            }
        }
        Ok(())
    }

    /// All keys with their values, in order of the keys.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.entries.keys().filter_map(|key| Some((key.get_ref().as_ref(), self.get(key.get_ref())?)))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<Value<'a>> {
        let (key, value) = self.entries.get_key_value(key)?;
        Some(Value {
            source: self.source,
            name: format!("{}{}", self.name, key.get_ref()),
            at: key.span().start,
            value: value.get_ref(),
        })
    }

    pub(crate) fn need(&self, key: &str) -> Result<Value<'a>, Error> {
        self.get(key).ok_or_else(|| self.error(format!("key \"{key}\" is missing")))
    }

    /// The tables of an array of tables.
    pub(crate) fn tables(&self, key: &str) -> Result<Vec<Table<'a>>, Error> {
        let Some(array) = self.get(key) else { return Ok(Vec::new()) };
        if !array.value.is_array() {
            return Err(array.wants(&format!("a list of tables, each under [[{key}]]")));
        }
        array.list()?.iter().map(Value::table).collect()
    }

    /// An error about the table as a whole.
    pub(crate) fn error(&self, what: impl AsRef<str>) -> Error {
        self.source.error(Some(self.at), format!("{}{}", self.name, what.as_ref()))
    }
}

/// A value of the manifest, with its key.
#[derive(Clone)]
pub(crate) struct Value<'a> {
    source: &'a Source,
    name: String,
    at: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    /// An error about this value: the sentence starts with its key, and with it if it is a string.
    pub(crate) fn error(&self, what: impl AsRef<str>) -> Error {
        let shown = self.value.as_str().map(|s| format!(" \"{s}\"")).unwrap_or_default();
        self.source.error(Some(self.at), format!("{}{shown} {}", self.name, what.as_ref()))
    }

    /// An error about the place of this value that is a sentence of its own.
    pub(crate) fn blame(&self, message: String) -> Error {
        self.source.error(Some(self.at), message)
    }

    /// Its line, from 1.
    pub(crate) fn line(&self) -> usize {
        self.source.line(self.at)
    }

    fn wants(&self, what: &str) -> Error {
        let message = format!("{} must be {what}, not {}", self.name, kind(self.value));
        self.source.error(Some(self.at), message)
    }

    pub(crate) fn str(&self) -> Result<&'a str, Error> {
        self.value.as_str().ok_or_else(|| self.wants("a string"))
    }

    pub(crate) fn bool(&self) -> Result<bool, Error> {
        self.value.as_bool().ok_or_else(|| self.wants("true or false"))
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    pub(crate) fn is_str(&self) -> bool {
        self.value.is_str()
    }

    /// A number or size: an integer, or a string like "0x1000" or "16MiB".
    pub(crate) fn number(&self) -> Result<u64, Error> {
        let what = "a number below 2^64, or a string like \"0x1000\" or \"16MiB\"";
        if let Some(integer) = self.value.as_integer() {
            return u64::from_str_radix(integer.as_str(), integer.radix())
                .map_err(|_| self.error(format!("is not {what}")));
        }
        let text = self.value.as_str().ok_or_else(|| self.wants(what))?;
        number(text).ok_or_else(|| self.error(format!("is not {what}")))
    }

    /// A number that fits in a small type.
    pub(crate) fn small<T: TryFrom<u64> + std::fmt::Display>(&self, max: T) -> Result<T, Error> {
        T::try_from(self.number()?).map_err(|_| self.error(format!("is more than {max}")))
    }

    pub(crate) fn word<T: Named>(&self) -> Result<T, Error> {
        let names: Vec<&str> = T::NAMES.iter().map(|&(name, _)| name).collect();
        let found = T::from_name(self.str()?);
        found.ok_or_else(|| self.error(one_of(&names)))
    }

    pub(crate) fn list(&self) -> Result<Vec<Value<'a>>, Error> {
        let array = self.value.as_array().ok_or_else(|| self.wants("a list"))?;
        let item = |item: &'a Spanned<DeValue<'a>>| Value {
            at: item.span().start,
            value: item.get_ref(),
            ..self.clone()
        };
        Ok(array.iter().map(item).collect())
    }

    pub(crate) fn table(&self) -> Result<Table<'a>, Error> {
        let entries = self.value.as_table().ok_or_else(|| self.wants("a table"))?;
        Ok(Table { source: self.source, name: format!("{}: ", self.name), at: self.at, entries })
    }
}

/// "is not one of" these words.
pub(crate) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!("is not one of {}", quoted.join(", "))
}

/// The name that was probably meant, as the end of a sentence.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|other| (distance(name, other), other)).min();
    match near {
        Some((d, other)) if d <= 2 && d < other.len() => format!("; did you mean \"{other}\"?"),
        Some(_) | None => String::new(),
    }
}

/// The names that are nearest to this one, as the end of a sentence.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let name = name.to_ascii_uppercase();
    let mut near: Vec<_> = known.map(|other| (distance(&name, &other.to_ascii_uppercase()), other)).collect();
    near.sort();
    let near: Vec<&str> = near.into_iter().take(3).map(|(_, other)| other).collect();
    format!("; the nearest are {}", near.join(", "))
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i.saturating_add(1);
        let mut next = vec![left];
        for (y, &up) in b.bytes().zip(row.iter().skip(1)) {
            let cost = diagonal.saturating_add(usize::from(x != y));
            left = cost.min(up.saturating_add(1)).min(left.saturating_add(1));
            next.push(left);
            diagonal = up;
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn number(text: &str) -> Option<u64> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1_u64 << 30)];
    let unit = units.iter().find_map(|&(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    let digits = digits.trim().replace('_', "");
    let value = match digits.strip_prefix("0x") {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok()?,
        None if !digits.starts_with('+') => digits.parse().ok()?,
        Some(_) | None => return None,
    };
    value.checked_mul(factor)
}

fn kind(value: &DeValue<'_>) -> String {
    match value.type_str() {
        kind @ ("array" | "integer") => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        assert_eq!(number("0x1000"), Some(0x1000));
        assert_eq!(number("16MiB"), Some(16 << 20));
        assert_eq!(number("0x10 KiB"), Some(0x4000));
        assert_eq!(number("1_000"), Some(1000));
        for bad in ["", "x", "+1", "0x+1", "-1", "1MB", "17179869184GiB", "0x"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn near_misses_are_suggested() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(suggestion("intird", &["kernel", "initrd"]), "; did you mean \"initrd\"?");
        assert_eq!(suggestion("zoo", &["kernel", "ipa"]), "");
    }
}
