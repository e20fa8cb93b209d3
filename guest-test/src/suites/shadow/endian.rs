//! Big-endian stage-2 tables (SCTLR_EL2.EE). EL2 itself is big-endian then, too, so it turns that on with its
//! MMU off as the last thing before its guest, and off as the first thing after.

use super::super::nested::need_el2;
use super::tables::{NESTED, PAGE, READ, Stage2, WRITE, data};
use super::{EC_DABT, EC_HVC, FWB, PERMISSION, TRANSLATION, VM, el1, load64, store64};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write64};
use core::arch::global_asm;

global_asm!(
    r#"
    .text
    // At EL2: on to the guest at x30, EL1h, big-endian.
    .globl  to_big_endian_guest
to_big_endian_guest:
    msr     ELR_EL2, x30
    mov     x30, #0x3c5
    msr     SPSR_EL2, x30
    mrs     x30, SCTLR_EL2
    bic     x30, x30, #1
    orr     x30, x30, #0x2000000
    msr     SCTLR_EL2, x30
    isb
    eret

    .section .text.vectors, "ax"
    .balign 2048
    .globl  big_endian_vectors
big_endian_vectors:
    .set    slot, 0
    .rept   16
    .balign 128
    mrs     x30, SCTLR_EL2
    bic     x30, x30, #0x2000000
    orr     x30, x30, #1
    msr     SCTLR_EL2, x30
    isb
    b       el2_vectors + slot * 128
    .set    slot, slot + 1
    .endr
    .text
"#
);

/// Runs `code`, which does not use x30, under the stage 2 as big-endian tables.
fn run(stage2: &Stage2, code: u64, x0: u64, x1: u64) -> (Exit, Guest) {
    unsafe extern "C" {
        static to_big_endian_guest: u8;
        static big_endian_vectors: u8;
    }
    let mut guest = Guest::new(&raw const to_big_endian_guest as u64);
    // EL2h: the trampoline is EL2's.
    guest.pstate = 0x3c9;
    (guest.x[0], guest.x[1], guest.x[30]) = (x0, x1, code);
    let exit = at_el2(|| {
        stage2.install();
        let vectors = mrs!("vbar_el2");
        msr!("vbar_el2", &raw const big_endian_vectors as u64);
        let exit = with_guest(&el1(), VM, FWB, || el2::enter(&mut guest));
        msr!("vbar_el2", vectors);
        exit
    });
    (exit, guest)
}

pub(super) fn big_endian_tables(_: &Machine) -> Outcome {
    need_el2!();
    if mrs!("id_aa64mmfr0_el1") >> 8 & 0xf == 0 {
        crate::harness::skip!("no big-endian data");
    }
    let stage2 = Stage2::new(0, 1);
    stage2.page(NESTED, data(0), READ | WRITE);
    stage2.page(NESTED + PAGE, data(1), READ);
    for at in (stage2.root()..stage2.root() + 4 * PAGE).step_by(8) {
        write64(at, read64(at).swap_bytes());
    }
    stage2.forget();
    write64(data(0), 0x1234);
    let (exit, guest) = run(&stage2, load64(), 0, NESTED);
    check_eq!((exit, guest.ec(), guest.x[0]), (Exit::Sync, EC_HVC, 0x1234), "load: ESR {:#x}", guest.esr);
    let (exit, guest) = run(&stage2, store64(), 0x77, NESTED + 8);
    check_eq!(
        (exit, guest.ec(), read64(data(0) + 8)),
        (Exit::Sync, EC_HVC, 0x77),
        "store: ESR {:#x}",
        guest.esr
    );
    for (code, ipa, status) in
        [(store64(), NESTED + PAGE, PERMISSION | 3), (load64(), NESTED + 2 * PAGE, TRANSLATION | 3)]
    {
        let (exit, guest) = run(&stage2, code, 7, ipa);
        check_eq!((exit, guest.ec()), (Exit::Sync, EC_DABT), "{ipa:#x}: ESR {:#x}", guest.esr);
        check_eq!(guest.esr & 0x3f, status, "{ipa:#x}: status");
    }
    Ok(())
}
