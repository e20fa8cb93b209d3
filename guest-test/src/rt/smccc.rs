//! Calls to the hypervisor or firmware by HVC, and SMC where it may be undefined.

use super::el2;
use super::exception::{Fault, expect_fault};
use core::arch::{asm, global_asm};

macro_rules! conduit {
    ($instruction:literal, $id:expr, $a:expr) => {{
        let mut x = [u64::from($id), $a[0], $a[1], $a[2], 0, 0, 0, 0];
        // SAFETY: the callee keeps to SMCCC: results in x0 to x17, memory untouched but for what
        // the arguments name.
        unsafe {
            asm!($instruction,
                inout("x0") x[0], inout("x1") x[1], inout("x2") x[2], inout("x3") x[3],
                inout("x4") x[4], inout("x5") x[5], inout("x6") x[6], inout("x7") x[7],
                out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
                out("x14") _, out("x15") _, out("x16") _, out("x17") _, options(nostack))
        };
        x
    }};
}

/// Calls function `id` by HVC; returns x0 to x7.
pub(crate) fn call(id: u32, a1: u64, a2: u64, a3: u64) -> [u64; 8] {
    if el2::present() { conduit!("smc #0", id, [a1, a2, a3]) } else { conduit!("hvc #0", id, [a1, a2, a3]) }
}

/// Calls function `id` with x1 to x7; returns x0 to x7.
pub(crate) fn call_with(id: u32, a: [u64; 7]) -> [u64; 8] {
    let mut x = [u64::from(id), a[0], a[1], a[2], a[3], a[4], a[5], a[6]];
    // SAFETY: as in `conduit`.
    unsafe {
        asm!("hvc #0",
            inout("x0") x[0], inout("x1") x[1], inout("x2") x[2], inout("x3") x[3],
            inout("x4") x[4], inout("x5") x[5], inout("x6") x[6], inout("x7") x[7],
            out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
            out("x14") _, out("x15") _, out("x16") _, out("x17") _, options(nostack))
    };
    x
}

/// The same by SMC, which a machine without EL3 or hypervisor does not have.
pub(crate) fn try_smc(id: u32, a1: u64, a2: u64, a3: u64) -> Result<[u64; 8], Fault> {
    let mut x = [0; 8];
    let fault = expect_fault(|| x = conduit!("smc #0", id, [a1, a2, a3]));
    fault.map_or(Ok(x), Err)
}

/// The same with an immediate that is not 0, which SMCCC reserves.
pub(crate) fn call_with_immediate(id: u32) -> [u64; 8] {
    if el2::present() { conduit!("smc #1", id, [0, 0, 0]) } else { conduit!("hvc #1", id, [0, 0, 0]) }
}

/// x0's low word as a signed result of a 32-bit function.
pub(crate) fn w0(x: [u64; 8]) -> i64 {
    i64::from(x[0] as u32 as i32)
}

/// Exits of this VM to this hypervisor so far, that of the question included.
pub(crate) fn exits() -> u64 {
    call(abi::hypercall::VM_INFO, abi::hypercall::SELF, 0, 0)[7]
}

/// Whether this hypervisor is underneath.
pub(crate) fn tagvisor() -> bool {
    let x = call(abi::hypercall::UID, 0, 0, 0);
    let words = [x[0] as u32, x[1] as u32, x[2] as u32, x[3] as u32];
    words == abi::hypercall::UID_WORDS
}

/// Powers the machine off.
pub(crate) fn system_off() -> ! {
    call(abi::psci::SYSTEM_OFF, 0, 0, 0);
    loop {
        super::cpu::wait_interrupt();
    }
}

/// Calls with x0 to x30 from `before` and stores x0 to x30 of afterwards to `after`.
pub(crate) fn call_all(before: &[u64; 31], after: &mut [u64; 31]) {
    unsafe extern "C" {
        fn smccc_call_all(before: *const u64, after: *mut u64, smc: bool);
    }
    // SAFETY: both are 31 words; the assembly keeps to the procedure call standard.
    unsafe { smccc_call_all(before.as_ptr(), after.as_mut_ptr(), el2::present()) };
}

global_asm!(
    r#"
    .text
    .globl  smccc_call_all
smccc_call_all:
"#,
    push_callee_saved!("112"),
    r#"
    str     x1, [sp, #96]
    mov     x30, x0
    // The flags are nobody's: they choose the instruction.
    cmp     w2, #0
"#,
    load_x0_to_x29!("x30"),
    r#"
    ldr     x30, [x30, #240]
    b.ne    1f
    hvc     #0
    b       2f
1:  smc     #0
2:  str     x30, [sp, #104]
    ldr     x30, [sp, #96]
"#,
    store_x0_to_x29!("x30"),
    r#"
    ldr     x0, [sp, #104]
    str     x0, [x30, #240]
"#,
    pop_callee_saved!("112"),
    r#"
    ret
"#
);
