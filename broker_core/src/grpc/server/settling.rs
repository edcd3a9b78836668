//! Calls that wait for the disk: the writes are made at once, the waits of all share a thread.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::broker::{Broker, Unsettled};
use crate::error::Result;

type Waiting = Vec<(Unsettled, oneshot::Sender<Result<()>>)>;

/// The waits for syncs. What is written while one sync of a partition runs is covered by the next, for all callers:
/// however many there are, a partition needs one thread.
pub(super) struct Settling {
    broker: Arc<Broker>,
    /// One that is there: its thread is busy.
    lanes: Arc<Mutex<HashMap<String, Waiting>>>,
}

impl Settling {
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker, lanes: Arc::default() }
    }

    /// Tells when a write is as durable as its topic promises, or why it is not.
    pub fn settle(&self, unsettled: Unsettled) -> oneshot::Receiver<Result<()>> {
        let (tell, told) = oneshot::channel();
        let lane = unsettled.lane();
        let mut lanes = self.lanes.lock();
        if let Some(waiting) = lanes.get_mut(&lane) {
            waiting.push((unsettled, tell));
        } else {
            lanes.insert(lane.clone(), vec![(unsettled, tell)]);
            let (broker, lanes) = (self.broker.clone(), self.lanes.clone());
            spawn_blocking(move || run(&broker, &lanes, &lane));
        }
        told
    }
}

fn run(broker: &Broker, lanes: &Mutex<HashMap<String, Waiting>>, lane: &str) {
    loop {
        let waiting = {
            let mut lanes = lanes.lock();
            match lanes.get_mut(lane) {
                Some(waiting) if !waiting.is_empty() => std::mem::take(waiting),
                _ => {
                    lanes.remove(lane);
                    return;
                }
            }
        };
        for (unsettled, tell) in waiting {
            let _ = tell.send(broker.settle(&unsettled)); // who asked may be gone
        }
    }
}
