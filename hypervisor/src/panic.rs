//! A contradiction inside the hypervisor: stop the other CPUs, print, end the machine with `fail`.

use crate::arch::entry::image;
use crate::arch::{cpu, mmu, syndrome, vectors::El2Frame};
use crate::boot::early;
use crate::mem::heap;
use crate::{console, machine};
use core::fmt::Write as _;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// 1 + index of the first CPU that panics; 0 while none does. Partner: itself, on other CPUs and in a
/// second panic.
static PANICKING: AtomicUsize = AtomicUsize::new(0);

/// The CPU that panics did so again, while it printed. Relaxed: only that CPU uses it.
static TWICE: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if !mmu::is_on() {
        early::die(format_args!("panic: {info}"));
    }
    begin();
    let mut out = console::Emergency::new();
    let _ = writeln!(out, "tagvisor: panic on CPU {}: {info}", cpu::index());
    backtrace(&mut out, cpu::frame_pointer());
    finish(&mut out, "panic")
}

/// An exception that EL2 itself took: called by the vectors on the panic stack. It lies in the room
/// before them.
// SAFETY: a section of code that the linker script places with the rest of it.
#[unsafe(link_section = ".text.before_vectors")]
pub(crate) extern "C" fn el2_exception(frame: &El2Frame, vector: u64) -> ! {
    let kind = match vector & 3 {
        0 => "synchronous exception",
        1 => "IRQ",
        2 => "FIQ",
        _ => "SError",
    };
    if !mmu::is_on() {
        let (esr, elr, far) = (syndrome::esr(), syndrome::elr(), syndrome::far());
        let elr = elr.wrapping_sub(image::start().get());
        early::die(format_args!(
            "{kind} before the MMU is on: ESR {esr:#x}, {elr:#x} bytes into the image, FAR {far:#x}"
        ));
    }
    begin();
    let mut out = console::Emergency::new();
    let _ = writeln!(
        out,
        "tagvisor: panic on CPU {}: {kind} at EL2: ESR {:#018x} ELR {:#018x} FAR {:#018x} SPSR {:#x}",
        cpu::index(),
        syndrome::esr(),
        syndrome::elr(),
        syndrome::far(),
        syndrome::spsr(),
    );
    explain_tag_fault(&mut out);
    for (i, pair) in frame.x.chunks(4).enumerate() {
        let _ = write!(out, "tagvisor: panic: x{:<2}", i * 4);
        for x in pair {
            let _ = write!(out, " {x:#018x}");
        }
        let _ = writeln!(out);
    }
    let _ = writeln!(out, "tagvisor: panic: sp  {:#018x}", frame.sp);
    backtrace(&mut out, frame.x.get(29).copied().unwrap_or(0));
    finish(&mut out, "exception at EL2")
}

/// A sentence on what a synchronous tag check fault was.
fn explain_tag_fault(out: &mut console::Emergency) {
    const DATA_ABORT: u64 = 0x25;
    const TAG_CHECK: u64 = 0x11;
    let (esr, far) = (syndrome::esr(), syndrome::far());
    if esr >> 26 & 0x3f == DATA_ABORT
        && esr & 0x3f == TAG_CHECK
        && let Some(misuse) = heap::explain(far)
    {
        let heap::Misuse { what, tag, class } = misuse;
        let _ = writeln!(
            out,
            "tagvisor: panic: heap: {what}, size class {class}: the pointer has tag {}, the memory {tag}",
            far >> 56 & 0xf
        );
    }
}

/// Lets one CPU print. A second panic of that CPU comes from printing, and ends the machine without a
/// word; a third comes from turning it off.
fn begin() {
    let this = cpu::index().wrapping_add(1);
    match PANICKING.compare_exchange(0, this, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => machine::stop_other_cpus(),
        Err(first) if first == this && !TWICE.swap(true, Ordering::Relaxed) => machine::power_off(),
        Err(_) => cpu::halt(),
    }
}

/// Whether some CPU panicked: the others stop at the next interrupt.
pub(crate) fn panicking() -> bool {
    PANICKING.load(Ordering::Acquire) != 0
}

fn finish(out: &mut console::Emergency, reason: &str) -> ! {
    let _ = writeln!(out, "tagvisor: result: fail {reason}");
    machine::power_off()
}

/// Return addresses along the frame pointers, as offsets into the image (add the link address to
/// look them up).
// SAFETY: as above.
#[unsafe(link_section = ".text.before_vectors")]
fn backtrace(out: &mut console::Emergency, mut fp: u64) {
    let text = image::start().get()..image::rodata().get();
    for _ in 0..24 {
        if fp == 0 || !fp.is_multiple_of(16) || !crate::mem::map::is_stack(fp) {
            break;
        }
        // SAFETY: `is_stack` says that 16 bytes at `fp` are mapped stack.
        let [next, ret] = unsafe { core::ptr::read_volatile(fp as *const [u64; 2]) };
        if text.contains(&ret) {
            let _ = writeln!(out, "tagvisor: panic: called from {:#x}", ret - text.start);
        }
        fp = next;
    }
}
