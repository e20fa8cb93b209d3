//! Noise of a hypervisor at virtual EL2: registers of EL2, tables, TLB maintenance, translations, list
//! registers and guests without sense, from a seeded generator. As `hostile`, it does not harm itself: no
//! guest of it stores, no walk of its tables updates them, and what EL2 itself runs on stays.

use super::hostile::{READ, Random, encode};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mem::{self, write64};
use crate::rt::{cpu, gic, mmu, mte, smccc, timer};
use crate::suites::nested::{counting, guest_code, guest_el1};
use crate::suites::shadow::tables::{NESTED, PAGE, Stage2};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

guest_code! {
    /// Loads from x1 on, x3 times, x2 apart.
    stride "5: ldr x0, [x1]\n add x1, x1, x2\n subs x3, x3, #1\n b.ne 5b";
    /// Acknowledges and ends interrupts, x3 times, and asks for some.
    interrupts "mov x1, #0xff\n msr ICC_PMR_EL1, x1\n mov x1, #1\n msr ICC_IGRPEN1_EL1, x1\n msr DAIFClr, #7\n \
                5: mrs x0, ICC_IAR1_EL1\n msr ICC_EOIR1_EL1, x0\n msr ICC_DIR_EL1, x0\n msr ICC_SGI1R_EL1, x4\n subs x3, x3, #1\n b.ne 5b";
    /// Registers, maintenance and translations that a hypervisor may trap.
    trapped "mrs x0, ID_AA64PFR0_EL1\n mrs x0, CTR_EL0\n msr CONTEXTIDR_EL1, x0\n mrs x0, ACTLR_EL1\n tlbi vmalle1is\n \
             tlbi vae1is, x1\n dc civac, x1\n at s1e1r, x1\n wfe\n mrs x0, CNTPCT_EL0\n mov w0, #0x84000000\n smc #0\n .arch_extension fp\n fmov d0, x0";
}

const IMO: u64 = 1 << 4;
const HYP_PHYSICAL: u32 = 26;
/// Bits of HCR_EL2 that are random: all but E2H, TGE, RW, HCD, and WFI, which would wait for ever.
const HCR: u64 = !(1 << 34 | 1 << 27 | 1 << 31 | 1 << 29);

/// Noise on this CPU, `count` in the upper half of `arg`, the seed in the lower one.
fn noise(arg: u64) -> u64 {
    let (count, seed) = (arg >> 32, arg & 0xffff_ffff);
    let mut random = Random::new(seed);
    gic::enable(HYP_PHYSICAL);
    for _ in 0..count {
        match random.below(8) {
            0 => register(&mut random),
            1 | 2 => maintenance(&mut random),
            3 => translation(&mut random),
            4 => lists(&mut random),
            5 => many_pages(&mut random),
            6 => wild_tables(&mut random),
            _ => traps(&mut random),
        }
    }
    count
}

/// At EL2: a guest with random controls, which EL2's timer ends if nothing else does.
fn guest(random: &mut Random, code: u64, set: u64, x: [u64; 4]) -> Exit {
    let mut guest = Guest::new(code);
    guest.x[1..5].copy_from_slice(&x);
    let fine = random.below(4) == 0;
    let values = [random.value(), random.value(), random.value(), random.value()];
    at_el2(|| {
        msr!("cnthp_cval_el2", mrs!("cntpct_el0") + timer::ticks(timer::SECOND / 5000));
        msr!("cnthp_ctl_el2", 1);
        let [a, b, c, d] = values;
        let (vmpidr, offset) = (mrs!("vmpidr_el2"), mrs!("cntvoff_el2"));
        if fine {
            msr!("vmpidr_el2", a);
            msr!("cntvoff_el2", b);
            msr!("S3_4_C1_C2_2", c);
            msr!("S3_4_C5_C2_3", d);
        }
        let exit = with_guest(&guest_el1(), set & HCR | IMO, 0, || el2::enter(&mut guest));
        msr!("cnthp_ctl_el2", 0);
        msr!("vmpidr_el2", vmpidr);
        msr!("cntvoff_el2", offset);
        exit
    })
}

