//! The first instructions: Image header, state at entry kept for the `entry` suite, MMU on, stack,
//! Rust. Exclusives are used only after the MMU is on, because they need Normal cacheable memory.

use super::{cpu, el2, mmu};
use core::arch::global_asm;
use core::cell::UnsafeCell;

/// What a CPU saw when it was started.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct EntryState {
    /// x0 to x3.
    pub(crate) x: [u64; 4],
    /// CurrentEL.
    pub(crate) current_el: u64,
    /// DAIF.
    pub(crate) daif: u64,
    /// SCTLR_EL1.
    pub(crate) sctlr: u64,
    /// SPSel.
    pub(crate) spsel: u64,
    /// CNTVCT_EL0.
    pub(crate) counter: u64,
}

#[repr(transparent)]
struct EntryStates(UnsafeCell<[EntryState; cpu::MAX]>);
// SAFETY: each CPU's entry code writes its own element before Rust runs on it; readers look at
// CPUs that have reported themselves online.
unsafe impl Sync for EntryStates {}

const NEVER: EntryState = EntryState { x: [0; 4], current_el: 0, daif: 0, sctlr: 0, spsel: 0, counter: 0 };
#[unsafe(no_mangle)]
static ENTRY_STATES: EntryStates = EntryStates(UnsafeCell::new([NEVER; cpu::MAX]));

/// What CPU `index` saw when it last started.
pub(crate) fn state_of(index: usize) -> EntryState {
    let states = ENTRY_STATES.0.get();
    // SAFETY: see `EntryStates`; the pointer is to a static.
    unsafe { (*states)[index] }
}

unsafe extern "C" {
    fn secondary_start();
}

/// Address of the secondary CPUs' first instruction, for CPU_ON. x0 there: any value whose low
/// byte is the CPU's index.
pub(crate) fn secondary_address() -> u64 {
    secondary_start as *const () as u64
}

#[unsafe(no_mangle)]
extern "C" fn primary_main(tree: u64) -> ! {
    cpu::init(0);
    crate::harness::main(tree)
}

#[unsafe(no_mangle)]
extern "C" fn secondary_main(index: usize) -> ! {
    cpu::init(index);
    cpu::serve(index)
}

