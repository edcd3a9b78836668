//! Ordered groups: one holder a partition, offsets in order.
//!
//! Invariants (test: `tests/queue_model.rs`)
//! - O1 Leases are contiguous from `floor` (or the acked middle of the first one) to `next`, in order, all the holder's.
//! - O2 An ack is cumulative; a nack or an expiry ends its lease and all behind it, and `next` goes back to its start.
//! - O3 A hold moves only when nothing is in flight.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::{Acked, Candidate, Settled};

/// Runs of grants that a rewind ended, remembered so that their acks are refused once others got the records.
const REMEMBERED_REWINDS: usize = 1_000;

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
    /// Nothing is given out before this time.
    not_before_ns: u64,
    /// Records below were given before; `rewinds` times since the floor last rose.
    given_end: u64,
    rewinds: u32,
    first_grant: u64,
    next_grant: u64,
    /// Grants below were ended by a seek.
    seek_grant: u64,
    /// Ended by the newest rewind; their records were not given to anyone since.
    rewound: Option<Range<u64>>,
    /// Ended by rewinds, and their records given out again since.
    superseded: VecDeque<Range<u64>>,
}

impl OrderedQueue {
    /// See [`super::Queue::new`]. Ranges above the floor are given out again: acks are cumulative here.
    pub fn new(acked: &Acked, first_grant: u64) -> Self {
        Self {
            floor: acked.floor,
            next: acked.floor,
            holder: None,
            leases: VecDeque::new(),
            not_before_ns: 0,
            given_end: acked.floor,
            rewinds: 0,
            first_grant,
            next_grant: first_grant,
            seek_grant: 0,
            rewound: None,
            superseded: VecDeque::new(),
        }
    }

    /// Ends the lease at `index` and all behind it.
    fn rewind(&mut self, index: usize) {
        let (Some(first), Some(last)) = (self.leases.get(index), self.leases.back()) else { return };
        let ended = first.grant..last.grant + 1;
        self.next = first.range.start;
        self.rewinds += 1;
        self.rewound = Some(match self.rewound.take() {
            // No lease was given between two rewinds, or there would be no earlier one left.
            Some(earlier) if earlier.start >= ended.end => ended.start..earlier.end,
            _ => ended,
        });
        self.leases.truncate(index);
    }

