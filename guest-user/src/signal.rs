//! Catching SIGSEGV and SIGBUS: the handler notes what the kernel says and steps over the instruction.
//!
//! UNSAFETY: it reads and changes the frame that the kernel built on the stack.

use crate::linux;
use core::arch::global_asm;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Why the kernel sent SIGSEGV (Linux, include/uapi/asm-generic/siginfo.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// SEGV_MTESERR: a tag mismatch, at the instruction.
    Sync,
    /// SEGV_MTEAERR: a tag mismatch, some time before.
    Async,
    /// SIGBUS: an external abort.
    Bus,
    /// Anything else.
    Other,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Why.
    pub cause: Cause,
    /// Where, with the tag of the address.
    pub address: usize,
}

const SIGBUS: usize = 7;
const SIGSEGV: usize = 11;
const SEGV_MTEAERR: usize = 8;
const SEGV_MTESERR: usize = 9;

// The handler runs on the thread that it interrupts: no order is needed beyond the program's own.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static SIGNAL: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicUsize = AtomicUsize::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

// Ends a handler: rt_sigreturn.
global_asm!(".global signal_return", "signal_return:", "    mov x8, #139", "    svc #0");

unsafe extern "C" {
    fn signal_return();
}

/// Runs `body` and returns the one fault that it caused.
pub(crate) fn catch(body: impl FnOnce()) -> Result<Option<Fault>, &'static str> {
    const SA_SIGINFO: usize = 4;
    const SA_EXPOSE_TAGGED_BITS: usize = 0x800;
    const SA_RESTORER: usize = 0x0400_0000;
    let handler: extern "C" fn(usize, *const u32, *mut usize) = handle;
    let restorer: unsafe extern "C" fn() = signal_return;
    let flags = SA_SIGINFO | SA_EXPOSE_TAGGED_BITS | SA_RESTORER;
    let action = [handler as *const () as usize, flags, restorer as *const () as usize, 0];
    COUNT.store(0, Relaxed);
    // SAFETY: handler, flags, restorer, mask; the handler changes nothing but the PC of `tag`'s accesses.
    let segv = unsafe { linux::on_signal(SIGSEGV, &action) };
    // SAFETY: the same.
    let bus = unsafe { linux::on_signal(SIGBUS, &action) };
    if !segv || !bus {
        return Err("no signal handler");
    }
    body();
    let cause = match SIGNAL.load(Relaxed) {
        SIGBUS => Cause::Bus,
        _ => segv_cause(),
    };
    match COUNT.load(Relaxed) {
        0 => Ok(None),
        1 => Ok(Some(Fault { cause, address: ADDRESS.load(Relaxed) })),
        _ => Err("more than one fault"),
    }
}

fn segv_cause() -> Cause {
    match CODE.load(Relaxed) {
        SEGV_MTESERR => Cause::Sync,
        SEGV_MTEAERR => Cause::Async,
        _ => Cause::Other,
    }
}

/// The faults between two signals that are too many to be meant.
const RUNAWAY: usize = 100;

extern "C" fn handle(signal: usize, info: *const u32, context: *mut usize) {
    // Linux, include/uapi/asm-generic/siginfo.h: si_code, si_addr.
    const CODE_WORD: usize = 2;
    const ADDRESS_WORD: usize = 4;
    // Linux, arch/arm64/include/uapi/asm/{ucontext,sigcontext}.h: uc_mcontext.pc, at byte 440.
    const PC_WORD: usize = 440 / 8;
    let info_code = info.wrapping_add(CODE_WORD);
    // SAFETY: the kernel passes a siginfo_t.
    let code = unsafe { info_code.read() };
    // SAFETY: the same.
    let address = unsafe { info.wrapping_add(ADDRESS_WORD).cast::<usize>().read() };
    SIGNAL.store(signal, Relaxed);
    CODE.store(usize::try_from(code).unwrap_or(0), Relaxed);
    ADDRESS.store(address, Relaxed);
    if COUNT.fetch_add(1, Relaxed) > RUNAWAY {
        linux::print("Bail out! SIGSEGV without end\n");
        linux::exit(254);
    }
    if signal == SIGSEGV && usize::try_from(code) == Ok(SEGV_MTEAERR) {
        // The access was done; the PC is elsewhere.
        return;
    }
    let pc = context.wrapping_add(PC_WORD);
    // SAFETY: the kernel passes a ucontext_t, which it reads back.
    let at = unsafe { pc.read() };
    // SAFETY: the same; what faults is one instruction of 4 bytes, whose result `tag` does not trust.
    unsafe { pc.write(at.wrapping_add(4)) };
}
