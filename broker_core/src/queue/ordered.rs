//! Ordered groups: one holder a partition, offsets in order.
//!
//! Invariants (test: `tests/queue_model.rs`)
//! - O1 Leases are contiguous from `floor` (or the acked middle of the first one) to `next`, in order, all the holder's.
//! - O2 An ack is cumulative; a nack or an expiry ends its lease and all behind it, and `next` goes back to its start.
//! - O3 A hold moves only when nothing is in flight.
//! - O4 At most [`MAX_LEASES`] leases are open, over at most [`MAX_IN_FLIGHT`] offsets; `in_flight` is the sum of them.
//! - O5 No lease ends before `earliest_ns`, so that nobody looks through them for one that is due.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::{Candidate, Given, MAX_IN_FLIGHT, MAX_LEASES, Progress, Settled, push_range};

/// Runs of grants that a rewind ended: remembered so that late acks are refused even when all is acked by now.
const REMEMBERED: usize = 1_000;

#[derive(Debug)]
struct Lease {
    grant: u64,
    range: Range<u64>,
    deadline_ns: u64,
}

/// The cursor of an ordered group.
#[derive(Debug)]
pub struct OrderedQueue {
    floor: u64,
    next: u64,
    holder: Option<Arc<str>>,
    leases: VecDeque<Lease>,
    /// Offsets in leases.
    in_flight: u64,
    earliest_ns: u64,
    /// Records were ready and not given, by O4, since somebody asked about it.
    withheld: bool,
    /// Nothing is given out before this time.
    not_before_ns: u64,
    /// Behind the last record given in this life.
    given_end: u64,
    /// Records below were given `rewinds` times before.
    again_end: u64,
    rewinds: u32,
    first_grant: u64,
    next_grant: u64,
    /// Grants below were ended by a seek.
    seek_grant: u64,
    /// Ended by the newest rewind; their records were not given to anyone since.
    rewound: Option<Range<u64>>,
    /// Where a nack cut leases short, by grant: what lay behind went to others, whatever became of the lease since.
    cuts: BTreeMap<u64, u64>,
    /// Ended by rewinds, and their records given out again since: those at or above the offset, which was the floor then.
    superseded: VecDeque<(Range<u64>, u64)>,
}

impl OrderedQueue {
    /// See [`super::Queue::new`]. Everything above the floor is given out again: acks are cumulative here.
    pub fn new(progress: &Progress, first_grant: u64) -> Self {
        Self {
            floor: progress.floor,
            next: progress.floor,
            holder: None,
            leases: VecDeque::new(),
            in_flight: 0,
            earliest_ns: u64::MAX,
            withheld: false,
            not_before_ns: 0,
            given_end: progress.floor,
            again_end: progress.next,
            rewinds: progress.open.iter().map(|given| given.attempt).max().unwrap_or(0),
            first_grant,
            next_grant: first_grant,
            seek_grant: progress.seek_grant,
            rewound: None,
            cuts: BTreeMap::new(),
            superseded: VecDeque::new(),
        }
    }

    /// Ends the leases from `index` on; the group goes on at `offset`.
    fn rewind(&mut self, index: usize, offset: u64) {
        self.again_end = self.again_end.max(self.next);
        self.rewinds += 1;
        self.next = offset;
        if let (Some(first), Some(last)) = (self.leases.get(index), self.leases.back()) {
            // Two rewinds without a grant between them end adjoining runs of grants.
            let end = self.rewound.as_ref().map_or(last.grant + 1, |later| later.end);
            self.rewound = Some(first.grant..end);
            self.in_flight -= self.leases.drain(index..).map(|lease| lease.range.end - lease.range.start).sum::<u64>();
        }
    }

    pub(super) fn expire(&mut self, now_ns: u64) {
        if self.earliest_ns <= now_ns {
            if let Some(index) = self.leases.iter().position(|lease| lease.deadline_ns <= now_ns) {
                self.rewind(index, self.leases[index].range.start);
            }
            self.earliest_ns = self.leases.iter().map(|lease| lease.deadline_ns).min().unwrap_or(u64::MAX);
        }
        if self.not_before_ns <= now_ns {
            self.not_before_ns = 0;
        }
    }

