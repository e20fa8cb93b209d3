//! Reader for `cpio` archives in the "new ASCII" (newc) format, as bundles are.
//!
//! Format: `cpio(5)`, "New ASCII Format"; Linux, `Documentation/driver-api/early-userspace/
//! buffer-format.rst`. Each entry is a header of 110 characters, a NUL-terminated name and the
//! data, both padded to 4 bytes; an entry named `TRAILER!!!` ends the archive.

use alloc::string::{String, ToString};
use core::fmt;

const MAGIC: &[u8] = b"070701";
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// File type bits of a mode, and their value for a regular file.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

/// Why an archive is refused, or a file of it not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// An entry has not the magic number of a newc archive.
    BadMagic {
        /// Where the entry starts.
        offset: usize,
    },
    /// A number of a header is no hexadecimal number, or a name no string.
    BadHeader {
        /// Where the entry starts.
        offset: usize,
    },
    /// The archive ends inside an entry, or without the last one.
    Truncated {
        /// Where the entry starts.
        offset: usize,
    },
    /// Something other than zeros follows the last entry.
    Trailing {
        /// Where the last entry ends.
        offset: usize,
    },
    /// No regular file has this name.
    NoFile(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic { offset } => write!(f, "no cpio (newc) entry at offset {offset} of the bundle"),
            Self::BadHeader { offset } => write!(f, "malformed cpio entry at offset {offset} of the bundle"),
            Self::Truncated { offset } => {
                write!(f, "the bundle ends inside its cpio entry at offset {offset}")
            }
            Self::Trailing { offset } => {
                write!(f, "the bundle has data behind its last cpio entry, at offset {offset}")
            }
            Self::NoFile(name) => write!(f, "no file \"{name}\" in the bundle"),
        }
    }
}

impl core::error::Error for Error {}

/// One regular file of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its content.
    pub data: &'a [u8],
}

/// A well-formed archive.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
}

impl<'a> Archive<'a> {
    /// Takes `bytes` for an archive after reading all its headers. Zeros may follow it.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut offset = 0;
        while let Some(entry) = Entry::read(bytes, offset)? {
            offset = entry.next;
        }
        Ok(Self { bytes })
    }

    /// Its regular files, in the order of the archive.
    pub fn files(&self) -> impl Iterator<Item = File<'a>> + use<'a> {
        let (bytes, mut offset) = (self.bytes, 0);
        core::iter::from_fn(move || {
            // `new` has read all entries, so no error is left that could end the iterator early.
            let entry = Entry::read(bytes, offset).ok().flatten()?;
            offset = entry.next;
            Some(entry)
        })
        .filter(|entry| entry.regular)
        .map(|entry| entry.file)
    }

    /// The content of the first file with this name.
    pub fn file(&self, name: &str) -> Result<&'a [u8], Error> {
        let found = self.files().find(|file| file.name == name);
        found.map(|file| file.data).ok_or_else(|| Error::NoFile(name.to_string()))
    }

    /// The size of the first file with this name: what [`check`](crate::check()) asks for.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u64> {
        u64::try_from(self.file(name).ok()?.len()).ok()
    }
}

struct Entry<'a> {
    file: File<'a>,
    regular: bool,
    /// Offset of the next entry.
    next: usize,
}

impl<'a> Entry<'a> {
    /// The entry at `offset`, or `None` at the last one.
    fn read(bytes: &'a [u8], offset: usize) -> Result<Option<Self>, Error> {
        let entry = Self::parse(bytes, offset).map_err(|flaw| match flaw {
            Flaw::Magic => Error::BadMagic { offset },
            Flaw::Header => Error::BadHeader { offset },
            Flaw::Truncated => Error::Truncated { offset },
        })?;
        if entry.file.name != TRAILER {
            return Ok(Some(entry));
        }
        match bytes.get(entry.next..) {
            Some(rest) if rest.iter().any(|&b| b != 0) => Err(Error::Trailing { offset: entry.next }),
            Some(_) | None => Ok(None),
        }
    }

    fn parse(bytes: &'a [u8], offset: usize) -> Result<Self, Flaw> {
        let rest = bytes.get(offset..).ok_or(Flaw::Truncated)?;
        if rest.get(..MAGIC.len()).ok_or(Flaw::Truncated)? != MAGIC {
            return Err(Flaw::Magic);
        }
        let header = rest.get(..HEADER).ok_or(Flaw::Truncated)?;
        let (fields, _) = header.get(MAGIC.len()..).unwrap_or_default().as_chunks::<8>();
        let field = |n: usize| fields.get(n).and_then(hex).ok_or(Flaw::Header);
        let (mode, file_size, name_size) = (field(1)?, field(6)?, field(11)?);

        let (name, at) = cut(bytes, offset.saturating_add(HEADER), name_size).ok_or(Flaw::Truncated)?;
        let (data, next) = cut(bytes, at, file_size).ok_or(Flaw::Truncated)?;
        let name = name.strip_suffix(b"\0").and_then(|n| core::str::from_utf8(n).ok()).ok_or(Flaw::Header)?;
        Ok(Self { file: File { name, data }, regular: mode & S_IFMT == S_IFREG, next })
    }
}

