//! Bundles that are spoilt on purpose. They are newc archives, as the `manifest` crate reads them.

use anyhow::{Context, Result};

const HEADER: usize = 110;
/// Where a header has the size of the file, in 8 hexadecimal digits.
const FILE_SIZE: usize = 54;
/// What a compiled manifest is called.
const MANIFEST: &str = "manifest.dtb";

/// Where a file of an archive lies.
struct Place {
    header: usize,
    data: usize,
    size: usize,
}

/// Finds the manifest (`true`), or the first file that is another.
fn find(archive: &[u8], manifest: bool) -> Result<Place> {
    let mut header = 0;
    loop {
        let number = |at: usize| -> Result<usize> {
            let digits = archive.get(at..at + 8).context("the bundle ends early")?;
            Ok(usize::from_str_radix(std::str::from_utf8(digits)?, 16)?)
        };
        let (size, name_size) = (number(header + FILE_SIZE)?, number(header + 94)?);
        let name = archive.get(header + HEADER..header + HEADER + name_size - 1).unwrap_or_default();
        let data = (header + HEADER + name_size).next_multiple_of(4);
        if (name == MANIFEST.as_bytes()) == manifest {
            return Ok(Place { header, data, size });
        }
        header = (data + size).next_multiple_of(4);
    }
}

/// The archive ends in the middle of a file.
pub fn cut(mut archive: Vec<u8>) -> Result<Vec<u8>> {
    archive.truncate(archive.len() / 2);
    Ok(archive)
}

/// The manifest has another name.
pub fn without_manifest(archive: Vec<u8>) -> Result<Vec<u8>> {
    rename(archive, true)
}

/// The first file that is not the manifest has another name.
pub fn without_file(archive: Vec<u8>) -> Result<Vec<u8>> {
    rename(archive, false)
}

fn rename(mut archive: Vec<u8>, manifest: bool) -> Result<Vec<u8>> {
    let place = find(&archive, manifest)?;
    *archive.get_mut(place.header + HEADER).context("the name lies outside")? = b'#';
    Ok(archive)
}

/// The manifest is noise.
pub fn garbage_manifest(mut archive: Vec<u8>) -> Result<Vec<u8>> {
    let place = find(&archive, true)?;
    let data = archive.get_mut(place.data..place.data + place.size).context("the manifest lies outside")?;
    data.iter_mut().zip(0_u8..=250).for_each(|(byte, noise)| *byte = noise.wrapping_mul(113));
    Ok(archive)
}

/// The manifest's second half is missing: the header says so.
pub fn cut_manifest(mut archive: Vec<u8>) -> Result<Vec<u8>> {
    let place = find(&archive, true)?;
    let half = (place.size / 2).next_multiple_of(4);
    archive.drain(place.data + half..(place.data + place.size).next_multiple_of(4));
    let digits = format!("{half:08x}");
    let field = place.header + FILE_SIZE;
    archive.splice(field..field + 8, digits.bytes());
    Ok(archive)
}

/// Something that is no archive at all.
pub fn no_archive(archive: Vec<u8>) -> Result<Vec<u8>> {
    Ok(archive.into_iter().skip(1).collect())
}
