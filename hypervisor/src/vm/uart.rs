//! A VM's UART between its guest and the console.
//!
//! The lock of [`GuestUart`] is held until the console, KTAP and the vGIC know of what happened, so
//! characters and levels arrive in their order.

use super::Vm;
use crate::console;
use ::console::ring::Ring;
use manifest::layout::UART_INTID;
use vdev::pl011::Pl011;
use vgic::Kick;

/// Received bytes that wait for a guest at most.
const INPUT: usize = 1024;

/// Most characters that wait in a PL011's transmit FIFO.
const FIFO: usize = 32;

/// The UART that a guest sees, and what waits for it.
pub(crate) struct GuestUart {
    device: Pl011,
    /// What was typed and has not fitted yet.
    input: Ring<INPUT>,
    /// The console takes no more output for now.
    held: bool,
    /// Input was paused for it, and the guest has not made room since: what comes now is dropped.
    stalled: bool,
    /// Level of the interrupt line, as the vGIC knows it.
    line: bool,
}

impl GuestUart {
    /// A UART after reset.
    pub(crate) const fn new() -> Self {
        Self { device: Pl011::new(), input: Ring::new(), held: false, stalled: false, line: false }
    }

    /// Back to the state after reset, along with the vGIC. Whether output is held back stays.
    pub(crate) fn reset(&mut self) {
        self.device.reset();
        self.input.clear();
        (self.stalled, self.line) = (false, false);
    }

    /// Hands over what was typed, as far as it fits.
    fn deliver(&mut self) {
        while self.device.can_receive()
            && let Some(byte) = self.input.pop()
        {
            let _ = self.device.receive(byte);
        }
        if self.stalled && self.input.room() >= INPUT / 2 {
            self.stalled = false;
            console::resume_input();
        }
    }

    /// Prints what was held back.
    fn release(&mut self, vm: &Vm) {
        let mut text = [0; FIFO];
        let mut len = 0;
        for slot in &mut text {
            let Some(byte) = self.device.tx_ready(true).transmit else { break };
            *slot = byte;
            len += 1;
        }
        self.held = false;
        self.print(vm, text.get(..len).unwrap_or_default());
    }

    fn print(&mut self, vm: &Vm, bytes: &[u8]) {
        let mut ktap = vm.ktap.lock();
        bytes.iter().for_each(|byte| ktap.push(*byte));
        drop(ktap);
        if !console::guest(vm.id, bytes) {
            self.held = true;
            let _ = self.device.tx_ready(false);
        }
    }

    /// Tells the vGIC the line's level if it has changed.
    fn update_line(&mut self, vm: &Vm) -> Kick {
        let level = self.device.irq();
        if core::mem::replace(&mut self.line, level) == level {
            return Kick::NONE;
        }
        vm.vgic.lock().set_line(0, UART_INTID, level)
    }
}

impl Vm {
    /// The guest reads a register.
    pub(crate) fn uart_read(&self, offset: u32) -> (u32, Kick) {
        let mut uart = self.uart.lock();
        // Who polls for room finds it as soon as it is there.
        if uart.held && console::has_room(self.id) {
            uart.release(self);
        }
        let (value, _) = uart.device.read(offset);
        uart.deliver();
        (value, uart.update_line(self))
    }

    /// The guest writes a register.
    pub(crate) fn uart_write(&self, offset: u32, value: u32) -> Kick {
        let mut uart = self.uart.lock();
        if let Some(byte) = uart.device.write(offset, value).transmit {
            uart.print(self, &[byte]);
        }
        uart.deliver();
        uart.update_line(self)
    }

    /// A byte from the console arrives. It is lost if the VM is stopped.
    pub(crate) fn receive(&self, byte: u8) {
        if !self.is_alive() {
            return;
        }
        let mut uart = self.uart.lock();
        uart.deliver();
        uart.input.push(byte);
        uart.deliver();
        if uart.input.room() == 0 && !uart.stalled {
            uart.stalled = true;
            console::pause_input();
        }
        let kick = uart.update_line(self);
        drop(uart);
        self.kick(kick, None);
    }

    /// The console takes output again.
    pub(crate) fn resume_output(&self) {
        let mut uart = self.uart.lock();
        uart.release(self);
        let kick = uart.update_line(self);
        drop(uart);
        self.kick(kick, None);
    }

    /// The VM has stopped: prints what is left, and ends its line.
    pub(crate) fn finish_output(&self) {
        let mut uart = self.uart.lock();
        uart.release(self);
        drop(uart);
        self.ktap.lock().push(b'\n');
        console::end_line(self.id);
    }
}
