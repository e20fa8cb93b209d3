//! A hypervisor at virtual EL2 that makes shadow stage 2 as large as it can, and has it forgotten: all of
//! its CPUs fill two stage 2s each, by pages and blocks of many shapes; then one TLBI, or one page that the
//! machine takes away, or the next stage 2, ends them.

use super::hostile::Random;
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::{cpu, mmu, mte};
use crate::suites::nested::{guest_code, guest_el1};
use crate::suites::shadow::tables::{BLOCK_2M, NESTED, PAGE, Stage2, data};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

guest_code! {
    /// Loads from x1 on, x3 times, x2 apart.
    touch_all "5: ldr x0, [x1]\n add x1, x1, x2\n subs x3, x3, #1\n b.ne 5b";
}

const GIB: u64 = 1 << 30;
/// Stage 2s with one VMID, and each with its own.
const ONE_VMID: u64 = 1;

/// What the stage 2s of a round are filled with.
#[derive(Clone, Copy)]
enum Shape {
    /// Blocks of 1 GiB, as far as the hypervisor's memory has them.
    Gibs,
    /// One page in each GiB: two tables for each entry of the root.
    PageInEachGib,
    /// One page in each 2 MiB of a GiB: a table full of tables.
    PageInEach2M,
    /// Pages side by side, all of them one page of the machine's that has no tags yet.
    OnePage,
}

const SHAPES: [Shape; 4] = [Shape::Gibs, Shape::PageInEachGib, Shape::PageInEach2M, Shape::OnePage];

/// What ends a round.
#[derive(Clone, Copy)]
enum End {
    All,
    Vmid,
    /// Pages of 64 KiB, as many as a range can have.
    Range,
    /// A hint: a block of 512 MiB.
    Hint,
}

/// Shapes, by number, and what ends them.
const ROUNDS: [(u64, End); 8] = [
    (1, End::All),
    (3, End::Vmid),
    (2, End::Range),
    (0, End::All),
    (1, End::Range),
    (2, End::Hint),
    (3, End::Range),
    (1, End::Vmid),
];

/// A page that has no tags yet.
static LAZY: AtomicU64 = AtomicU64::new(0);

/// Fills two stage 2s of this CPU: the shape, the seed, and whether all have one VMID.
fn fill(arg: u64) -> u64 {
    let shape = SHAPES[(arg & 3) as usize];
    let mut random = Random::new(arg >> 8 | 1);
    for n in 0..2 {
        let n = 2 * cpu::index() as u64 + n;
        let vmid = if arg & 4 == 0 { ONE_VMID } else { 10 + n };
        let stage2 = Stage2::new(n, vmid);
        let (from, stride, count) = match shape {
            Shape::Gibs | Shape::PageInEachGib => (NESTED, GIB, 508),
            Shape::PageInEach2M => (NESTED, BLOCK_2M, 512),
            Shape::OnePage => (NESTED + PAGE * random.below(256), PAGE, 256),
        };
        let to = if matches!(shape, Shape::OnePage) { LAZY.load(Relaxed) } else { data(0) };
        stage2.fill(to, true);
        if !matches!(shape, Shape::PageInEach2M | Shape::OnePage) {
            stage2.spread(matches!(shape, Shape::PageInEachGib));
        }
        let mut guest = Guest::new(touch_all());
        guest.x[1..4].copy_from_slice(&[from, stride, count]);
        let exit = at_el2(|| {
            stage2.install();
            with_guest(&guest_el1(), 1, 0, || el2::enter(&mut guest))
        });
        if exit != Exit::Sync || guest.x[3] != 0 {
            return 1;
        }
    }
    0
}

/// Ends what is there; then the page that has no tags gets some, and leaves all shadows.
fn end(how: End) {
    let stage2 = Stage2::again(0, ONE_VMID);
    let range = NESTED >> 16 | 1 | 3 << 46 | 3 << 44 | 31 << 39;
    let hint = NESTED >> 12 | 0b1110 << 44;
    at_el2(|| {
        stage2.install();
        match how {
            // SAFETY: TLB maintenance of guests' translations.
            End::All => unsafe { asm!("dsb ishst", "tlbi alle1is", "dsb ish", "isb", options(nostack)) },
            // SAFETY: TLB maintenance of guests' translations.
            End::Vmid => unsafe {
                asm!("dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack))
            },
            // SAFETY: TLB maintenance of guests' translations.
            End::Range => unsafe {
                asm!(".arch_extension tlb-rmi", "dsb ishst", "tlbi ripas2e1is, {}", "dsb ish", "isb",
                    in(reg) range, options(nostack));
            },
            // SAFETY: TLB maintenance of guests' translations.
            End::Hint => unsafe {
                asm!("dsb ishst", "tlbi ipas2e1is, {}", "dsb ish", "isb", in(reg) hint, options(nostack));
            },
        }
    });
    let lazy = LAZY.load(Relaxed);
    if mte::level() >= 2 {
        mte::stg(mte::with_tag(lazy + 2 * mmu::WINDOW, 3));
    }
}

/// Fills and ends `count=` times from `seed=` on all CPUs.
pub(super) fn run(machine: &Machine) -> Outcome {
    check!(el2::present(), "the payload has no EL2");
    let count = machine.number("count").unwrap_or(64);
    let mut random = Random::new(machine.number("seed").unwrap_or(1).max(1));
    let Some(&(lazy, size)) = machine.memory().get(1) else {
        check!(false, "the payload has no second region");
        return Ok(());
    };
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    }
    for (round, (shape, how)) in (0..count).zip(ROUNDS.into_iter().cycle()) {
        LAZY.store(lazy + PAGE * round % size, Relaxed);
        let own_vmids = matches!(how, End::All) && round & 1 == 1;
        let arg = shape | u64::from(own_vmids) << 2 | random.below(1 << 16) << 8;
        for (index, _) in machine.secondaries() {
            cpu::submit(index, fill, arg + ((index as u64) << 8));
        }
        check_eq!(fill(arg), 0, "the first CPU's guests");
        for (index, _) in machine.secondaries() {
            check_eq!(cpu::collect(index), Some(0), "guests of CPU {index}");
        }
        end(how);
    }
    println!("# {count} times full");
    Ok(())
}
