//! The cursor of one group in one partition: what was given to whom, and what is done.
//!
//! A queue knows offsets, leases and times; it never touches records or files. Its owner reads the log, journals the acks
//! that it reports, and passes it the time.
//!
//! Rules for late acks, the same in both modes: an ack is refused only for records since given to someone else, acked
//! under another lease, or passed by a seek. Repeating an ack is fine; mere expiry or a restart does not refuse it.

pub mod journal;
pub mod lease;
mod ordered;
mod shared;

use std::ops::Range;
use std::sync::Arc;

pub use self::ordered::OrderedQueue;
pub use self::shared::SharedQueue;

/// Leases of a group in a partition, at most. Behind them nothing is given until some are acked or end.
pub const MAX_LEASES: usize = 1_000_000;
/// Records that a group has in flight in a partition, at most: 16,777,216. Behind them nothing is given until some are
/// acked or their leases end.
pub const MAX_IN_FLIGHT: u64 = 1 << 24;

/// How a group's records are given to its consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Any consumer, any order.
    Shared,
    /// One holder a partition, offsets in order.
    Ordered,
}

impl Mode {
    /// As it is written in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Shared => "shared",
            Mode::Ordered => "ordered",
        }
    }
}

/// What may be given out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// First offset.
    pub start: u64,
    /// Behind the last offset; there may be gaps up to it.
    pub end: u64,
    /// How often these will have been given, this time included.
    pub attempt: u32,
}

/// What a queue has of a lease's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Ranges that the call took effect on.
    pub done: Vec<Range<u64>>,
    /// Ranges that were refused.
    pub stale: Vec<Range<u64>>,
}

/// A range that was given out, or not yet where `attempt` is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The offsets.
    pub range: Range<u64>,
    /// How often.
    pub attempt: u32,
    /// The last lease; 0: none that is known.
    pub grant: u64,
}

/// How far a group is: what a journal keeps of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything below is acked.
    pub floor: u64,
    /// Never given out from here on.
    pub next: u64,
    /// What is not acked in between, rising and apart.
    pub open: Vec<Given>,
    /// Leases with a lower grant were ended by a seek.
    pub seek_grant: u64,
}

impl Progress {
    /// Nothing given yet, everything below `offset` passed over.
    pub fn at(offset: u64) -> Progress {
        Progress { floor: offset, next: offset, ..Progress::default() }
    }

    /// Whether something between the floor and `next` is acked.
    pub fn has_acked_above_floor(&self) -> bool {
        self.open.iter().map(|given| given.range.end - given.range.start).sum::<u64>() < self.next - self.floor
    }
}

/// A group's cursor, of either mode.
#[derive(Debug)]
pub enum Queue {
    /// See [`SharedQueue`].
    Shared(SharedQueue),
    /// See [`OrderedQueue`].
    Ordered(OrderedQueue),
}

macro_rules! either {
    ($queue:expr, $inner:ident => $call:expr) => {
        match $queue {
            Queue::Shared($inner) => $call,
            Queue::Ordered($inner) => $call,
        }
    };
}

impl Queue {
    /// A queue that goes on where it was. Grants count up from `first_grant`, which must lie above those of any earlier
    /// life of this queue.
    pub fn new(mode: Mode, progress: &Progress, first_grant: u64) -> Queue {
        match mode {
            Mode::Shared => Queue::Shared(SharedQueue::new(progress, first_grant)),
            Mode::Ordered => Queue::Ordered(OrderedQueue::new(progress, first_grant)),
        }
    }

    /// What `consumer` may be given next of the records below `visible_end`; expires what is due first. Nothing while the
    /// group has [`MAX_LEASES`] or [`MAX_IN_FLIGHT`] open.
    pub fn candidate(&mut self, consumer: &Arc<str>, now_ns: u64, visible_end: u64) -> Option<Candidate> {
        either!(self, queue => queue.candidate(consumer, now_ns, visible_end))
    }

    /// Whether `candidate` kept something back since the last call, because the group has too much in flight: once there
    /// is room, those who wait should ask again.
    pub fn take_withheld(&mut self) -> bool {
        either!(self, queue => queue.take_withheld())
    }