/// Runs a word with x0 at EL2; it may fault.
fn execute(word: u32, x0: u64) {
    let code = mem::scratch(8 + cpu::index());
    mem::write32(code, word);
    mem::write32(code + 4, 0xd65f_03c0);
    at_el2(|| {
        // SAFETY: one system instruction and RET; EL2's vectors skip what faults.
        unsafe {
            asm!("dc cvau, {c}", "dsb ish", "ic ivau, {c}", "dsb ish", "isb", "blr {c}", "isb",
                 c = in(reg) code, inout("x0") x0 => _, out("x30") _, options(nostack))
        };
    });
}

/// A register of EL2, or of EL1 by EL2's name for it: read, or written if EL2 does not need it.
fn register(random: &mut Random) {
    let any = random.next() as u32;
    let (crn, crm, op2) = (any & 15, any >> 4 & 15, any >> 8 & 7);
    let op1 = 4 + (any >> 12 & 1);
    // Of EL2's: faults, the virtual interface, timers. Of EL1's: what a guest gets anew each time.
    let writes = if op1 == 4 {
        crn == 5 || crn == 6 || crn == 12 && crm >= 8 && crm != 9 || crn == 14
    } else {
        crn == 5
    };
    if writes && any >> 13 & 1 == 1 {
        execute(encode(3, op1, crn, crm, op2), random.value());
        at_el2(|| {
            msr!("cnthp_ctl_el2", 0);
            msr!("S3_4_C12_C11_0", 0);
        });
        timer::off();
    } else {
        execute(encode(3, op1, crn, crm, op2) | READ, 0);
    }
}

/// Any TLBI, of everything more often than not.
fn maintenance(random: &mut Random) {
    let any = random.next() as u32;
    let (op1, crn, crm, op2) = (4 * (any & 1), 8 + (any >> 1 & 1), any >> 4 & 15, any >> 8 & 7);
    let all = 3 << 46 | 3 << 44 | 31 << 39;
    let operand = match random.below(4) {
        0 => random.next(),
        1 => NESTED >> 12 | all,
        2 => random.next() & !(3 << 44) | all,
        _ => NESTED >> 12 | random.below(16) << 44,
    };
    execute(encode(1, op1, crn, crm, op2), operand);
}

/// Any AT.
fn translation(random: &mut Random) {
    let any = random.next() as u32;
    let va = if any >> 8 & 1 == 0 { NESTED + random.below(1 << 31) } else { random.value() };
    execute(encode(1, 4 * (any & 1), 7, 8 + (any >> 1 & 1), any >> 4 & 7), va);
}

fn lists(random: &mut Random) {
    let values = [random.next(), random.next(), random.next(), random.next(), random.next()];
    let pending = |v: u64| v & !(0xffff_ffff) | 1 << 62 | 1 << 60 | v & 0x3ff;
    at_el2(|| {
        let [a, b, c, d, e] = values;
        msr!("S3_4_C12_C12_0", pending(a));
        msr!("S3_4_C12_C12_1", pending(b));
        msr!("S3_4_C12_C12_2", c);
        msr!("S3_4_C12_C12_3", d);
        msr!("S3_4_C12_C11_7", if e & 1 == 0 { e } else { 0xff << 24 | 3 });
        msr!("S3_4_C12_C11_0", e >> 32 | 1);
    });
    guest(random, interrupts(), random_bits(values[4]), [0, 0, 50, values[3]]);
    at_el2(|| {
        msr!("S3_4_C12_C11_0", 0);
        msr!("S3_4_C12_C12_0", 0);
        msr!("S3_4_C12_C12_1", 0);
        msr!("S3_4_C12_C12_2", 0);
        msr!("S3_4_C12_C12_3", 0);
    });
}

