//! When a record was appended, as far as memory tells: for metrics, which read no file.

use super::Log;

impl Log {
    /// About when the first record at or above `offset` was appended; None at the end.
    ///
    /// Exact for what is in memory, and otherwise as near as [`super::segment::Segment::append_ns_near`] comes.
    pub fn append_ns_near(&self, offset: u64) -> Option<i64> {
        let offset = offset.max(self.start());
        let in_tail = || self.tail.find(offset).map(|frame| frame.header().append_ns);
        if self.tail.reaches(offset) {
            return in_tail();
        }
        let from = self.segments.partition_point(|segment| segment.end() <= offset);
        // It may lie in a gap, or in damage: then a later segment has the first record behind it.
        self.segments[from..].iter().find_map(|segment| segment.append_ns_near(offset)).or_else(in_tail)
    }
}
