//! Noise: random system registers, device accesses, hypercalls and instructions from a seeded
//! generator. What it never does is harm itself: no store to its own memory, no write to registers
//! that hold its own translation, stack or vectors, no call that ends it.

use crate::harness::{Outcome, check};
use crate::rt::exception::expect_fault;
use crate::rt::machine::Machine;
use crate::rt::{gic, mem, mmu, mte, smccc, timer, uart};
use core::arch::asm;

/// xorshift64*: small, and the same everywhere.
pub(super) struct Random(u64);

impl Random {
    /// From a seed, which is not 0.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A value of the kind that finds mistakes: small, large, one bit, anything.
    pub(super) fn value(&mut self) -> u64 {
        match self.below(5) {
            0 => self.below(16),
            1 => u64::MAX - self.below(16),
            2 => 1 << self.below(64),
            3 => u64::from(self.next() as u32),
            _ => self.next(),
        }
    }
}

/// Makes noise `count=` times from `seed=`.
pub(crate) fn run(machine: &Machine) -> Outcome {
    let count = machine.number("count").unwrap_or(100_000);
    let mut random = Random(machine.number("seed").unwrap_or(1).max(1));
    let absent = machine.absent();
    for _ in 0..count {
        match random.below(8) {
            0 | 1 => read_register(&mut random),
            2 => write_register(&mut random),
            3 => system_instruction(&mut random, machine),
            4 | 5 => device(&mut random),
            6 => call(&mut random, machine),
            _ => odd_access(&mut random, absent),
        }
    }
    repair();
    check!(mem::try_read64(mem::scratch(0)).is_ok(), "memory is gone");
    check!(smccc::call(abi::psci::VERSION, 0, 0, 0)[0] >= 0x1_0000, "PSCI is gone");
    println!("# {count} pieces of noise");
    Ok(())
}

/// Brings the devices and registers back that the noise may have changed.
pub(super) fn repair() {
    timer::off();
    msr!("cpacr_el1", 3 << 20);
    mem::write32(uart::BASE + 0x30, 0x301);
    mem::write32(uart::BASE + 0x38, 0);
    gic::init();
}

/// Runs one instruction word with x0 = `x0` from a scratch page. Only words whose effect is known:
/// system register accesses and system instructions.
fn execute(word: u32, x0: u64) {
    let code = mem::scratch(4);
    mem::write32(code, word);
    mem::write32(code + 4, 0xd65f_03c0);
    expect_fault(|| {
        // SAFETY: the page holds one system instruction and RET.
        unsafe {
            asm!(
                "dc cvau, {c}", "dsb ish", "ic ivau, {c}", "dsb ish", "isb", "blr {c}", "isb",
                c = in(reg) code, inout("x0") x0 => _, out("x30") _, options(nostack)
            )
        };
    });
}

