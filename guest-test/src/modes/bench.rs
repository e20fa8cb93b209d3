//! Measurements in instructions, as the guest sees them: its own loops included.
//!
//! Meant for `-icount shift=0,sleep=off` and a 1 GHz counter (`-cpu max`), where CNTVCT counts the
//! instructions of all CPUs together, because QEMU runs them in turns on one clock. That is what
//! makes `sgi_ipi` the sum over both vCPUs: the sender polls with YIELD and so does the receiver,
//! which ends their turns; nobody else runs in between, so the difference of CNTVCT is what both of
//! them and the hypervisor under both executed. On a machine in real time the values are nanoseconds.

use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::el2::{self, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::mem::{self, write64};
use crate::rt::smccc::call_with;
use crate::rt::timer::{ENABLE, MASK, SECOND, virtual_intid};
use crate::rt::{cpu, gic, irq, mmu, mte, timer};
use crate::suites::control::find;
use crate::suites::nested::{counting, guest_el1};
use abi::hypercall::{
    COPY_FROM_GUEST, COPY_PACKED, DEVICE_COPY, DIRTY_LOG, DirtyOp, MEMORY_COPY, MIGRATE_COPY, TAGS_COPY,
    TAGS_MAP,
};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

mod shadow;
mod tags;

const ROUNDS: u64 = 1000;
const WARM_UP: u64 = 100;

/// Runs all measurements.
pub(crate) fn run(machine: &Machine) -> Outcome {
    msr!("cntkctl_el1", 3);
    use_fp();
    if mte::level() >= 2 {
        mte::stg(mte::with_tag(mmu::tagged(crate::rt::mem::scratch(0)), 3));
        mte::set_checks(1, 1);
    } else {
        println!("# no MTE");
    }
    gic::enable(virtual_intid());
    msr!("cntv_cval_el0", timer::now() + timer::ticks(3600 * SECOND));
    msr!("cntv_ctl_el0", ENABLE);
    if el2::present() {
        nested_hypercall()?;
        return if el2::vhe() { shadow::run() } else { Ok(()) };
    }
    if machine.option("self").is_some() {
        // Its hypervisor is itself at virtual EL2.
        measure("nested_hypercall_self", hypercall_null);
        return Ok(());
    }
    if machine.option("switch").is_some() {
        // Both vCPUs are on one CPU: they take turns, and nothing else can be measured.
        // Its VM has no read-only region, so its maintenance does not trap.
        measure("cmo_untrapped", |rounds| invalidate(crate::rt::mem::scratch(1), rounds));
        return vcpu_switch(machine);
    }
    if machine.option("copy").is_some() {
        return copies(machine);
    }
    measure("hypercall_null", hypercall_null);
    measure("mmio_vgic_read", mmio_vgic_read);
    measure("idreg_read", idreg_read);
    maintenance(machine);
    tags::run(machine);
    let sgi = sgi_ipi(machine);
    let timer = vtimer_irq();
    timer.and(sgi)
}

/// Runs `f` to warm up, then measures its rounds and prints the mean.
fn measure(name: &str, f: impl Fn(u64)) {
    f(WARM_UP);
    let start = timer::now();
    f(ROUNDS);
    print(name, timer::now() - start);
}

fn print(name: &str, ticks: u64) {
    let ns = u128::from(ticks) * 1_000_000_000 / u128::from(mrs!("cntfrq_el0"));
    println!("# bench {name} {}", (ns as u64 + ROUNDS / 2) / ROUNDS);
}

/// Gives the FP registers a value: from here on the vCPU has FP state.
fn use_fp() {
    // SAFETY: no compiled code uses the register.
    unsafe { asm!(".arch_extension fp", "fmov d0, #1.0", "fadd d0, d0, d0", options(nostack)) };
}

fn hypercall_null(rounds: u64) {
    // SAFETY: PSCI_VERSION; SMCCC 1.1 preserves x4 to x17.
    unsafe {
        asm!(
            "2: mov w0, #0x84000000", "hvc #0", "subs {n}, {n}, #1", "b.ne 2b",
            n = inout(reg) rounds => _,
            out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
            out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _,
            out("x15") _, out("x16") _, out("x17") _, options(nostack)
        )
    };
}

fn mmio_vgic_read(rounds: u64) {
    // SAFETY: GICD_TYPER is read-only.
    unsafe {
        asm!(
            "2: ldr {v:w}, [{a}]", "subs {n}, {n}, #1", "b.ne 2b",
            n = inout(reg) rounds => _, v = out(reg) _, a = in(reg) gic::GICD + gic::TYPER, options(nostack)
        )
    };
}

fn idreg_read(rounds: u64) {
    // SAFETY: reads a register.
    unsafe {
        asm!(
            "2: mrs {v}, ID_AA64PFR0_EL1", "subs {n}, {n}, #1", "b.ne 2b",
            n = inout(reg) rounds => _, v = out(reg) _, options(nostack)
        )
    };
}

fn invalidate(va: u64, rounds: u64) {
    // SAFETY: maintenance; stage 2 makes it clean, too.
    unsafe {
        asm!("2: dc ivac, {a}", "subs {n}, {n}, #1", "b.ne 2b", n = inout(reg) rounds => _, a = in(reg) va,
             options(nostack))
    };
}

/// DC IVAC of read-only memory, which the hypervisor carries out and steps over.
fn maintenance(machine: &Machine) {
    if let Some(rom) = machine.region_called("rom") {
        measure("cmo_ro_skip", |rounds| invalidate(rom.start + 4096, rounds));
    }
}

/// Copies of the tags of a VM that is stopped, and of its data so that the longest stay is seen.
fn copies(machine: &Machine) -> Outcome {
    const AREA: u64 = 0x4080_0000;
    const BLOCK: u64 = 2 << 20;
    const PAGES: u64 = 64;
    let Some(vm) = find("target") else { skip!("no VM is called target") };
    let (start, size) = machine.memory()[0];
    let at = start + size - BLOCK;
    let must = |name: &str, id: u32, x: [u64; 7]| {
        let x = call_with(id, x);
        check!(x[0] == 0 && x[1] > 0, "{name}: {:x?}", &x[..4]);
        Ok(x[1])
    };
    for (name, flags) in [("tag_copy_4k_from", COPY_FROM_GUEST), ("tag_copy_4k_to", 0)] {
        let x = [vm, AREA, PAGES << 12, at, flags, 0, 0];
        must(name, TAGS_COPY, x)?;
        let start = timer::now();
        must(name, TAGS_COPY, x)?;
        print(name, (timer::now() - start) * ROUNDS / PAGES);
    }
    // Packed groups without a tag: 64 pages each.
    (0..8).for_each(|word| write64(at + 8 * word, 0));
    let begin = timer::now();
    let mut done = 0;
    while done < BLOCK {
        done += must("tags_zero_2m", TAGS_COPY, [vm, AREA + done, BLOCK - done, at, COPY_PACKED, 0, 0])?;
    }
    print("tags_zero_2m", (timer::now() - begin) * ROUNDS);
    // The longest calls, each twice: for the log's line about the longest stay.
    for tags in [0x11, 0] {
        (at..at + (PAGES << 8)).for_each(|byte| mem::write8(byte, tags));
        must("to", TAGS_COPY, [vm, AREA, PAGES << 12, at, 0, 0, 0])?;
        for flags in [COPY_FROM_GUEST, COPY_FROM_GUEST | COPY_PACKED] {
            must("from", TAGS_COPY, [vm, AREA, PAGES << 12, at, flags, 0, 0])?;
        }
        must("packed", TAGS_COPY, [vm, AREA, PAGES << 12, at, COPY_PACKED, 0, 0])?;
        must("map", TAGS_MAP, [vm, AREA, BLOCK, at, 0, 0, 0])?;
        must("memory", MEMORY_COPY, [vm, AREA + 8, BLOCK - 16, at + 8, COPY_FROM_GUEST, 0, 0])?;
        must("memory", MEMORY_COPY, [vm, AREA + 8, BLOCK - 16, at + 8, 0, 0, 0])?;
        must("device", DEVICE_COPY, [vm, AREA + 1, BLOCK - 16, at + 8, 0, 0, 0])?;
        let from = [vm, AREA, BLOCK, at, BLOCK, COPY_FROM_GUEST, 0];
        let used = call_with(MIGRATE_COPY, from)[3];
        must("migrate", MIGRATE_COPY, [vm, AREA, BLOCK, at, used, 0, 0])?;
        must("dirty", DIRTY_LOG, [vm, DirtyOp::Start as u64, AREA, 4 << 20, 0, 0, 0])?;
        must("device", DEVICE_COPY, [vm, AREA, BLOCK, at, 0, 0, 0])?;
        must("dirty", DIRTY_LOG, [vm, DirtyOp::GetAndClear as u64, AREA, 8 << 20, at, 0, 0])?;
        must("migrate", MIGRATE_COPY, from)?;
    }
    Ok(())
}

/// HVC of a guest of the payload's own, to the payload's EL2 and back.
fn nested_hypercall() -> Outcome {
    let mut guest = Guest::new(counting());
    let (ticks, count) = at_el2(|| {
        with_guest(&guest_el1(), 0, 0, || {
            (0..WARM_UP).for_each(|_| {
                el2::enter(&mut guest);
            });
            let start = mrs!("cntpct_el0");
            (0..ROUNDS).for_each(|_| {
                el2::enter(&mut guest);
            });
            (mrs!("cntpct_el0") - start, guest.x[0])
        })
    });
    check_eq!(count, WARM_UP + ROUNDS, "calls");
    print(if el2::vhe() { "nested_hypercall" } else { "nested_hypercall_nvhe" }, ticks);
    Ok(())
}

static LEAVE: AtomicBool = AtomicBool::new(false);

/// Takes interrupts until told to leave.
fn receive(_: u64) -> u64 {
    msr!("cntkctl_el1", 3);
    use_fp();
    irq::reset();
    cpu::irq_on();
    while !LEAVE.load(Relaxed) {
        cpu::relax();
    }
    cpu::irq_off();
    u64::from(irq::count(cpu::index()))
}

fn sgi_ipi(machine: &Machine) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU: no sgi_ipi") };
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    LEAVE.store(false, Relaxed);
    cpu::submit(index, receive, 0);
    gic::send(1, mpidr);
    check!(irq::wait(index, 1), "the receiver does not answer");
    measure("sgi_ipi", |rounds| {
        for _ in 0..rounds {
            let before = irq::count(index);
            gic::send(1, mpidr);
            while irq::count(index) == before {
                cpu::relax();
            }
        }
    });
    LEAVE.store(true, Relaxed);
    let taken = cpu::collect(index);
    check_eq!(taken, Some(1 + WARM_UP + ROUNDS), "SGIs that the receiver took");
    check!(cpu::stop(index, mpidr), "CPU_OFF");
    Ok(())
}

