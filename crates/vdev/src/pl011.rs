//! Arm PrimeCell UART PL011 r1p5 (Arm DDI 0183) as a guest sees it.
//!
//! [`Pl011`] holds the registers and both FIFOs. Each access returns an [`Effect`]: a character for
//! the console and the level of the combined interrupt (UARTINTR). What differs from the hardware:
//! - A character takes no time while the console takes it ([`Pl011::tx_ready`]); otherwise it waits
//!   in the transmit FIFO, and FR and the transmit interrupt show that.
//! - Characters leave even if CR does not enable the transmitter: firmware has enabled the UART of
//!   a real machine, and early consoles (Linux `earlycon`) count on that. CR does gate reception.
//! - The 32 bit times of the receive timeout (UARTRTINTR) have passed as soon as a character is there.
//! - The other end is always ready (CTS, DSR and DCD asserted), sends neither breaks nor framing or
//!   parity errors, and has no DMA: DMACR and the test registers are RAZ/WI.

/// Transmit or receive: data register.
pub const DR: u32 = 0x00;
/// Receive status (read), error clear (write).
pub const RSR_ECR: u32 = 0x04;
/// Flags.
pub const FR: u32 = 0x18;
/// IrDA low-power counter.
pub const ILPR: u32 = 0x20;
/// Integer part of the baud-rate divisor.
pub const IBRD: u32 = 0x24;
/// Fractional part of the baud-rate divisor.
pub const FBRD: u32 = 0x28;
/// Line control.
pub const LCR_H: u32 = 0x2C;
/// Control.
pub const CR: u32 = 0x30;
/// Interrupt FIFO level select.
pub const IFLS: u32 = 0x34;
/// Interrupt mask set/clear: 1 lets an interrupt through.
pub const IMSC: u32 = 0x38;
/// Raw interrupt status.
pub const RIS: u32 = 0x3C;
/// Masked interrupt status.
pub const MIS: u32 = 0x40;
/// Interrupt clear.
pub const ICR: u32 = 0x44;
/// First of UARTPeriphID0-3 and UARTPCellID0-3.
const IDS: u32 = 0xFE0;
/// UARTPeriphID0-3 (part 0x011, designer Arm, revision r1p5) and UARTPCellID0-3.
const ID_BYTES: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0D, 0xF0, 0x05, 0xB1];

/// FR.CTS, DSR and DCD: the other end is there and ready.
const FR_PEER: u32 = 0b111;
const FR_BUSY: u32 = 1 << 3;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
const FR_RXFF: u32 = 1 << 6;
const FR_TXFE: u32 = 1 << 7;
const FR_RI: u32 = 1 << 8;

const LCR_FEN: u32 = 1 << 4;

const CR_UARTEN: u32 = 1 << 0;
const CR_LBE: u32 = 1 << 7;
const CR_RXE: u32 = 1 << 9;
/// CR.TXE and RXE: the reset value.
const CR_RESET: u32 = 0x300;
/// CR without its reserved bits 6:3.
const CR_BITS: u32 = 0xFF87;

/// Both FIFOs interrupt when half full.
const IFLS_RESET: u32 = 0x12;

const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
const INT_RT: u32 = 1 << 6;
const INT_OE: u32 = 1 << 10;
const INT_BITS: u32 = 0x7FF;

/// Overrun error in DR; the low nibble of RSR is DR's bits 11:8.
const DR_OE: u16 = 1 << 11;
const RSR_OE: u32 = 1 << 3;

/// Depth of each FIFO since r1p5.
const DEPTH: u8 = 32;

/// What an access or a received character does outside the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Effect {
    /// A character that leaves for the console.
    pub transmit: Option<u8>,
    /// Level of the interrupt line from now on.
    pub irq: bool,
}

/// A ring of [`DEPTH`] entries; whoever pushes minds the depth in use.
#[derive(Clone, Debug)]
struct Fifo {
    slots: [u16; DEPTH as usize],
    head: u8,
    len: u8,
}

impl Fifo {
    const EMPTY: Self = Self { slots: [0; DEPTH as usize], head: 0, len: 0 };

    fn push(&mut self, entry: u16) {
        let tail = self.head.wrapping_add(self.len) % DEPTH;
        if self.len < DEPTH
            && let Some(slot) = self.slots.get_mut(usize::from(tail))
        {
            *slot = entry;
            self.len += 1;
        }
    }

