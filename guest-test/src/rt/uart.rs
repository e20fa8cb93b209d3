//! The PL011, polled. Lines come from one CPU at a time through a lock.

use super::mem::{read32, write32};
use core::fmt::{self, Write};
use spin::Mutex;

/// Where the machine layout puts the UART.
pub(crate) const BASE: u64 = 0x0900_0000;
const DR: u64 = 0x00;
const FR: u64 = 0x18;
const CR: u64 = 0x30;
/// UARTEN, TXE, RXE.
const CR_ON: u32 = 1 << 9 | 1 << 8 | 1;
const FR_TXFF: u32 = 1 << 5;
const FR_RXFE: u32 = 1 << 4;

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            // Bounded: a UART that never drains must not hang the payload.
            let mut patience = 1_000_000u32;
            while read32(BASE + FR) & FR_TXFF != 0 && patience > 0 {
                patience -= 1;
            }
            write32(BASE + DR, u32::from(byte));
        }
        Ok(())
    }
}

static LOCK: Mutex<()> = Mutex::new(());

/// Prints for the macros; whoever cannot have the lock soon prints anyway, so that a panic inside
/// a print is heard.
pub(crate) fn print(args: fmt::Arguments<'_>) {
    let mut guard = LOCK.try_lock();
    for _ in 0..1_000_000 {
        if guard.is_some() {
            break;
        }
        super::cpu::relax();
        guard = LOCK.try_lock();
    }
    // Uart::write_str cannot fail; a Display impl that does loses its line.
    let _ = Uart.write_fmt(args);
}

/// Asks for a key, and waits for it, however long.
pub(crate) fn ask(args: fmt::Arguments<'_>) {
    write32(BASE + CR, CR_ON);
    print(format_args!("# {args}: press a key\n"));
    while read32(BASE + FR) & FR_RXFE != 0 {
        super::cpu::relax();
    }
    read32(BASE + DR);
}

/// Prints one line.
macro_rules! println {
    ($($arg:tt)*) => {
        $crate::rt::uart::print(format_args!("{}\n", format_args!($($arg)*)))
    };
}
