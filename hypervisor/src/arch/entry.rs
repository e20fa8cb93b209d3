//! The first instructions: image header, entry at any 2 MiB-aligned address, secondary entry.
//!
//! Assembly does what Rust cannot yet: it zeroes .bss, relocates the image, finds a stack. It makes
//! no decision but one: an image entered at EL2 with HCR_EL2.E2H = 1 would read EL1 registers where
//! it means EL2's, so E2H is cleared before anything else. Whether that held is asked in Rust.
//!
//! Caches (boards have them, QEMU has not): the loader cleaned the image to PoC. What is written with
//! the MMU off goes past the caches; stale clean lines over it are invalidated right before the MMU is
//! turned on.

use super::cpu::PerCpu;
use core::arch::global_asm;
use core::mem::offset_of;

global_asm!(
    r#"
    .section .head, "ax"
    .global _head
_head:
    // arm64 Image header: Linux Documentation/arch/arm64/booting.rst.
    b       _entry
    .long   0
    .quad   0                       // text_offset
    .quad   __image_size            // .bss and boot stack included
    .quad   0xa                     // little-endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

_entry:
    msr     daifset, #0xf
    msr     spsel, #1
    mov     x20, x0                 // device tree
    mrs     x23, cntpct_el0         // when it began
    mrs     x21, CurrentEL
    cmp     x21, #(2 << 2)
    b.ne    1f
    msr     tpidr_el2, xzr          // UNKNOWN at reset; all but 0 is taken for a PerCpu
    mrs     x9, hcr_el2
    tbz     x9, #34, 1f             // E2H
    mov     x9, #(1 << 31)          // RW
    msr     hcr_el2, x9
    isb
1:
    adrp    x9, __boot_stack_top
    add     x9, x9, :lo12:__boot_stack_top
    mov     sp, x9

    adrp    x10, __bss_start
    add     x10, x10, :lo12:__bss_start
    adrp    x11, __boot_stack_guard
    add     x11, x11, :lo12:__boot_stack_guard
2:  stp     xzr, xzr, [x10], #16
    cmp     x10, x11
    b.lo    2b

    // Packed relative relocations (ELF gABI, SHT_RELR): *word += base. An even entry is the offset
    // of a word; an odd one says by bits 63:1 which of the next 63 words are meant.
    adrp    x22, _head
    add     x22, x22, :lo12:_head
    adrp    x10, __relr_start
    add     x10, x10, :lo12:__relr_start
    adrp    x11, __relr_end
    add     x11, x11, :lo12:__relr_end
3:  cmp     x10, x11
    b.hs    4f
    ldr     x12, [x10], #8
    tbnz    x12, #0, 31f
    add     x13, x22, x12
    ldr     x14, [x13]
    add     x14, x14, x22
    str     x14, [x13], #8          // x13: where the next bitmap starts
    b       3b
31: mov     x15, x13
    add     x13, x13, #(63 * 8)
32: lsr     x12, x12, #1
    cbz     x12, 3b
    tbz     x12, #0, 33f
    ldr     x14, [x15]
    add     x14, x14, x22
    str     x14, [x15]
33: add     x15, x15, #8
    b       32b
4:
    // Stale lines over what was written here are dropped before the MMU is on, along with all that
    // Rust writes until then (`boot::early`).
    dsb     sy
    ic      iallu
    dsb     sy
    isb

    mov     x0, x20
    mov     x1, x21
    mov     x2, x23
    mov     x29, xzr
    mov     x30, xzr
    bl      {start}
6:  wfi
    b       6b

    // A secondary CPU, by PSCI CPU_ON: x0 = physical address of its SecondaryBoot, which the
    // starting CPU cleaned to PoC.
    .global tagvisor_secondary_entry
tagvisor_secondary_entry:
    msr     daifset, #0xf
    msr     spsel, #1
    mrs     x9, hcr_el2
    tbz     x9, #34, 7f
    mov     x9, #(1 << 31)
    msr     hcr_el2, x9
    isb
7:  msr     tpidr_el2, xzr          // as above
    ldp     x10, x11, [x0]          // ttbr0, tcr
    ldp     x12, x13, [x0, #16]     // mair, sctlr
    ldr     x14, [x0, #32]          // stack
    msr     ttbr0_el2, x10
    msr     tcr_el2, x11
    msr     mair_el2, x12
    tlbi    alle2
    ic      iallu
    dsb     sy
    isb
    msr     sctlr_el2, x13
    isb
    mov     sp, x14
    mov     x29, xzr
    mov     x30, xzr
    bl      {secondary}
8:  wfi
    b       8b

    // The boot CPU's PerCpu until it gets one from the heap: its panic stack, its index.
    .section .data.tagvisor_boot_cpu, "aw"
    .balign 8
    .global tagvisor_boot_cpu
tagvisor_boot_cpu:
    .quad   tagvisor_boot_panic_stack_top
    .quad   0
    .section .bss.tagvisor_boot_panic_stack, "aw", @nobits
    .balign 16
    .zero   {panic_stack}
tagvisor_boot_panic_stack_top:
    "#,
    panic_stack = const 8 << 10,
    start = sym crate::boot::early::start,
    secondary = sym crate::boot::cpus::secondary,
);

const _: () = assert!(offset_of!(PerCpu, panic_stack) == 0);
const _: () = assert!(offset_of!(PerCpu, index) == 8);

/// The boot CPU's record for the vectors until it has a panic stack with a guard page.
pub(crate) fn boot_cpu() -> &'static PerCpu {
    unsafe extern "C" {
        static tagvisor_boot_cpu: PerCpu;
    }
    // SAFETY: the assembly above lays it down as a `PerCpu`, relocated before Rust runs, and nobody
    // writes it.
    unsafe { &tagvisor_boot_cpu }
}

/// What a secondary CPU needs before it can run Rust; the layout that the assembly above reads.
#[repr(C, align(64))]
pub(crate) struct SecondaryBoot {
    /// TTBR0_EL2.
    pub(crate) ttbr0: u64,
    /// TCR_EL2.
    pub(crate) tcr: u64,
    /// MAIR_EL2.
    pub(crate) mair: u64,
    /// SCTLR_EL2 with the MMU on.
    pub(crate) sctlr: u64,
    /// Top of its stack.
    pub(crate) stack: u64,
    /// Index of the CPU.
    pub(crate) cpu: u64,
    /// Top of the stack that exceptions of EL2 itself use.
    pub(crate) panic_stack: u64,
}

/// The image's boundaries, as the linker script lays them down.
pub(crate) mod image {
    use addr::Pa;

    unsafe extern "C" {
        static __image_start: u8;
        static __rodata_start: u8;
        static __data_start: u8;
        static __bss_end: u8;
        static __early_heap: u8;
        static __image_end: u8;
        static __boot_stack_guard: u8;
        static tagvisor_secondary_entry: u8;
    }

    macro_rules! boundary {
        ($(#[$doc:meta])* $name:ident, $symbol:ident) => {
            $(#[$doc])*
            pub(crate) fn $name() -> Pa {
                Pa::new((&raw const $symbol).addr() as u64)
            }
        };
    }

    boundary!(
        /// First byte; start of the text.
        start,
        __image_start
    );
    boundary!(
        /// End of the text, start of the read-only data.
        rodata,
        __rodata_start
    );
    boundary!(
        /// End of the read-only data, start of .data and .bss.
        data,
        __data_start
    );
    boundary!(
        /// First byte behind .bss and the boot stack, all that is written with the MMU off.
        bss_end,
        __bss_end
    );
    boundary!(
        /// EL2's first heap, up to [`end`].
        early_heap,
        __early_heap
    );
    boundary!(
        /// First byte behind the image.
        end,
        __image_end
    );
    boundary!(
        /// The unmapped page below the boot stack.
        boot_stack_guard,
        __boot_stack_guard
    );
    boundary!(
        /// Where PSCI CPU_ON sends a secondary CPU.
        secondary_entry,
        tagvisor_secondary_entry
    );
}
