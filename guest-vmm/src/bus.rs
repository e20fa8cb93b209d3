//! What KVM does not emulate: a PL011, whose output is ours.

use crate::tree::{UART, UART_SPI};
use anyhow::Result;
use kvm_ioctls::VmFd;
use std::io::Write;
use vdev::pl011::{Effect, Pl011};

/// KVM_IRQ_LINE: the kind of interrupt that an SPI is (Linux, Documentation/virt/kvm/api.rst).
const KIND_SPI: u32 = 1 << 24;
/// INTID of the first SPI.
const FIRST_SPI: u32 = 32;

/// The devices of a VM.
pub(crate) struct Bus {
    vm: VmFd,
    uart: Pl011,
    irq: bool,
    prefix: String,
    line: Vec<u8>,
}

impl Bus {
    /// The devices at reset; each line of output comes behind `prefix`.
    pub(crate) fn new(vm: VmFd, prefix: &str) -> Bus {
        Bus { vm, uart: Pl011::new(), irq: false, prefix: prefix.into(), line: Vec::new() }
    }

    /// A load of the guest's; whether there is something.
    pub(crate) fn read(&mut self, address: u64, data: &mut [u8]) -> Result<bool> {
        let Some(offset) = register(address) else { return Ok(false) };
        let (value, effect) = self.uart.read(offset);
        for (byte, value) in data.iter_mut().zip(u64::from(value).to_le_bytes()) {
            *byte = value;
        }
        self.apply(effect)?;
        Ok(true)
    }

    /// A store of the guest's; whether there is something.
    pub(crate) fn write(&mut self, address: u64, data: &[u8]) -> Result<bool> {
        let Some(offset) = register(address) else { return Ok(false) };
        let value = data.iter().take(4).rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        let effect = self.uart.write(offset, value);
        self.apply(effect)?;
        Ok(true)
    }

    fn apply(&mut self, effect: Effect) -> Result<()> {
        if effect.irq != self.irq {
            self.irq = effect.irq;
            self.vm.set_irq_line(KIND_SPI | (UART_SPI + FIRST_SPI), effect.irq)?;
        }
        if let Some(byte) = effect.transmit {
            self.line.push(byte);
            if byte == b'\n' {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Prints what there is of a line.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.line.is_empty() {
            return Ok(());
        }
        // At once, so that what others print does not get into the line.
        let mut line = format!("[{}] ", self.prefix).into_bytes();
        line.extend(self.line.drain(..).filter(|byte| !matches!(byte, b'\r' | b'\n')));
        line.push(b'\n');
        std::io::stdout().write_all(&line)?;
        Ok(())
    }
}

fn register(address: u64) -> Option<u32> {
    let offset = address.checked_sub(UART.0)?;
    if offset < UART.1 { u32::try_from(offset).ok() } else { None }
}
