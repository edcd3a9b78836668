//! Points into line protocol, for stores that take it: the lines as they came, each field a float, each with its time.
//!
//! Invariants (tests: `tests/line_batches.rs`)
//! - Line n of a batch is that of the record at [`LineIndex::place`] n, and there is no line feed but between lines.
//! - What a [`ColumnBuilder`](super::ColumnBuilder) makes of a batch's lines is what it makes of the records.

use std::ops::Range;

use super::decoder::{Decoder, Output, Place};
use super::escape::{push_number, push_time};
use super::reader::{Names, Point};
use crate::error::Result;

/// Collects points into line protocol.
///
/// Numbers that are no floats to other readers are written as such, for a metric that is an integer in one line and a
/// float in the next has no column: `7i`, `7u`, `t` become `7`, `7`, `1`.
pub type LineBuilder = Decoder<LineOutput>;

/// The lines so far.
#[derive(Default)]
pub struct LineOutput {
    lines: Vec<u8>,
    ends: Vec<usize>,
    places: Vec<Place>,
    samples: usize,
}

impl Output for LineOutput {
    type Batch = LineBatch;

    fn push(&mut self, point: &Point<'_>, place: Place) {
        let mut copied = 0;
        for value in point.respelled {
            self.lines.extend_from_slice(&point.line[copied..value.start]);
            push_number(&mut self.lines, value.value);
            copied = value.end;
        }
        self.lines.extend_from_slice(point.line[copied..].trim_ascii_end());
        if !point.is_timed {
            self.lines.push(b' ');
            push_time(&mut self.lines, point.time_ns);
        }
        self.lines.push(b'\n');
        self.ends.push(self.lines.len());
        self.places.push(place);
        self.samples += point.fields.len();
    }

    fn rows(&self) -> usize {
        self.places.len()
    }

    fn nbytes(&self, _: usize) -> usize {
        self.lines.len() + self.places.len() * (size_of::<usize>() + size_of::<Place>())
    }

    fn finish(self, _: Names) -> Result<LineBatch> {
        let index = LineIndex { ends: self.ends, places: self.places, samples: self.samples };
        Ok(LineBatch { lines: self.lines, index })
    }
}

/// Finished lines.
#[derive(Debug, Clone)]
pub struct LineBatch {
    /// Each with its line end.
    pub lines: Vec<u8>,
    /// What is known of them.
    pub index: LineIndex,
}

/// Where lines stand in a batch, and where they came from.
#[derive(Debug, Clone)]
pub struct LineIndex {
    ends: Vec<usize>,
    places: Vec<Place>,
    samples: usize,
}

impl LineIndex {
    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Values of fields in all lines.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The bytes of the lines from `start` to `end`, exclusive; empty where there are no such lines.
    pub fn bytes(&self, start: usize, end: usize) -> Range<usize> {
        let end = end.min(self.ends.len());
        if start >= end {
            return 0..0;
        }
        self.start_of(start)..self.ends[end - 1]
    }

    /// Where a line came from.
    pub fn place(&self, line: usize) -> Option<Place> {
        self.places.get(line).copied()
    }

    /// Cuts the lines into runs of at most `max_bytes`, as (start, end); a line that is longer is a run by itself.
    pub fn cut(&self, max_bytes: usize) -> Vec<(usize, usize)> {
        let mut runs = Vec::new();
        let mut start = 0;
        while start < self.len() {
            let limit = self.start_of(start).saturating_add(max_bytes);
            let end = self.ends.partition_point(|&end| end <= limit).max(start + 1);
            runs.push((start, end));
            start = end;
        }
        runs
    }

    fn start_of(&self, line: usize) -> usize {
        line.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}
