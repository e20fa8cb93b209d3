//! Two CPUs of the hypervisor: one stage 2 for the guests of both, tables that change under a guest that
//! runs, and tables that change without any invalidation.

use super::super::nested::{guest_code, need_el2};
use super::tables::{AREA, NESTED, READ, Stage2, WRITE, data};
use super::{EC_DABT, EC_HVC, TRANSLATION, VM, el1, load64, loads, run};
use crate::harness::{Outcome, Stop, check, check_eq, skip};
use crate::rt::cpu;
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mem::write64;
use crate::rt::timer::{self, PATIENCE};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU64, fence};

guest_code! {
    /// Loads from x1 as long as it finds x2 there, x3 times at most.
    keeps_loading "5: ldr x0, [x1]\n cmp x0, x2\n b.ne 6f\n subs x3, x3, #1\n b.ne 5b\n 6:";
}

/// Twice the number of the map that is there; odd while it changes.
static MAP: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

/// What the guest finds under map `n`.
const fn content(n: u64) -> u64 {
    100 + n % 3
}

fn second(machine: &Machine) -> Result<usize, Stop> {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU") };
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    STOP.store(false, SeqCst);
    FOUND.store(0, SeqCst);
    Ok(index)
}

/// How often the other CPU found what it should: in [`watch`] the number of maps under which it did.
static FOUND: AtomicU64 = AtomicU64::new(0);

/// Whether it has found that `n` times.
fn found(n: u64) -> bool {
    FOUND.load(Acquire) >= n
}

/// Loads until told to stop. Returns 0, or what was wrong, with bit 63 set.
fn watch(_: u64) -> u64 {
    const WRONG: u64 = 1 << 63;
    let stage2 = Stage2::again(0, 9);
    let mut last = None;
    while !STOP.load(Acquire) {
        let before = MAP.load(SeqCst);
        let (exit, guest) = run(&stage2, load64(), 0, NESTED);
        fence(SeqCst);
        let settled = before.is_multiple_of(2) && MAP.load(SeqCst) == before;
        match (exit, guest.ec()) {
            (Exit::Sync, EC_HVC) => {
                let right = if settled {
                    guest.x[0] == content(before / 2)
                } else {
                    (100..103).contains(&guest.x[0])
                };
                if !right {
                    return WRONG | before << 32 | guest.x[0] & 0xffff_ffff;
                }
                if settled && last.replace(before) != Some(before) {
                    FOUND.fetch_add(1, Release);
                }
            }
            (Exit::Sync, EC_DABT) if !settled && guest.esr & 0x3c == TRANSLATION => {}
            _ => return WRONG | guest.esr,
        }
    }
    0
}

/// Both CPUs have the same VTTBR_EL2; one of them changes the map, pages and a block, again and again, until
/// the other one's guest, which may get its turn late, has found several of them. Once an invalidation is
/// complete, neither guest finds the old map.
pub(super) fn shared_by_two(machine: &Machine) -> Outcome {
    need_el2!();
    let index = second(machine)?;
    let stage2 = Stage2::new(0, 9);
    for (n, at) in [data(0), data(1), AREA].into_iter().enumerate() {
        write64(at, content(n as u64));
    }
    stage2.page(NESTED, data(0), READ | WRITE);
    stage2.forget();
    MAP.store(0, SeqCst);
    cpu::submit(index, watch, 0);
    let mut outcome = Ok(());
    let mut n = 0;
    timer::wait(PATIENCE, || {
        n += 1;
        MAP.store(2 * n - 1, SeqCst);
        stage2.page(NESTED, 0, 0);
        stage2.forget_page(NESTED);
        match n % 3 {
            2 => stage2.block(NESTED, AREA, READ | WRITE),
            other => stage2.page(NESTED, data(other), READ | WRITE),
        }
        crate::rt::mem::barrier();
        MAP.store(2 * n, SeqCst);
        outcome = loads(&stage2, NESTED).and_then(|value| {
            check_eq!(value, content(n), "map {n}");
            Ok(())
        });
        outcome.is_err() || n >= 60 && found(4)
    });
    STOP.store(true, Release);
    let wrong = cpu::collect(index);
    outcome?;
    check_eq!(wrong, Some(0), "what the other CPU's guest found");
    check!(found(4), "of {n} maps the other CPU's guest found {}", FOUND.load(Relaxed));
    Ok(())
}

