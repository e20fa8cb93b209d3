//! `cargo xtask image`: what a board's firmware needs, in one directory: `Image`, `bundle` and a
//! U-Boot script, `boot.scr`, which U-Boot finds by itself in the root of a boot partition.

use crate::build::{self, Binary};
use crate::{bundle, paths};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// What the board is to run
    #[arg(long, value_name = "FILE", default_value = "manifests/default.toml")]
    manifest: PathBuf,
    /// Where the files go
    #[arg(short, long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Load address of the image, a multiple of 2 MiB; U-Boot's own choice if absent
    #[arg(long, value_name = "ADDRESS", value_parser = clap_address)]
    address: Option<u64>,
}

pub fn command(arguments: &Arguments) -> Result<bool> {
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => paths::output()?.join("image"),
    };
    let bundle = bundle::write(&bundle::from_root(&arguments.manifest))?;
    write(&build::image(Binary::Hypervisor)?, &bundle, &output, arguments.address)?;
    println!("{}", output.display());
    Ok(true)
}

/// Writes the files, with the commands of the script in plain text beside it.
pub fn write(image: &Path, bundle: &Path, output: &Path, address: Option<u64>) -> Result<()> {
    fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
    fs::copy(image, output.join("Image"))?;
    fs::copy(bundle, output.join("bundle"))?;
    let script = script(address);
    fs::write(output.join("boot.cmd"), &script)?;
    fs::write(output.join("boot.scr"), legacy_script(&script))?;
    Ok(())
}

/// The commands. U-Boot's boot flow sets where the script was found; options of the hypervisor can
/// be given in U-Boot's `bootargs`.
fn script(address: Option<u64>) -> String {
    let kernel = address.map_or("${kernel_addr_r}".into(), |address| format!("{address:#x}"));
    format!(
        "echo Loading Tagvisor
load ${{devtype}} ${{devnum}}:${{distro_bootpart}} {kernel} ${{prefix}}Image
load ${{devtype}} ${{devnum}}:${{distro_bootpart}} ${{ramdisk_addr_r}} ${{prefix}}bundle
# The hypervisor finds the bundle through the device tree, wherever it lies.
setenv initrd_high 0xffffffffffffffff
if test -z \"${{fdt_addr}}\"; then setenv fdt_addr ${{fdtcontroladdr}}; fi
booti {kernel} ${{ramdisk_addr_r}}:${{filesize}} ${{fdt_addr}}
"
    )
}

/// Wraps a script in U-Boot's legacy image header, as `mkimage -T script` does
/// (U-Boot, include/image.h: struct legacy_img_hdr).
fn legacy_script(script: &str) -> Vec<u8> {
    const MAGIC: u32 = 0x2705_1956;
    const LINUX_ARM64_SCRIPT_PLAIN: [u8; 4] = [5, 22, 6, 0];
    let length = u32::try_from(script.len()).unwrap_or(u32::MAX);
    // A table of lengths, ended by zero, stands before the text.
    let data = [&length.to_be_bytes()[..], &[0; 4], script.as_bytes()].concat();
    let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let header = |crc: u32| {
        let words = [MAGIC, crc, 0, size, 0, 0, crc32(&data)];
        let mut header: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        header.extend(LINUX_ARM64_SCRIPT_PLAIN);
        header.extend(b"Tagvisor");
        header.resize(64, 0);
        header
    };
    [header(crc32(&header(0))), data].concat()
}

/// CRC-32 of IEEE 802.3.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

fn clap_address(text: &str) -> Result<u64, String> {
    let address = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match address {
        Ok(address) if address % 0x20_0000 == 0 => Ok(address),
        Ok(_) => Err("not a multiple of 2 MiB".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_header_has_64_bytes() {
        let image = legacy_script("echo hello\n");
        assert_eq!(image.len(), 64 + 8 + 11);
        assert!(image.ends_with(b"\0\0\0\x0b\0\0\0\0echo hello\n"));
    }
}
