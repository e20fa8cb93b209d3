//! System calls (Linux, include/uapi/asm-generic/unistd.h).
//!
//! UNSAFETY: `svc` does whatever the registers say; each wrapper says why its own is harmless.

use core::arch::asm;

/// Memory that can be read and written.
pub(crate) const PROT_READ_WRITE: usize = 3;
/// Memory that has tags (Linux, arch/arm64/include/uapi/asm/mman.h).
pub(crate) const PROT_MTE: usize = 0x20;

/// What a mismatch does to this thread.
#[derive(Clone, Copy)]
pub(crate) enum Check {
    /// A fault at the instruction.
    Sync,
    /// A fault at the next entry to the kernel.
    Async,
    /// Nothing.
    Off,
}

const OPENAT: usize = 56;
const PIPE2: usize = 59;
const READ: usize = 63;
const WRITE: usize = 64;
const EXIT: usize = 93;
const EXIT_GROUP: usize = 94;
const SCHED_SETAFFINITY: usize = 122;
const SCHED_GETAFFINITY: usize = 123;
const RT_SIGACTION: usize = 134;
const PRCTL: usize = 167;
const GETPID: usize = 172;
const MUNMAP: usize = 215;
const CLONE: usize = 220;
const MMAP: usize = 222;
const WAIT4: usize = 260;

/// Makes a system call; an error is negative.
///
/// # Safety
/// The call with these arguments breaks no memory that Rust relies on.
unsafe fn call(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the kernel keeps all registers but x0; the caller vouches for the call.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c,
             in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    result
}

/// Prints on standard output.
pub(crate) fn print(text: &str) {
    let mut rest = text.as_bytes();
    while let [_, ..] = rest {
        // SAFETY: the kernel only reads the text.
        let written = unsafe { call(WRITE, [1, rest.as_ptr().addr(), rest.len(), 0, 0, 0]) };
        match usize::try_from(written).ok().and_then(|written| rest.get(written..)) {
            Some(left) if written > 0 => rest = left,
            Some(_) | None => return,
        }
    }
}

/// Ends the process.
pub(crate) fn exit(status: u8) -> ! {
    loop {
        // SAFETY: it does not return.
        unsafe { call(EXIT_GROUP, [status.into(), 0, 0, 0, 0, 0]) };
    }
}

/// Enters the kernel and comes back.
pub(crate) fn enter() {
    // SAFETY: it only returns a number.
    unsafe { call(GETPID, [0; 6]) };
}

/// Maps private memory, zeroed, and returns its address.
pub(crate) fn map(size: usize, protection: usize) -> Option<usize> {
    const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
    // SAFETY: the kernel chooses a free address.
    let address = unsafe { call(MMAP, [0, size, protection, MAP_PRIVATE_ANONYMOUS, usize::MAX, 0]) };
    usize::try_from(address).ok()
}

/// Opens a file, whose name ends with a zero, to read and write.
pub(crate) fn open(name: &[u8]) -> Option<usize> {
    const AT_FDCWD: usize = -100_isize as usize;
    const O_RDWR_SYNC: usize = 0o4_010_002;
    // SAFETY: the kernel only reads the name.
    let file = unsafe { call(OPENAT, [AT_FDCWD, name.as_ptr().addr(), O_RDWR_SYNC, 0, 0, 0]) };
    usize::try_from(file).ok()
}

/// Maps a part of a file, shared, and returns its address.
pub(crate) fn map_file(file: usize, offset: usize, size: usize, protection: usize) -> Option<usize> {
    const MAP_SHARED: usize = 1;
    // SAFETY: the kernel chooses a free address.
    let address = unsafe { call(MMAP, [0, size, protection, MAP_SHARED, file, offset]) };
    usize::try_from(address).ok()
}

/// Gives back memory that [`map`] returned.
///
/// # Safety
/// Nothing uses it any more.
pub(crate) unsafe fn unmap(address: usize, size: usize) {
    // SAFETY: the caller vouches for it.
    unsafe { call(MUNMAP, [address, size, 0, 0, 0, 0]) };
}

