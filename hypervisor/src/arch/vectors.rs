//! The EL2 vectors. From a lower EL: general registers into the vCPU, then back to where the guest
//! was entered. From EL2 itself: what [`fixup`](super::fixup) has a row for, or a panic with registers.
//!
//! While a guest runs, SP_EL2 points at its [`GuestRegs`](super::guest::GuestRegs), so the exit needs
//! no scratch register. ESB turns an SError that the guest's accesses caused into DISR_EL1 before
//! EL2 goes on, so it is charged to the guest (DDI 0487, "Error synchronization event").

use super::guest::GuestRegs;
use core::arch::global_asm;
use core::mem::offset_of;

/// How a guest exited: the vector that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vector(pub(super) u64);

impl Vector {
    /// Synchronous exception.
    pub(crate) const SYNC: Self = Self(0);
    /// Physical IRQ or FIQ.
    pub(crate) const INTERRUPT: Self = Self(1);
    /// SError.
    pub(crate) const SERROR: Self = Self(2);
    /// The same, from a vCPU with virtual EL2, by [`install_nested`].
    pub(crate) const NESTED_SYNC: Self = Self(3);
    /// As above.
    pub(crate) const NESTED_INTERRUPT: Self = Self(4);
    /// As above.
    pub(crate) const NESTED_SERROR: Self = Self(5);
}

global_asm!(
    r#"
    .macro guest_exit kind
    .balign 0x80
    stp     x0, x1, [sp, #{x}]
    stp     x2, x3, [sp, #{x} + 16]
    stp     x4, x5, [sp, #{x} + 32]
    stp     x6, x7, [sp, #{x} + 48]
    stp     x8, x9, [sp, #{x} + 64]
    stp     x10, x11, [sp, #{x} + 80]
    stp     x12, x13, [sp, #{x} + 96]
    stp     x14, x15, [sp, #{x} + 112]
    stp     x16, x17, [sp, #{x} + 128]
    stp     x18, x19, [sp, #{x} + 144]
    stp     x20, x21, [sp, #{x} + 160]
    stp     x22, x23, [sp, #{x} + 176]
    stp     x24, x25, [sp, #{x} + 192]
    stp     x26, x27, [sp, #{x} + 208]
    stp     x28, x29, [sp, #{x} + 224]
    str     x30, [sp, #{x} + 240]
    hint    #16                     // ESB, which this target's assembler does not name
    mov     x0, \kind
    b       tagvisor_guest_exit
    .endm

    .macro el2_exception kind
    .balign 0x80
    // The stack may be what is broken: the frame goes to the CPU's panic stack.
    msr     tpidrro_el0, x0
    mrs     x0, tpidr_el2
    cbz     x0, 9f
    ldr     x0, [x0, #{panic_sp}]
    sub     x0, x0, #272
    stp     x1, x2, [x0, #8]
    mov     x1, sp
    str     x1, [x0, #248]
    mov     sp, x0
    mrs     x1, tpidrro_el0
    str     x1, [sp]
    mov     x1, \kind
    b       tagvisor_el2_exception
9:  wfi
    b       9b
    .endm

    .macro vectors name, sync, interrupt, serror
    .balign 0x800
    .global \name
\name:
    el2_exception 0
    el2_exception 1
    el2_exception 2
    el2_exception 3
    el2_exception 4
    el2_exception 5
    el2_exception 6
    el2_exception 7
    guest_exit \sync
    guest_exit \interrupt
    guest_exit \interrupt
    guest_exit \serror
    // From AArch32: EL0 has no AArch32 in any VM, but the state could be forged by a guest's ERET on
    // a CPU that has it. The syndrome says so, and the vCPU is stopped.
    guest_exit \sync
    guest_exit \interrupt
    guest_exit \interrupt
    guest_exit \serror
    .endm

    .section .text.vectors, "ax"
    vectors tagvisor_vectors, {sync}, {interrupt}, {serror}
    vectors tagvisor_nested_vectors, {nested_sync}, {nested_interrupt}, {nested_serror}

    // Where exits go on if a CPU needs its branch history flushed (Arm, "Spectre-BHB"), before EL2 takes
    // any branch that history predicts. Guest registers and flags are saved, x0 is the vector.
    .global tagvisor_guest_exit_flushing
tagvisor_guest_exit_flushing:
    adr     x1, {history_branches}
    ldrb    w1, [x1]
1:  b       2f
2:  subs    w1, w1, #1
    b.ne    1b
    dsb     nsh
    isb
    // What the branch to here replaced.
    ldr     x1, [sp, #{host_sp}]
    b       tagvisor_guest_exit + 4

    .balign 0x80
tagvisor_el2_exception:
    stp     x3, x4, [sp, #24]
    stp     x5, x6, [sp, #40]
    stp     x7, x8, [sp, #56]
    stp     x9, x10, [sp, #72]
    stp     x11, x12, [sp, #88]
    stp     x13, x14, [sp, #104]
    stp     x15, x16, [sp, #120]
    stp     x17, x18, [sp, #136]
    stp     x19, x20, [sp, #152]
    stp     x21, x22, [sp, #168]
    stp     x23, x24, [sp, #184]
    stp     x25, x26, [sp, #200]
    stp     x27, x28, [sp, #216]
    stp     x29, x30, [sp, #232]
    mov     x0, sp
    // Comes back, with the syndrome, only for an instruction with a fixup, whose landing expects the
    // registers of an ordinary call to have changed.
    bl      {resolve}
    ldr     x1, [sp, #248]
    mov     sp, x1
    eret
    dsb     nsh
    isb
    "#,
    x = const offset_of!(GuestRegs, x),
    sync = const Vector::SYNC.0,
    interrupt = const Vector::INTERRUPT.0,
    serror = const Vector::SERROR.0,
    nested_sync = const Vector::NESTED_SYNC.0,
    nested_interrupt = const Vector::NESTED_INTERRUPT.0,
    nested_serror = const Vector::NESTED_SERROR.0,
    host_sp = const offset_of!(GuestRegs, host_sp),
    history_branches = sym super::errata::HISTORY_BRANCHES,
    panic_sp = const offset_of!(super::cpu::PerCpu, panic_stack),
    resolve = sym super::fixup::resolve,
);

/// Registers of EL2 at an exception that EL2 itself took; the layout that the assembly above writes.
#[repr(C)]
pub(crate) struct El2Frame {
    /// x0 to x30.
    pub(crate) x: [u64; 31],
    /// SP_EL2.
    pub(crate) sp: u64,
    reserved: [u64; 2],
}

const _: () = assert!(size_of::<El2Frame>() == 272);
const _: () = assert!(offset_of!(El2Frame, sp) == 248);

/// Makes these vectors the ones of this CPU.
pub(crate) fn install() {
    unsafe extern "C" {
        static tagvisor_vectors: u8;
    }
    set((&raw const tagvisor_vectors).addr());
}

/// Makes those for vCPUs with virtual EL2 the ones of this CPU: all that differs is what they call
/// themselves, so that other vCPUs need not ask.
pub(crate) fn install_nested() {
    unsafe extern "C" {
        static tagvisor_nested_vectors: u8;
    }
    set((&raw const tagvisor_nested_vectors).addr());
}

fn set(vectors: usize) {
    super::sysreg::msr!("vbar_el2", vectors as u64);
    super::sysreg::instruction!("isb");
}
