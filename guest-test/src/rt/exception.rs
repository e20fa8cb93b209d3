//! Vectors, the frame that they save, and exceptions that a test expects.

use super::{cpu, el0, irq, mte};
use core::arch::global_asm;
use core::sync::atomic::Ordering::Relaxed;

/// Everything that an exception interrupted.
#[repr(C)]
pub(crate) struct Frame {
    /// x0 to x30.
    pub(crate) x: [u64; 31],
    /// ELR_EL1.
    pub(crate) elr: u64,
    /// SPSR_EL1.
    pub(crate) spsr: u64,
    /// ESR_EL1.
    pub(crate) esr: u64,
    /// FAR_EL1.
    pub(crate) far: u64,
    /// Keeps the stack aligned.
    _pad: u64,
}
const _: () = assert!(size_of::<Frame>() == 288);

/// A synchronous exception that a test expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// ESR_EL1.
    pub(crate) esr: u64,
    /// FAR_EL1.
    pub(crate) far: u64,
    /// ELR_EL1: the instruction.
    pub(crate) elr: u64,
    /// SPSR_EL1.
    pub(crate) spsr: u64,
}

/// ESR_EL1.EC: unknown reason (undefined instruction).
pub(crate) const EC_UNKNOWN: u64 = 0x00;
/// ESR_EL1.EC: SVC from AArch64.
pub(crate) const EC_SVC: u64 = 0x15;
/// ESR_EL1.EC: trapped MSR, MRS or system instruction.
pub(crate) const EC_SYSREG: u64 = 0x18;
/// ESR_EL1.EC: instruction abort from EL0.
pub(crate) const EC_IABT_EL0: u64 = 0x20;
/// ESR_EL1.EC: instruction abort from EL1.
pub(crate) const EC_IABT_EL1: u64 = 0x21;
/// ESR_EL1.EC: PC alignment fault.
pub(crate) const EC_PC_ALIGNMENT: u64 = 0x22;
/// ESR_EL1.EC: data abort from EL0.
pub(crate) const EC_DABT_EL0: u64 = 0x24;
/// ESR_EL1.EC: data abort from EL1.
pub(crate) const EC_DABT_EL1: u64 = 0x25;
/// Fault status code: synchronous external abort, not on a walk.
pub(crate) const FSC_EXTERNAL: u64 = 0x10;
/// Fault status code: synchronous tag check fault.
pub(crate) const FSC_TAG_CHECK: u64 = 0x11;
/// Fault status code: alignment fault.
pub(crate) const FSC_ALIGNMENT: u64 = 0x21;

impl Fault {
    /// Exception class.
    pub(crate) const fn ec(&self) -> u64 {
        (self.esr >> 26) & 0x3f
    }
    /// Fault status code of an abort.
    pub(crate) const fn fsc(&self) -> u64 {
        self.esr & 0x3f
    }
    /// Whether a data abort was caused by a write.
    pub(crate) const fn write(&self) -> bool {
        self.esr & (1 << 6) != 0
    }
    /// Whether the instruction was undefined. FEAT_IDST reports ID registers that are not there as
    /// trapped.
    pub(crate) const fn undefined(&self) -> bool {
        matches!(self.ec(), EC_UNKNOWN | EC_SYSREG)
    }
}

/// Runs `f`, in which synchronous exceptions are expected: each faulting instruction is skipped (an
/// instruction abort returns to the caller of the bad address). Returns the first.
pub(crate) fn expect_fault(f: impl FnOnce()) -> Option<Fault> {
    let this = cpu::this();
    this.faults.store(0, Relaxed);
    this.expecting.store(true, Relaxed);
    // SAFETY: only orders the closure between the two marks.
    unsafe { core::arch::asm!("") };
    f();
    // SAFETY: as above.
    unsafe { core::arch::asm!("") };
    this.expecting.store(false, Relaxed);
    (this.faults.load(Relaxed) != 0).then(|| Fault {
        esr: this.fault_esr.load(Relaxed),
        far: this.fault_far.load(Relaxed),
        elr: this.fault_elr.load(Relaxed),
        spsr: this.fault_spsr.load(Relaxed),
    })
}

/// Entry of all exceptions. `kind`: 0 to 3 current EL with SP_EL0, 4 to 7 with SP_ELx, 8 to 11 lower
/// EL; within each: synchronous, IRQ, FIQ, SError.
#[unsafe(no_mangle)]
extern "C" fn handle_exception(kind: u64, frame: &mut Frame) {
    match kind {
        5 | 9 => irq::handle(frame),
        4 => synchronous(frame),
        8 => el0::leave(frame),
        7 | 11 if cpu::this().expecting.load(Relaxed) => record(frame),
        _ => fatal(kind, frame),
    }
}

fn record(frame: &Frame) {
    let this = cpu::this();
    if this.faults.fetch_add(1, Relaxed) == 0 {
        this.fault_esr.store(frame.esr, Relaxed);
        this.fault_far.store(frame.far, Relaxed);
        this.fault_elr.store(frame.elr, Relaxed);
        this.fault_spsr.store(frame.spsr, Relaxed);
        if mte::level() >= 2 {
            this.handler_tco.store(mte::tco(), Relaxed);
        }
    }
}

fn synchronous(frame: &mut Frame) {
    if !cpu::this().expecting.load(Relaxed) {
        fatal(4, frame);
    }
    record(frame);
    if matches!((frame.esr >> 26) & 0x3f, EC_IABT_EL1 | EC_PC_ALIGNMENT) {
        frame.elr = frame.x[30];
    } else {
        frame.elr += 4;
    }
}

fn fatal(kind: u64, frame: &Frame) -> ! {
    // A fault while reporting must not come back here for ever.
    if cpu::this().dying.swap(true, Relaxed) {
        crate::rt::smccc::system_off();
    }
    panic!(
        "exception {kind} esr={:#x} far={:#x} elr={:#x} spsr={:#x} lr={:#x}",
        frame.esr, frame.far, frame.elr, frame.spsr, frame.x[30]
    );
}

global_asm!(
    r#"
    .section .text.vectors, "ax"
    .macro  slot kind
    .balign 128
    sub     sp, sp, #288
    stp     x0, x1, [sp]
    mov     x0, #\kind
    b       save_frame
    .endm

    .balign 2048
    .globl vectors
vectors:
    slot 0
    slot 1
    slot 2
    slot 3
    slot 4
    slot 5
    slot 6
    slot 7
    slot 8
    slot 9
    slot 10
    slot 11
    slot 12
    slot 13
    slot 14
    slot 15

save_frame:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x1, ELR_EL1
    stp     x30, x1, [sp, #240]
    mrs     x1, SPSR_EL1
    mrs     x2, ESR_EL1
    stp     x1, x2, [sp, #256]
    mrs     x1, FAR_EL1
    str     x1, [sp, #272]
    mov     x1, sp
    bl      handle_exception
    ldp     x30, x1, [sp, #240]
    msr     ELR_EL1, x1
    ldr     x1, [sp, #256]
    msr     SPSR_EL1, x1
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldp     x0, x1, [sp], #288
    eret
"#
);
