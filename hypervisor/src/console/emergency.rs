//! Printing at the end of the machine: past all locks and all formatting of the console.

use super::{CAPACITY, CONSOLE, HOLDER, RING, close};
use crate::arch::{cpu, timer};
use ::console::output::{Output, Transmitter};
use core::fmt::{self, Write};
use core::sync::atomic::Ordering;

/// Prints in a panic, and the machine's last line.
pub(crate) struct Emergency;

impl Emergency {
    /// Takes the UART, whoever has it, and sends what waits for it.
    pub(crate) fn new() -> Self {
        close();
        let mut emergency = Self;
        take();
        // A guest's unfinished line ends here.
        let _ = emergency.write_str("\n");
        emergency
    }
}

/// Gets the console's locks out of the way.
fn take() {
    // A CPU that holds the lock finishes its line if it can. If it is this one, it panicked there.
    let until = timer::now().saturating_add(timer::frequency());
    while CONSOLE.is_locked() && HOLDER.load(Ordering::Relaxed) != cpu::index() && timer::now() < until {
        core::hint::spin_loop();
    }
    // SAFETY: nobody else prints: `close` stopped the others, and the lock's holder, if there is one,
    // is this very CPU, which panicked and never goes on, or one that hangs.
    unsafe { CONSOLE.force_unlock() };
    // SAFETY: only the holder of `CONSOLE` takes it.
    unsafe { RING.force_unlock() };
}

impl Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut console = CONSOLE.try_lock().ok_or(fmt::Error)?;
        let uart = console.uart.as_mut().ok_or(fmt::Error)?;
        let mut output = Output { uart, ring: &mut *RING.try_lock().ok_or(fmt::Error)? };
        output.send_waiting(CAPACITY);
        for byte in text.bytes() {
            if byte == b'\n' {
                output.uart.put(b'\r');
            }
            output.uart.put(byte);
        }
        output.uart.wait_sent();
        Ok(())
    }
}
