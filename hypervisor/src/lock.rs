//! The lock of everything that CPUs share: `spin`'s ticket lock behind `lock_api`'s [`Mutex`].
//!
//! `spin` compiles a lock into each place that takes it. Few of these are on a hot path: here
//! [`Mutex::lock`] is a call, and [`Hot::lock_hot`] is for those that are. The order of locks is in
//! `docs/locking.md`.
//!
//! Unsafe: `lock_api` asks its raw locks for the promise that they exclude, which `spin`'s does.

use core::mem::forget;
use lock_api::{GuardSend, RawMutex};
use spin::mutex::TicketMutex;

/// Who asks first gets it first.
pub(crate) struct Ticket(TicketMutex<()>);

// SAFETY: between `lock` or a successful `try_lock` and `unlock` a ticket is being served, and each is
// served alone.
unsafe impl RawMutex for Ticket {
    type GuardMarker = GuardSend;

    const INIT: Self = Self(TicketMutex::new(()));

    #[inline(never)]
    fn lock(&self) {
        forget(self.0.lock());
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0.try_lock().map(forget).is_some()
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock, and forgot its guard.
        unsafe { self.0.force_unlock() }
    }
}

/// `T`, for one CPU at a time.
pub(crate) type Mutex<T> = lock_api::Mutex<Ticket, T>;

/// What [`Mutex::lock`] returns.
type MutexGuard<'a, T> = lock_api::MutexGuard<'a, Ticket, T>;

/// Taking a lock where each instruction counts.
pub(crate) trait Hot<T> {
    /// [`Mutex::lock`], in place.
    fn lock_hot(&self) -> MutexGuard<'_, T>;
}

impl<T> Hot<T> for Mutex<T> {
    #[inline(always)]
    fn lock_hot(&self) -> MutexGuard<'_, T> {
        // SAFETY: the raw lock is locked here, and unlocked by the guard.
        forget(unsafe { self.raw() }.0.lock());
        // SAFETY: the lock is held, by nobody else.
        unsafe { self.make_guard_unchecked() }
    }
}