/// Keeps loading through a stage 2 of its own; returns 0, or 1 if it found anything but what is there.
fn keep_loading(_: u64) -> u64 {
    let stage2 = Stage2::again(7, 17);
    while !STOP.load(Acquire) {
        let mut guest = Guest::new(keeps_loading());
        (guest.x[1], guest.x[2], guest.x[3]) = (NESTED, 0x777, 5000);
        let exit = at_el2(|| {
            stage2.install();
            with_guest(&el1(), VM, 0, || el2::enter(&mut guest))
        });
        if exit != Exit::Sync || guest.ec() != EC_HVC || guest.x[3] != 0 {
            return 1;
        }
        FOUND.fetch_add(1, Release);
    }
    0
}

/// One CPU has more stage 2s than there is room for, while the other's guest runs: that one keeps its own.
pub(super) fn recycled_beside(machine: &Machine) -> Outcome {
    need_el2!();
    let index = second(machine)?;
    let other = Stage2::new(7, 17);
    other.page(NESTED, data(7), READ);
    write64(data(7), 0x777);
    other.forget();
    let all = [0, 1, 2, 3, 4, 5, 6].map(|n| Stage2::new(n, 10 + n));
    for (n, stage2) in (0..).zip(&all) {
        stage2.page(NESTED, data(n), READ | WRITE);
        stage2.forget();
        write64(data(n), 0xabc0 + n);
    }
    cpu::submit(index, keep_loading, 0);
    let mut outcome = Ok(());
    let mut round = 0;
    timer::wait(PATIENCE, || {
        round += 1;
        let n = round * 3 % all.len();
        outcome = loads(&all[n], NESTED).and_then(|value| {
            check_eq!(value, 0xabc0 + n as u64, "round {round}");
            Ok(())
        });
        outcome.is_err() || round >= 200 && found(4)
    });
    STOP.store(true, Release);
    let lost = cpu::collect(index);
    outcome?;
    check_eq!(lost, Some(0), "whether the other CPU's guest lost its own");
    check!(found(4), "the other CPU's guest ran {} times", FOUND.load(Relaxed));
    Ok(())
}

/// Maps change and nothing is invalidated: the guest finds what was mapped there at some time under the same
/// VTTBR_EL2, and never what is another's.
pub(super) fn never_invalidated(_: &Machine) -> Outcome {
    need_el2!();
    static MAPPED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
    let all = [0, 1, 2, 3].map(|n| Stage2::new(n, 20 + n / 2));
    for n in 0..8 {
        write64(data(n), 0x500 + n);
    }
    all.iter().for_each(Stage2::forget);
    for round in 0..120u64 {
        let n = round * 5 % 7 % 4;
        let page = 2 * n + round / 3 % 2;
        all[n as usize].page(NESTED, data(page), READ);
        let mapped = MAPPED[n as usize].fetch_or(1 << page, Relaxed) | 1 << page;
        let value = loads(&all[n as usize], NESTED)?;
        check!(
            (0x500..0x508).contains(&value) && mapped >> (value - 0x500) & 1 == 1,
            "round {round}: {value:#x} under stage 2 {n}, which has had {mapped:#x}"
        );
    }
    // Made good for all at once.
    for (n, stage2) in (0..).zip(&all) {
        stage2.page(NESTED, data(7 - n), READ);
    }
    all.iter().for_each(Stage2::forget);
    for (n, stage2) in (0..).zip(&all) {
        check_eq!(loads(stage2, NESTED)?, 0x507 - n, "stage 2 {n} after its invalidation");
    }
    Ok(())
}
