//! Records on their way from a log to whoever asked: runs of frames, never copied.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::log::Log;
use crate::log::frame::Frame;
use crate::wire::record_entries;

/// Consecutive records of one frame.
#[derive(Debug, Clone)]
pub struct Chunk {
    frame: Arc<Frame>,
    /// First offset.
    pub from: u64,
    /// Behind the last offset.
    pub to: u64,
    /// Where the records stand in the frame: to find that takes a walk.
    entries: Range<usize>,
}

impl Chunk {
    /// The records, as entries.
    pub fn entries(&self) -> &[u8] {
        &self.frame.records()[self.entries.clone()]
    }

    /// Bytes of the frame, which are kept in memory as long as the chunk.
    pub fn kept_bytes(&self) -> usize {
        self.frame.bytes().len()
    }

    /// One record of the chunk.
    #[must_use]
    pub fn at(&self, offset: u64) -> Chunk {
        let entries = self.frame.entry_range(offset, offset + 1);
        Chunk { frame: self.frame.clone(), from: offset, to: offset + 1, entries }
    }

    /// When they were appended.
    pub fn append_ns(&self) -> i64 {
        self.frame.header().append_ns
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.entries()
    }
}

/// An encoded `AppendRun`, at most.
const RUN_BYTES: usize = 16;
/// A delivery's other fields, at most: the topic's name, log id, lease id and numbers.
const HEAD_BYTES: usize = 400;

/// How much may be taken at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Records, at most.
    pub records: u32,
    /// Bytes of entries, at most, beyond the first record.
    pub bytes: usize,
}

/// Records leased to a consumer: chunks without a gap between them.
#[derive(Debug)]
pub struct Leased {
    /// The lease.
    pub grant: u64,
    /// How often these have been given, this time included.
    pub attempt: u32,
    /// One record, for the last time; nothing may be given in the same answer behind it.
    pub last: bool,
    /// Never empty.
    pub chunks: Vec<Chunk>,
}

impl Leased {
    /// Bytes that a delivery of them has in an answer, at most: the records as entries, their times, and its head.
    pub fn bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(|chunk| chunk.entries().len()).sum();
        entries + self.chunks.len() * RUN_BYTES + HEAD_BYTES
    }
}

/// What a consumer's question came to.
#[derive(Debug)]
pub enum Received {
    /// Records for it.
    Leased(Leased),
    /// Records that were given out too often, leased to nobody: they are to become dead letters.
    Exhausted {
        /// The lease.
        grant: u64,
        /// Their offsets.
        range: Range<u64>,
        /// How often they were given out.
        attempts: u32,
    },
    /// None are ready.
    Nothing,
}

/// Up to `bounds` records of `range`, without a gap between them; where they begin says where a gap ended.
pub(super) fn collect(log: &mut Log, range: &Range<u64>, bounds: Bounds) -> Result<Vec<Chunk>> {
    let (mut chunks, mut at, mut records, mut bytes) = (Vec::new(), range.start, 0u64, 0usize);
    while at < range.end && records < u64::from(bounds.records) {
        let Some(frame) = log.frame_at(at)? else { break };
        let base = frame.header().base_offset;
        if base > at && !chunks.is_empty() || base >= range.end {
            break;
        }
        let from = base.max(at);
        let mut to = frame.header().end_offset().min(range.end).min(from + u64::from(bounds.records) - records);
        let mut entries = frame.entry_range(from, to);
        let whole = &frame.records()[entries.clone()];
        let room = bounds.bytes.saturating_sub(bytes);
        let mut taken = whole.len();
        if taken > room {
            let fitting: Vec<usize> =
                record_entries(whole).map(|entry| entry.end).take_while(|&end| end <= room).collect();
            let first = record_entries(whole).next().map_or(0, |entry| entry.end);
            // The first record is given even when it is larger than the bound.
            let least = u64::from(chunks.is_empty());
            to = from + (fitting.len() as u64).max(least);
            taken = fitting.last().copied().unwrap_or(first);
            entries.end = entries.start + taken;
        }
        if to == from {
            break;
        }
        let full = to < frame.header().end_offset().min(range.end);
        chunks.push(Chunk { frame, from, to, entries });
        (at, records, bytes) = (to, records + (to - from), bytes + taken);
        if full {
            break;
        }
    }
    Ok(chunks)
}
