//! The machine's UART: PL011 or 16550, as the device tree says. Firmware has set up the line; what is
//! changed is interrupts only.
//!
//! UNSAFETY: claims the registers, once, at start.

use arm_pl011_uart::{Interrupts, PL011Registers, UniqueMmioPointer};
use core::ptr::NonNull;
use fdt::UartKind;
use uart_16550::{Uart16550, backend::Backend, spec::registers::IER};

/// How often a full transmitter is asked before a byte is dropped: a UART that never drains must not
/// hang the hypervisor.
const PATIENCE: u32 = 100_000;

/// One of the supported layouts.
pub(crate) enum Uart {
    /// Arm PL011.
    Pl011(arm_pl011_uart::Uart<'static>),
    /// 16550 and descendants.
    Ns16550(Uart16550<Registers>),
}

/// 16550 registers at any distance and access width.
pub(crate) struct Registers {
    base: *mut u8,
    shift: u8,
    wide: bool,
}

// SAFETY: device registers have no thread of their own.
unsafe impl Send for Registers {}

impl Backend for Registers {
    unsafe fn read(&mut self, register: u8) -> u8 {
        let at = self.base.wrapping_add(usize::from(register) << self.shift);
        if self.wide {
            // SAFETY: within the device's mapped registers: `Uart::claim`'s caller promised.
            unsafe { at.cast::<u32>().read_volatile() as u8 }
        } else {
            // SAFETY: as above.
            unsafe { at.read_volatile() }
        }
    }

    unsafe fn write(&mut self, register: u8, value: u8) {
        let at = self.base.wrapping_add(usize::from(register) << self.shift);
        if self.wide {
            // SAFETY: as above.
            unsafe { at.cast::<u32>().write_volatile(u32::from(value)) };
        } else {
            // SAFETY: as above.
            unsafe { at.write_volatile(value) };
        }
    }
}

impl Uart {
    /// Takes possession of the UART.
    ///
    /// # Safety
    /// Its registers must be accessible at their physical address, and used by nobody else.
    pub(crate) unsafe fn claim(uart: &fdt::Uart) -> Option<Self> {
        let base = uart.base.start().get() as *mut u8;
        match uart.kind {
            UartKind::Pl011 => {
                let registers = NonNull::new(base.cast::<PL011Registers>())?;
                // SAFETY: the caller's promise.
                let registers = unsafe { UniqueMmioPointer::new(registers) };
                Some(Self::Pl011(arm_pl011_uart::Uart::new(registers)))
            }
            UartKind::Ns16550 { reg_shift, reg_io_width } => {
                let registers = Registers { base, shift: reg_shift.min(8), wide: reg_io_width == 4 };
                // SAFETY: the caller's promise.
                Some(Self::Ns16550(unsafe { Uart16550::new_with_backend(registers) }))
            }
        }
    }

    /// Sends a byte; drops it if the transmitter stays full.
    pub(crate) fn put(&mut self, byte: u8) {
        for _ in 0..PATIENCE {
            match self {
                Self::Pl011(u) if !u.is_tx_fifo_full() => return u.write_word(byte),
                Self::Pl011(_) => {}
                Self::Ns16550(u) => {
                    if u.try_send_byte(byte).is_ok() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes a received byte. Line errors are passed over.
    pub(crate) fn get(&mut self) -> Option<u8> {
        match self {
            Self::Pl011(u) => {
                for _ in 0..64 {
                    if let Ok(byte) = u.read_word() {
                        return byte;
                    }
                }
                None
            }
            Self::Ns16550(u) => u.try_receive_byte().ok(),
        }
    }

    /// Lets received bytes raise the interrupt.
    pub(crate) fn enable_receive_interrupt(&mut self) {
        match self {
            Self::Pl011(u) => {
                u.clear_interrupts(Interrupts::all());
                u.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
            }
            Self::Ns16550(u) => u.enable_interrupts(IER::DATA_READY),
        }
    }
}
