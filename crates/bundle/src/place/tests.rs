use super::*;
use proptest::prelude::*;

const BASE: u64 = 0x4000_0000;

fn ram(size: u64, used: u64) -> Ram {
    Ram { range: IpaRange::new(Ipa::new(BASE), size).unwrap(), used }
}

fn kernel(form: Form) -> Kernel {
    Kernel { bytes: vec![0; 0x1000], form }
}

fn placed(ram: &[Ram], form: Form, offset: u64, initrd: Option<u64>) -> Result<[u64; 4], String> {
    let places = place(ram, &kernel(form), offset, initrd)?;
    let initrd = places.initrd.map_or(0, Ipa::get);
    Ok([places.kernel.get(), places.entry.get(), places.dtb.get(), initrd])
}

const IMAGE: Form = Form::Image { text_offset: 0x8_0000, memory: 0x30_0000 };

#[test]
fn an_image_is_followed_by_device_tree_and_initrd() {
    assert_eq!(
        placed(&[ram(0x200_0000, 0)], IMAGE, 0, Some(0x1234)),
        Ok([BASE + 0x8_0000, BASE + 0x8_0000, BASE + 0x40_0000, BASE + 0x41_0000])
    );
    // Behind the region's own file.
    assert_eq!(
        placed(&[ram(0x200_0000, 0x1000)], IMAGE, 0, None),
        Ok([BASE + 0x28_0000, BASE + 0x28_0000, BASE + 0x60_0000, 0])
    );
}

#[test]
fn a_raw_kernel_keeps_its_2_mib_if_there_is_room() {
    assert_eq!(
        placed(&[ram(0x200_0000, 0)], Form::Raw, 0x8_0000, None),
        Ok([BASE + 0x8_0000, BASE + 0x8_0000, BASE + 0x20_0000, 0])
    );
    assert_eq!(
        placed(&[ram(0x10_0000, 0)], Form::Raw, 0x8_0000, Some(0x1000)),
        Ok([BASE + 0x8_0000, BASE + 0x8_0000, BASE + 0x9_0000, BASE + 0xa_0000])
    );
}

#[test]
fn an_elf_file_says_where_it_goes() {
    let end = BASE + 0x200_0000;
    let form = Form::Elf { start: end - 0x2000, end, entry: end - 0x1000 };
    // No room behind it, so the others go before it.
    assert_eq!(
        placed(&[ram(0x200_0000, 0x1000)], form, 0, Some(0x1000)),
        Ok([end - 0x2000, end - 0x1000, BASE + 0x1_0000, BASE + 0x2_0000])
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let sentence = |ram: &[Ram], form, offset, initrd| placed(ram, form, offset, initrd).unwrap_err();
    assert_eq!(sentence(&[], Form::Raw, 0, None), "has no region of kind \"ram\" to go to");
    assert_eq!(sentence(&[ram(0x1000, 0)], Form::Raw, u64::MAX, None), "does not fit in the address space");
    assert_eq!(
        sentence(&[ram(0x10_0000, 0)], IMAGE, 0, None),
        "(0x40080000 - 0x40380000) does not fit in the VM's RAM (0x40000000 - 0x40100000)"
    );
    assert_eq!(
        sentence(&[ram(0x1000, 0)], Form::Raw, 0, None),
        "(0x40000000 - 0x40001000) leaves no room in the VM's RAM (0x40000000 - 0x40001000) for 65536 bytes \
         of device tree"
    );
    assert_eq!(
        sentence(&[ram(0x50_0000, 0)], IMAGE, 0, Some(0x20_0000)),
        "(0x40080000 - 0x40380000) leaves no room in the VM's RAM (0x40000000 - 0x40500000) for 2097152 \
         bytes of initrd"
    );
}

proptest! {
    #[test]
    fn nothing_overlaps(
        size in 0_u64..0x200_0000,
        used in 0_u64..0x10_0000,
        offset in 0_u64..0x40_0000,
        initrd in 1_u64..0x100_0000,
        which in 0..3,
        memory in 0x1000_u64..0x80_0000,
    ) {
        let ram = ram(size, used);
        let form = match which {
            0 => Form::Image { text_offset: offset & 0x1f_f000, memory },
            1 => Form::Raw,
            _ => Form::Elf { start: BASE + offset, end: BASE + offset + memory, entry: BASE + offset },
        };
        let offset = offset + used;
        if let Ok(places) = place(&[ram], &kernel(form), offset, Some(initrd)) {
            let kernel_size = if form == Form::Raw { 0x1000 } else { memory };
            let kernel = IpaRange::new(places.kernel, kernel_size).unwrap();
            let dtb = IpaRange::new(places.dtb, DTB_SIZE).unwrap();
            let initrd = IpaRange::new(places.initrd.unwrap(), initrd).unwrap();
            let file = IpaRange::new(ram.range.start(), used).unwrap();
            for range in [kernel, dtb, initrd] {
                prop_assert!(ram.range.contains_range(&range));
            }
            prop_assert!(!kernel.overlaps(&dtb) && !kernel.overlaps(&initrd) && !dtb.overlaps(&initrd));
            prop_assert!(!file.overlaps(&dtb) && !file.overlaps(&initrd));
            prop_assert!(dtb.start().is_aligned(DTB_SIZE) && initrd.start().is_aligned(PAGE_SIZE));
        }
    }
}