/// What is wrong with an entry.
#[derive(Clone, Copy)]
enum Flaw {
    Magic,
    Header,
    Truncated,
}

/// The `len` bytes at `at`, and where what follows their padding to 4 bytes starts. The padding
/// behind the last entry may be missing.
fn cut(bytes: &[u8], at: usize, len: u32) -> Option<(&[u8], usize)> {
    let end = at.checked_add(usize::try_from(len).ok()?)?;
    Some((bytes.get(at..end)?, end.checked_next_multiple_of(4)?))
}

/// A number of 8 hexadecimal digits.
fn hex(digits: &[u8; 8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn entry(out: &mut Vec<u8>, mode: u32, name: &str, data: &[u8]) {
        let (size, len) = (data.len(), name.len() + 1);
        out.extend_from_slice(
            format!(
                "070701{:08x}{mode:08x}{:032x}{size:08x}{:032x}{len:08x}{:08x}{name}\0",
                1,
                0,
                0,
                0,
                name = name
            )
            .as_bytes(),
        );
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    fn example() -> Vec<u8> {
        let mut out = Vec::new();
        entry(&mut out, 0o040_755, "dir", b"");
        entry(&mut out, 0o100_644, "a", b"hello");
        entry(&mut out, 0o100_644, "empty", b"");
        entry(&mut out, 0o100_644, "dir/b", b"12345678");
        entry(&mut out, 0, TRAILER, b"");
        out
    }

    #[test]
    fn files_are_found_by_name() {
        let bytes = example();
        let archive = Archive::new(&bytes).unwrap();
        let names: Vec<_> = archive.files().map(|f| f.name).collect();
        assert_eq!(names, ["a", "empty", "dir/b"]);
        assert_eq!(archive.file("a").unwrap(), b"hello");
        assert_eq!(archive.file("empty").unwrap(), b"");
        assert_eq!(archive.size("dir/b"), Some(8));
        let missing = archive.file("dir").unwrap_err();
        assert_eq!(format!("{missing}"), "no file \"dir\" in the bundle");
    }

    #[test]
    fn zeros_may_follow_but_nothing_else() {
        let mut bytes = example();
        let len = bytes.len();
        bytes.resize(len + 4096, 0);
        assert_eq!(Archive::new(&bytes).unwrap().files().count(), 3);
        bytes[len + 100] = 1;
        let error = Archive::new(&bytes).unwrap_err();
        assert_eq!(error, Error::Trailing { offset: len });
        assert_eq!(
            format!("{error}"),
            format!("the bundle has data behind its last cpio entry, at offset {len}")
        );
    }

    #[test]
    fn malformed_archives_are_refused_with_a_sentence() {
        let sentence = |bytes: &[u8]| format!("{}", Archive::new(bytes).unwrap_err());
        assert_eq!(sentence(b""), "the bundle ends inside its cpio entry at offset 0");
        assert_eq!(sentence(b"\xd0\x0d\xfe\xed...."), "no cpio (newc) entry at offset 0 of the bundle");
        let mut sign = example();
        sign[14] = b'+';
        assert_eq!(sentence(&sign), "malformed cpio entry at offset 0 of the bundle");
        let mut name = example();
        name[112] = 0xff;
        assert_eq!(sentence(&name), "malformed cpio entry at offset 0 of the bundle");
    }

    #[test]
    fn no_prefix_is_an_archive() {
        let bytes = example();
        for len in 0..bytes.len() - 3 {
            assert!(Archive::new(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(
            start in any::<bool>(),
            noise in proptest::collection::vec(any::<u8>(), 0..if cfg!(miri) { 20 } else { 400 }),
            at in 0_usize..600,
        ) {
            let mut bytes = if start { example() } else { Vec::new() };
            let at = at.min(bytes.len());
            let end = (at + noise.len()).min(bytes.len());
            bytes.splice(at..end, noise);
            if let Ok(archive) = Archive::new(&bytes) {
                prop_assert!(archive.files().count() <= bytes.len() / HEADER);
            }
        }
    }
}
