//! Time as the core sees it, injected so that tests and simulations move it themselves.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Where a broker reads the time.
pub trait Clock: Send + Sync {
    /// Wall time, nanoseconds since the Unix epoch: what append times are.
    fn wall_ns(&self) -> i64;

    /// A time that never goes back, nanoseconds since an arbitrary start: what deadlines are.
    fn monotonic_ns(&self) -> u64;

    /// Registers a call for when the time was moved by hand; a real clock never makes it.
    fn on_jump(&self, _wake: Box<dyn Fn() + Send + Sync>) {}
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall_ns(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until it is moved.
pub struct ManualClock {
    start_ns: i64,
    now_ns: AtomicI64,
    wakes: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

impl ManualClock {
    /// A clock that shows `now_ns`, nanoseconds since the epoch.
    pub fn new(now_ns: i64) -> Self {
        Self { start_ns: now_ns, now_ns: AtomicI64::new(now_ns), wakes: Mutex::new(Vec::new()) }
    }

    /// Moves the clock forward.
    pub fn advance_ns(&self, ns: u64) {
        self.now_ns.fetch_add(i64::try_from(ns).unwrap_or(i64::MAX), Ordering::SeqCst);
        for wake in self.wakes.lock().iter() {
            wake();
        }
    }
}

impl Clock for ManualClock {
    fn wall_ns(&self) -> i64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.wall_ns() - self.start_ns).unwrap_or(0)
    }

    fn on_jump(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.wakes.lock().push(wake);
    }
}