/// MRS x0, S<op0>_<op1>_C<n>_C<m>_<op2> without the direction bit: bits 20:5.
pub(super) const fn encode(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    0xd500_0000 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

pub(super) const READ: u32 = 1 << 21;

fn read_register(random: &mut Random) {
    let any = random.next() as u32;
    let op0 = 2 + (any & 1);
    execute(encode(op0, any >> 1 & 7, any >> 4 & 15, any >> 8 & 15, any >> 12 & 7) | READ, 0);
}

fn write_register(random: &mut Random) {
    let any = random.next() as u32;
    let (crm, op2) = (any & 15, any >> 4 & 7);
    let (op0, op1, crn) = match any >> 8 & 7 {
        // ID registers, EL2's and EL3's, implementation defined, PMU, AMU, LOR, debug.
        0 => (3, 0, 0),
        1 => (3, 4, any >> 12 & 15),
        2 => (3, 6, any >> 12 & 15),
        3 => (3, any >> 12 & 7, if any & (1 << 20) != 0 { 11 } else { 15 }),
        4 => (3, 3, 9),
        5 => (3, 0, 9),
        6 => (2, 0, 1),
        _ => (3, 3, 14),
    };
    execute(encode(op0, op1, crn, crm, op2), random.value());
    timer::off();
}

fn system_instruction(random: &mut Random, machine: &Machine) {
    let any = random.next() as u32;
    // Cache, address translation and TLB operations with the address of a scratch page.
    let (op1, crn) = match any & 3 {
        0 => (0, 8),
        1 => (0, 7),
        2 => (3, 7),
        _ => (4, 7 + (any >> 2 & 1)),
    };
    let (crm, op2) = (any >> 4 & 15, any >> 8 & 7);
    // DC ISW and IVAC lose dirty lines on a machine without a hypervisor: C6 is left out, and so is
    // everything of EL2 that is not undefined at EL1 by level.
    if crn == 7 && op1 == 0 && crm == 6 && !smccc::tagvisor() {
        return;
    }
    // DC ZVA and its tag forms store; all others may be of anything.
    let stores = crn == 7 && op1 == 3 && crm == 4;
    let address = match random.below(4) {
        0 if !stores => random.value(),
        1 | 2 if !stores => somewhere(random, machine),
        _ => mmu::tagged(mem::scratch(5)),
    };
    execute(encode(1, op1, crn, crm, op2), address);
}

/// An address in the VM's memory, or a little behind it, in any window.
fn somewhere(random: &mut Random, machine: &Machine) -> u64 {
    let all = || machine.regions().map(|r| (r.start, r.size)).chain(machine.memory().iter().copied());
    let chosen = random.below(all().count() as u64) as usize;
    let (start, size) = all().nth(chosen).unwrap_or((0, 1));
    start + random.below(size + 4096) + random.below(8) * mmu::WINDOW
}

fn device(random: &mut Random) {
    let base = match random.below(4) {
        0 => gic::GICD,
        1 => gic::redistributor(),
        2 => gic::redistributor() + 0x1_0000,
        _ => uart::BASE,
    };
    let limit = if base == uart::BASE { 0x1000 } else { 0x1_0000 };
    let at = base + random.below(limit);
    let (write, value, size) = (random.below(2) == 1, random.value(), random.below(3));
    // The data register would print.
    if write && base == uart::BASE && at & !7 == uart::BASE {
        return;
    }
    expect_fault(|| match (write, size) {
        (false, 0) => {
            mem::read8(at);
        }
        (false, 1) => {
            mem::read32(at & !3);
        }
        (false, _) => {
            mem::read64(at & !7);
        }
        (true, 0) => mem::write8(at, value as u8),
        (true, 1) => mem::write32(at & !3, value as u32),
        (true, _) => mem::write64(at & !7, value),
    });
}

fn call(random: &mut Random, machine: &Machine) {
    let id = match random.below(5) {
        0 => 0x8400_0000 | random.below(0x100) as u32,
        1 => 0xc400_0000 | random.below(0x100) as u32,
        2 => 0xc600_0000 | random.below(0x20) as u32,
        3 => 0x8000_0000 | random.below(0x10000) as u32,
        _ => random.next() as u32,
    };
    // Calls that end or suspend this VM, start a CPU anywhere, or control other VMs.
    let service = id & 0xbfff_ffff;
    let dangerous = matches!(service, 0x8400_0001..=0x8400_0003 | 0x8400_0005..=0x8400_0009)
        || matches!(service, 0x8400_000c..=0x8400_0012)
        || (machine.control.is_some() && id >> 24 == 0xc6);
    if dangerous {
        return;
    }
    let (a, b, c) = (random.value(), random.value(), random.value());
    if random.below(4) == 0 && smccc::tagvisor() {
        // An SMC is undefined without a hypervisor: the handler skips it.
        let _ = smccc::try_smc(id, a, b, c);
    } else {
        smccc::call(id, a, b, c);
    }
}

/// Accesses without a valid syndrome, to devices and to nothing; tags; hints.
fn odd_access(random: &mut Random, absent: u64) {
    let at = match random.below(3) {
        0 => gic::GICD + (random.below(0x1_0000) & !15),
        1 => mmu::device(absent + (random.below(1 << 20) & !15)),
        _ => absent + (random.below(1 << 20) & !15),
    };
    macro_rules! access {
        ($($code:literal),*) => {
            // SAFETY: no Rust object lives at a device or at nothing.
            expect_fault(|| unsafe {
                asm!(".arch_extension memtag", $($code,)* inout("x0") at => _, out("x1") _, out("x2") _,
                     options(nostack))
            })
        };
    }
    match random.below(12) {
        0 => access!("ldp x1, x2, [x0]"),
        1 => access!("stp xzr, xzr, [x0]"),
        2 => access!("ldr x1, [x0], #8"),
        3 => access!("str xzr, [x0, #8]!"),
        4 => access!("ldxr x1, [x0]", "clrex"),
        5 => access!("dc zva, x0"),
        6 => access!("dc civac, x0"),
        7 => access!("ic ivau, x0"),
        8 if mte::level() >= 2 => access!("stg x0, [x0]"),
        9 if mte::level() >= 2 => access!("ldg x1, [x0]"),
        10 => access!("at s1e1r, x0", "isb", "mrs x1, par_el1"),
        _ => access!("sevl", "wfe", "yield"),
    };
}
