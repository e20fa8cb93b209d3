use super::*;
use proptest::prelude::*;
use std::io::Write;

/// An arm64 Image of `size` bytes that claims `memory`.
pub(crate) fn an_image(text_offset: u64, memory: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    bytes[8..16].copy_from_slice(&text_offset.to_le_bytes());
    bytes[16..24].copy_from_slice(&memory.to_le_bytes());
    bytes[24..32].copy_from_slice(&0xa_u64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An ELF file for AArch64 with segments of (vaddr, paddr, content, size in memory).
pub(crate) fn an_elf(entry: u64, segments: &[(u64, u64, &[u8], u64)]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(2_u16.to_le_bytes());
    file.extend(EM_AARCH64.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for word in [entry, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64, 56, u16::try_from(segments.len()).unwrap(), 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut offset = 64 + 56 * segments.len() as u64;
    for &(vaddr, paddr, data, memsz) in segments {
        file.extend(1_u32.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        for word in [offset, vaddr, paddr, data.len() as u64, memsz, 4096] {
            file.extend(word.to_le_bytes());
        }
        offset += data.len() as u64;
    }
    segments.iter().for_each(|s| file.extend(s.2));
    file
}

#[test]
fn formats_are_told_apart_by_content() {
    let image = an_image(0x80000, 0x10_0000, 64);
    let form = Form::Image { text_offset: 0x80000, memory: 0x10_0000 };
    let expected = Ok(Kernel { bytes: image.clone(), form });
    assert_eq!(unpack(image.clone()), expected);
    assert_eq!(unpack(gzip(&image)), expected);
    let payload = gzip(&image);
    let mut zboot = b"MZ\0\0zimg".to_vec();
    zboot.extend(64_u32.to_le_bytes());
    zboot.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
    zboot.resize(24, 0);
    zboot.extend(b"gzip\0");
    zboot.resize(64, 0);
    zboot.extend(&payload);
    assert_eq!(unpack(zboot.clone()), expected);
    zboot.truncate(80);
    assert_eq!(unpack(zboot.clone()), Err("is a truncated EFI image".into()));
    zboot[24] = b'x';
    assert_eq!(unpack(zboot), Err("is an EFI image with a compression other than gzip".into()));
    assert_eq!(unpack(b"code".to_vec()), Ok(Kernel { bytes: b"code".to_vec(), form: Form::Raw }));
    // A file larger than its image_size owns all of its bytes.
    let long = unpack(an_image(0, 1, 100)).unwrap();
    assert_eq!(long.form, Form::Image { text_offset: 0, memory: 100 });
}

#[test]
fn images_that_cannot_run_are_refused() {
    assert_eq!(
        unpack(an_image(0, 0, 64)),
        Err("is an arm64 Image without a size, from before Linux 3.17".into())
    );
    let mut big_endian = an_image(0, 64, 64);
    big_endian[24] |= 1;
    assert_eq!(unpack(big_endian), Err("is a big-endian arm64 Image".into()));
    assert_eq!(
        unpack(an_image(0x20_0000, 64, 64)),
        Err("is an arm64 Image with a text_offset of 2 MiB or more".into())
    );
    assert_eq!(unpack(gzip(b"hello")), Err("is a gzip file of something that is no arm64 Image".into()));
    let mut cut = gzip(&an_image(0, 64, 64));
    cut.truncate(cut.len() - 9);
    assert!(unpack(cut).unwrap_err().starts_with("is a broken gzip file: "));
}

#[test]
fn segments_go_to_their_physical_addresses() {
    let file = an_elf(
        0xffff_0000_0004,
        &[(0x1_0000, 0x4000_2000, b"data", 0x3000), (0xffff_0000_0000, 0x4000_0000, b"text....", 8)],
    );
    let kernel = unpack(file).unwrap();
    assert_eq!(kernel.form, Form::Elf { start: 0x4000_0000, end: 0x4000_5000, entry: 0x4000_0004 });
    let mut bytes = b"text....".to_vec();
    bytes.resize(0x2000, 0);
    bytes.extend(b"data");
    assert_eq!(kernel.bytes, bytes);
}

#[test]
fn elf_files_that_cannot_run_are_refused() {
    let sentence = |entry, segments: &[_]| unpack(an_elf(entry, segments)).unwrap_err();
    assert_eq!(sentence(0, &[]), "is a broken ELF file: it loads nothing");
    assert_eq!(sentence(8, &[(0, 0, b"text", 8)]), "is a broken ELF file: its entry 0x8 is in no segment");
    assert_eq!(
        sentence(0, &[(0, 0, b"text", 8), (0, 4, b"text", 8)]),
        "is a broken ELF file: its segment at 0x4 overlaps the one before it"
    );
    assert_eq!(
        sentence(0, &[(0, 0, b"text", 2)]),
        "is a broken ELF file: its segment at 0x0 is shorter than its content"
    );
    assert_eq!(
        sentence(0, &[(0, 0, b"text", 4), (0, 0x4000_0000, b"text", 4)]),
        "is an ELF file that fills more than 1 GiB (0x0 - 0x40000004)"
    );
    let mut x86 = an_elf(0, &[(0, 0, b"text", 4)]);
    x86[18] = 62;
    assert_eq!(unpack(x86).unwrap_err(), "is an ELF file for a machine other than AArch64");
}

proptest! {
    #[test]
    fn mutations_never_panic(which in 0..4, hits in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..8)) {
        let mut bytes = match which {
            0 => an_image(0, 64, 64),
            1 => gzip(&an_image(0, 64, 64)),
            2 => an_elf(0, &[(0, 0, b"text", 4), (0x1000, 0x1000, b"data", 0x1000)]),
            _ => b"MZ\0\0zimg\x20\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0gzip\0\0\0\0abcdefgh".to_vec(),
        };
        for (at, value) in hits {
            let len = bytes.len();
            bytes[usize::from(at) % len] = value;
        }
        let _ = unpack(bytes);
    }
}
