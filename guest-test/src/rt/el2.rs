//! A small hypervisor: code at EL2, and a guest of its own at EL1 under it.
//!
//! With VHE the payload itself is at EL2. Without, it is at EL1, and EL2 has nothing but vectors, a
//! stack and a map, and does what an HVC asks: call a function. Either way [`call`] runs a function at
//! EL2, with vectors of its own, interrupts masked; and such a function may [`enter`] a guest.

use super::{cpu, entry, sysreg};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// HCR_EL2 of the payload with VHE: E2H, RW, TGE, APK, API, ATA.
pub(crate) const HCR_VHE: u64 = 1 << 34 | 1 << 31 | 1 << 27 | 3 << 40 | 1 << 56;
/// HCR_EL2 of the payload without VHE, which runs at EL1: RW, APK, API, ATA.
pub(crate) const HCR_NVHE: u64 = 1 << 31 | 3 << 40 | 1 << 56;

/// Whether the CPUs started at EL2.
pub(crate) fn present() -> bool {
    entry::state_of(0).current_el == 8
}

/// Whether the payload runs at EL2.
pub(crate) fn is_here() -> bool {
    present() && vhe()
}

/// Whether EL2 has VHE, and the payload runs at EL2.
pub(crate) fn vhe() -> bool {
    sysreg::field(mrs!("id_aa64mmfr1_el1"), 8) != 0
}

/// Why a guest came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Exit {
    /// Synchronous exception.
    Sync = 0,
    /// IRQ.
    Irq = 1,
    /// FIQ.
    Fiq = 2,
    /// SError.
    SError = 3,
}

/// A guest's registers, and how it came back.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Guest {
    /// x0 to x30.
    pub(crate) x: [u64; 31],
    /// Where it goes on.
    pub(crate) pc: u64,
    /// Its PSTATE.
    pub(crate) pstate: u64,
    /// ESR_EL2 of the last exit.
    pub(crate) esr: u64,
    /// FAR_EL2 of the last exit.
    pub(crate) far: u64,
    /// HPFAR_EL2 of the last exit.
    pub(crate) hpfar: u64,
    sp: u64,
}

impl Guest {
    /// At `pc`, EL1h, interrupts masked.
    pub(crate) fn new(pc: u64) -> Self {
        Self { x: [0; 31], pc, pstate: 0x3c5, esr: 0, far: 0, hpfar: 0, sp: 0 }
    }

    /// Exception class of the last exit.
    pub(crate) const fn ec(&self) -> u64 {
        (self.esr >> 26) & 0x3f
    }
}

/// An exception that EL2 took from itself during [`call`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// How many.
    pub(crate) count: u64,
    /// ESR_EL2 of the last.
    pub(crate) esr: u64,
    /// ELR_EL2 of the last.
    pub(crate) elr: u64,
    /// SPSR_EL2 of the last.
    pub(crate) spsr: u64,
    /// FAR_EL2 of the last.
    pub(crate) far: u64,
}

#[repr(transparent)]
struct Records(UnsafeCell<[Own; cpu::MAX]>);
// SAFETY: each CPU uses its own element.
unsafe impl Sync for Records {}
#[unsafe(no_mangle)]
static EL2_OWN: Records =
    Records(UnsafeCell::new([Own { count: 0, esr: 0, elr: 0, spsr: 0, far: 0 }; cpu::MAX]));

/// The last exception that this CPU's EL2 took from itself since [`forget`].
pub(crate) fn own() -> Own {
    let records = EL2_OWN.0.get();
    // SAFETY: this CPU's element; the handler does not run at the same time.
    unsafe { (*records)[cpu::index()] }
}

/// Forgets exceptions.
pub(crate) fn forget() {
    let records = EL2_OWN.0.get();
    // SAFETY: as above.
    unsafe { (*records)[cpu::index()] = Own::default() };
}

unsafe extern "C" {
    fn el2_call(f: extern "C" fn(u64) -> u64, arg: u64) -> u64;
    fn el2_enter(guest: *mut Guest) -> u64;
}

static CALLING: [AtomicBool; cpu::MAX] = [const { AtomicBool::new(false) }; cpu::MAX];

/// Runs `f(arg)` at this CPU's EL2 with interrupts masked.
pub(crate) fn call(f: extern "C" fn(u64) -> u64, arg: u64) -> u64 {
    let calling = &CALLING[cpu::index()];
    assert!(!calling.swap(true, Relaxed), "EL2 calls itself");
    let result = if vhe() {
        // SAFETY: the function keeps to the procedure call standard, and so does the assembly.
        unsafe { el2_call(f, arg) }
    } else {
        let result;
        // SAFETY: EL2 calls the function, which keeps to the procedure call standard.
        unsafe {
            asm!("hvc #0x4c1", inout("x0") f as usize as u64 => result, in("x1") arg, clobber_abi("C"))
        };
        result
    };
    calling.store(false, Relaxed);
    result
}

