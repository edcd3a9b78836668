//! Group commit: one sync for all who wait for one.
//!
//! Every write takes a ticket, a number that rises. A sync covers the tickets taken before it began. Whoever finds none
//! running runs the next; those who come meanwhile cannot know whether the running one covers them, so they wait for it,
//! and one of those it did not cover runs the next, for all of them.
//!
//! A crowd that one sync let go comes back one thread after the other. Whoever is first would sync for itself alone and
//! make all the others wait for two syncs, so it lets them come first, as `PostgreSQL` does with `commit_siblings`: until
//! as many are here as were let go, for [`GATHER_MAX`] at most. A producer that is alone never waits.
//!
//! Invariants (model: `tests/concurrency.rs`)
//! - At most one sync runs at a time, and none runs whose tickets are covered already.
//! - `wait` returns Ok only when a sync that ended well covered the ticket.
//! - After a sync that failed none is run again: what it lost cannot be told, so every later ticket fails with its error.

use std::time::Duration;

use super::sync::{Condvar, Guard, Mutex, Patience};
use crate::error::{Error, Result};

/// How long a sync is put off for those who are on their way: about what a fast disk takes for one.
const GATHER_MAX: Duration = Duration::from_micros(200);

#[derive(Default)]
struct State {
    /// Highest ticket covered.
    synced: u64,
    running: bool,
    /// Threads that wait for a sync which has not ended, the one that runs it included.
    waiting: usize,
    /// How many the last sync let go.
    let_go: usize,
    /// Syncs that have begun.
    begun: u64,
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
        if state.synced >= ticket {
            return Ok(());
        }
        state.waiting += 1;
        let begun = state.begun;
        while state.running && state.synced < ticket {
            state = self.ended.wait(state);
        }
        if state.synced >= ticket {
            if state.begun == begun {
                // The sync that covers it ran already when it came, and did not count it.
                state.waiting -= 1;
            }
            return Ok(());
        }
        if let Some(err) = &state.failed {
            return Err(err.clone());
        }
        state.running = true;
        state = self.gather(state);
        // All of them have taken their tickets, so the sync covers them.
        let covered = state.waiting;
        state.begun += 1;
        drop(state);
        let outcome = sync();
        let mut state = self.state.lock();
        state.running = false;
        state.waiting -= covered;
        state.let_go = covered;
        let outcome = match outcome {
            Ok(upto) => {
                state.synced = upto;
                Ok(())
            }
            Err(err) => {
                state.failed = Some(err.clone());
                Err(err)
            }
        };
        drop(state);
        self.ended.notify_all();
        outcome
    }

    /// Lets those come back whom the last sync let go.
    fn gather<'a>(&'a self, mut state: Guard<'a, State>) -> Guard<'a, State> {
        let patience = Patience::new(GATHER_MAX);
        while state.waiting < state.let_go && !patience.is_over() {
            drop(state);
            patience.yield_now();
            state = self.state.lock();
        }
        state
    }

    /// Runs `act` while no sync runs and none can begin, unless one failed; for the end of what is synced.
    pub fn between_syncs(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut state = self.state.lock();
        while state.running {
            state = self.ended.wait(state);
        }
        match &state.failed {
            Some(err) => Err(err.clone()),
            None => act(),
        }
    }
}
