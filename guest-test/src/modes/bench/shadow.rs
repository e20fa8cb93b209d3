//! Stage 2 of a guest under the payload's EL2: first touches, and TLB maintenance by EL2.

use super::{ROUNDS, print};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::smccc::exits;
use crate::suites::nested::guest_el1;
use crate::suites::shadow::tables::{BLOCK_2M, NESTED, PAGE, READ, Stage2, data};
use crate::suites::shadow::touch;
use core::arch::asm;

/// Places that are touched.
const N: u64 = 250;

/// Runs the measurements.
pub(super) fn run() -> Outcome {
    let stage2 = Stage2::new(0, 1);
    for n in 0..N {
        stage2.page(NESTED + n * PAGE, data(n), READ);
    }
    stage2.forget();
    print("nested_shadow_fault", first_touches(&stage2, PAGE)?);
    let ticks = at_el2(|| {
        stage2.install();
        let start = mrs!("cntpct_el0");
        for n in 0..N {
            // SAFETY: TLB maintenance of the guest's translations.
            unsafe { asm!("tlbi ipas2e1is, {}", in(reg) (NESTED >> 12) + n, options(nostack)) };
        }
        mrs!("cntpct_el0") - start
    });
    print("nested_tlbi_page", ticks * ROUNDS / N);
    stage2.blocks(N);
    stage2.forget();
    print("nested_shadow_2m", first_touches(&stage2, BLOCK_2M)?);
    Ok(())
}

/// The guest touches [`N`] places for the first time, and then others beside them, which takes no more exits:
/// ticks of the first time without those of the second, for [`ROUNDS`] places.
fn first_touches(stage2: &Stage2, step: u64) -> Result<u64, crate::harness::Stop> {
    let mut guest = Guest::new(touch());
    let mut round = |from: u64| {
        (guest.pc, guest.x[1], guest.x[2], guest.x[3]) = (touch(), from, step, N);
        let before = exits();
        let start = mrs!("cntpct_el0");
        let exit = el2::enter(&mut guest);
        let ticks = mrs!("cntpct_el0") - start;
        (ticks, (exit, guest.ec()), exits() - before)
    };
    let (first, second) = at_el2(|| {
        stage2.install();
        with_guest(&guest_el1(), 1, 0, || (round(NESTED), round(NESTED + step / 2)))
    });
    check_eq!((first.1, second.1), ((Exit::Sync, 0x16), (Exit::Sync, 0x16)), "how the guest ends");
    // The guest's code is one place more; its call, the return to it, and the question are always there.
    check_eq!((first.2, second.2), (N + 1 + 3, 3), "exits of {N} places, and of others beside them");
    check!(first.0 > second.0, "the first time takes {}, the second {}", first.0, second.0);
    Ok((first.0 - second.0) * ROUNDS / N)
}
