//! What became of the rows.

use crate::telemetry::sample::RowFault;

/// Counters of a block, or of all blocks so far: `rows = samples + duplicates + missing + resumed + rejected`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that are not blank lines.
    pub rows: u64,
    /// Values in points.
    pub samples: u64,
    /// Points, which are records too.
    pub points: u64,
    /// Rows that a later row of the same block with the same time, tags and metric replaced.
    pub duplicates: u64,
    /// Rows without a value: empty, or a sentinel.
    pub missing: u64,
    /// Rows that their partition already holds.
    pub resumed: u64,
    /// Least and greatest time of the samples, in nanoseconds since the epoch, as written to the points.
    pub times_ns: Option<(i64, i64)>,
    rejected: [u64; RowFault::ALL.len()],
}

impl Counts {
    /// Rows refused for this reason.
    pub fn rejected(&self, reason: RowFault) -> u64 {
        self.rejected[reason as usize]
    }

    /// Rows refused for any reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    pub(super) fn reject(&mut self, reason: RowFault) {
        self.rejected[reason as usize] += 1;
    }

    pub(super) fn see_time(&mut self, time_ns: i64) {
        let (first, last) = self.times_ns.unwrap_or((time_ns, time_ns));
        self.times_ns = Some((first.min(time_ns), last.max(time_ns)));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.samples += other.samples;
        self.points += other.points;
        self.duplicates += other.duplicates;
        self.missing += other.missing;
        self.resumed += other.resumed;
        if let Some((first, last)) = other.times_ns {
            self.see_time(first);
            self.see_time(last);
        }
        for (mine, theirs) in self.rejected.iter_mut().zip(other.rejected) {
            *mine += theirs;
        }
    }
}
