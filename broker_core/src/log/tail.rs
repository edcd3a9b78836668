//! The newest frames of a log, in memory: what consumers at the tail are served from, and what `memory` topics live in.
//!
//! Invariants
//! - T1 The frames are the last ones of the log, in order.
//! - T2 The `unwritten` last ones are in no segment; all others are. Only written frames are ever let go.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::Frame;

/// Bytes that a tail may hold beyond its last frame.
pub const MAX_BYTES: usize = 8 << 20;

/// The tail of one log.
#[derive(Default)]
pub struct Tail {
    frames: VecDeque<Arc<Frame>>,
    unwritten: usize,
    unwritten_records: u64,
    unwritten_bytes: usize,
    records: u64,
    bytes: usize,
}

impl Tail {
    /// Adds the newest frame.
    pub fn push(&mut self, frame: Arc<Frame>, written: bool) {
        let (records, bytes) = (u64::from(frame.header().count), frame.bytes().len());
        self.records += records;
        self.bytes += bytes;
        if !written {
            self.unwritten += 1;
            self.unwritten_records += records;
            self.unwritten_bytes += bytes;
        }
        self.frames.push_back(frame);
    }

    /// Whether it holds more than `max_records` or [`MAX_BYTES`].
    pub fn is_over(&self, max_records: u64) -> bool {
        self.records > max_records || self.bytes > MAX_BYTES
    }

    /// Whether what is in memory only is more than `max_records` or [`MAX_BYTES`].
    pub fn is_unwritten_over(&self, max_records: u64) -> bool {
        self.unwritten_records > max_records || self.unwritten_bytes > MAX_BYTES
    }

    /// Lets the oldest written frames go until the bounds hold; the newest frame stays.
    pub fn evict(&mut self, max_records: u64) {
        while self.is_over(max_records) && self.frames.len() > self.unwritten.max(1) {
            if let Some(frame) = self.frames.pop_front() {
                self.records -= u64::from(frame.header().count);
                self.bytes -= frame.bytes().len();
            }
        }
    }

    /// The frames that are in no segment, oldest first.
    pub fn unwritten(&self) -> impl Iterator<Item = &Arc<Frame>> {
        self.frames.range(self.frames.len() - self.unwritten..)
    }

    /// The oldest frame that is in no segment.
    pub fn first_unwritten(&self) -> Option<Arc<Frame>> {
        self.unwritten().next().cloned()
    }

    /// Whether every frame is in a segment.
    pub fn is_written(&self) -> bool {
        self.unwritten == 0
    }

    /// Bytes of the frames that are in no segment.
    pub fn unwritten_bytes(&self) -> u64 {
        self.unwritten_bytes as u64
    }

    /// Notes that the oldest unwritten frame is in a segment now, or was dropped on purpose.
    pub fn mark_written(&mut self) {
        if let Some(frame) = self.first_unwritten() {
            self.unwritten -= 1;
            self.unwritten_records -= u64::from(frame.header().count);
            self.unwritten_bytes -= frame.bytes().len();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether `offset` lies at or behind the first frame.
    pub fn reaches(&self, offset: u64) -> bool {
        self.frames.front().is_some_and(|frame| offset >= frame.header().base_offset)
    }

    /// The first frame that ends above `offset`.
    pub fn find(&self, offset: u64) -> Option<&Arc<Frame>> {
        let index = self.frames.partition_point(|frame| frame.header().end_offset() <= offset);
        self.frames.range(index..).find(|frame| frame.header().count > 0)
    }

    /// The offset of the first unwritten record appended at or after `time_ns`.
    pub fn unwritten_offset_at(&self, time_ns: i64) -> Option<u64> {
        let mut frames = self.unwritten().map(|frame| frame.header());
        frames.find(|header| header.append_ns >= time_ns && header.count > 0).map(|header| header.base_offset)
    }
}