    /// See [`super::Queue::candidate`].
    pub fn candidate(&mut self, consumer: &Arc<str>, now_ns: u64, visible_end: u64) -> Option<Candidate> {
        self.expire(now_ns);
        let held_by_other = !self.leases.is_empty() && self.holder.as_ref() != Some(consumer);
        if held_by_other || self.not_before_ns > 0 || self.next >= visible_end {
            return None;
        }
        let flying = self.leases.front().map_or(0, |first| self.next - first.range.start);
        let room = MAX_IN_FLIGHT.saturating_sub(flying);
        if room == 0 || self.leases.len() >= MAX_LEASES {
            self.withheld = true;
            return None;
        }
        let again = self.next < self.again_end;
        let end = if again { visible_end.min(self.again_end) } else { visible_end };
        let end = end.min(self.next.saturating_add(room));
        Some(Candidate { start: self.next, end, attempt: if again { self.rewinds + 1 } else { 1 } })
    }

    /// See [`super::Queue::take_withheld`].
    pub fn take_withheld(&mut self) -> bool {
        std::mem::take(&mut self.withheld)
    }

    /// Where a lease stands in `leases`: grants rise along them.
    fn index_of(&self, grant: u64) -> Option<usize> {
        self.leases.binary_search_by_key(&grant, |lease| lease.grant).ok()
    }

    /// See [`super::Queue::grant`].
    pub fn grant(&mut self, consumer: &Arc<str>, range: Range<u64>, deadline_ns: u64) -> u64 {
        if let Some(rewound) = self.rewound.take() {
            self.superseded.push_back((rewound, self.floor));
            if self.superseded.len() > REMEMBERED {
                self.superseded.pop_front();
            }
        }
        let grant = self.next_grant;
        self.next_grant += 1;
        self.holder = Some(consumer.clone());
        self.next = range.end;
        self.given_end = self.given_end.max(range.end);
        self.in_flight += range.end - range.start;
        self.leases.push_back(Lease { grant, range, deadline_ns });
        self.earliest_ns = self.earliest_ns.min(deadline_ns);
        grant
    }

    /// See [`super::Queue::skip_gap`].
    pub fn skip_gap(&mut self, gap: Range<u64>) {
        self.next = self.next.max(gap.end);
        self.given_end = self.given_end.max(self.next);
        if self.leases.is_empty() {
            self.floor = self.next;
        }
    }

    /// The part of a lease's range that may still be acked under it; None: none of it.
    fn valid(&self, grant: u64, range: &Range<u64>, log_end: u64) -> Option<Range<u64>> {
        if grant < self.seek_grant || grant >= self.next_grant || range.end > log_end {
            return None;
        }
        if grant < self.first_grant {
            // From before a restart: good until something was given out again.
            let given_again = range.end > self.floor && self.given_end > self.floor;
            return (!given_again).then(|| range.clone());
        }
        if let Some((_, floor)) = self.superseded.iter().find(|(ended, _)| ended.contains(&grant)) {
            // What was acked before is nobody else's.
            return (range.end <= *floor).then(|| range.clone());
        }
        let end = match self.index_of(grant).map(|index| &self.leases[index]) {
            // A nack may have cut it short.
            Some(lease) => range.end.min(lease.range.end),
            None if range.end <= self.floor || self.rewound.as_ref().is_some_and(|ended| ended.contains(&grant)) => {
                self.cuts.get(&grant).map_or(range.end, |&cut| range.end.min(cut.max(self.floor)))
            }
            // Ended long ago, and forgotten.
            None => return None,
        };
        (range.start < end).then_some(range.start..end)
    }

    /// See [`super::Queue::owned`].
    pub fn owned(&self, grant: u64, range: Range<u64>, log_end: u64) -> Settled {
        let Some(valid) = self.valid(grant, &range, log_end) else {
            return Settled { done: Vec::new(), stale: vec![range] };
        };
        let mut settled = Settled::default();
        push_range(&mut settled.done, valid.start.max(self.floor)..valid.end.max(self.floor));
        push_range(&mut settled.stale, valid.end..range.end);
        settled
    }