fn vtimer_irq() -> Outcome {
    irq::reset();
    // As the handler leaves it.
    msr!("cntv_ctl_el0", ENABLE | MASK);
    cpu::irq_on();
    let this = cpu::index();
    measure("vtimer_irq", |rounds| {
        for _ in 0..rounds {
            let before = irq::count(this);
            msr!("cntv_cval_el0", 0);
            msr!("cntv_ctl_el0", ENABLE);
            while irq::count(this) == before {
                cpu::relax();
            }
        }
    });
    cpu::irq_off();
    check_eq!(irq::count(this), (WARM_UP + ROUNDS) as u32, "timer interrupts");
    Ok(())
}

/// Sleeps between interrupts and answers each, until told to leave.
fn answer(back_to: u64) -> u64 {
    msr!("cntkctl_el1", 3);
    use_fp();
    irq::reset();
    let mut taken = 0;
    while !LEAVE.load(Relaxed) {
        cpu::wait_interrupt();
        let intid = gic::acknowledge();
        if intid < gic::SPECIAL {
            gic::end(intid);
            taken += 1;
            gic::send(2, back_to);
        }
    }
    taken
}

/// Half a round of SGI and WFI between two vCPUs that share a CPU: one hand-over.
fn vcpu_switch(machine: &Machine) -> Outcome {
    let Some((index, mpidr)) = machine.secondaries().next() else { skip!("one CPU: no vcpu_switch") };
    check_eq!(cpu::start(index, mpidr), Ok(()), "CPU_ON");
    irq::reset();
    LEAVE.store(false, Relaxed);
    cpu::submit(index, answer, cpu::affinity());
    let rounds = |rounds: u64| {
        for _ in 0..rounds {
            gic::send(1, mpidr);
            loop {
                cpu::wait_interrupt();
                let intid = gic::acknowledge();
                if intid < gic::SPECIAL {
                    gic::end(intid);
                    break;
                }
            }
        }
    };
    rounds(WARM_UP);
    let start = timer::now();
    rounds(ROUNDS / 2);
    print("vcpu_switch", timer::now() - start);
    LEAVE.store(true, Relaxed);
    gic::send(1, mpidr);
    check!(cpu::collect(index).is_some(), "the other vCPU does not leave");
    Ok(())
}
