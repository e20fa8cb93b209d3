//! Code at EL0: a stub runs there until its first exception, which is handed back.

use super::exception::Frame;
use super::mmu;
use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How a stub ended.
pub(crate) struct Left {
    /// ESR_EL1 of the exception.
    pub(crate) esr: u64,
    /// FAR_EL1 of the exception.
    pub(crate) far: u64,
    /// SPSR_EL1 of the exception.
    pub(crate) spsr: u64,
    /// x0 to x30 at the exception.
    pub(crate) x: [u64; 31],
}

impl Left {
    /// Exception class.
    pub(crate) const fn ec(&self) -> u64 {
        (self.esr >> 26) & 0x3f
    }
}

/// What goes to EL0 and comes back: x0 to x30, ESR, FAR, SPSR.
struct Exchange(UnsafeCell<[u64; 34]>);
// SAFETY: only one CPU is at EL0 at a time (`BUSY`).
unsafe impl Sync for Exchange {}
static EXCHANGE: Exchange = Exchange(UnsafeCell::new([0; 34]));
static BUSY: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn el0_enter(exchange: *mut u64, entry: u64, stack: u64);
    fn el0_resume();
}

/// Runs the stub at `stub` (in `.user`) at EL0 with interrupts on, x0 to x7 = `args`; it ends by SVC
/// or by a fault. One CPU at a time.
pub(crate) fn run(stub: unsafe extern "C" fn(), args: [u64; 8]) -> Left {
    let mut x = [0; 31];
    x[..8].copy_from_slice(&args);
    run_at(stub as *const () as u64, &x)
}

/// Runs the code at `code`, an address of the payload, at EL0 with these general registers.
pub(crate) fn run_at(code: u64, x: &[u64; 31]) -> Left {
    assert!(!BUSY.swap(true, Relaxed), "two CPUs at EL0");
    let mut words = [0; 34];
    words[..31].copy_from_slice(x);
    let exchange = EXCHANGE.0.get();
    // SAFETY: see `Exchange`.
    unsafe { *exchange = words };
    let stack = mmu::user(super::mem::scratch(super::mem::SCRATCH_PAGES - 1)) + 4096;
    // SAFETY: the stub is code of the payload; EL0 can write only the user window, of which tests
    // pass scratch addresses.
    unsafe { el0_enter(exchange.cast(), mmu::user_code(code), stack) };
    // SAFETY: as above.
    let w = unsafe { *exchange };
    BUSY.store(false, Relaxed);
    let mut x = [0; 31];
    x.copy_from_slice(&w[..31]);
    Left { esr: w[31], far: w[32], spsr: w[33], x }
}

/// A synchronous exception from EL0: return from `el0_enter`.
pub(crate) fn leave(frame: &mut Frame) {
    let exchange = EXCHANGE.0.get();
    let mut words = [0; 34];
    words[..31].copy_from_slice(&frame.x);
    words[31] = frame.esr;
    words[32] = frame.far;
    words[33] = frame.spsr;
    // SAFETY: see `Exchange`: the CPU at EL0 is this one.
    unsafe { *exchange = words };
    frame.elr = el0_resume as *const () as u64;
    // EL1h, or EL2h, everything masked, with the flags of EL0 dropped.
    frame.spsr = if super::el2::is_here() { 0x3c9 } else { 0x3c5 };
}

global_asm!(
    r#"
    .text
    // x0 = x0 to x30 for EL0, x1 = entry, x2 = stack
    .globl  el0_enter
el0_enter:
"#,
    push_callee_saved!("112"),
    r#"
    mrs     x3, DAIF
    str     x3, [sp, #96]
    msr     DAIFSet, #0xf
    msr     ELR_EL1, x1
    msr     SP_EL0, x2
    msr     SPSR_EL1, xzr
    mov     x30, x0
"#,
    load_x0_to_x29!("x30"),
    r#"
    ldr     x30, [x30, #240]
    eret
    // The handler popped its frame: SP is what it was at the ERET.
    .globl  el0_resume
el0_resume:
    ldr     x3, [sp, #96]
    msr     DAIF, x3
"#,
    pop_callee_saved!("112"),
    r#"
    ret
"#
);
