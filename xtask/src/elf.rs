//! As much of ELF as the size figures need.

use anyhow::{Context, Result, ensure};

const SHT_NOBITS: u32 = 8;
const SHF_ALLOC: u64 = 2;

/// Bytes of text, read-only data and data: all allocated sections that have content in the file.
pub fn loaded_bytes(elf: &[u8]) -> Result<u64> {
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "not a little-endian 64-bit ELF file");
    let sections = usize::try_from(u64_at(elf, 0x28)?)?;
    let size = usize::from(u16_at(elf, 0x3a)?);
    let mut total = 0;
    for index in 0..usize::from(u16_at(elf, 0x3c)?) {
        let header = sections + index * size;
        if u32_at(elf, header + 4)? != SHT_NOBITS && u64_at(elf, header + 8)? & SHF_ALLOC != 0 {
            total += u64_at(elf, header + 0x20)?;
        }
    }
    Ok(total)
}

fn bytes<const N: usize>(elf: &[u8], at: usize) -> Result<[u8; N]> {
    let field = elf.get(at..).and_then(|rest| rest.first_chunk()).context("the ELF file is cut off")?;
    Ok(*field)
}

fn u16_at(elf: &[u8], at: usize) -> Result<u16> {
    bytes(elf, at).map(u16::from_le_bytes)
}

fn u32_at(elf: &[u8], at: usize) -> Result<u32> {
    bytes(elf, at).map(u32::from_le_bytes)
}

fn u64_at(elf: &[u8], at: usize) -> Result<u64> {
    bytes(elf, at).map(u64::from_le_bytes)
}
