//! Kernel formats, told apart by content, unpacked into one flat image.
//!
//! arm64 `Image`: Linux, `Documentation/arch/arm64/booting.rst`, section 4. Its EFI compressed form:
//! Linux, `drivers/firmware/efi/libstub/zboot-header.S`. ELF: System V gABI, chapters 4 and 5.

use elf::ElfBytes;
use elf::abi::{EM_AARCH64, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;
use std::io::Read;

/// The largest kernel, unpacked, in bytes.
const MAX_KERNEL: u64 = 1 << 30;

/// A flat kernel and what its format said about its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) bytes: Vec<u8>,
    pub(crate) form: Form,
}

/// What a kernel's format says about its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// At `text_offset` bytes behind a multiple of 2 MiB; its first `memory` bytes are its own.
    Image { text_offset: u64, memory: u64 },
    /// At `start`; the bytes up to `end` are its own.
    Elf { start: u64, end: u64, entry: u64 },
    /// Anywhere.
    Raw,
}

/// Unpacks a kernel, or says why not.
pub(crate) fn unpack(bytes: Vec<u8>) -> Result<Kernel, String> {
    if bytes.starts_with(b"\x1f\x8b") {
        return inflated(&bytes);
    }
    // An Image that decompresses itself when EFI starts it, which nothing does here.
    if bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg") {
        if bytes.get(24..29) != Some(b"gzip\0") {
            return Err("is an EFI image with a compression other than gzip".into());
        }
        let payload = field(&bytes, 8, 4).zip(field(&bytes, 12, 4)).and_then(|(start, size)| {
            let start = usize::try_from(start).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
        });
        return inflated(payload.ok_or("is a truncated EFI image")?);
    }
    if bytes.starts_with(b"\x7fELF") {
        return flatten(&bytes);
    }
    let form = image(&bytes)?.unwrap_or(Form::Raw);
    Ok(Kernel { bytes, form })
}

/// The Image inside a gzip stream.
fn inflated(stream: &[u8]) -> Result<Kernel, String> {
    let mut bytes = Vec::new();
    let read = flate2::read::GzDecoder::new(stream).take(MAX_KERNEL).read_to_end(&mut bytes);
    read.map_err(|why| format!("is a broken gzip file: {why}"))?;
    match image(&bytes)? {
        Some(form) => Ok(Kernel { bytes, form }),
        None => Err("is a gzip file of something that is no arm64 Image".into()),
    }
}

/// What the header of an arm64 Image says, if it is one.
fn image(bytes: &[u8]) -> Result<Option<Form>, String> {
    if bytes.get(56..60) != Some(b"ARM\x64") {
        return Ok(None);
    }
    let header = field(bytes, 8, 8).zip(field(bytes, 16, 8)).zip(field(bytes, 24, 8));
    let ((text_offset, image_size), flags) = header.ok_or("is a truncated arm64 Image")?;
    if flags & 1 != 0 {
        return Err("is a big-endian arm64 Image".into());
    }
    if image_size == 0 {
        return Err("is an arm64 Image without a size, from before Linux 3.17".into());
    }
    if text_offset >= addr::BLOCK_2M {
        return Err("is an arm64 Image with a text_offset of 2 MiB or more".into());
    }
    Ok(Some(Form::Image { text_offset, memory: image_size.max(crate::size(bytes)) }))
}

/// A little-endian number of `len` bytes, at most 8.
fn field(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, &b| value << 8 | u64::from(b)))
}

/// The segments of an ELF file, each at its physical address, which is taken for an IPA.
fn flatten(file: &[u8]) -> Result<Kernel, String> {
    let broken = |why| format!("is a broken ELF file: {why}");
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|e| broken(e.to_string()))?;
    if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != EM_AARCH64 {
        return Err("is an ELF file for a machine other than AArch64".into());
    }
    let mut segments: Vec<ProgramHeader> = elf.segments().into_iter().flatten().collect();
    segments.retain(|s| s.p_type == PT_LOAD && s.p_memsz != 0);
    segments.sort_by_key(|s| s.p_paddr);

    let mut bytes = Vec::new();
    let start = segments.first().ok_or_else(|| broken("it loads nothing".into()))?.p_paddr;
    let mut end = start;
    for segment in &segments {
        let offset = segment.p_paddr.checked_sub(start).filter(|_| segment.p_paddr >= end);
        let offset = offset.ok_or_else(|| {
            broken(format!("its segment at {:#x} overlaps the one before it", segment.p_paddr))
        })?;
        end = segment.p_paddr.saturating_add(segment.p_memsz);
        if end.saturating_sub(start) > MAX_KERNEL {
            return Err(format!("is an ELF file that fills more than 1 GiB ({start:#x} - {end:#x})"));
        }
        let data = elf.segment_data(segment).map_err(|e| broken(e.to_string()))?;
        if crate::size(data) > segment.p_memsz {
            return Err(broken(format!("its segment at {:#x} is shorter than its content", segment.p_paddr)));
        }
        if !data.is_empty() {
            bytes.resize(usize::try_from(offset).map_err(|e| broken(e.to_string()))?, 0);
            bytes.extend_from_slice(data);
        }
    }
    let virt = elf.ehdr.e_entry;
    let within = |s: &&ProgramHeader| virt.wrapping_sub(s.p_vaddr) < s.p_memsz;
    let holder = segments.iter().find(within);
    let holder = holder.ok_or_else(|| broken(format!("its entry {virt:#x} is in no segment")))?;
    let entry = holder.p_paddr.wrapping_add(virt.wrapping_sub(holder.p_vaddr));
    Ok(Kernel { bytes, form: Form::Elf { start, end, entry } })
}

#[cfg(test)]
pub(crate) mod tests;
