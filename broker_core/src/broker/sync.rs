//! The locks that models of this room's concurrency replace: `tests/concurrency.rs` compiles these rooms with its own.
//!
//! They are the standard library's, where the rest of the crate uses `parking_lot`: its `notify_all` wakes one thread and
//! has each hand the lock to the next, so that 64 waiting producers wake one after the other, where a futex wakes all at
//! once; and who waits for one of its locks yields, which with 64 producers is a storm of switches.

pub use std::sync::MutexGuard as Guard;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// A lock. A panic while it is held does not poison it: what it guards here is changed in one step.
#[derive(Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around a value.
    pub fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    /// Waits until it is free.
    pub fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What threads wait for.
#[derive(Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// Lets go of the lock, waits to be notified, and takes it again; may return early.
    pub fn wait<'a, T>(&self, guard: Guard<'a, T>) -> Guard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Time in which others get the processor.
pub struct Patience {
    until: Instant,
}

impl Patience {
    /// Begins now.
    pub fn new(length: Duration) -> Patience {
        Patience { until: Instant::now() + length }
    }

    /// Whether the time is up.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Lets others go first.
    #[expect(clippy::unused_self, reason = "the one of the models needs it")]
    pub fn yield_now(&self) {
        std::thread::yield_now();
    }
}
