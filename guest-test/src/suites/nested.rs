//! Virtual EL2 and a guest under it. The guest is a few instructions at EL1 with its MMU off.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::el2::{self, El1, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mmu::SCTLR_OFF;
use core::arch::{asm, global_asm};

mod access;
mod coarse;
mod fine;
mod interrupts;
mod memory;
mod registers;
mod returns;
pub(super) mod sve;
mod timers;
mod traps;

use coarse::coarse_traps;
use fine::{enhanced_traps, extended_controls, fine_exceptions, fine_traps, virtual_timer_traps};
use interrupts::{
    groups_of_own, guest_timer, hypervisor_timers, interrupt_ends_here, list_register,
    list_registers_with_holes, maintenance, maintenance_of_groups, physical_offset, virtual_fiq_and_serror,
    virtual_irq_bit,
};
use memory::{guest_tags, no_tag_access, protected_walks, stage2_accesses, stage2_faults};
use registers::{el2_registers, hidden_registers, own_registers, prediction_restrictions, register_banks};
use returns::{authenticated_returns, illegal_returns};
use timers::{guest_timer_moved, guest_timer_values, guest_timer_wakes, wfe_traps_last};
use traps::{garbage, guest_traps, untrapped};

suite!(
    "nested",
    true,
    [
        hvc_at_el2,
        illegal_returns,
        authenticated_returns,
        el2_registers,
        hidden_registers,
        own_registers,
        prediction_restrictions,
        guest_hvc,
        two_exits,
        own_tables,
        guest_el0,
        register_banks,
        guest_traps,
        untrapped,
        coarse_traps,
        fine_traps,
        fine_exceptions,
        enhanced_traps,
        extended_controls,
        virtual_timer_traps,
        garbage,
        hypervisor_timers,
        guest_timer,
        physical_offset,
        list_register,
        list_registers_with_holes,
        groups_of_own,
        virtual_irq_bit,
        virtual_fiq_and_serror,
        interrupt_ends_here,
        maintenance,
        maintenance_of_groups,
        guest_timer_wakes,
        guest_timer_moved,
        guest_timer_values,
        wfe_traps_last,
        stage2_accesses,
        stage2_faults,
        protected_walks,
        guest_tags,
        no_tag_access,
    ]
);

/// Exception classes that arrive at EL2.
pub(super) const EC_HVC: u64 = 0x16;

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

/// A guest's call and the return to it take one exit each, to whoever is below EL2.
fn two_exits(_: &Machine) -> Outcome {
    need_el2!();
    if !crate::rt::smccc::tagvisor() {
        skip!("nobody below counts");
    }
    const ROUNDS: u64 = 200;
    let exits = crate::rt::smccc::exits;
    let mut guest = Guest::new(counting());
    let (idle, busy) = at_el2(|| {
        with_guest(&guest_el1(), 0, 0, || {
            el2::enter(&mut guest);
            let begin = exits();
            let idle = exits() - begin;
            let begin = exits();
            for _ in 0..ROUNDS {
                el2::enter(&mut guest);
            }
            (idle, exits() - begin)
        })
    });
    check_eq!(guest.x[0], 1 + ROUNDS, "calls");
    check_eq!(
        (idle, busy),
        (1, 2 * ROUNDS + 1),
        "exits of one question, and of {ROUNDS} calls and one question"
    );
    Ok(())
}

global_asm!(".text", ".globl returns_at_once", "returns_at_once: ret");

/// Without VHE, EL2's own tables say XN by bit 54, and AP[1] gives nobody anything: EL2 runs on such.
fn own_tables(_: &Machine) -> Outcome {
    need_el2!();
    if el2::vhe() {
        skip!("EL2 has VHE");
    }
    unsafe extern "C" {
        static returns_at_once: u8;
    }
    let function = &raw const returns_at_once as u64;
    // SAFETY: the function returns, or the fetch faults and EL2's vectors return for it.
    let go = |at: u64| unsafe { asm!("blr {}", in(reg) at, out("x30") _, options(nostack)) };
    let (here, there, pan) = at_el2(|| {
        el2::forget();
        go(function);
        let here = el2::own();
        // This window is XN, and nothing else.
        go(crate::rt::mmu::tagged(function));
        let there = el2::own();
        el2::forget();
        // SAFETY: PAN does not count at such an EL2.
        unsafe { asm!(".arch_extension pan", "msr PAN, #1", options(nostack)) };
        crate::rt::mem::read64(function & !7);
        // SAFETY: as it was.
        unsafe { asm!(".arch_extension pan", "msr PAN, #0", options(nostack)) };
        (here, there, el2::own())
    });
    check_eq!((here.count, pan.count), (0, 0), "exceptions; under PAN");
    check_eq!((there.count, there.esr >> 26, there.esr & 0x3c), (1, 0x21, 0x0c), "ESR {:#x}", there.esr);
    check_eq!(there.far, crate::rt::mmu::tagged(function), "FAR_EL2");
    Ok(())
}