    /// See [`super::Queue::ack`]. Acks everything from the floor up to the end of `range`.
    pub fn ack(&mut self, grant: u64, range: Range<u64>, log_end: u64) -> Settled {
        let Some(valid) = self.valid(grant, &range, log_end) else {
            return Settled { done: Vec::new(), stale: vec![range] };
        };
        let mut settled = Settled::default();
        push_range(&mut settled.done, self.floor..valid.end.max(self.floor));
        push_range(&mut settled.stale, valid.end..range.end);
        self.floor = self.floor.max(valid.end);
        self.next = self.next.max(self.floor);
        self.given_end = self.given_end.max(self.floor);
        if self.floor >= self.again_end {
            self.rewinds = 0;
        }
        while let Some(first) = self.leases.front_mut() {
            let left = first.range.end.saturating_sub(self.floor).min(first.range.end - first.range.start);
            self.in_flight -= first.range.end - first.range.start - left;
            if left > 0 {
                first.range.start = first.range.end - left;
                break;
            }
            self.leases.pop_front();
        }
        settled
    }

    /// See [`super::Queue::nack`]. The group goes on at the start of `range`.
    pub fn nack(&mut self, grant: u64, range: Range<u64>, due_ns: u64) -> Settled {
        let Some(index) = self.index_of(grant) else {
            // An ended lease has nothing to give back; only records that others have by now are worth a word.
            let stale = range.end > self.floor && self.valid(grant, &range, u64::MAX).is_none();
            return Settled { done: Vec::new(), stale: if stale { vec![range] } else { Vec::new() } };
        };
        let lease = &mut self.leases[index];
        let at = range.start.max(lease.range.start);
        if at >= lease.range.end {
            return Settled::default();
        }
        let done = at..self.next;
        if at == lease.range.start {
            self.rewind(index, at);
        } else {
            self.in_flight -= lease.range.end - at;
            lease.range.end = at;
            self.cuts.insert(grant, at);
            if self.cuts.len() > REMEMBERED {
                self.cuts.pop_first();
            }
            self.rewind(index + 1, at);
        }
        self.not_before_ns = due_ns;
        Settled { done: vec![done], stale: Vec::new() }
    }

    /// See [`super::Queue::extend`].
    pub fn extend(&mut self, grant: u64, deadline_ns: u64) -> bool {
        let Some(index) = self.index_of(grant) else { return false };
        self.leases[index].deadline_ns = deadline_ns;
        self.earliest_ns = self.earliest_ns.min(deadline_ns);
        true
    }

    /// See [`super::Queue::release`].
    pub fn release(&mut self, consumer: &str) -> bool {
        let held = self.holder() == Some(consumer);
        if held {
            self.rewind(0, self.leases.front().map_or(self.floor, |lease| lease.range.start));
            self.holder = None;
        }
        held
    }

    /// See [`super::Queue::seek`].
    pub fn seek(&mut self, offset: u64) -> u64 {
        let progress = Progress { seek_grant: self.next_grant, ..Progress::at(offset) };
        *self = Self { next_grant: self.next_grant, ..Self::new(&progress, self.first_grant) };
        self.seek_grant
    }

    /// See [`super::Queue::next_due_ns`].
    pub fn next_due_ns(&self) -> Option<u64> {
        let delay = (self.not_before_ns > 0).then_some(self.not_before_ns);
        self.leases.iter().map(|lease| lease.deadline_ns).chain(delay).min()
    }

    /// See [`super::Queue::attempt`].
    pub fn attempt(&self, offset: u64) -> u32 {
        if offset < self.again_end { self.rewinds + 1 } else { u32::from(offset < self.next) }
    }

    /// See [`super::Queue::progress`].
    pub fn progress(&self) -> Progress {
        let next = self.next.max(self.again_end);
        let mut open = Vec::new();
        for (end, attempt) in [(self.again_end, self.rewinds + 1), (next, 1)] {
            let start = open.last().map_or(self.floor, |given: &Given| given.range.end);
            if start < end {
                open.push(Given { range: start..end, attempt, grant: 0 });
            }
        }
        Progress { floor: self.floor, next, open, seek_grant: self.seek_grant }
    }

    /// See [`super::Queue::floor`].
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// See [`super::Queue::next`].
    pub fn next(&self) -> u64 {
        self.next
    }

    /// See [`super::Queue::open`].
    pub fn open(&self) -> u64 {
        self.next - self.floor
    }

    /// See [`super::Queue::in_flight`].
    pub fn in_flight(&self) -> (u64, u64) {
        (self.leases.len() as u64, self.in_flight)
    }

    /// The consumer whose leases are open.
    pub fn holder(&self) -> Option<&str> {
        self.holder.as_deref().filter(|_| !self.leases.is_empty())
    }
}
