//! Packs files into a cpio (newc) archive; the format is described at `manifest::cpio`.

use std::collections::BTreeMap;

/// The files of a bundle: one per content, sorted by name.
pub(crate) struct Archive {
    files: BTreeMap<String, Vec<u8>>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self { files: BTreeMap::new() }
    }

    /// Adds a file and returns its name in the archive: the last part of `path`, with a number if
    /// another file has that already. A file with the same content is not stored again.
    pub(crate) fn add(&mut self, path: &str, bytes: Vec<u8>) -> String {
        if let Some((name, _)) = self.files.iter().find(|(_, stored)| **stored == bytes) {
            return name.clone();
        }
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let last = path.rsplit(['/', '@']).next().unwrap_or_default();
        let base: String = last.chars().map(|c| if valid(c) { c } else { '_' }).collect();
        let base = if base.is_empty() { "file".into() } else { base };
        let taken = |name: &String| name == manifest::MANIFEST_FILE || self.files.contains_key(name);
        let mut name = base.clone();
        let mut number = 2_u32;
        while taken(&name) {
            name = format!("{base}-{number}");
            number = number.saturating_add(1);
        }
        self.files.insert(name.clone(), bytes);
        name
    }

    /// The size of a file.
    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        self.files.get(name).map(|bytes| crate::size(bytes))
    }

    /// The archive, with one more file before the others.
    pub(crate) fn pack(&self, first: &str, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        entry(&mut out, 0o100_444, first, bytes);
        for (name, bytes) in &self.files {
            entry(&mut out, 0o100_444, name, bytes);
        }
        entry(&mut out, 0, "TRAILER!!!", b"");
        out
    }
}

/// One entry; owner, time and device numbers are 0, so that the same files give the same archive.
fn entry(out: &mut Vec<u8>, mode: u32, name: &str, data: &[u8]) {
    let zero = 0;
    let (links, file_size, name_size) = (1, data.len(), name.len().saturating_add(1));
    let header = format!(
        "070701{zero:08x}{mode:08x}{zero:08x}{zero:08x}{links:08x}{zero:08x}{file_size:08x}\
         {zero:08x}{zero:08x}{zero:08x}{zero:08x}{name_size:08x}{zero:08x}{name}\0"
    );
    for part in [header.as_bytes(), data] {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_files_can_be_read() {
        let mut archive = Archive::new();
        assert_eq!(archive.add("x/Image", b"one".to_vec()), "Image");
        assert_eq!(archive.add("y/Image", b"one".to_vec()), "Image");
        assert_eq!(archive.add("y/Image", b"two".to_vec()), "Image-2");
        assert_eq!(archive.add("@payload", b"three".to_vec()), "payload");
        assert_eq!(archive.add("a/manifest.dtb", b"four".to_vec()), "manifest.dtb-2");
        assert_eq!(archive.add("TRAILER!!!", b"5".to_vec()), "TRAILER___");
        assert_eq!(archive.add("a/", b"6".to_vec()), "file");
        let bytes = archive.pack("manifest.dtb", b"dtb");
        let read = manifest::cpio::Archive::new(&bytes).unwrap();
        let names: Vec<_> = read.files().map(|f| f.name).collect();
        let expected =
            ["manifest.dtb", "Image", "Image-2", "TRAILER___", "file", "manifest.dtb-2", "payload"];
        assert_eq!(names, expected);
        assert_eq!(read.file("Image-2").unwrap(), b"two");
        assert_eq!(archive.size("payload"), Some(5));
    }
}
