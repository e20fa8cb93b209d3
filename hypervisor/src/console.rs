//! The console: VMs and the hypervisor share the machine's UART through [`console::Mux`].
//!
//! Output waits in a ring, because a UART takes bytes far more slowly than they are made: each visit
//! hands it what it takes at once, its transmit interrupt asks for the rest. When the ring is nearly
//! full, VMs are held back: their characters wait in their own UARTs. A line of the hypervisor for which
//! the ring has no room, and the transmitter makes none at once, is dropped, and a later line says how
//! many were: who waited would hold the lock for as long, with interrupts masked. Only before there are
//! VMs, in a panic and at the end of the machine does the hypervisor wait.

mod emergency;

pub(crate) use emergency::Emergency;

use crate::arch::{cpu, timer};
use crate::dev::uart::{Lines, Uart};
use crate::machine;
use ::console::output::{BURST, Output, Transmitter};
use ::console::own::OwnLine;
use ::console::ring::Ring;
use ::console::{Action, Console as Mux};
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use spin::mutex::{SpinMutex as Mutex, SpinMutexGuard};

/// Bytes of output that wait at most.
const CAPACITY: usize = 16 << 10;
/// With more than this waiting, VMs are held back. The rest is for what they have under way: each
/// may print one more piece, of two lines at most.
const HIGH: usize = CAPACITY / 4 * 3;
/// With no more than this waiting, they go on.
const LOW: usize = CAPACITY / 2;

struct Console {
    uart: Option<Uart>,
    mux: Option<Mux>,
    /// The UART has an interrupt, and it is routed.
    interrupts: bool,
    /// VMs that are held back, as a bitmap.
    held: u64,
    /// Until when received bytes stay in the UART, for lack of room in the VM in focus.
    paused: Option<u64>,
    /// Lines of the hypervisor that were dropped and not told of yet.
    lost: u32,
}

const _: () = assert!(manifest::MAX_VMS <= 64);

static CONSOLE: Mutex<Console> =
    Mutex::new(Console { uart: None, mux: None, interrupts: false, held: 0, paused: None, lost: 0 });

/// What waits for the transmitter. Only the holder of [`CONSOLE`] locks it: it stands apart so that it
/// is all zero and takes no room in the image.
static RING: Mutex<Ring<CAPACITY>> = Mutex::new(Ring::new());

/// Index of the CPU that holds [`CONSOLE`], for a panic on that CPU; [`NOBODY`] if none does. Relaxed:
/// only whether it is the reader's own counts, and a CPU sees its own stores.
static HOLDER: AtomicUsize = AtomicUsize::new(NOBODY);
const NOBODY: usize = usize::MAX;

/// Something waits that [`service`] has to look at. Relaxed: a hint, which the lock makes good; who
/// misses it comes again.
static BUSY: AtomicBool = AtomicBool::new(false);

/// When a CPU has to call [`service`] at the latest, as a value of the counter; 0 for never. Relaxed:
/// as for [`BUSY`].
static DEADLINE: AtomicU64 = AtomicU64::new(0);

