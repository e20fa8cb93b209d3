//! From the first instruction to the report.
//!
//! UNSAFETY: the entry point is named for the linker and reads the stack that the kernel built.

use crate::report::Report;
use crate::{bar, fp, linux, mte, sve};
use core::arch::global_asm;
use core::panic::PanicInfo;

// The kernel starts a program with everything on the stack; the ABI wants an aligned one.
global_asm!(
    ".global _start",
    "_start:",
    "    mov x29, xzr",
    "    mov x30, xzr",
    "    mov x0, sp",
    "    and sp, x0, #-16",
    "    b {main}",
    main = sym main,
);

/// Entry of the auxiliary vector with CPU features (Linux, include/uapi/linux/auxvec.h).
const AT_HWCAP: usize = 16;
/// Scalable vectors (Linux, arch/arm64/include/uapi/asm/hwcap.h).
const HWCAP_SVE: usize = 1 << 22;
/// Entry of the auxiliary vector with further CPU features (Linux, include/uapi/linux/auxvec.h).
const AT_HWCAP2: usize = 26;
/// Memory tagging (Linux, arch/arm64/include/uapi/asm/hwcap.h).
const HWCAP2_MTE: usize = 1 << 18;

extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: this is the initial stack, as the kernel left it.
    let turned_back = unsafe { has_environment(stack, b"TURNED_BACK=1\0") };
    if turned_back {
        let mut report = Report::start(1);
        report.result("mte.turned_back", mte::turned_back());
        linux::exit(report.failures());
    }
    // SAFETY: as above.
    let device = unsafe { has_environment(stack, b"BAR=1\0") };
    let tests = mte::TESTS.len() + fp::TESTS.len() + sve::TESTS.len() + usize::from(device);
    let mut report = Report::start(tests);
    // SAFETY: this is the initial stack, as the kernel left it.
    let features = unsafe { auxiliary(stack, AT_HWCAP2) }.unwrap_or(0);
    for (name, test) in mte::TESTS {
        if features & HWCAP2_MTE == 0 {
            report.skip(name, "the CPU has no MTE");
        } else {
            report.result(name, test());
        }
    }
    if device {
        let (name, test) = bar::TEST;
        report.result(name, test());
    }
    for (name, test) in fp::TESTS {
        report.result(name, test());
    }
    // SAFETY: as above.
    let features = unsafe { auxiliary(stack, AT_HWCAP) }.unwrap_or(0);
    for (name, test) in sve::TESTS {
        if features & HWCAP_SVE == 0 {
            report.skip(name, "the CPU has no SVE");
        } else {
            report.result(name, test());
        }
    }
    linux::exit(report.failures())
}

/// Whether the environment has this entry, which ends with a zero.
///
/// # Safety
/// As for [`auxiliary`].
unsafe fn has_environment(stack: *const usize, wanted: &[u8]) -> bool {
    // SAFETY: argc is the first word.
    let argc = unsafe { stack.read() };
    let mut at = stack.wrapping_add(argc + 2);
    loop {
        // SAFETY: the environment's pointers end with a zero.
        let entry = unsafe { at.read() } as *const u8;
        if entry.is_null() {
            return false;
        }
        // SAFETY: a string that ends with a zero, and is not read beyond.
        let same =
            wanted.iter().enumerate().all(|(n, byte)| unsafe { entry.wrapping_add(n).read() } == *byte);
        if same {
            return true;
        }
        at = at.wrapping_add(1);
    }
}

/// Finds an entry of the auxiliary vector.
///
/// # Safety
/// `stack` points at the initial stack of a Linux process: argc, argv, 0, environment, 0, then the
/// auxiliary vector of pairs, which ends with a key of 0.
unsafe fn auxiliary(stack: *const usize, key: usize) -> Option<usize> {
    // SAFETY: argc is the first word.
    let argc = unsafe { stack.read() };
    let mut at = stack.wrapping_add(argc + 2);
    // SAFETY: the environment's pointers end with a zero.
    while unsafe { at.read() } != 0 {
        at = at.wrapping_add(1);
    }
    at = at.wrapping_add(1);
    loop {
        // SAFETY: a pair of the vector, whose end was not reached.
        let entry = unsafe { at.cast::<[usize; 2]>().read() };
        match entry {
            [0, _] => return None,
            [found, value] if found == key => return Some(value),
            [_, _] => at = at.wrapping_add(2),
        }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    linux::print("Bail out! panic\n");
    linux::exit(255)
}
