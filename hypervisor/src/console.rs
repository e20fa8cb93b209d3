//! The console: VMs and the hypervisor share the machine's UART through [`console::Mux`].

use crate::dev::uart::Uart;
use crate::machine;
use ::console::own::OwnLine;
use ::console::{Action, Console as Mux};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use spin::mutex::SpinMutex as Mutex;

struct Console {
    uart: Option<Uart>,
    mux: Option<Mux>,
}

static CONSOLE: Mutex<Console> = Mutex::new(Console { uart: None, mux: None });

/// Set when the machine ends: only [`Emergency`] prints from then on. Release and Acquire pair with
/// each other: who sees it set sees the end coming.
static CLOSED: AtomicBool = AtomicBool::new(false);

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
    if let Some(uart) = console.uart.as_mut() {
        let mut put = |bytes: &[u8]| bytes.iter().for_each(|b| uart.put(*b));
        OwnLine::print(format_args!("error: {text}"), &mut put);
        OwnLine::print(format_args!("result: fail boot refused"), &mut put);
    }
}

/// Gives the console its VMs.
pub(crate) fn set_mux(mux: Mux) {
    CONSOLE.lock().mux = Some(mux);
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
fn with<R>(f: impl FnOnce(&mut Mux, &mut dyn FnMut(&[u8]), &mut Input<'_>) -> R) -> Option<R> {
    if is_closed() {
        return None;
    }
    let mut console = CONSOLE.lock();
    let Console { uart: Some(uart), mux: Some(mux) } = &mut *console else { return None };
    let uart = core::cell::RefCell::new(uart);
    let mut put = |bytes: &[u8]| bytes.iter().for_each(|b| uart.borrow_mut().put(*b));
    let mut get = || uart.borrow_mut().get();
    Some(f(mux, &mut put, &mut get))
}

type Input<'a> = dyn FnMut() -> Option<u8> + 'a;

/// Prints a byte that a VM's UART sent.
pub(crate) fn guest_byte(vm: usize, byte: u8) {
    with(|mux, mut put, _| mux.guest(vm, byte, &mut put));
}

/// A VM stopped: its unfinished line ends.
pub(crate) fn end_line(vm: usize) {
    with(|mux, mut put, _| mux.end_line(vm, &mut put));
}

/// The machine is about to end: everything that VMs left unfinished is shown.
pub(crate) fn flush() {
    with(|mux, mut put, _| mux.flush(&mut put));
}

/// Prints a line of the hypervisor's own.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    if with(|mux, mut put, _| mux.say(text, &mut put)).is_some() {
        return;
    }
    if is_closed() {
        return;
    }
    // Before there are VMs.
    if let Some(uart) = CONSOLE.lock().uart.as_mut() {
        OwnLine::print(text, &mut |bytes: &[u8]| bytes.iter().for_each(|b| uart.put(*b)));
    }
}

/// Shows partial lines that have waited long enough; returns whether some still wait.
pub(crate) fn tick(now_ms: u64) -> bool {
    with(|mux, mut put, _| mux.tick(now_ms, &mut put)).unwrap_or(false)
}

/// Takes one received byte, if there is one, and says what it asks for.
pub(crate) fn input() -> Option<Action> {
    with(|mux, mut put, get| get().map(|byte| mux.input(byte, &mut put))).flatten()
}

/// Lets received bytes raise the UART's interrupt.
pub(crate) fn enable_receive_interrupt() {
    if let Some(uart) = CONSOLE.lock().uart.as_mut() {
        uart.enable_receive_interrupt();
    }
}

/// Prints past all locks and all formatting of the console: for the end of the machine.
pub(crate) struct Emergency {
    at_start: bool,
}

impl Emergency {
    /// Takes the UART, whoever has it.
    pub(crate) fn new() -> Self {
        close();
        // A CPU that holds the lock finishes its line if it can.
        for _ in 0..1_000_000 {
            if CONSOLE.try_lock().is_some() {
                return Self { at_start: true };
            }
            core::hint::spin_loop();
        }
        // SAFETY: nobody else prints: `close` stopped the others, and if the lock's holder is this
        // very CPU, it panicked and never goes on.
        unsafe { CONSOLE.force_unlock() };
        Self { at_start: true }
    }
}

impl Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut console = CONSOLE.try_lock().ok_or(fmt::Error)?;
        let uart = console.uart.as_mut().ok_or(fmt::Error)?;
        if core::mem::take(&mut self.at_start) {
            // A guest's unfinished line ends here.
            uart.put(b'\r');
            uart.put(b'\n');
        }
        for byte in text.bytes() {
            if byte == b'\n' {
                uart.put(b'\r');
            }
            uart.put(byte);
        }
        Ok(())
    }
}

/// `log`'s back end: `tagvisor: text`, with the level where it is a warning or an error.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.level() {
            log::Level::Error => say(format_args!("error: {}", record.args())),
            log::Level::Warn => say(format_args!("warn: {}", record.args())),
            log::Level::Info => say(*record.args()),
            log::Level::Debug | log::Level::Trace => say(format_args!("debug: {}", record.args())),
        }
    }

    fn flush(&self) {}
}

/// Makes the console the back end of `log`.
pub(crate) fn init_log(level: log::LevelFilter) {
    static LOGGER: Logger = Logger;
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}

/// Carries out what the keys asked for.
pub(crate) fn act(action: Action) {
    if let Some(machine) = machine::get() {
        crate::vm::console::act(machine, action);
    }
}