    /// Leases the range, which must begin a candidate, and returns the grant.
    pub fn grant(&mut self, consumer: &Arc<str>, range: Range<u64>, deadline_ns: u64) -> u64 {
        either!(self, queue => queue.grant(consumer, range, deadline_ns))
    }

    /// Notes that a candidate's first offsets hold no records.
    pub fn skip_gap(&mut self, gap: Range<u64>) {
        either!(self, queue => queue.skip_gap(gap));
    }

    /// Marks records as done. `log_end` bounds acks that come from before a restart.
    pub fn ack(&mut self, grant: u64, range: Range<u64>, log_end: u64) -> Settled {
        either!(self, queue => queue.ack(grant, range, log_end))
    }

    /// What an ack would take effect on; changes nothing.
    pub fn owned(&self, grant: u64, range: Range<u64>, log_end: u64) -> Settled {
        either!(self, queue => queue.owned(grant, range, log_end))
    }

    /// Gives records back, to be given out again from `due_ns` on.
    pub fn nack(&mut self, grant: u64, range: Range<u64>, due_ns: u64) -> Settled {
        either!(self, queue => queue.nack(grant, range, due_ns))
    }

    /// Moves a lease's deadline; false when the lease has ended.
    pub fn extend(&mut self, grant: u64, deadline_ns: u64) -> bool {
        either!(self, queue => queue.extend(grant, deadline_ns))
    }

    /// Gives back all that a consumer holds; says whether that was anything.
    pub fn release(&mut self, consumer: &str) -> bool {
        either!(self, queue => queue.release(consumer))
    }

    /// Goes on at `offset`; all leases end: those with a grant below the one returned.
    pub fn seek(&mut self, offset: u64) -> u64 {
        either!(self, queue => queue.seek(offset))
    }

    /// When a lease or a delay ends next.
    pub fn next_due_ns(&self) -> Option<u64> {
        either!(self, queue => queue.next_due_ns())
    }

    /// Leases a range to nobody, out of turn and out of any other lease, to be acked at once. Shared groups only.
    pub fn take_over(&mut self, range: Range<u64>) -> u64 {
        match self {
            Queue::Shared(queue) => queue.take_over(&range),
            Queue::Ordered(queue) => queue.grant(&"".into(), range, 0),
        }
    }

    /// How often the record at a leased offset has been given.
    pub fn attempt(&self, offset: u64) -> u32 {
        either!(self, queue => queue.attempt(offset))
    }

    /// How far it is, for a journal.
    pub fn progress(&self) -> Progress {
        either!(self, queue => queue.progress())
    }

    /// Everything below is acked.
    pub fn floor(&self) -> u64 {
        either!(self, queue => queue.floor())
    }

    /// Everything from here on was never given out.
    pub fn next(&self) -> u64 {
        either!(self, queue => queue.next())
    }

    /// Offsets between `floor` and `next` that are not acked.
    pub fn open(&self) -> u64 {
        either!(self, queue => queue.open())
    }

    /// Leases, and records in them.
    pub fn in_flight(&self) -> (u64, u64) {
        either!(self, queue => queue.in_flight())
    }

    /// The consumer that holds the partition, in an ordered group; a hold whose leases are over at `now_ns` is none.
    pub fn holder(&mut self, now_ns: u64) -> Option<&str> {
        match self {
            Queue::Shared(_) => None,
            Queue::Ordered(queue) => {
                queue.expire(now_ns);
                queue.holder()
            }
        }
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        match self {
            Queue::Shared(_) => Mode::Shared,
            Queue::Ordered(_) => Mode::Ordered,
        }
    }
}

/// The part of `range` inside `bounds`.
fn intersect(range: &Range<u64>, bounds: &Range<u64>) -> Range<u64> {
    let start = range.start.max(bounds.start);
    start..range.end.min(bounds.end).max(start)
}

/// Adds a range to a rising list, joining it with the last one where they touch.
fn push_range(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}
