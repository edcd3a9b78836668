//! The background thread: everything written to `os` topics is on disk after 5 s or 64 MiB, whichever comes first, and
//! retention is looked at with each sync, at least once a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Longest time that written bytes stay unsynced.
const INTERVAL: Duration = Duration::from_secs(5);
/// Longest time between two looks at what retention may delete, while nothing is written.
const UPKEEP: Duration = Duration::from_secs(60);
/// Most bytes of a partition that stay unsynced.
pub const MAX_UNSYNCED_BYTES: u64 = 64 << 20;

#[derive(Default)]
struct State {
    urgent: bool,
    stopped: bool,
}

/// Tells the background thread when there is something to sync.
#[derive(Default)]
pub struct Flusher {
    dirty: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
}

impl Flusher {
    /// Notes a write; `urgent` when a partition has passed its bound.
    pub fn written(&self, urgent: bool) {
        if urgent {
            self.state.lock().urgent = true;
            self.wake.notify_one();
        } else if !self.dirty.swap(true, Ordering::Relaxed) {
            drop(self.state.lock());
            self.wake.notify_one();
        }
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_one();
    }

    /// The thread's life: `sync` runs after each interval in which something was written, and once a minute; false from it ends the life.
    pub fn run(self: &Arc<Self>, sync: impl Fn() -> bool) {
        loop {
            let mut state = self.state.lock();
            let upkeep = Instant::now() + UPKEEP;
            while !state.stopped && !state.urgent && !self.dirty.load(Ordering::Relaxed) {
                if self.wake.wait_until(&mut state, upkeep).timed_out() {
                    break;
                }
            }
            let deadline = Instant::now() + INTERVAL;
            while !state.stopped && !state.urgent {
                if self.wake.wait_until(&mut state, deadline).timed_out() {
                    break;
                }
            }
            if state.stopped {
                return;
            }
            state.urgent = false;
            drop(state);
            self.dirty.store(false, Ordering::Relaxed);
            if !sync() {
                return;
            }
        }
    }
}
