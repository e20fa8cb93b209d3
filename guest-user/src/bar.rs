//! Memory of a device beside tagged memory: QEMU's `ivshmem-plain` behind its BAR 2, which the manifest maps
//! write-back and without tags, where the program finds it through `/dev/mem`. It has to put the BAR there
//! first, because nobody else drives the device. The kernel maps what is no RAM of its own as Device.
//!
//! UNSAFETY: volatile accesses to mappings of the device that the test has made for itself.

use crate::linux::{self, Check, PROT_MTE, PROT_READ_WRITE};
use crate::tag::{self, with_tag};

type Outcome = Result<(), &'static str>;

/// The test, for a machine that has the device.
pub(crate) const TEST: (&str, fn() -> Outcome) = ("mte.beside_device_memory", beside_device_memory);

/// IPAs of the device's page of PCI configuration and of its memory, and what the BAR has to be, by the manifest.
const CONFIG: usize = 0x902_0000;
const MEMORY: usize = 0xb000_0000;
const SIZE: usize = 2 << 20;
const ADDRESS: u32 = 0x1000_0000;
const PAGE: usize = 4096;

/// Words of PCI configuration: vendor and device, command, BAR 2 (64 bits).
const ID: usize = 0;
const COMMAND: usize = 1;
const BAR2: usize = 6;
/// Inter-VM shared memory.
const IVSHMEM: u32 = 0x1110_1af4;
/// The device answers in memory space.
const MEMORY_SPACE: u32 = 1 << 1;

fn ensure(holds: bool, why: &'static str) -> Outcome {
    if holds { Ok(()) } else { Err(why) }
}

fn beside_device_memory() -> Outcome {
    let file = linux::open(b"/dev/mem\0").ok_or("/dev/mem does not open")?;
    let map = |at, size| linux::map_file(file, at, size, PROT_READ_WRITE).ok_or("/dev/mem cannot be mapped");
    let config = core::ptr::with_exposed_provenance_mut::<u32>(map(CONFIG, PAGE)?);
    // SAFETY: a page of registers.
    let id = unsafe { config.wrapping_add(ID).read_volatile() };
    ensure(id == IVSHMEM, "the device is another one")?;
    for (register, value) in [(BAR2, ADDRESS), (BAR2 + 1, 0), (COMMAND, MEMORY_SPACE)] {
        // SAFETY: as above; the device's memory is nobody's yet.
        unsafe { config.wrapping_add(register).write_volatile(value) };
    }
    let memory = core::ptr::with_exposed_provenance_mut::<usize>(map(MEMORY, SIZE)?);
    // The kernel knows that it has no tags.
    let tagged = linux::map_file(file, MEMORY, PAGE, PROT_READ_WRITE | PROT_MTE);
    ensure(tagged.is_none(), "device memory can be mapped with PROT_MTE")?;
    ensure(linux::check_tags(Check::Sync), "prctl failed")?;
    let own = linux::map(SIZE, PROT_READ_WRITE | PROT_MTE).ok_or("mmap failed")?;
    // Each page's first word goes from tagged memory to the device.
    for at in (0..SIZE).step_by(PAGE) {
        let right = with_tag(own + at, (at / PAGE % 15 + 1) as u8);
        // SAFETY: a granule of this memory.
        unsafe { tag::set(right) };
        // SAFETY: as above.
        unsafe { tag::store(right, !at) };
        // SAFETY: as above.
        let value = unsafe { tag::load(right, 0) };
        // SAFETY: a word of the device's.
        unsafe { memory.wrapping_byte_add(at).write_volatile(value) };
    }
    for at in (0..SIZE).step_by(PAGE) {
        // SAFETY: as above.
        let word = unsafe { memory.wrapping_byte_add(at).read_volatile() };
        ensure(word == !at, "the device's memory does not hold what was stored")?;
        // SAFETY: as above.
        let tag = unsafe { tag::get(own + at) };
        ensure(usize::from(tag) == at / PAGE % 15 + 1, "a tag of memory beside the device is another one")?;
    }
    // SAFETY: no address of it is left.
    unsafe { linux::unmap(own, SIZE) };
    Ok(())
}
