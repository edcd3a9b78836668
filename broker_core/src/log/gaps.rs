//! Offsets that hold no record although they lie inside the log, so that nobody counts them as work to do.
//!
//! Derived from the frames' `skipped`, never stored. Invariant: ranges rise and do not touch.

use std::ops::Range;

/// The gaps of one log.
#[derive(Debug, Default)]
pub struct Gaps {
    ranges: Vec<Range<u64>>,
}

impl Gaps {
    /// Adds a gap; noting it again changes nothing.
    pub fn note(&mut self, gap: Range<u64>) {
        if gap.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|range| range.end < gap.start);
        let to = self.ranges.partition_point(|range| range.start <= gap.end);
        let joined = self.ranges[from..to].iter().fold(gap, |all, one| all.start.min(one.start)..all.end.max(one.end));
        self.ranges.splice(from..to, [joined]);
    }

    /// Forgets what lies below the oldest offset kept.
    pub fn forget_below(&mut self, start: u64) {
        let gone = self.ranges.partition_point(|range| range.end <= start);
        self.ranges.drain(..gone);
    }

    /// How many offsets of `range` hold no record.
    pub fn count(&self, range: &Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let from = self.ranges.partition_point(|gap| gap.end <= range.start);
        let inside = self.ranges[from..].iter().take_while(|gap| gap.start < range.end);
        inside.map(|gap| gap.end.min(range.end) - gap.start.max(range.start)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn gaps_count_as_a_set_of_offsets_does(
            noted in proptest::collection::vec((0..60u64, 0..9u64), 0..12), start in 0..60u64, asked in 0..60u64, len in 0..60u64,
        ) {
            let (mut gaps, mut model) = (Gaps::default(), BTreeSet::new());
            for (at, len) in noted {
                gaps.note(at..at + len);
                model.extend(at..at + len);
            }
            prop_assert!(gaps.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            gaps.forget_below(start);
            let range = asked.max(start)..asked.max(start) + len;
            prop_assert_eq!(gaps.count(&range), model.range(range.clone()).count() as u64);
        }
    }
}
