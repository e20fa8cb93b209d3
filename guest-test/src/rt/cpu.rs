//! The CPUs: what each keeps for itself, and work given to secondary CPUs.

use super::{entry, gic, mem, smccc, timer};
use core::arch::asm;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use spin::Mutex;

/// Most CPUs.
pub(crate) const MAX: usize = 16;
/// In the context of CPU_ON, above the CPU's index.
pub(crate) const CONTEXT: u64 = 0x7a67_0000_0000_0000;
/// Interrupts that the log of a CPU keeps.
pub(crate) const LOG: usize = 64;

/// A job for another CPU.
type Job = (fn(u64) -> u64, u64);

/// What a CPU keeps for itself.
pub(crate) struct Cpu {
    /// Synchronous exceptions are expected.
    pub(crate) expecting: AtomicBool,
    /// A fatal exception is being reported.
    pub(crate) dying: AtomicBool,
    /// Expected exceptions so far, and the first of them.
    pub(crate) faults: AtomicU32,
    /// ESR_EL1 of the first.
    pub(crate) fault_esr: AtomicU64,
    /// FAR_EL1 of the first.
    pub(crate) fault_far: AtomicU64,
    /// ELR_EL1 of the first.
    pub(crate) fault_elr: AtomicU64,
    /// SPSR_EL1 of the first.
    pub(crate) fault_spsr: AtomicU64,
    /// PSTATE.TCO in the handler of the first, with MTE.
    pub(crate) handler_tco: AtomicBool,
    /// Interrupts taken since the log was cleared.
    pub(crate) irqs: AtomicU32,
    /// Their INTIDs.
    pub(crate) irq_log: [AtomicU32; LOG],
    /// Whether it runs `serve`.
    pub(crate) online: AtomicBool,
    job: Mutex<Option<Job>>,
    result: AtomicU64,
    done: AtomicBool,
    leave: AtomicBool,
}

static CPUS: [Cpu; MAX] = [const {
    Cpu {
        expecting: AtomicBool::new(false),
        dying: AtomicBool::new(false),
        faults: AtomicU32::new(0),
        fault_esr: AtomicU64::new(0),
        fault_far: AtomicU64::new(0),
        fault_elr: AtomicU64::new(0),
        fault_spsr: AtomicU64::new(0),
        handler_tco: AtomicBool::new(false),
        irqs: AtomicU32::new(0),
        irq_log: [const { AtomicU32::new(0) }; LOG],
        online: AtomicBool::new(false),
        job: Mutex::new(None),
        result: AtomicU64::new(0),
        done: AtomicBool::new(false),
        leave: AtomicBool::new(false),
    }
}; MAX];

/// Number of the running CPU.
pub(crate) fn index() -> usize {
    mrs!("tpidr_el1") as usize
}

/// The running CPU.
pub(crate) fn this() -> &'static Cpu {
    &CPUS[index()]
}

/// CPU `index`.
pub(crate) fn get(index: usize) -> &'static Cpu {
    &CPUS[index]
}

/// MPIDR_EL1's affinity fields.
pub(crate) fn affinity() -> u64 {
    mrs!("mpidr_el1") & 0xff_00ff_ffff
}

/// First thing on each CPU.
pub(crate) fn init(index: usize) {
    msr!("tpidr_el1", index as u64);
    // Events at least every 2^16 ticks: no wait for an event lasts for ever.
    msr!("cntkctl_el1", (15 << 4) | (1 << 2) | 3);
}

/// Lets others run in a spin loop: also ends the turn of a CPU that QEMU emulates in turns.
pub(crate) fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nostack)) };
}

/// Sends an event to all CPUs.
pub(crate) fn send_event() {
    // SAFETY: a barrier and a hint.
    unsafe { asm!("dsb ish", "sev", options(nostack)) };
}

/// Waits for an event.
pub(crate) fn wait_event() {
    // SAFETY: a hint.
    unsafe { asm!("wfe", options(nostack)) };
}

/// Waits for an interrupt, masked ones too.
pub(crate) fn wait_interrupt() {
    // SAFETY: a hint.
    unsafe { asm!("dsb sy", "wfi", options(nostack)) };
}

