//! The escape keys: Ctrl-A and what may follow it.
//!
//! `Keys` is the state between two bytes; `Key` is what was pressed, before anyone asked
//! whether there is such a VM; [`Action`] is what the console's caller has to do.

/// Ctrl-A: the next key is a command.
pub const ESCAPE: u8 = 0x01;

/// What Ctrl-A h prints.
pub(crate) const HELP: [&str; 5] = [
    "keys after Ctrl-A (VMs by number, 0 to 9):",
    "  0-9  input goes to that VM      Ctrl-A  send one Ctrl-A",
    "  l    list VMs and states        e       exits by kind",
    "  m    memory                     h or ?  this help",
    "  s N  stop VM N    r N  restart VM N    b N  start VM N    x  end the machine",
];

/// What the caller has to do after a byte of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Nothing.
    None,
    /// Hand the byte to this VM's UART.
    Send {
        /// The VM in focus.
        vm: usize,
        /// The byte.
        byte: u8,
    },
    /// List the VMs and their states.
    List,
    /// Tell how memory is used.
    Memory,
    /// Tell how many exits of each kind there were.
    Exits,
    /// Stop this VM, which exists.
    Stop(usize),
    /// Stop this VM, which exists, if it runs, and start it.
    Restart(usize),
    /// Start this VM, which exists.
    Start(usize),
    /// End the machine.
    End,
}

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The command is not complete.
    Nothing,
    /// A character for the VM in focus.
    Text(u8),
    Focus(usize),
    Stop(usize),
    Restart(usize),
    Start(usize),
    List,
    Memory,
    Exits,
    End,
    Help,
    Unknown,
}

/// What has been pressed of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Nothing.
    #[default]
    Text,
    /// Ctrl-A.
    Command,
    /// Ctrl-A s: the VM's digit is missing.
    Stop,
    /// Ctrl-A r.
    Restart,
    /// Ctrl-A b.
    Start,
}

impl Keys {
    /// Takes one byte. A key that does not continue the command ends it.
    pub(crate) fn press(&mut self, byte: u8) -> Key {
        let before = core::mem::take(self);
        match before {
            Self::Text if byte == ESCAPE => self.wait(Self::Command),
            Self::Text => Key::Text(byte),
            Self::Command => self.command(byte),
            Self::Stop => digit(byte).map_or(Key::Unknown, Key::Stop),
            Self::Restart => digit(byte).map_or(Key::Unknown, Key::Restart),
            Self::Start => digit(byte).map_or(Key::Unknown, Key::Start),
        }
    }

    fn command(&mut self, byte: u8) -> Key {
        match byte {
            ESCAPE => Key::Text(ESCAPE),
            b's' => self.wait(Self::Stop),
            b'r' => self.wait(Self::Restart),
            b'b' => self.wait(Self::Start),
            b'l' => Key::List,
            b'm' => Key::Memory,
            b'e' => Key::Exits,
            b'x' => Key::End,
            b'h' | b'?' => Key::Help,
            _ => digit(byte).map_or(Key::Unknown, Key::Focus),
        }
    }

    fn wait(&mut self, state: Self) -> Key {
        *self = state;
        Key::Nothing
    }
}

fn digit(byte: u8) -> Option<usize> {
    byte.is_ascii_digit().then(|| usize::from(byte - b'0'))
}