/// Set when the machine ends: only [`Emergency`] prints from then on. Release and Acquire pair with
/// each other: who sees it set sees the end coming.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// The locked console: knows its holder, and leaves the UART's interrupts as its state wants them.
struct Locked(SpinMutexGuard<'static, Console>);

fn lock() -> Locked {
    let guard = CONSOLE.lock();
    HOLDER.store(cpu::index(), Ordering::Relaxed);
    Locked(guard)
}

impl Deref for Locked {
    type Target = Console;

    fn deref(&self) -> &Console {
        &self.0
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Console {
        &mut self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.settle();
        HOLDER.store(NOBODY, Ordering::Relaxed);
    }
}

/// Where the multiplexer prints: one type, so that there is one copy of it.
type Put<'a> = &'a mut dyn FnMut(&[u8]);

impl Console {
    /// Runs `f` with the multiplexer, then hands on what the transmitter takes.
    fn print<R>(&mut self, f: impl FnOnce(&mut Mux, &mut Put<'_>) -> R) -> Option<R> {
        let (Some(uart), Some(mux)) = (&mut self.uart, &mut self.mux) else { return None };
        let mut output = Output { uart, ring: &mut *RING.lock() };
        let mut put: Put<'_> = &mut |bytes| output.put(bytes);
        let result = f(mux, &mut put);
        output.drain();
        Some(result)
    }

    /// Prints a line of the hypervisor's own if there is room for it; `None` if there is no multiplexer.
    fn say(&mut self, text: fmt::Arguments<'_>) -> Option<()> {
        self.tell_lost();
        self.try_line(text).map(|said| self.lost = self.lost.saturating_add(u32::from(!said)))
    }

    /// Tells of lines that were dropped, as soon as there is room for that.
    fn tell_lost(&mut self) {
        let lost = self.lost;
        if lost != 0 && self.try_line(format_args!("warn: {lost} lines lost: the UART is slow")) == Some(true)
        {
            self.lost = 0;
        }
    }

    /// Prints a line unless it would have to wait; says whether it did.
    fn try_line(&mut self, text: fmt::Arguments<'_>) -> Option<bool> {
        let uart = self.uart.as_mut().filter(|_| self.mux.is_some())?;
        let room = Output { uart, ring: &mut *RING.lock() }.has_room_for_line();
        if room {
            self.print(|mux, out| mux.say(text, out))?;
        }
        Some(room)
    }

    /// Prints a line past the multiplexer, waiting for the transmitter.
    fn say_now(&mut self, text: fmt::Arguments<'_>) {
        if let Some(uart) = &mut self.uart {
            let put: Put<'_> = &mut |bytes| bytes.iter().for_each(|b| uart.put(*b));
            OwnLine::print(text, &mut { put });
        }
    }

    /// How many bytes wait.
    fn waiting(&self) -> usize {
        RING.lock().len()
    }

    /// Brings the UART's interrupts and the hints in line with what waits.
    fn settle(&mut self) {
        let Some(uart) = &mut self.uart else { return };
        let output = !RING.lock().is_empty() || self.held != 0;
        if self.interrupts {
            uart.set_interrupts(Lines { receive: self.paused.is_none(), transmit: output });
        }
        // Without an interrupt of the UART, the CPUs' own timers move the output.
        let poll =
            (output && !self.interrupts).then(|| timer::now().saturating_add(timer::frequency() / 500));
        BUSY.store(output || self.paused.is_some(), Ordering::Relaxed);
        DEADLINE.store(poll.or(self.paused).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Gives the console its UART while the MMU is off and locks cannot be taken.
///
/// # Safety
/// Only one CPU may run.
pub(crate) unsafe fn set_uart_early(uart: Option<Uart>) {
    // SAFETY: the caller's promise stands in for the lock.
    unsafe { (*CONSOLE.as_mut_ptr()).uart = uart };
}

/// Prints a line while the MMU is off.
///
/// # Safety
/// Only one CPU may run.
pub(crate) unsafe fn say_early(text: &str) {
    // SAFETY: the caller's promise stands in for the lock.
    let console = unsafe { &mut *CONSOLE.as_mut_ptr() };
    console.say_now(format_args!("error: {text}"));
    console.say_now(format_args!("result: fail boot refused"));
    if let Some(uart) = &mut console.uart {
        uart.wait_sent();
    }
}

/// Gives the console its VMs.
pub(crate) fn set_mux(mux: Mux) {
    lock().mux = Some(mux);
}

/// Nothing but the end of the machine is printed from now on.
pub(crate) fn close() {
    CLOSED.store(true, Ordering::Release);
}

/// Whether the machine is ending.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Acquire)
}

/// Runs `f` with the multiplexer and a way to print, unless the machine is ending.
fn with<R>(f: impl FnOnce(&mut Mux, &mut Put<'_>) -> R) -> Option<R> {
    if is_closed() { None } else { lock().print(f) }
}

/// Prints what a VM's UART sent. False if the VM shall hold back more until
/// [`resume_output`](crate::vm::Vm::resume_output) is called.
pub(crate) fn guest(vm: usize, bytes: &[u8]) -> bool {
    if is_closed() {
        return true;
    }
    let mut console = lock();
    console.print(|mux, out| bytes.iter().for_each(|b| mux.guest(vm, *b, out)));
    let room = console.waiting() <= HIGH;
    if !room {
        console.held |= bit(vm);
    }
    room
}

/// Whether a VM that was held back may go on: it looks at its UART, so it waits for that.
pub(crate) fn has_room(vm: usize) -> bool {
    if is_closed() {
        return true;
    }
    let mut console = lock();
    console.print(|_, _| ());
    let room = console.waiting() <= LOW;
    if room {
        console.held &= !bit(vm);
    }
    room
}

const fn bit(vm: usize) -> u64 {
    1u64.unbounded_shl(vm as u32)
}

/// A VM stopped: its unfinished line ends.
pub(crate) fn end_line(vm: usize) {
    with(|mux, out| mux.end_line(vm, out));
}

/// The machine is about to end: everything that VMs left unfinished is shown.
pub(crate) fn flush() {
    with(|mux, out| mux.flush(out));
}

/// Prints a line of the hypervisor's own.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    if is_closed() {
        return;
    }
    let mut console = lock();
    if console.say(text).is_some() {
        return;
    }
    // Before there are VMs, nobody comes back for what waits.
    console.say_now(text);
}

/// Shows partial lines that have waited long enough, and moves what waits; returns whether anything
/// still does.
pub(crate) fn tick(now_ms: u64) -> bool {
    service();
    if is_closed() {
        return false;
    }
    let mut console = lock();
    if console.waiting() > LOW {
        return true;
    }
    let partial = console.print(|mux, out| mux.tick(now_ms, out)).unwrap_or(false);
    drop(console);
    partial || BUSY.load(Ordering::Relaxed)
}

/// Moves what waits: output to the transmitter, one VM that was held back on its way, bytes that were
/// left in the receiver for too long to a VM that does not want them.
pub(crate) fn service() {
    if is_closed() || !BUSY.load(Ordering::Relaxed) {
        return;
    }
    let mut console = lock();
    console.print(|_, _| ());
    console.tell_lost();
    if console.paused.is_some_and(|until| timer::now() >= until) {
        console.paused = None;
    }
    let mut next = None;
    if console.held != 0 && console.waiting() <= LOW {
        let vm = console.held.trailing_zeros() as usize;
        console.held &= !bit(vm);
        next = Some(vm);
    }
    drop(console);
    if let Some(vm) = next.and_then(|vm| machine::get()?.vms.get(vm)) {
        vm.resume_output();
    }
}

/// When a CPU has to call [`service`], as a value of the counter.
#[inline]
pub(crate) fn deadline() -> Option<u64> {
    match DEADLINE.load(Ordering::Relaxed) {
        0 => None,
        at => Some(at),
    }
}

/// The UART's interrupt: takes what has come, moves what waits.
pub(crate) fn interrupt() {
    for _ in 0..BURST {
        let Some(action) = input() else { break };
        if let Some(machine) = machine::get() {
            crate::vm::console::act(machine, action);
        }
        // A command may print much: one in a visit. What else has come interrupts again.
        if !matches!(action, Action::None | Action::Send { .. }) {
            break;
        }
    }
    service();
}

/// Takes one received byte, if there is one, and says what it asks for.
fn input() -> Option<Action> {
    if is_closed() {
        return None;
    }
    let mut console = lock();
    if console.paused.is_some() {
        return None;
    }
    let byte = console.uart.as_mut()?.get()?;
    console.print(|mux, out| mux.input(byte, out))
}

/// The VM in focus has no room: received bytes stay in the UART until [`resume_input`], but not for
/// longer than a second, because the console's keys are among them.
pub(crate) fn pause_input() {
    lock().paused = Some(timer::now().saturating_add(timer::frequency()));
}

/// There is room again.
pub(crate) fn resume_input() {
    lock().paused = None;
}

/// Lets the UART raise its interrupt, which is routed now.
pub(crate) fn enable_interrupts() {
    let mut console = lock();
    if let Some(uart) = console.uart.as_mut() {
        uart.clear_interrupts();
        console.interrupts = true;
    }
}
