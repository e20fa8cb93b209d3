//! A machine on a pseudo-terminal: what a user at the keyboard sees and presses.

use super::machine::{self, Run};
use super::manifests::Key;
use crate::paths;
use crate::qemu::Machine;
use crate::uart::Lines;
use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{self, OpenptFlags};
use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Starts the machine on a terminal, waits for each text and presses its keys.
pub fn run(name: &str, machine: &Machine, keys: &[Key], timeout: Duration) -> Result<Run> {
    let log_path = paths::log(name)?;
    let log = File::create(&log_path)?;
    let (user, terminal) = open()?;
    let mut command = machine.command()?;
    command.stdin(terminal.try_clone()?).stdout(terminal).stderr(log.try_clone()?);
    let mut child = command.spawn().context("cannot start QEMU")?;
    // Its copies of the terminal go with it: the stream ends with the machine.
    drop(command);
    let mut session = Session {
        bytes: machine::chunks(user.try_clone()?),
        user,
        log,
        text: String::new(),
        seen: 0,
        deadline: Instant::now() + timeout,
    };
    let mut stuck = None;
    for key in keys {
        if !session.wait(&key.wait)? {
            stuck = Some(format!("waited in vain for {:?}", key.wait));
            break;
        }
        session.user.write_all(key.send.as_bytes())?;
    }
    let hung = stuck.is_some() || !session.drain();
    let ended = machine::end(&mut child, hung);
    let mut lines = Vec::new();
    let mut cutter = Lines::default();
    cutter.feed(session.text.as_bytes(), |line| lines.push(line.to_owned()));
    cutter.flush(|line| lines.push(line.to_owned()));
    Ok(Run { lines, log: log_path, hung: stuck.or(ended) })
}

/// The user's end and the machine's end.
fn open() -> Result<(File, File)> {
    let user = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    pty::grantpt(&user)?;
    pty::unlockpt(&user)?;
    let name = pty::ptsname(&user, Vec::new())?;
    let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    Ok((user.into(), terminal.into()))
}

struct Session {
    bytes: Receiver<Vec<u8>>,
    user: File,
    log: File,
    /// All that was seen.
    text: String,
    /// How much of it the waits have used up.
    seen: usize,
    deadline: Instant,
}

impl Session {
    /// Waits until `text` appears behind what the last wait found.
    fn wait(&mut self, text: &str) -> Result<bool> {
        loop {
            if let Some(at) = self.text.get(self.seen..).and_then(|fresh| fresh.find(text)) {
                self.seen += at + text.len();
                return Ok(true);
            }
            if self.receive().is_err() {
                return Ok(false);
            }
        }
    }

    /// Reads to the end; false if the deadline comes first.
    fn drain(&mut self) -> bool {
        loop {
            match self.receive() {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    fn receive(&mut self) -> Result<(), RecvTimeoutError> {
        let chunk = self.bytes.recv_timeout(self.deadline.saturating_duration_since(Instant::now()))?;
        // A full disk must not lose the text.
        let _ = self.log.write_all(&chunk);
        self.text.push_str(&String::from_utf8_lossy(&chunk));
        Ok(())
    }
}