global_asm!(
    r#"
    .section .head, "ax"
    .globl _start
_start:
    b       primary_start
    .long   0
    .quad   0x80000             // text_offset: RAM starts 512 KiB below the image
    .quad   __image_size
    .quad   0x2                 // little-endian, 4 KiB pages, near the start of RAM
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

    .macro  entry_state
    mrs     x23, CurrentEL
    mrs     x24, DAIF
    mrs     x25, SCTLR_EL1
    mrs     x26, SPSel
    mrs     x27, CNTVCT_EL0
    mov     x19, x0
    mov     x20, x1
    mov     x21, x2
    mov     x22, x3
    msr     SPSel, #1
    msr     DAIFSet, #0xf
    cmp     x23, #8             // EL2
    b.ne    9f
    bl      el2_begin
9:
    .endm

    // x0 = index. Clobbers x0-x3.
    .macro  keep_entry_state
    adrp    x1, ENTRY_STATES
    add     x1, x1, :lo12:ENTRY_STATES
    mov     x2, #{STATE_SIZE}
    madd    x1, x0, x2, x1
    stp     x19, x20, [x1]
    stp     x21, x22, [x1, #16]
    stp     x23, x24, [x1, #32]
    stp     x25, x26, [x1, #48]
    str     x27, [x1, #64]
    .endm

    // x0 = index. Clobbers x1, x2.
    .macro  take_stack
    adrp    x1, __stacks
    add     x1, x1, :lo12:__stacks
    add     x2, x0, #1
    add     x1, x1, x2, lsl #14
    mov     sp, x1
    mov     x29, xzr
    mov     x30, xzr
    .endm

primary_start:
    entry_state
    bl      mmu_on
    adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, :lo12:__bss_end
1:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    1b
    mov     x0, #0
    take_stack
    keep_entry_state
    mov     x0, x19
    b       primary_main

    .globl secondary_start
secondary_start:
    entry_state
    bl      mmu_on
    and     x0, x19, #0xf
    take_stack
    keep_entry_state
    and     x0, x19, #0xf
    b       secondary_main

    // At EL2. With VHE, EL2 is what the payload runs at: the names of EL1's registers mean it. Without,
    // EL2 is set up for calls, and the payload goes on at EL1. Clobbers x0-x4.
el2_begin:
    mrs     x0, ID_AA64MMFR1_EL1
    ubfx    x0, x0, #8, #4      // VH
    cbz     x0, 1f
    ldr     x0, ={HCR_VHE}
    msr     HCR_EL2, x0
    isb
    mov     x0, #0xc00          // CNTHCTL_EL2.EL1PCTEN, EL1PTEN
    msr     CNTHCTL_EL2, x0
    ret
1:  ldr     x0, ={HCR_NVHE}
    msr     HCR_EL2, x0
    mov     x0, #3              // CNTHCTL_EL2.EL1PCTEN, EL1PCEN
    msr     CNTHCTL_EL2, x0
    msr     CNTVOFF_EL2, xzr
    mov     x0, #0x33ff         // CPTR_EL2 RES1
    mrs     x1, ID_AA64PFR0_EL1
    ubfx    x1, x1, #32, #4     // SVE
    cbz     x1, 2f
    mov     x0, #0x32ff         // without TZ
    msr     CPTR_EL2, x0
    isb
    mov     x1, #0xf            // longest vectors
    msr     S3_4_C1_C2_0, x1    // ZCR_EL2
2:  msr     CPTR_EL2, x0
    mrs     x0, MPIDR_EL1
    msr     VMPIDR_EL2, x0
    mrs     x0, MIDR_EL1
    msr     VPIDR_EL2, x0
    adrp    x0, el2_vectors
    add     x0, x0, :lo12:el2_vectors
    msr     VBAR_EL2, x0
    mrs     x3, ID_AA64PFR1_EL1
    ubfx    x3, x3, #8, #4
    ldr     x0, ={MAIR_UNTAGGED}
    ldr     x1, ={MAIR_TAGGED}
    cmp     x3, #2
    csel    x0, x0, x1, lo
    msr     MAIR_EL2, x0
    ldr     x0, ={TCR_EL2}
    mrs     x1, ID_AA64MMFR0_EL1
    and     x1, x1, #0xf
    mov     x2, #5
    cmp     x1, x2
    csel    x1, x1, x2, lo
    orr     x0, x0, x1, lsl #16
    msr     TCR_EL2, x0
    adrp    x0, EL2_TABLE
    add     x0, x0, :lo12:EL2_TABLE
    msr     TTBR0_EL2, x0
    mov     x0, #0xf
    msr     S3_4_C12_C9_5, x0   // ICC_SRE_EL2
    isb
    tlbi    alle2
    dsb     nsh
    isb
    ldr     x0, ={SCTLR_EL2}
    msr     SCTLR_EL2, x0
    isb
    adrp    x0, __el2_stacks
    add     x0, x0, :lo12:__el2_stacks
    mrs     x1, MPIDR_EL1
    and     x1, x1, #0xf
    add     x1, x1, #1
    add     x0, x0, x1, lsl #12
    mov     sp, x0
    ldr     x0, ={SCTLR_OFF}
    msr     SCTLR_EL1, x0
    mov     x0, #0x3c5
    msr     SPSR_EL2, x0
    msr     ELR_EL2, x30
    isb
    eret

    // Clobbers x0-x3.
mmu_on:
    adrp    x0, vectors
    add     x0, x0, :lo12:vectors
    msr     VBAR_EL1, x0
    mrs     x3, ID_AA64PFR1_EL1
    ubfx    x3, x3, #8, #4      // MTE: memory has tags from 2 on
    ldr     x0, ={MAIR_UNTAGGED}
    ldr     x1, ={MAIR_TAGGED}
    cmp     x3, #2
    csel    x0, x0, x1, lo
    msr     MAIR_EL1, x0
    ldr     x0, ={TCR}
    mrs     x1, ID_AA64MMFR0_EL1
    and     x1, x1, #0xf        // PARange; IPS goes to 48 bits with this granule
    mov     x2, #5
    cmp     x1, x2
    csel    x1, x1, x2, lo
    orr     x0, x0, x1, lsl #32
    msr     TCR_EL1, x0
    adrp    x0, TABLE
    add     x0, x0, :lo12:TABLE
    msr     TTBR0_EL1, x0
    mov     x0, #0x300000       // CPACR_EL1.FPEN
    msr     CPACR_EL1, x0
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    ldr     x0, ={SCTLR}
    ldr     x1, ={SCTLR_ATA}
    orr     x1, x0, x1
    cmp     x3, #2
    csel    x0, x0, x1, lo
    msr     SCTLR_EL1, x0
    isb
    ret
    .ltorg
"#,
    STATE_SIZE = const size_of::<EntryState>(),
    MAIR_UNTAGGED = const mmu::MAIR_UNTAGGED,
    MAIR_TAGGED = const mmu::MAIR_TAGGED,
    TCR = const mmu::TCR,
    SCTLR = const mmu::SCTLR,
    TCR_EL2 = const mmu::TCR_EL2,
    SCTLR_EL2 = const mmu::SCTLR_EL2,
    SCTLR_OFF = const mmu::SCTLR_OFF,
    HCR_VHE = const el2::HCR_VHE,
    HCR_NVHE = const el2::HCR_NVHE,
    SCTLR_ATA = const mmu::SCTLR_ATA,
);