/// Some bits of HCR_EL2, or none.
const fn random_bits(seed: u64) -> u64 {
    if seed >> 60 < 8 { 0 } else { seed & seed.rotate_left(17) & !1 }
}

static POOL: AtomicU64 = AtomicU64::new(0);

/// One page of the machine at many addresses of the guest, all touched, until the shadows are full; then the
/// page gets tags, if it is lazy, or all is forgotten.
fn many_pages(random: &mut Random) {
    let lazy = POOL.load(Relaxed);
    let index = cpu::index() as u64;
    let stage2 = Stage2::new(index, 1 + random.below(3));
    let to = if lazy == 0 { crate::suites::shadow::tables::data(0) } else { lazy + PAGE * random.below(512) };
    stage2.fill(to, random.below(2) == 0);
    at_el2(|| stage2.install());
    let stride_of = if random.below(2) == 0 { PAGE } else { 2 << 20 };
    let from = NESTED + PAGE * random.below(1 << 18);
    guest(random, stride(), 1, [from, stride_of, 400, 0]);
    if lazy != 0 && mte::level() >= 2 {
        mte::stg(mte::with_tag(to + 2 * mmu::WINDOW, 3));
    }
}

/// Tables whose entries are anything: of random levels, leading back to themselves or out of memory.
fn wild_tables(random: &mut Random) {
    let room = Stage2::room();
    for _ in 0..64 {
        let entry = match random.below(5) {
            0 => random.next(),
            1 | 2 => (room + PAGE * random.below(8)) | 0b11,
            3 => random.next() & 0xffff_ffff_f000 | 0x7fd,
            _ => random.next() & 0x3fff_f000 | 0x4000_0000 | 0x7ff,
        };
        write64(room + 8 * random.below(4096), entry);
    }
    let vtcr = random.next() & !(3 << 21) & 0xffff_ffff;
    at_el2(|| {
        msr!("vttbr_el2", room | random.below(4) << 48);
        msr!("vtcr_el2", vtcr);
    });
    let dc = random.below(2) << 12;
    let from = random.next() & 0xffff_ffff_fff8;
    guest(random, stride(), 1 | dc, [from, PAGE, 3, 0]);
    translation(random);
}

fn traps(random: &mut Random) {
    let bits = random.next() & random.next() & !1;
    let code = if random.below(4) == 0 { counting() } else { trapped() };
    guest(random, code, bits, [mem::scratch(0), 0, 0, 0]);
}

/// Makes noise `count=` times from `seed=` on all CPUs, lets a guest run once more in peace.
pub(super) fn run(machine: &Machine) -> Outcome {
    check!(el2::present(), "the payload has no EL2");
    let count = machine.number("count").unwrap_or(1000);
    let seed = machine.number("seed").unwrap_or(1).max(1);
    if let Some(&(lazy, _)) = machine.memory().get(1) {
        POOL.store(lazy, Relaxed);
    }
    for (index, mpidr) in machine.secondaries() {
        check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
        cpu::submit(index, noise, count << 32 | (seed + index as u64));
    }
    noise(count << 32 | seed);
    for (index, _) in machine.secondaries() {
        let done = (0..5).find_map(|_| cpu::collect(index));
        check_eq!(done, Some(count), "CPU {index}");
    }
    super::hostile::repair();
    let mut guest = Guest::new(counting());
    let exit = at_el2(|| with_guest(&guest_el1(), 0, 0, || el2::enter(&mut guest)));
    check_eq!((exit, guest.x[0]), (Exit::Sync, 1), "a guest afterwards: ESR {:#x}", guest.esr);
    check!(smccc::call(abi::psci::VERSION, 0, 0, 0)[0] >= 0x1_0000, "PSCI is gone");
    println!("# {count} pieces of noise");
    Ok(())
}
