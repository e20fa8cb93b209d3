//! Virtual EL2 and a guest under it. The guest is a few instructions at EL1 with its MMU off.

use crate::harness::{Outcome, check, check_eq, suite};
use crate::rt::el2::{self, El1, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mmu::SCTLR_OFF;
use core::arch::{asm, global_asm};

mod interrupts;
mod memory;
mod registers;
mod traps;

use interrupts::{
    guest_timer, hypervisor_timers, interrupt_ends_here, list_register, maintenance, maintenance_of_groups,
    virtual_irq_bit,
};
use memory::{guest_tags, no_tag_access, stage2_accesses, stage2_faults};
use registers::{el2_registers, hidden_registers, own_registers, register_banks};
use traps::{garbage, guest_traps, untrapped};

suite!(
    "nested",
    true,
    [
        hvc_at_el2,
        illegal_returns,
        el2_registers,
        hidden_registers,
        own_registers,
        guest_hvc,
        guest_el0,
        register_banks,
        guest_traps,
        untrapped,
        garbage,
        hypervisor_timers,
        guest_timer,
        list_register,
        virtual_irq_bit,
        interrupt_ends_here,
        maintenance,
        maintenance_of_groups,
        stage2_accesses,
        stage2_faults,
        guest_tags,
        no_tag_access,
    ]
);

/// Exception classes that arrive at EL2.
pub(super) const EC_HVC: u64 = 0x16;
const EC_ILLEGAL: u64 = 0x0e;

/// Ends the test where there is no EL2.
macro_rules! need_el2 {
    () => {
        if !$crate::rt::el2::present() {
            $crate::harness::skip!("the payload has no EL2");
        }
    };
}
pub(super) use need_el2;

/// EL1 of a guest: MMU off, vectors that call.
pub(crate) fn guest_el1() -> El1 {
    unsafe extern "C" {
        static guest_vectors: u8;
    }
    El1 { sctlr: SCTLR_OFF, vbar: &raw const guest_vectors as u64, cpacr: 3 << 20, ..El1::default() }
}

/// Runs `guest` once under `f`'s HCR_EL2 bits.
pub(super) fn once(guest: &mut Guest, set: u64, clear: u64) -> Exit {
    at_el2(|| with_guest(&guest_el1(), set, clear, || el2::enter(guest)))
}

/// A piece of guest code: its instructions, then HVC #0 for ever.
macro_rules! guest_code {
    ($($(#[$doc:meta])* $name:ident $text:literal;)*) => {
        $(
            core::arch::global_asm!(
                ".text", concat!(".globl guest_code_", stringify!($name)), concat!("guest_code_", stringify!($name), ":"),
                ".arch_extension memtag", $text, "1: hvc #0", "b 1b"
            );
            $(#[$doc])*
            pub(crate) fn $name() -> u64 {
                unsafe extern "C" {
                    #[link_name = concat!("guest_code_", stringify!($name))]
                    static CODE: u8;
                }
                &raw const CODE as u64
            }
        )*
    };
}
pub(crate) use guest_code;

guest_code! {
    /// Counts in x0 and calls with 0x2a.
    counting "2: add x0, x0, #1\n hvc #0x2a\n b 2b";
    /// Goes to EL0 at x0, with SP_EL0 x1.
    to_el0 "msr ELR_EL1, x0\n msr SP_EL0, x1\n msr SPSR_EL1, xzr\n eret";
    /// EL0: SVC with x5 = 99.
    svc "mov x5, #99\n svc #3";
}

// What EL1 of the guest does with exceptions: HVC #(0x80 + slot); an IRQ is acknowledged and ended first.
global_asm!(
    r#"
    .section .text.vectors, "ax"
    .balign 2048
    .globl  guest_vectors
guest_vectors:
    .set    slot, 0
    .rept   16
    .balign 128
    .if     (slot == 5) || (slot == 9)
    mrs     x10, ICC_IAR1_EL1
    dsb     sy
    msr     ICC_EOIR1_EL1, x10
    .endif
    mrs     x11, ESR_EL1
    mrs     x12, SPSR_EL1
    mrs     x13, ELR_EL1
    hvc     #(0x80 + slot)
    eret
    .set    slot, slot + 1
    .endr
    .text
"#
);

/// HVC of the guest's vector slot `n`.
pub(super) const fn slot(n: u64) -> u64 {
    0x80 + n
}

fn hvc_at_el2(_: &Machine) -> Outcome {
    need_el2!();
    let (own, pc) = at_el2(|| {
        el2::forget();
        let pc: u64;
        // SAFETY: EL2's vectors note the exception and go on.
        unsafe { asm!("adr {0}, 2f", "hvc #0x77", "2:", out(reg) pc, options(nostack)) };
        (el2::own(), pc)
    });
    check_eq!(own.count, 1, "exceptions");
    check_eq!(own.esr, EC_HVC << 26 | 1 << 25 | 0x77, "ESR_EL2");
    check_eq!(own.elr, pc, "ELR_EL2");
    check_eq!(own.spsr & 0x3df, 0x3c9, "SPSR_EL2");
    Ok(())
}

fn illegal_returns(_: &Machine) -> Outcome {
    need_el2!();
    let tge = u64::from(el2::vhe()) << 27;
    // EL3, reserved, AArch32; and EL1 under TGE.
    for (spsr, hcr) in [(0x3cd_u64, 0), (0x3cc, 0), (0x3c2, 0), (0x3c7, 0), (0x3d3, 0), (0x3c5, tge)] {
        if spsr == 0x3c5 && hcr == 0 {
            continue;
        }
        let (own, pc) = at_el2(|| {
            let old = mrs!("hcr_el2");
            msr!("hcr_el2", old | hcr);
            el2::forget();
            let pc: u64;
            // SAFETY: the return does not leave EL2; its target raises the illegal state exception, which
            // EL2's vectors note, and go on behind the NOP.
            unsafe {
                asm!("adr {0}, 2f", "msr ELR_EL2, {0}", "msr SPSR_EL2, {1}", "eret", "2: nop",
                    out(reg) pc, in(reg) spsr, options(nostack))
            };
            msr!("hcr_el2", old);
            (el2::own(), pc)
        });
        check_eq!(own.count, 1, "exceptions after a return to {spsr:#x}");
        check_eq!(own.esr >> 26, EC_ILLEGAL, "EC after a return to {spsr:#x}");
        check_eq!(own.elr, pc, "ELR_EL2 after a return to {spsr:#x}");
        check_eq!(own.spsr & 0x10_001f, 0x10_0009, "SPSR_EL2 after a return to {spsr:#x}");
    }
    Ok(())
}

fn guest_hvc(_: &Machine) -> Outcome {
    need_el2!();
    let mut guest = Guest::new(counting());
    for (n, x) in (0..31).zip(&mut guest.x) {
        *x = 0x1000 * n;
    }
    let outcome = at_el2(|| {
        with_guest(&guest_el1(), 0, 0, || {
            for round in 1..=100u64 {
                let exit = el2::enter(&mut guest);
                check_eq!(exit, Exit::Sync, "exit");
                check_eq!(guest.esr, EC_HVC << 26 | 1 << 25 | 0x2a, "ESR_EL2");
                check_eq!(guest.x[0], round, "x0");
                check_eq!(guest.pc, counting() + 8, "ELR_EL2");
                check_eq!(guest.pstate & 0x1f, 0b0101, "SPSR_EL2.M");
            }
            Ok(())
        })
    });
    outcome?;
    for (n, x) in (1..31).zip(&guest.x[1..]) {
        check_eq!(*x, 0x1000 * n, "x{n}");
    }
    Ok(())
}

fn guest_el0(_: &Machine) -> Outcome {
    need_el2!();
    let mut guest = Guest::new(to_el0());
    guest.x[0] = svc();
    let exit = once(&mut guest, 0, 0);
    check_eq!((exit, guest.ec(), guest.esr & 0xffff), (Exit::Sync, EC_HVC, slot(8)), "exit of its EL1");
    check_eq!((guest.x[5], guest.x[11] >> 26), (99, 0x15), "x5, ESR_EL1.EC");
    check_eq!(guest.x[12] & 0x1f, 0, "SPSR_EL1.M");
    Ok(())
}
