//! A group's queue and the journal that remembers it.
//!
//! Invariant: what a queue says is acked has been added to its journal. In a `memory` topic it may stay in memory, bounded,
//! until the records themselves are written.

use std::sync::Arc;

use super::metrics::GroupCounts;
use crate::disk::Disk;
use crate::error::Result;
use crate::log::{Durability, Log};
use crate::queue::journal::Journal;
use crate::queue::{Given, Queue};

/// The cursor of one group in one partition, and its journal.
pub(super) struct Cursor {
    pub queue: Queue,
    pub journal: Journal,
    /// Records given again since the broker started.
    pub redelivered: u64,
    pub counts: Arc<GroupCounts>,
}

impl Cursor {
    /// Journals a lease. It need not be on disk before the records go out, and a journal that cannot be written now must
    /// not keep them back: the entry waits for the next ack, which tells the error.
    pub fn note_lease(&mut self, disk: &dyn Disk, log: &Log, given: &Given) {
        self.journal.leased(given);
        // A record that is on disk comes back when its consumer takes the broker down, and must have been counted.
        let _ = if given.range.start < log.written_end() {
            self.write_journal(disk, log)
        } else {
            self.write_journal_unless_in_memory(disk, log)
        };
    }

    /// Writes what was added to the journal, unless the topic lives in memory.
    pub fn write_journal_unless_in_memory(&mut self, disk: &dyn Disk, log: &Log) -> Result<()> {
        if log.durability() != Durability::Memory {
            return self.write_journal(disk, log);
        }
        let queue = &self.queue;
        self.journal.bound_pending(|| queue.progress());
        Ok(())
    }

    /// Writes what was added to the journal, and keeps it small.
    pub fn write_journal(&mut self, disk: &dyn Disk, log: &Log) -> Result<()> {
        let queue = &self.queue;
        self.journal.write(disk, log.id(), || queue.progress())
    }

    /// Writes and syncs the journal.
    pub fn close(&mut self, disk: &dyn Disk, log: &Log) -> Result<()> {
        let queue = &self.queue;
        self.journal.close(disk, log.id(), || queue.progress())
    }
}
