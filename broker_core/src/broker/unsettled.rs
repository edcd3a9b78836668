//! Writes whose durability is still to come.
//!
//! A call that writes to an `fsync` topic ends in two steps: the write, which takes microseconds, and the wait for the
//! sync, which is shared. A producer with a thread of its own does both at once; an event loop does the first
//! by itself and leaves the second, for all its producers at once, to one thread.

use std::sync::Arc;

use super::partition::{Partition, UnsettledWrite};
use super::topic::Topic;
use crate::error::Result;

/// What a call has written to a topic. Nobody may be told before [`Broker::settle`](super::Broker::settle).
pub struct Unsettled {
    topic: Arc<Topic>,
    writes: Vec<(Arc<Partition>, UnsettledWrite)>,
}

impl Unsettled {
    /// Nothing yet.
    pub(super) fn of(topic: Arc<Topic>) -> Self {
        Self { topic, writes: Vec::new() }
    }

    /// Adds a write, unless it is settled already.
    pub(super) fn add(&mut self, partition: &Arc<Partition>, write: Option<UnsettledWrite>) {
        self.writes.extend(write.map(|write| (partition.clone(), write)));
    }

    /// Whether there is nothing to wait for, as in a topic that is not `fsync`.
    pub fn is_settled(&self) -> bool {
        self.writes.is_empty()
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// What else waits for the same sync: the first partition's.
    pub fn lane(&self) -> String {
        let first = self.writes.first().map_or(0, |(partition, _)| partition.number());
        format!("{}/{first}", self.topic.name())
    }

    /// Waits for each write, also behind one that failed, and returns the first failure.
    pub(super) fn settle(&self) -> Result<()> {
        let outcomes: Vec<Result<()>> =
            self.writes.iter().map(|(partition, write)| partition.settle(Some(write))).collect();
        outcomes.into_iter().collect()
    }
}