/// At EL2: enters the guest until it exits.
pub(crate) fn enter(guest: &mut Guest) -> Exit {
    // SAFETY: saves what the standard asks to, and writes only the guest's record.
    match unsafe { el2_enter(guest) } {
        0 => Exit::Sync,
        1 => Exit::Irq,
        2 => Exit::Fiq,
        _ => Exit::SError,
    }
}

/// A register of EL1, from EL2: by its EL12 name with VHE.
macro_rules! el1_registers {
    ($($field:ident $el1:literal $el12:literal;)*) => {
        /// The EL1 registers of a guest, or of the payload where that is at EL1.
        #[derive(Clone, Copy, Default)]
        pub(crate) struct El1 {
            $(#[doc = $el1] pub(crate) $field: u64,)*
        }

        impl El1 {
            /// At EL2: reads them.
            pub(crate) fn read() -> Self {
                if vhe() {
                    Self { $($field: mrs!($el12),)* }
                } else {
                    Self { $($field: mrs!($el1),)* }
                }
            }

            /// At EL2: writes them.
            pub(crate) fn write(&self) {
                if vhe() {
                    $(msr!($el12, self.$field);)*
                } else {
                    $(msr!($el1, self.$field);)*
                }
            }
        }
    };
}

el1_registers! {
    sctlr "sctlr_el1" "s3_5_c1_c0_0";
    cpacr "cpacr_el1" "s3_5_c1_c0_2";
    ttbr0 "ttbr0_el1" "s3_5_c2_c0_0";
    ttbr1 "ttbr1_el1" "s3_5_c2_c0_1";
    tcr "tcr_el1" "s3_5_c2_c0_2";
    spsr "spsr_el1" "s3_5_c4_c0_0";
    elr "elr_el1" "s3_5_c4_c0_1";
    afsr0 "afsr0_el1" "s3_5_c5_c1_0";
    esr "esr_el1" "s3_5_c5_c2_0";
    far "far_el1" "s3_5_c6_c0_0";
    mair "mair_el1" "s3_5_c10_c2_0";
    amair "amair_el1" "s3_5_c10_c3_0";
    vbar "vbar_el1" "s3_5_c12_c0_0";
    contextidr "contextidr_el1" "s3_5_c13_c0_1";
    cntkctl "cntkctl_el1" "s3_5_c14_c1_0";
    cntp_ctl "cntp_ctl_el0" "s3_5_c14_c2_1";
    cntp_cval "cntp_cval_el0" "s3_5_c14_c2_2";
    cntv_ctl "cntv_ctl_el0" "s3_5_c14_c3_1";
    cntv_cval "cntv_cval_el0" "s3_5_c14_c3_2";
}

global_asm!(
    r#"
    .section .text.vectors, "ax"
    .macro  el2_own
    .balign 128
    stp     x0, x1, [sp, #-32]!
    stp     x2, x3, [sp, #16]
    b       el2_own_exception
    .endm
    .macro  el2_lower kind
    .balign 128
    stp     x0, x1, [sp, #-16]!
    mrs     x0, TPIDR_EL2
    cbz     x0, el2_service
    stp     x2, x3, [x0, #16]
    mov     x2, #\kind
    b       el2_leave
    .endm

    .balign 2048
    .globl  el2_vectors
el2_vectors:
    el2_own
    el2_own
    el2_own
    el2_own
    el2_own
    el2_own
    el2_own
    el2_own
    el2_lower 0
    el2_lower 1
    el2_lower 2
    el2_lower 3
    el2_own
    el2_own
    el2_own
    el2_own

    // An exception of EL2's own: noted, and the instruction is skipped unless it was HVC; what cannot be
    // fetched is a function.
el2_own_exception:
    mrs     x0, TPIDR_EL1
    mov     x1, #{OWN_SIZE}
    mul     x0, x0, x1
    adrp    x1, EL2_OWN
    add     x1, x1, :lo12:EL2_OWN
    add     x0, x0, x1
    ldr     x1, [x0]
    add     x1, x1, #1
    mrs     x2, ESR_EL2
    stp     x1, x2, [x0]
    mrs     x1, ELR_EL2
    mrs     x3, SPSR_EL2
    stp     x1, x3, [x0, #16]
    mrs     x3, FAR_EL2
    str     x3, [x0, #32]
    lsr     x2, x2, #26
    cmp     x2, #0x21           // a fetch: back to the caller
    csel    x1, x30, x1, eq
    b.eq    1f
    cmp     x2, #0x16
    b.eq    1f
    add     x1, x1, #4
1:  // No step, no illegal state.
    mrs     x2, SPSR_EL2
    bic     x2, x2, #0x100000
    msr     SPSR_EL2, x2
    msr     ELR_EL2, x1
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp], #32
    eret

    // HVC of the payload's own EL1: call x0 with x1.
el2_service:
    ldp     x0, x1, [sp]
    str     x30, [sp, #8]
    stp     x29, x30, [sp, #-16]!
    mrs     x2, ELR_EL2
    mrs     x3, SPSR_EL2
    stp     x2, x3, [sp, #-16]!
    mov     x2, x0
    mov     x0, x1
    blr     x2
    ldp     x2, x3, [sp], #16
    msr     ELR_EL2, x2
    msr     SPSR_EL2, x3
    ldp     x29, x30, [sp], #16
    add     sp, sp, #16
    eret

    // x0 = guest, x1 and the guest's x0, x1 on the stack; x2 = kind.
el2_leave:
    stp     x4, x5, [x0, #32]
    stp     x6, x7, [x0, #48]
    stp     x8, x9, [x0, #64]
    stp     x10, x11, [x0, #80]
    stp     x12, x13, [x0, #96]
    stp     x14, x15, [x0, #112]
    stp     x16, x17, [x0, #128]
    stp     x18, x19, [x0, #144]
    stp     x20, x21, [x0, #160]
    stp     x22, x23, [x0, #176]
    stp     x24, x25, [x0, #192]
    stp     x26, x27, [x0, #208]
    stp     x28, x29, [x0, #224]
    str     x30, [x0, #240]
    ldp     x3, x4, [sp], #16
    stp     x3, x4, [x0]
    mrs     x3, ELR_EL2
    mrs     x4, SPSR_EL2
    stp     x3, x4, [x0, #248]
    mrs     x3, ESR_EL2
    mrs     x4, FAR_EL2
    stp     x3, x4, [x0, #264]
    // Only aborts have an IPA, and reading it takes an exit.
    ubfx    x3, x3, #26, #6
    bic     x3, x3, #4
    cmp     x3, #0x20
    b.ne    1f
    mrs     x3, HPFAR_EL2
    str     x3, [x0, #280]
1:
    msr     TPIDR_EL2, xzr
    ldr     x3, [x0, #288]
    mov     sp, x3
    mov     x0, x2
"#,
    pop_callee_saved!("96"),
    r#"
    ret

    .text
    .globl  el2_enter
el2_enter:
"#,
    push_callee_saved!("96"),
    r#"
    mov     x1, sp
    str     x1, [x0, #288]
    msr     TPIDR_EL2, x0
    ldp     x1, x2, [x0, #248]
    msr     ELR_EL2, x1
    msr     SPSR_EL2, x2
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldr     x30, [x0, #240]
    ldp     x0, x1, [x0]
    eret

    // With VHE: x0(x1) with EL2's vectors for calls, interrupts masked.
    .globl  el2_call
el2_call:
    stp     x29, x30, [sp, #-48]!
    mrs     x2, VBAR_EL2
    mrs     x3, DAIF
    stp     x2, x3, [sp, #16]
    mrs     x2, HCR_EL2
    str     x2, [sp, #32]
    msr     DAIFSet, #0xf
    adrp    x2, el2_vectors
    add     x2, x2, :lo12:el2_vectors
    msr     VBAR_EL2, x2
    isb
    mov     x2, x0
    mov     x0, x1
    blr     x2
    ldr     x2, [sp, #32]
    msr     HCR_EL2, x2
    ldp     x2, x3, [sp, #16]
    msr     VBAR_EL2, x2
    isb
    msr     DAIF, x3
    ldp     x29, x30, [sp], #48
    ret
"#,
    OWN_SIZE = const size_of::<Own>(),
);

/// Runs a closure at EL2, by [`call`].
pub(crate) fn at_el2<R>(f: impl FnOnce() -> R) -> R {
    struct Job<F, R>(Option<F>, Option<R>);
    extern "C" fn run<F: FnOnce() -> R, R>(job: u64) -> u64 {
        // SAFETY: `at_el2` waits for the end of this, and hands over its job alone.
        let job = unsafe { &mut *(job as *mut Job<F, R>) };
        job.1 = job.0.take().map(|f| f());
        0
    }
    fn trampoline<F: FnOnce() -> R, R>(_: &Job<F, R>) -> extern "C" fn(u64) -> u64 {
        run::<F, R>
    }
    let mut job = Job(Some(f), None);
    let run = trampoline(&job);
    call(run, (&raw mut job).addr() as u64);
    match job.1 {
        Some(result) => result,
        None => panic!("EL2 did not run it"),
    }
}

/// At EL2: runs `f` with a guest's EL1 registers, and HCR_EL2 of the payload with these bits changed,
/// and puts everything back.
pub(crate) fn with_guest<R>(el1: &El1, set: u64, clear: u64, f: impl FnOnce() -> R) -> R {
    let (kept, hcr) = (El1::read(), mrs!("hcr_el2"));
    el1.write();
    msr!("hcr_el2", (hcr | set) & !(clear | 1 << 27));
    let result = f();
    msr!("hcr_el2", hcr);
    kept.write();
    result
}