/// Chooses what a mismatch does; IRG may make all tags but 0.
pub(crate) fn check_tags(check: Check) -> bool {
    const PR_SET_TAGGED_ADDR_CTRL: usize = 55;
    const ENABLE: usize = 1;
    const ALL_BUT_ZERO: usize = 0xfffe << 3;
    let mode = match check {
        Check::Sync => 1 << 1,
        Check::Async => 1 << 2,
        Check::Off => 0,
    };
    // SAFETY: it changes how tagged addresses are checked, and all of Rust's have tag 0.
    unsafe { call(PRCTL, [PR_SET_TAGGED_ADDR_CTRL, ENABLE | mode | ALL_BUT_ZERO, 0, 0, 0, 0]) == 0 }
}

/// A pipe: the ends to read from and to write to.
pub(crate) fn pipe() -> Option<(usize, usize)> {
    let mut ends = [0_u32; 2];
    // SAFETY: the kernel writes both numbers.
    let error = unsafe { call(PIPE2, [ends.as_mut_ptr().addr(), 0, 0, 0, 0, 0]) };
    let [reader, writer] = ends;
    (error == 0).then_some((usize::try_from(reader).ok()?, usize::try_from(writer).ok()?))
}

/// Writes memory at any address, tag included, to a file; an error is negative.
pub(crate) fn write(file: usize, address: usize, size: usize) -> isize {
    // SAFETY: the kernel only reads, and checks the address.
    unsafe { call(WRITE, [file, address, size, 0, 0, 0]) }
}

/// Reads from a file to memory at any address, tag included; an error is negative.
///
/// # Safety
/// The memory is not Rust's.
pub(crate) unsafe fn read(file: usize, address: usize, size: usize) -> isize {
    // SAFETY: the caller vouches for the memory.
    unsafe { call(READ, [file, address, size, 0, 0, 0]) }
}

/// Runs `body` in a copy of this process and returns its status.
pub(crate) fn in_child(body: impl FnOnce() -> u8) -> Option<u8> {
    wait_for(start_child(body)?)
}

/// Lets a copy of this process run `body`, whose result is its status; returns its number.
pub(crate) fn start_child(body: impl FnOnce() -> u8) -> Option<usize> {
    const SIGCHLD: usize = 17;
    // SAFETY: the child gets a copy of all memory, the stack too.
    let child = unsafe { call(CLONE, [SIGCHLD, 0, 0, 0, 0, 0]) };
    if child == 0 {
        let status = body();
        loop {
            // SAFETY: it does not return.
            unsafe { call(EXIT, [status.into(), 0, 0, 0, 0, 0]) };
        }
    }
    usize::try_from(child).ok()
}

/// Waits until a child has ended; its status, if it ended by exit.
pub(crate) fn wait_for(child: usize) -> Option<u8> {
    let mut status = 0_u32;
    // SAFETY: the kernel writes the status.
    let waited = unsafe { call(WAIT4, [child, (&raw mut status).addr(), 0, 0, 0, 0]) };
    // The low byte says how it ended: 0 is by exit.
    (waited > 0 && status & 0x7f == 0).then_some(u8::try_from((status >> 8) & 0xff).ok()?)
}

/// The CPUs that this thread may run on, a bit each.
pub(crate) fn cpus() -> u64 {
    let mut cpus = [0_u64; 16];
    // SAFETY: the kernel writes at most the size given.
    let error =
        unsafe { call(SCHED_GETAFFINITY, [0, size_of_val(&cpus), cpus.as_mut_ptr().addr(), 0, 0, 0]) };
    let [first, ..] = cpus;
    if error < 0 { 0 } else { first }
}

/// Moves this thread to one of these CPUs.
pub(crate) fn run_on(cpus: u64) -> bool {
    // SAFETY: the kernel only reads the mask.
    unsafe { call(SCHED_SETAFFINITY, [0, size_of_val(&cpus), (&raw const cpus).addr(), 0, 0, 0]) == 0 }
}

/// Installs a signal handler.
///
/// # Safety
/// `action` is the kernel's `struct sigaction` with a handler that keeps what it interrupts.
pub(crate) unsafe fn on_signal(signal: usize, action: &[usize; 4]) -> bool {
    const SIGNAL_SET_SIZE: usize = 8;
    // SAFETY: the kernel only reads the action.
    unsafe { call(RT_SIGACTION, [signal, action.as_ptr().addr(), 0, SIGNAL_SET_SIZE, 0, 0]) == 0 }
}
