//! Entering a guest: a function call that returns why the guest came back.

use super::vectors::Vector;
use core::arch::asm;
use core::mem::offset_of;

/// A vCPU's general registers while it is off the CPU or exited.
///
/// ELR_EL2 and SPSR_EL2 stay in the hardware between an exit and the next entry, because EL2 itself
/// takes no exceptions that return; they are saved when another vCPU takes the CPU.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct GuestRegs {
    /// x0 to x30.
    pub(crate) x: [u64; 31],
    /// EL2's own stack pointer while the guest runs.
    pub(super) host_sp: u64,
}

impl GuestRegs {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Self { x: [0; 31], host_sp: 0 }
    }

    /// Register `n` as an instruction names it: 31 is the zero register.
    #[inline(always)]
    pub(crate) fn get(&self, n: u8) -> u64 {
        self.x.get(usize::from(n)).copied().unwrap_or(0)
    }

    /// Writes register `n` as an instruction names it: 31 is the zero register.
    #[inline(always)]
    pub(crate) fn set(&mut self, n: u8, value: u64) {
        if let Some(x) = self.x.get_mut(usize::from(n)) {
            *x = value;
        }
    }
}

/// Runs the guest whose system registers are loaded until it exits.
///
/// # Safety
/// The vCPU that `regs` belongs to must be the one whose EL1 state, stage 2 and traps are in the
/// hardware, and VBAR_EL2 must be ours.
#[inline(always)]
#[expect(named_asm_labels, reason = "the vectors come back here; a second copy would not assemble")]
pub(crate) unsafe fn enter(regs: &mut GuestRegs) -> Vector {
    let vector: u64;
    // SAFETY: all registers that the compiler may use are either clobbers or saved here (x19, x29 and
    // SP); the vectors store the guest's into `regs`, which is exclusively borrowed, and come back
    // to the label. SEVL does what the architecture lets ERET do by itself and QEMU omits: without
    // it, a guest whose first instruction is WFE sleeps forever.
    unsafe {
        asm!(
            // ESB: an SError of EL2's own is taken here, at the latest, and not charged to the guest.
            "hint #16",
            "stp x19, x29, [sp, #-16]!",
            "mov x1, sp",
            "str x1, [x0, #{host_sp}]",
            "mov sp, x0",
            "ldp x2, x3, [sp, #{x} + 16]",
            "ldp x4, x5, [sp, #{x} + 32]",
            "ldp x6, x7, [sp, #{x} + 48]",
            "ldp x8, x9, [sp, #{x} + 64]",
            "ldp x10, x11, [sp, #{x} + 80]",
            "ldp x12, x13, [sp, #{x} + 96]",
            "ldp x14, x15, [sp, #{x} + 112]",
            "ldp x16, x17, [sp, #{x} + 128]",
            "ldp x18, x19, [sp, #{x} + 144]",
            "ldp x20, x21, [sp, #{x} + 160]",
            "ldp x22, x23, [sp, #{x} + 176]",
            "ldp x24, x25, [sp, #{x} + 192]",
            "ldp x26, x27, [sp, #{x} + 208]",
            "ldp x28, x29, [sp, #{x} + 224]",
            "ldr x30, [sp, #{x} + 240]",
            "ldp x0, x1, [sp, #{x}]",
            "sevl",
            "eret",
            // No straight-line speculation past ERET.
            "dsb nsh",
            "isb",
            ".global tagvisor_guest_exit",
            "tagvisor_guest_exit:",
            // The vectors repeat this instruction, where `errata` has put a branch to them in its place.
            "ldr x1, [sp, #{host_sp}]",
            "mov sp, x1",
            "ldp x19, x29, [sp], #16",
            // The exit masked SErrors, and its ESB deferred the guest's: what comes now is EL2's.
            "msr daifclr, #4",
            x = const offset_of!(GuestRegs, x),
            host_sp = const offset_of!(GuestRegs, host_sp),
            inout("x0") regs => vector,
            out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
            out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
            out("x14") _, out("x15") _, out("x16") _, out("x17") _, out("x18") _, out("x20") _,
            out("x21") _, out("x22") _, out("x23") _, out("x24") _, out("x25") _, out("x26") _,
            out("x27") _, out("x28") _, out("x30") _,
        );
    }
    Vector(vector)
}
