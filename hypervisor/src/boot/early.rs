//! The boot CPU while its MMU is off: finds the UART and the device tree, refuses what the MMU cannot
//! be turned on for, builds EL2's first map.
//!
//! No lock can be taken here, because exclusives need cacheable memory, and nothing is allocated.

use crate::arch::entry::{self, image};
use crate::arch::mmu::{self, Regime};
use crate::arch::{cache, cpu, vectors};
use crate::dev::uart::Uart;
use crate::mem::map;
use crate::{console, firmware};
use addr::{Pa, PaRange, Va};
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, Ordering};
use fdt::Conduit;

/// Entry from assembly, MMU off. `tree` is x0 as the loader set it; `current_el` is CurrentEL,
/// `began` the physical count at the first instruction.
pub(crate) extern "C" fn start(tree: u64, current_el: u64, began: u64) -> ! {
    let el = current_el >> 2 & 3;
    if el == 2 {
        vectors::install();
        cpu::set_per_cpu(entry::boot_cpu());
    }
    // Until the tree has been read: what there is above this exception level, if anything. EL3 has
    // nothing to call.
    firmware::set_conduit(match el {
        1 => Some(Conduit::Hvc),
        2 => Some(Conduit::Smc),
        _ => None,
    });
    let tree = early_tree(tree);
    let uart = tree.and_then(fdt::early::uart);
    if let Some(uart) = &uart {
        // SAFETY: the device tree's UART; physical addresses are accessible with the MMU off, and
        // nobody else uses it.
        let claimed = unsafe { Uart::claim(uart) };
        // SAFETY: one CPU, MMU off: nobody else can hold the lock, which exclusives could not take.
        unsafe { console::set_uart_early(claimed) };
    }
    let tree = match first_map(el, tree, uart.map(|u| u.base)) {
        Ok((regime, tree)) => {
            // Tables, statics and the stack were written past the caches; so was .data, by the entry code.
            let written = image::bss_end().get() - image::data().get();
            // SAFETY: nothing of the image was written through the caches since the loader cleaned it.
            unsafe { cache::before_mmu_on(Va::new(image::data().get()), written) };
            // SAFETY: the map has the image, the boot stack, the device tree and the UART where they are.
            unsafe { mmu::enable(&regime) };
            tree
        }
        Err(why) => refuse(why),
    };
    super::go_on(tree, began)
}

/// Ends a boot that the MMU is not on for yet.
fn refuse(why: &str) -> ! {
    // SAFETY: one CPU, MMU off.
    unsafe { console::say_early(why) };
    firmware::power_off()
}

/// What went wrong on the boot CPU while its MMU is off, where no lock can be taken: says it and ends
/// the machine. If the UART itself is what faults, the second time says nothing.
pub(crate) fn die(what: fmt::Arguments<'_>) -> ! {
    /// Loaded and stored by one CPU.
    static DYING: AtomicBool = AtomicBool::new(false);
    /// Turning the machine off was tried, too: there may be no firmware to call.
    static OFF: AtomicBool = AtomicBool::new(false);
    if OFF.load(Ordering::Relaxed) {
        cpu::halt();
    }
    if !DYING.load(Ordering::Relaxed) {
        DYING.store(true, Ordering::Relaxed);
        let mut text = Sentence { text: [0; 200], len: 0 };
        // Writing to a sentence cannot fail: it cuts.
        let _ = text.write_fmt(what);
        let text = text.text.get(..text.len).and_then(|t| core::str::from_utf8(t).ok());
        // SAFETY: one CPU, MMU off.
        unsafe { console::say_early(text.unwrap_or("an exception or a panic")) };
    }
    OFF.store(true, Ordering::Relaxed);
    firmware::power_off()
}

/// Text before there is a heap; what does not fit is cut off.
struct Sentence {
    text: [u8; 200],
    len: usize,
}

impl fmt::Write for Sentence {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes().filter(u8::is_ascii) {
            if let Some(slot) = self.text.get_mut(self.len) {
                (*slot, self.len) = (byte, self.len + 1);
            }
        }
        Ok(())
    }
}

/// EL2's first map, if this is a machine to go on with.
fn first_map(
    el: u64,
    tree: Option<&'static [u8]>,
    uart: Option<PaRange>,
) -> Result<(Regime, &'static [u8]), &'static str> {
    let tree = suitable(el, tree)?;
    let range = PaRange::new(Pa::new(tree.as_ptr().addr() as u64), tree.len() as u64);
    let range = range.ok_or("the device tree wraps")?;
    // SAFETY: one CPU, MMU off.
    Ok((unsafe { map::build_first(mmu::pa_bits(), range, uart) }?, tree))
}

/// The device tree as a slice, if x0 points to one.
fn early_tree(address: u64) -> Option<&'static [u8]> {
    if address == 0 || !address.is_multiple_of(8) {
        return None;
    }
    // The loader may have written it through its caches, and is not bound to clean it.
    cache::publish_uncached(Va::new(address), 8);
    // SAFETY: the boot protocol says that x0 is the physical address of a device tree in RAM; its
    // header tells the length, which is bounded by 2 MiB.
    let header = unsafe { core::slice::from_raw_parts(address as *const u8, 8) };
    let size = fdt::total_size(header)?.min(2 << 20);
    cache::publish_uncached(Va::new(address), size as u64);
    // SAFETY: as above.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, size) })
}

/// The device tree, if the MMU can be turned on here.
fn suitable(el: u64, tree: Option<&'static [u8]>) -> Result<&'static [u8], &'static str> {
    match el {
        1 => Err("entered at EL1: a hypervisor needs EL2 (QEMU: -machine virt,virtualization=on)"),
        3 => Err("entered at EL3: firmware must hand over at EL2 (QEMU: without secure=on)"),
        _ if mmu::e2h() => Err("this CPU does not allow HCR_EL2.E2H = 0, which this hypervisor needs"),
        _ => lse().and(tree.ok_or("there is no device tree in x0")),
    }
}

/// Before the first lock: the image uses FEAT_LSE, which FEAT_RAS implies. What else a CPU must have is
/// looked at when the tree has been read, which may say more.
fn lse() -> Result<(), &'static str> {
    let ids = super::cpus::host_ids();
    if ids.has_ras() { Ok(()) } else { idreg::check_required(&ids) }
}
