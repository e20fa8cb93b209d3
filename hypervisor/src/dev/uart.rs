//! The machine's UART: PL011 or 16550, as the device tree says. Firmware has set up the line; what is
//! changed is interrupts only.
//!
//! UNSAFETY: claims the registers, once, at start.

use ::console::output::Transmitter;
use arm_pl011_uart::{Interrupts, PL011Registers, UniqueMmioPointer};
use core::ptr::NonNull;
use fdt::{UartKind, Width};
use uart_16550::spec::registers::{IER, LSR};
use uart_16550::{Uart16550, backend::Backend};

/// How often a full transmitter is asked before a byte is dropped: a UART that never drains must not
/// hang the hypervisor.
const PATIENCE: u32 = 100_000;

/// Bytes of a 16550's transmit FIFO.
const NS16550_FIFO: usize = 16;

/// The UART.
pub(crate) struct Uart {
    layout: Layout,
    interrupts: Lines,
    /// It was waited for in vain: nobody waits again until it has taken a byte.
    stuck: bool,
}

/// Interrupts that may be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    /// When bytes have come.
    pub(crate) receive: bool,
    /// When there is room for bytes.
    pub(crate) transmit: bool,
}

/// One of the supported layouts.
enum Layout {
    /// Arm PL011.
    Pl011(arm_pl011_uart::Uart<'static>),
    /// 16550 and descendants, and how many bytes fit when its transmitter is empty.
    Ns16550(Uart16550<Registers>, usize),
}

/// 16550 registers at any distance and access width.
struct Registers {
    base: *mut u8,
    shift: u8,
    width: Width,
}

// SAFETY: device registers have no thread of their own.
unsafe impl Send for Registers {}

impl Backend for Registers {
    unsafe fn read(&mut self, register: u8) -> u8 {
        let at = self.base.wrapping_add(usize::from(register) << self.shift);
        match self.width {
            // SAFETY: within the device's mapped registers: `Uart::claim`'s caller promised.
            Width::Byte => unsafe { at.read_volatile() },
            // SAFETY: as above; the device tree's reader checked the alignment.
            Width::Half => unsafe { at.cast::<u16>().read_volatile() as u8 },
            // SAFETY: as above.
            Width::Word => unsafe { at.cast::<u32>().read_volatile() as u8 },
        }
    }

    unsafe fn write(&mut self, register: u8, value: u8) {
        let at = self.base.wrapping_add(usize::from(register) << self.shift);
        match self.width {
            // SAFETY: as above.
            Width::Byte => unsafe { at.write_volatile(value) },
            // SAFETY: as above.
            Width::Half => unsafe { at.cast::<u16>().write_volatile(value.into()) },
            // SAFETY: as above.
            Width::Word => unsafe { at.cast::<u32>().write_volatile(value.into()) },
        }
    }
}

impl Transmitter for Uart {
    fn room(&mut self) -> usize {
        match &mut self.layout {
            Layout::Pl011(u) => usize::from(!u.is_tx_fifo_full()),
            Layout::Ns16550(u, fifo) => {
                if u.ready_to_send().is_ok() {
                    *fifo
                } else {
                    0
                }
            }
        }
    }

    fn send(&mut self, byte: u8) {
        match &mut self.layout {
            Layout::Pl011(u) => u.write_word(byte),
            // SAFETY: register 0 is the transmitter's: the divisor latch is closed.
            Layout::Ns16550(u, _) => unsafe { u.backend_mut().write(0, byte) },
        }
        self.stuck = false;
    }

    /// Drops the byte if the transmitter stays full.
    fn put(&mut self, byte: u8) {
        let patience = if self.stuck { 1 } else { PATIENCE };
        for _ in 0..patience {
            if self.room() > 0 {
                return self.send(byte);
            }
        }
        self.stuck = true;
    }
}

impl Uart {
    /// Takes possession of the UART.
    ///
    /// # Safety
    /// Its registers must be accessible at their physical address, and used by nobody else.
    pub(crate) unsafe fn claim(uart: &fdt::Uart) -> Option<Self> {
        let base = uart.base.start().get() as *mut u8;
        let layout = match uart.kind {
            UartKind::Pl011 => {
                let registers = NonNull::new(base.cast::<PL011Registers>())?;
                // SAFETY: the caller's promise.
                let registers = unsafe { UniqueMmioPointer::new(registers) };
                Layout::Pl011(arm_pl011_uart::Uart::new(registers))
            }
            UartKind::Ns16550 { shift, width } => {
                let registers = Registers { base, shift, width };
                // SAFETY: the caller's promise.
                let mut u = unsafe { Uart16550::new_with_backend(registers) };
                // IIR[7:6]: firmware has enabled the FIFOs.
                let fifo = if u.isr().bits() >> 6 == 0b11 { NS16550_FIFO } else { 1 };
                Layout::Ns16550(u, fifo)
            }
        };
        Some(Self { layout, interrupts: Lines { receive: false, transmit: false }, stuck: false })
    }

    /// Waits until all bytes have left: the machine is turned off next.
    pub(crate) fn wait_sent(&mut self) {
        if self.stuck {
            return;
        }
        for _ in 0..PATIENCE {
            let busy = match &mut self.layout {
                Layout::Pl011(u) => u.is_busy(),
                Layout::Ns16550(u, _) => !u.lsr().contains(LSR::TRANSMITTER_EMPTY),
            };
            if !busy {
                break;
            }
        }
    }

    /// Takes a received byte. Line errors are passed over.
    pub(crate) fn get(&mut self) -> Option<u8> {
        match &mut self.layout {
            Layout::Pl011(u) => {
                for _ in 0..64 {
                    if let Ok(byte) = u.read_word() {
                        return byte;
                    }
                }
                None
            }
            Layout::Ns16550(u, _) => u.try_receive_byte().ok(),
        }
    }

    /// Forgets what firmware left pending.
    pub(crate) fn clear_interrupts(&mut self) {
        match &mut self.layout {
            Layout::Pl011(u) => u.clear_interrupts(Interrupts::all()),
            Layout::Ns16550(u, _) => u.disable_interrupts(IER::all()),
        }
    }

    /// Lets these interrupts through, and no others.
    pub(crate) fn set_interrupts(&mut self, lines: Lines) {
        if lines == self.interrupts {
            return;
        }
        self.interrupts = lines;
        match &mut self.layout {
            Layout::Pl011(u) => {
                let mut masks = Interrupts::empty();
                masks.set(Interrupts::RXI | Interrupts::RTI, lines.receive);
                masks.set(Interrupts::TXI, lines.transmit);
                u.set_interrupt_masks(masks);
            }
            Layout::Ns16550(u, _) => {
                let mut enabled = IER::empty();
                enabled.set(IER::DATA_READY, lines.receive);
                enabled.set(IER::THR_EMPTY, lines.transmit);
                u.disable_interrupts(!enabled);
                u.enable_interrupts(enabled);
            }
        }
    }
}