/// Unmasks IRQs.
pub(crate) fn irq_on() {
    // SAFETY: the handler is in place.
    unsafe { asm!("msr DAIFClr, #2", "isb", options(nostack)) };
}

/// Masks IRQs.
pub(crate) fn irq_off() {
    // SAFETY: masking is always allowed.
    unsafe { asm!("msr DAIFSet, #2", "isb", options(nostack)) };
}

/// A secondary CPU's life: jobs until it is told to leave.
pub(crate) fn serve(index: usize) -> ! {
    let cpu = this();
    cpu.expecting.store(false, Relaxed);
    gic::init_cpu(index);
    cpu.online.store(true, Release);
    send_event();
    loop {
        let job = cpu.job.lock().take();
        if let Some((f, arg)) = job {
            cpu.result.store(f(arg), Relaxed);
            cpu.done.store(true, Release);
            send_event();
        } else if cpu.leave.load(Acquire) {
            cpu.leave.store(false, Relaxed);
            cpu.online.store(false, Release);
            smccc::call(abi::psci::CPU_OFF, 0, 0, 0);
            panic!("CPU_OFF returned");
        } else {
            wait_event();
            relax();
        }
    }
}

/// Turns CPU `index` on by PSCI and waits until it serves. The error is PSCI's, or a time-out.
pub(crate) fn start(index: usize, mpidr: u64) -> Result<(), i64> {
    let cpu = get(index);
    if cpu.online.load(Acquire) {
        return Ok(());
    }
    cpu.leave.store(false, Relaxed);
    mem::barrier();
    let r = smccc::call(abi::psci::CPU_ON64, mpidr, entry::secondary_address(), CONTEXT | index as u64);
    match r[0] as i64 {
        0 if timer::wait(timer::PATIENCE, || cpu.online.load(Acquire)) => Ok(()),
        0 => Err(i64::MIN),
        error => Err(error),
    }
}

/// Turns CPU `index` off and waits until PSCI says so.
pub(crate) fn stop(index: usize, mpidr: u64) -> bool {
    let cpu = get(index);
    if cpu.online.load(Acquire) {
        cpu.leave.store(true, Release);
        send_event();
    }
    timer::wait(timer::PATIENCE, || {
        smccc::call(abi::psci::AFFINITY_INFO64, mpidr, 0, 0)[0] == abi::psci::AFFINITY_OFF
    })
}

/// Gives `f(arg)` to CPU `index`, which serves.
pub(crate) fn submit(index: usize, f: fn(u64) -> u64, arg: u64) {
    let cpu = get(index);
    cpu.done.store(false, Relaxed);
    *cpu.job.lock() = Some((f, arg));
    send_event();
}

/// Waits for the result of what was submitted.
pub(crate) fn collect(index: usize) -> Option<u64> {
    let cpu = get(index);
    timer::wait(timer::PATIENCE, || cpu.done.load(Acquire)).then(|| cpu.result.load(Relaxed))
}

/// Runs `f(arg)` on CPU `index` and waits for the result.
pub(crate) fn run_on(index: usize, f: fn(u64) -> u64, arg: u64) -> Option<u64> {
    submit(index, f, arg);
    collect(index)
}

/// CPUs that do the same at the same time: each goes on until all did it often enough, so that none is ever
/// alone with it, whoever gets time when.
pub(crate) struct Together(AtomicUsize);

impl Together {
    /// Nobody.
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Before the work is given out: so many CPUs will [`go_on`](Self::go_on).
    pub(crate) fn expect(&self, cpus: usize) {
        self.0.store(cpus, Release);
    }

    /// Does `f(1)`, `f(2)` ... `rounds` times, and until all others did so or failed. Returns the round that
    /// was wrong, or 0; `u64::MAX` if nobody came for long.
    pub(crate) fn go_on(&self, rounds: u64, mut f: impl FnMut(u64) -> bool) -> u64 {
        let mut last = 0;
        let mut wrong = 0;
        let over = timer::wait(timer::PATIENCE, || {
            last += 1;
            if !f(last) {
                wrong = last;
            }
            if last == rounds || (wrong != 0 && last < rounds) {
                self.0.fetch_sub(1, Release);
            }
            wrong != 0 || (last >= rounds && self.0.load(Acquire) == 0)
        });
        if over { wrong } else { u64::MAX }
    }
}
