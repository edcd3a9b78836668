//! Free space of the disk: nearly full, it takes no more records, and what every group has acked goes, oldest first over all
//! partitions, until enough is free.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::partition::Partition;
use super::{Broker, Inner};
use crate::error::{Code, Error, Result};

/// Time between two looks at the free space.
const CHECK_NS: u64 = 100_000_000;

/// Free bytes of the disk, as last seen.
#[derive(Default)]
pub(super) struct Space {
    free: u64,
    checked_ns: Option<u64>,
}

impl Broker {
    /// Refuses records while the disk is nearly full, after letting go of what nobody needs.
    pub(super) fn check_free_space(&self) -> Result<()> {
        let (min, now) = (self.options().min_free_bytes, self.inner.clock.monotonic_ns());
        // Held while segments are deleted: one producer is enough for that.
        let mut space = self.inner.space.lock();
        if space.checked_ns.is_none_or(|checked| now >= checked + CHECK_NS) {
            space.free = self.free_bytes()?;
            if space.free < min {
                self.inner.free_up(|| self.free_bytes().is_ok_and(|free| free >= min));
                space.free = self.free_bytes()?;
            }
            space.checked_ns = Some(now);
        }
        if space.free >= min {
            return Ok(());
        }
        Err(Error::new(
            Code::LogFull,
            format!(
                "{}: {} bytes are free, records are taken above {min} (min_free_bytes); nothing was appended; consumers go on: make \
                 room, or let them ack",
                self.inner.dir.display(),
                space.free
            ),
        )
        .retry_after_ms(1000))
    }

    /// Bytes free where the broker's data is.
    pub fn free_bytes(&self) -> Result<u64> {
        let dir = &self.inner.dir;
        self.inner.context.disk.free_bytes(dir).map_err(|err| Error::io("look at", dir, &err))
    }
}

impl Inner {
    /// Deletes segments that every group has acked, the one with the oldest records first, until it is enough or none is left.
    pub(super) fn free_up(&self, mut is_enough: impl FnMut() -> bool) {
        let topics = self.topics.read();
        let partitions: Vec<Arc<Partition>> = topics.values().flat_map(|topic| topic.partitions()).collect();
        drop(topics);
        let oldest = |index: usize| partitions[index].oldest_acked_ns().map(|at| Reverse((at, index)));
        let mut waiting: BinaryHeap<_> = (0..partitions.len()).filter_map(oldest).collect();
        while let Some(Reverse((_, index))) = waiting.pop() {
            if is_enough() {
                return;
            }
            // A partition where that fails is passed over: it is tried again with the next call.
            if let Ok(true) = partitions[index].remove_oldest_acked() {
                waiting.extend(oldest(index));
            }
        }
    }
}