    fn expire(&mut self, now_ns: u64) {
        if let Some(index) = self.leases.iter().position(|lease| lease.deadline_ns <= now_ns) {
            self.rewind(index);
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
        let again = self.next < self.given_end;
        let end = if again { visible_end.min(self.given_end) } else { visible_end };
        Some(Candidate { start: self.next, end, attempt: if again { self.rewinds + 1 } else { 1 } })
    }

    /// See [`super::Queue::grant`].
    pub fn grant(&mut self, consumer: &Arc<str>, range: Range<u64>, deadline_ns: u64) -> u64 {
        if let Some(rewound) = self.rewound.take() {
            self.superseded.push_back(rewound);
            if self.superseded.len() > REMEMBERED_REWINDS {
                self.superseded.pop_front();
            }
        }
        let grant = self.next_grant;
        self.next_grant += 1;
        self.holder = Some(consumer.clone());
        self.next = range.end;
        self.given_end = self.given_end.max(range.end);
        self.leases.push_back(Lease { grant, range, deadline_ns });
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

    fn is_stale(&self, grant: u64, range: &Range<u64>, log_end: u64) -> bool {
        if grant < self.seek_grant || grant >= self.next_grant || range.end > log_end {
            return true;
        }
        if grant < self.first_grant {
            // From before a restart: good until these records were given out again.
            return range.end > self.floor && self.given_end > range.start && self.given_end > self.floor;
        }
        self.superseded.iter().any(|ended| ended.contains(&grant))
    }

    /// See [`super::Queue::owned`].
    pub fn owned(&self, grant: u64, range: Range<u64>, log_end: u64) -> Settled {
        if self.is_stale(grant, &range, log_end) {
            return Settled { done: Vec::new(), stale: vec![range] };
        }
        let open = range.start.max(self.floor)..range.end;
        Settled { done: if open.is_empty() { Vec::new() } else { vec![open] }, stale: Vec::new() }
    }

    /// See [`super::Queue::ack`]. Acks everything from the floor up to the end of `range`.
    pub fn ack(&mut self, grant: u64, range: Range<u64>, log_end: u64) -> Settled {
        if self.is_stale(grant, &range, log_end) {
            return Settled { done: Vec::new(), stale: vec![range] };
        }
        if range.end <= self.floor {
            return Settled::default();
        }
        let done = self.floor..range.end;
        self.floor = range.end;
        self.next = self.next.max(self.floor);
        self.given_end = self.given_end.max(self.floor);
        self.rewinds = 0;
        while let Some(first) = self.leases.front_mut() {
            if first.range.end > self.floor {
                first.range.start = first.range.start.max(self.floor);
                break;
            }
            self.leases.pop_front();
        }
        Settled { done: vec![done], stale: Vec::new() }
    }

    /// See [`super::Queue::nack`]. The group goes on at the start of `range`.
    pub fn nack(&mut self, grant: u64, range: Range<u64>, due_ns: u64) -> Settled {
        let Some(index) = self.leases.iter().position(|lease| lease.grant == grant) else {
            let stale = self.is_stale(grant, &range, u64::MAX) && range.end > self.floor;
            return Settled { done: Vec::new(), stale: if stale { vec![range] } else { Vec::new() } };
        };
        let at = range.start.max(self.leases[index].range.start);
        let done = at..self.next;
        let lease = &mut self.leases[index];
        if at > lease.range.start {
            // The records before stay leased; the rest of this lease ends with those behind it.
            let end = std::mem::replace(&mut lease.range.end, at);
            let (grant, deadline_ns) = (lease.grant, lease.deadline_ns);
            self.leases.insert(index + 1, Lease { grant, range: at..end, deadline_ns });
            self.rewind(index + 1);
            self.rewound = None;
        } else {
            self.rewind(index);
        }
        self.not_before_ns = due_ns;
        Settled { done: vec![done], stale: Vec::new() }
    }

    /// See [`super::Queue::extend`].
    pub fn extend(&mut self, grant: u64, deadline_ns: u64) -> bool {
        let lease = self.leases.iter_mut().find(|lease| lease.grant == grant);
        lease.is_some_and(|lease| {
            lease.deadline_ns = deadline_ns;
            true
        })
    }

    /// See [`super::Queue::release`].
    pub fn release(&mut self, consumer: &str) {
        if self.holder() == Some(consumer) {
            self.rewind(0);
            self.holder = None;
        }
    }

    /// See [`super::Queue::seek`].
    pub fn seek(&mut self, offset: u64) {
        *self = Self {
            seek_grant: self.next_grant,
            next_grant: self.next_grant,
            ..Self::new(&Acked { floor: offset, ranges: vec![] }, self.first_grant)
        };
    }

    /// See [`super::Queue::next_due_ns`].
    pub fn next_due_ns(&self) -> Option<u64> {
        let delay = (self.not_before_ns > 0 && self.leases.is_empty()).then_some(self.not_before_ns);
        self.leases.iter().map(|lease| lease.deadline_ns).chain(delay).min()
    }

    /// See [`super::Queue::attempt`].
    pub fn attempt(&self, offset: u64) -> u32 {
        if offset < self.given_end { self.rewinds + 1 } else { 0 }
    }

    /// See [`super::Queue::acked`].
    pub fn acked(&self) -> Acked {
        Acked { floor: self.floor, ranges: Vec::new() }
    }

    /// See [`super::Queue::floor`].
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// See [`super::Queue::next`].
    pub fn next(&self) -> u64 {
        self.next
    }

    /// See [`super::Queue::lag`].
    pub fn lag(&self, end: u64) -> u64 {
        end.saturating_sub(self.floor)
    }

    /// See [`super::Queue::in_flight`].
    pub fn in_flight(&self) -> (u64, u64) {
        (self.leases.len() as u64, self.leases.iter().map(|lease| lease.range.end - lease.range.start).sum())
    }

    /// The consumer whose leases are open.
    pub fn holder(&self) -> Option<&str> {
        self.holder.as_deref().filter(|_| !self.leases.is_empty())
    }
}