    fn pop(&mut self) -> Option<u16> {
        self.len = self.len.checked_sub(1)?;
        let entry = self.slots.get(usize::from(self.head)).copied();
        self.head = self.head.wrapping_add(1) % DEPTH;
        entry
    }
}

/// One PL011.
#[derive(Clone, Debug)]
pub struct Pl011 {
    rx: Fifo,
    tx: Fifo,
    /// A character was lost and the next one that is kept shall say so in its DR.OE.
    overrun: bool,
    /// The console takes characters.
    ready: bool,
    rsr: u32,
    ilpr: u32,
    ibrd: u32,
    fbrd: u32,
    lcr_h: u32,
    cr: u32,
    ifls: u32,
    imsc: u32,
    ris: u32,
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Pl011 {
    /// A UART after reset (DDI 0183, summary of registers), in front of a console that takes characters.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rx: Fifo::EMPTY,
            tx: Fifo::EMPTY,
            overrun: false,
            ready: true,
            rsr: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: CR_RESET,
            ifls: IFLS_RESET,
            imsc: 0,
            ris: 0,
        }
    }

    /// Back to the state after reset; whether the console takes characters stays as it is.
    pub fn reset(&mut self) {
        *self = Self { ready: self.ready, ..Self::new() };
    }

    /// Level of the interrupt line.
    #[must_use]
    pub const fn irq(&self) -> bool {
        self.ris & self.imsc != 0
    }

    /// Whether [`Pl011::receive`] would keep a character. A console that waits for this loses
    /// nothing when someone pastes text.
    #[must_use]
    pub const fn can_receive(&self) -> bool {
        self.receiver_on() && self.rx.len < self.depth()
    }

    /// Reads the register at `offset` bytes from the start of the device. An access narrower than
    /// 32 bits takes the low part of the result. Reserved offsets read as zero.
    pub fn read(&mut self, offset: u32) -> (u32, Effect) {
        let value = match offset {
            DR => self.read_data(),
            RSR_ECR => self.rsr,
            FR => self.flags(),
            ILPR => self.ilpr,
            IBRD => self.ibrd,
            FBRD => self.fbrd,
            LCR_H => self.lcr_h,
            CR => self.cr,
            IFLS => self.ifls,
            IMSC => self.imsc,
            RIS => self.ris,
            MIS => self.ris & self.imsc,
            _ => id_byte(offset),
        };
        (value, self.effect(None))
    }

    /// Writes the register at `offset`; a narrower access passes its zero-extended value. Reserved
    /// and read-only offsets ignore it.
    pub fn write(&mut self, offset: u32, value: u32) -> Effect {
        match offset {
            DR => return self.write_data(value),
            RSR_ECR => self.rsr = 0,
            ILPR => self.ilpr = value & 0xFF,
            IBRD => self.ibrd = value & 0xFFFF,
            FBRD => self.fbrd = value & 0x3F,
            LCR_H => self.write_lcr(value & 0xFF),
            CR => self.cr = value & CR_BITS,
            IFLS => self.ifls = value & 0x3F,
            IMSC => self.imsc = value & INT_BITS,
            ICR => self.ris &= !value,
            _ => {}
        }
        self.effect(None)
    }

    /// A character comes from the console. It is lost if the guest has not enabled the receiver, or
    /// if there is no room (overrun).
    pub fn receive(&mut self, byte: u8) -> Effect {
        if self.receiver_on() {
            self.accept(byte);
        }
        self.effect(None)
    }

    /// Tells whether the console takes characters. While it does, call this until
    /// [`Effect::transmit`] is `None`: each call hands over one character that had to wait.
    pub fn tx_ready(&mut self, ready: bool) -> Effect {
        self.ready = ready;
        let byte = self.transmit();
        self.effect(byte)
    }

    const fn effect(&self, transmit: Option<u8>) -> Effect {
        Effect { transmit, irq: self.irq() }
    }

    const fn fifos_on(&self) -> bool {
        self.lcr_h & LCR_FEN != 0
    }

    const fn receiver_on(&self) -> bool {
        self.cr & (CR_UARTEN | CR_RXE) == CR_UARTEN | CR_RXE
    }

    /// Without FIFOs each direction has a holding register of one character.
    const fn depth(&self) -> u8 {
        if self.fifos_on() { DEPTH } else { 1 }
    }

    /// Level of the receive FIFO at which its interrupt rises.
    const fn rx_trigger(&self) -> u8 {
        if self.fifos_on() { trigger(self.ifls >> 3) } else { 1 }
    }

    /// Level of the transmit FIFO down to which its interrupt stays low.
    const fn tx_trigger(&self) -> u8 {
        if self.fifos_on() { trigger(self.ifls) } else { 0 }
    }

    fn flags(&self) -> u32 {
        // Loopback connects DTR, RTS, Out1 and Out2 to DSR, CTS, DCD and RI (UARTCR.LBE).
        let modem = if self.cr & CR_LBE == 0 {
            FR_PEER
        } else {
            let out = |bit: u32| (self.cr >> bit) & 1;
            out(11) | out(10) << 1 | out(12) << 2 | if out(13) != 0 { FR_RI } else { 0 }
        };
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        modem
            | flag(self.tx.len != 0, FR_BUSY)
            | flag(self.tx.len == 0, FR_TXFE)
            | flag(self.tx.len >= self.depth(), FR_TXFF)
            | flag(self.rx.len == 0, FR_RXFE)
            | flag(self.rx.len >= self.depth(), FR_RXFF)
    }

    fn read_data(&mut self) -> u32 {
        let Some(entry) = self.rx.pop() else { return 0 };
        if self.rx.len < self.rx_trigger() {
            self.ris &= !INT_RX;
        }
        if self.rx.len == 0 {
            self.ris &= !INT_RT;
        }
        // Only an overrun outlives the character it came with in RSR (UARTRSR.OE).
        self.rsr = (self.rsr & RSR_OE) | u32::from(entry >> 8);
        u32::from(entry)
    }

    fn write_data(&mut self, value: u32) -> Effect {
        let [byte, ..] = value.to_le_bytes();
        if self.cr & CR_LBE != 0 {
            self.accept(byte);
            self.ris |= INT_TX;
            return self.effect(None);
        }
        if self.tx.len < self.depth() {
            self.tx.push(u16::from(byte));
        }
        if self.tx.len > self.tx_trigger() {
            self.ris &= !INT_TX;
        }
        let byte = self.transmit();
        self.effect(byte)
    }

    /// Moves one character out of the transmit FIFO. The interrupt rises whenever that leaves the
    /// FIFO at or below its level; hardware wants it to have been above before (UARTTXINTR), which a
    /// FIFO that empties at once never is, and a driver that waits for the interrupt would hang.
    fn transmit(&mut self) -> Option<u8> {
        if !self.ready {
            return None;
        }
        let [byte, _] = self.tx.pop()?.to_le_bytes();
        if self.tx.len <= self.tx_trigger() {
            self.ris |= INT_TX;
        }
        Some(byte)
    }

    /// Puts a character into the receive FIFO (UARTRXINTR, UARTRTINTR, UARTDR.OE).
    fn accept(&mut self, byte: u8) {
        if self.rx.len >= self.depth() {
            self.overrun = true;
            self.rsr |= RSR_OE;
            self.ris |= INT_OE;
            return;
        }
        let error = if core::mem::take(&mut self.overrun) { DR_OE } else { 0 };
        self.rx.push(u16::from(byte) | error);
        if self.rx.len >= self.rx_trigger() {
            self.ris |= INT_RX;
        }
        if self.fifos_on() {
            self.ris |= INT_RT;
        }
    }

    /// Changing FEN empties both FIFOs (UARTCR names that as the way to flush them).
    fn write_lcr(&mut self, value: u32) {
        if (self.lcr_h ^ value) & LCR_FEN != 0 {
            self.rx = Fifo::EMPTY;
            self.tx = Fifo::EMPTY;
            self.overrun = false;
            self.ris &= !(INT_RX | INT_RT);
        }
        self.lcr_h = value;
    }
}

/// FIFO level of a 3-bit field of UARTIFLS: an eighth, a quarter, half, three quarters, seven
/// eighths; reserved values act as the last.
const fn trigger(field: u32) -> u8 {
    match field & 0b111 {
        0 => 4,
        1 => 8,
        2 => 16,
        3 => 24,
        _ => 28,
    }
}

fn id_byte(offset: u32) -> u32 {
    let index = match offset.checked_sub(IDS) {
        Some(bytes) if bytes % 4 == 0 => bytes / 4,
        Some(_) | None => return 0,
    };
    usize::try_from(index).ok().and_then(|i| ID_BYTES.get(i)).copied().map_or(0, u32::from)
}

#[cfg(test)]
mod tests;
