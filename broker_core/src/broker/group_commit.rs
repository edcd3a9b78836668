//! Group commit: one sync for all who wait for one.
//!
//! Every write takes a ticket, a number that rises. A sync covers the tickets taken before it began. Whoever finds none
//! running runs the next; those who come meanwhile cannot know whether the running one covers them, so they wait for it,
//! and one of those it did not cover runs the next, for all of them.
//!
//! Invariants (model: `tests/concurrency.rs`)
//! - At most one sync runs at a time, and none runs whose tickets are covered already.
//! - `wait` returns Ok only when a sync that ended well covered the ticket.
//! - After a sync that failed none is run again: what it lost cannot be told, so every later ticket fails with its error.

use super::sync::{Condvar, Mutex};
use crate::error::{Error, Result};

#[derive(Default)]
struct State {
    /// Highest ticket covered.
    synced: u64,
    running: bool,
    failed: Option<Error>,
}

/// See the module.
#[derive(Default)]
pub struct GroupCommit {
    state: Mutex<State>,
    ended: Condvar,
}

impl GroupCommit {
    /// Returns once `ticket` is covered, running `sync` if nobody else does.
    ///
    /// `sync` returns the highest ticket it covers, which is at least the caller's. It must not panic.
    pub fn wait(&self, ticket: u64, sync: impl FnOnce() -> Result<u64>) -> Result<()> {
        let mut state = self.state.lock();
        while state.running && state.synced < ticket {
            self.ended.wait(&mut state);
        }
        if state.synced >= ticket {
            return Ok(());
        }
        if let Some(err) = &state.failed {
            return Err(err.clone());
        }
        state.running = true;
        drop(state);
        let outcome = sync();
        let mut state = self.state.lock();
        state.running = false;
        self.ended.notify_all();
        match outcome {
            Ok(upto) => state.synced = upto,
            Err(err) => {
                state.failed = Some(err.clone());
                return Err(err);
            }
        }
        Ok(())
    }
    /// Runs `act` while no sync runs and none can begin, unless one failed; for the end of what is synced.
    pub fn between_syncs(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut state = self.state.lock();
        while state.running {
            self.ended.wait(&mut state);
        }
        match &state.failed {
            Some(err) => Err(err.clone()),
            None => act(),
        }
    }
}
