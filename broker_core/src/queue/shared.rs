//! Shared groups: any consumer, any order.
//!
//! Invariants (test: `tests/queue_model.rs`)
//! - S1 `runs` are disjoint ranges below `next`; an offset below `next` is acked, or a gap, exactly when no run has it.
//! - S2 A run is leased (its grant is in `leases`) or given back (it is in `available` or in `delayed`).
//! - S3 A lease exists exactly while it has open records, and has one entry in `deadlines`; `in_flight` is the sum of them,
//!   as `open` is that of the runs.
//! - S4 At most [`MAX_LEASES`] leases and [`MAX_IN_FLIGHT`] records are given out at once, and nothing new while there are
//!   as many runs as leases may be: what a queue costs is bounded, whatever its consumers leave lying.
//!
//! Runs and leases are kept small, as there is one of each for every batch in flight (`benches/queue.rs` weighs them).
//!
//! A run remembers its last grant after it was given back, so a late ack is taken unless someone else got the records.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::{Candidate, Given, MAX_IN_FLIGHT, MAX_LEASES, Progress, Settled, intersect, push_range};

/// Ranges acked after a redelivery whose grant is remembered, so that the earlier leases are refused.
const REMEMBERED_ACKS: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Leased,
    Available,
    /// Until when says `due`.
    Delayed,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    end: u64,
    /// The last lease; 0: none in this life of the queue.
    grant: u64,
    attempt: u32,
    state: State,
}

#[derive(Debug)]
struct Lease {
    start: u64,
    deadline_ns: u64,
    consumer: Arc<str>,
    /// Offsets, and how many of them are open: no more than a lease id can tell of.
    count: u32,
    open: u32,
}

fn to_count(records: u64) -> u32 {
    u32::try_from(records).unwrap_or(u32::MAX)
}

/// What becomes of a part of a run.
#[derive(Debug, Clone, Copy)]
enum Change {
    Acked,
    Available,
    Delayed(u64),
}

/// Parts of runs, each with the start of its run.
type Parts = Vec<(u64, Range<u64>)>;

/// The cursor of a shared group.
#[derive(Debug)]
pub struct SharedQueue {
    next: u64,
    runs: BTreeMap<u64, Run>,
    /// Offsets in runs.
    open: u64,
    available: BTreeSet<u64>,
    delayed: BTreeSet<(u64, u64)>,
    /// When a delayed run is ready again, by its start.
    due: BTreeMap<u64, u64>,
    leases: BTreeMap<u64, Lease>,
    deadlines: BTreeSet<(u64, u64)>,
    /// Records in leases.
    in_flight: u64,
    /// Records were ready and not given, by S4, since somebody asked about it.
    withheld: bool,
    redelivered_acks: BTreeMap<u64, (u64, u64)>,
    first_grant: u64,
    next_grant: u64,
    /// Grants below were ended by a seek.
    seek_grant: u64,
}

impl SharedQueue {
    /// See [`super::Queue::new`]. Leases do not outlive a life: what was given and not acked is there to be given again.
    pub fn new(progress: &Progress, first_grant: u64) -> Self {
        let mut queue = Self {
            next: progress.next,
            runs: BTreeMap::new(),
            open: 0,
            available: BTreeSet::new(),
            delayed: BTreeSet::new(),
            due: BTreeMap::new(),
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            in_flight: 0,
            withheld: false,
            redelivered_acks: BTreeMap::new(),
            first_grant,
            next_grant: first_grant,
            seek_grant: progress.seek_grant,
        };
        for Given { range, attempt, grant } in &progress.open {
            let run = Run { end: range.end, attempt: *attempt, grant: *grant, state: State::Available };
            queue.put(range.clone(), run);
        }
        queue
    }

    /// Makes the offsets from `next` to `end` available, as never given in this life.
    fn hand_back_untouched(&mut self, end: u64) {
        if self.next < end {
            self.put(self.next..end, Run { end, attempt: 0, grant: 0, state: State::Available });
            self.next = end;
        }
    }

    fn put(&mut self, range: Range<u64>, run: Run) {
        debug_assert!(run.state != State::Delayed, "delayed runs are put by put_delayed");
        if run.state == State::Available {
            self.available.insert(range.start);
        }
        self.open += range.end - range.start;
        self.runs.insert(range.start, Run { end: range.end, ..run });
    }

    fn put_delayed(&mut self, range: Range<u64>, run: Run, due_ns: u64) {
        self.delayed.insert((due_ns, range.start));
        self.due.insert(range.start, due_ns);
        self.open += range.end - range.start;
        self.runs.insert(range.start, Run { end: range.end, state: State::Delayed, ..run });
    }

    /// Takes a run out, and says until when it was delayed.
    fn take(&mut self, start: u64) -> Option<(Run, Option<u64>)> {
        let run = self.runs.remove(&start)?;
        self.open -= run.end - start;
        let mut due = None;
        match run.state {
            State::Leased => {}
            State::Available => {
                self.available.remove(&start);
            }
            State::Delayed => {
                due = self.due.remove(&start);
                self.delayed.remove(&(due.unwrap_or_default(), start));
            }
        }
        Some((run, due))
    }

    /// Runs that overlap `range`, in order.
    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = (Range<u64>, Run)> + use<'_> {
        let first = self.runs.range(..=range.start).next_back().filter(|(_, run)| run.end > range.start);
        let from = first.map_or(range.start, |(&start, _)| start);
        self.runs.range(from..range.end.max(from)).map(|(&start, run)| (start..run.end, *run))
    }

    /// Changes the part of a run inside `range`.
    fn change(&mut self, start: u64, range: &Range<u64>, to: Change) {
        let Some((run, due)) = self.take(start) else { return };
        let inside = intersect(&(start..run.end), range);
        for rest in [start..inside.start, inside.end..run.end] {
            match due {
                _ if rest.is_empty() => {}
                Some(due_ns) => self.put_delayed(rest, run, due_ns),
                None => self.put(rest, run),
            }
        }
        match to {
            Change::Acked => {}
            Change::Available => self.put(inside.clone(), Run { state: State::Available, ..run }),
            Change::Delayed(due_ns) => self.put_delayed(inside.clone(), run, due_ns),
        }
        if run.state == State::Leased {
            self.close(run.grant, inside.end - inside.start);
        }
    }

    /// Counts records of a lease as no longer open.
    fn close(&mut self, grant: u64, records: u64) {
        let Some(lease) = self.leases.get_mut(&grant) else { return };
        self.in_flight = self.in_flight.saturating_sub(records);
        lease.open = lease.open.saturating_sub(to_count(records));
        if lease.open == 0 {
            self.deadlines.remove(&(lease.deadline_ns, grant));
            self.leases.remove(&grant);
        }
    }

    /// Gives back what is open of a lease.
    fn end_lease(&mut self, grant: u64) {
        let Some(lease) = self.leases.get(&grant) else { return };
        let range = lease.start..lease.start + u64::from(lease.count);
        let open: Vec<u64> = self
            .overlapping(&range)
            .filter(|(_, run)| run.grant == grant && run.state == State::Leased)
            .map(|(range, _)| range.start)
            .collect();
        for start in open {
            self.change(start, &range, Change::Available);
        }
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some(&(deadline, grant)) = self.deadlines.first()
            && deadline <= now_ns
        {
            self.end_lease(grant);
        }
        while let Some(&(due, start)) = self.delayed.first()
            && due <= now_ns
        {
            let range = start..self.runs.get(&start).map_or(start, |run| run.end);
            self.change(start, &range, Change::Available);
        }
    }

    /// What is ready: records that were given before, then new ones.
    fn ready(&self, visible_end: u64) -> Option<Candidate> {
        if let Some(&start) = self.available.first()
            && start < visible_end
        {
            let run = self.runs.get(&start)?;
            return Some(Candidate { start, end: run.end.min(visible_end), attempt: run.attempt + 1 });
        }
        (self.next < visible_end).then_some(Candidate { start: self.next, end: visible_end, attempt: 1 })
    }

    /// See [`super::Queue::candidate`].
    pub fn candidate(&mut self, _consumer: &Arc<str>, now_ns: u64, visible_end: u64) -> Option<Candidate> {
        self.expire(now_ns);
        let ready = self.ready(visible_end)?;
        let room = MAX_IN_FLIGHT.saturating_sub(self.in_flight);
        let is_new = ready.start == self.next;
        if room == 0 || self.leases.len() >= MAX_LEASES || (is_new && self.runs.len() >= MAX_LEASES) {
            self.withheld = true;
            return None;
        }
        Some(Candidate { end: ready.end.min(ready.start.saturating_add(room)), ..ready })
    }

    /// See [`super::Queue::take_withheld`].
    pub fn take_withheld(&mut self) -> bool {
        std::mem::take(&mut self.withheld)
    }

    /// Notes a lease of `range` whose `open` records are leased already.
    fn lease(&mut self, grant: u64, range: &Range<u64>, open: u64, deadline_ns: u64, consumer: Arc<str>) {
        self.deadlines.insert((deadline_ns, grant));
        self.in_flight += open;
        let (count, open) = (to_count(range.end - range.start), to_count(open));
        self.leases.insert(grant, Lease { start: range.start, deadline_ns, consumer, count, open });
    }

    /// See [`super::Queue::grant`].
    pub fn grant(&mut self, consumer: &Arc<str>, range: Range<u64>, deadline_ns: u64) -> u64 {
        let grant = self.next_grant;
        self.next_grant += 1;
        let attempt = match self.take(range.start) {
            Some((run, _)) => {
                if range.end < run.end {
                    self.put(range.end..run.end, run);
                }
                run.attempt + 1
            }
            None => 1,
        };
        self.next = self.next.max(range.end);
        self.put(range.clone(), Run { end: range.end, attempt, grant, state: State::Leased });
        self.lease(grant, &range, range.end - range.start, deadline_ns, consumer.clone());
        grant
    }

    /// See [`super::Queue::take_over`].
    pub fn take_over(&mut self, range: &Range<u64>) -> u64 {
        self.hand_back_untouched(range.end);
        let grant = self.next_grant;
        self.next_grant += 1;
        let parts: Vec<u64> = self.overlapping(range).map(|(run, _)| run.start).collect();
        let mut open = 0;
        for start in parts {
            self.change(start, range, Change::Available);
            let inside = start.max(range.start);
            let Some((run, _)) = self.take(inside) else { continue };
            open += run.end - inside;
            self.put(inside..run.end, Run { grant, state: State::Leased, ..run });
        }
        if open > 0 {
            self.lease(grant, range, open, 0, "".into());
        }
        grant
    }

    /// See [`super::Queue::skip_gap`].
    pub fn skip_gap(&mut self, gap: Range<u64>) {
        if self.runs.contains_key(&gap.start) {
            self.change(gap.start, &gap, Change::Acked);
        } else {
            self.next = self.next.max(gap.end);
        }
    }

    /// Splits a lease's range by what became of it: ours to settle, acked before, or stale.
    fn resolve(&self, grant: u64, range: &Range<u64>, log_end: u64) -> (Parts, Vec<Range<u64>>) {
        let (mut ours, mut stale) = (Vec::new(), Vec::new());
        if grant < self.seek_grant || grant >= self.next_grant {
            return (ours, vec![range.clone()]);
        }
        let earlier_life = grant < self.first_grant;
        for (run_range, run) in self.overlapping(range) {
            let part = intersect(&run_range, range);
            if run.grant == grant || (earlier_life && run.grant < grant) {
                ours.push((run_range.start, part));
            } else {
                push_range(&mut stale, part);
            }
        }
        // Of what no run has, only ranges acked after a redelivery can have gone to someone else.
        let before = self.redelivered_acks.range(..=range.start).next_back().map(|(&start, _)| start);
        for (&start, &(end, acked_by)) in self.redelivered_acks.range(before.unwrap_or(range.start)..range.end) {
            let part = intersect(&(start..end), range);
            if acked_by != grant && !part.is_empty() {
                stale.push(part);
            }
        }
        let never_given = self.next.max(range.start)..range.end;
        if !never_given.is_empty() && (!earlier_life || never_given.end > log_end) {
            stale.push(never_given);
        }
        stale.sort_by_key(|range| range.start);
        (ours, stale)
    }

    /// See [`super::Queue::owned`].
    pub fn owned(&self, grant: u64, range: Range<u64>, log_end: u64) -> Settled {
        let (ours, stale) = self.resolve(grant, &range, log_end);
        let mut done = Vec::new();
        for (_, part) in ours {
            push_range(&mut done, part);
        }
        Settled { done, stale }
    }

    /// See [`super::Queue::ack`].
    pub fn ack(&mut self, grant: u64, range: Range<u64>, log_end: u64) -> Settled {
        if (self.seek_grant..self.first_grant).contains(&grant) && range.end <= log_end {
            // Given before a restart, which forgot that it was given.
            self.hand_back_untouched(range.end);
        }
        let (ours, stale) = self.resolve(grant, &range, log_end);
        let mut done = Vec::new();
        for (start, part) in ours {
            // Parts of one run do not occur twice, but a run that was cut before it now begins elsewhere.
            let attempt = self.runs.get(&start).map_or(0, |run| run.attempt);
            self.change(start, &part, Change::Acked);
            if attempt > 1 {
                self.redelivered_acks.insert(part.start, (part.end, grant));
                if self.redelivered_acks.len() > REMEMBERED_ACKS {
                    self.redelivered_acks.pop_first();
                }
            }
            push_range(&mut done, part);
        }
        Settled { done, stale }
    }

    /// See [`super::Queue::nack`].
    pub fn nack(&mut self, grant: u64, range: Range<u64>, due_ns: u64) -> Settled {
        let (ours, stale) = self.resolve(grant, &range, self.next);
        let mut done = Vec::new();
        for (start, part) in ours {
            // A lease that has ended by itself may still be given a delay, as long as nobody else got the records.
            self.change(start, &part, if due_ns == 0 { Change::Available } else { Change::Delayed(due_ns) });
            push_range(&mut done, part);
        }
        Settled { done, stale }
    }

    /// See [`super::Queue::extend`].
    pub fn extend(&mut self, grant: u64, deadline_ns: u64) -> bool {
        let Some(lease) = self.leases.get_mut(&grant) else { return false };
        self.deadlines.remove(&(lease.deadline_ns, grant));
        lease.deadline_ns = deadline_ns;
        self.deadlines.insert((deadline_ns, grant));
        true
    }

    /// See [`super::Queue::release`].
    pub fn release(&mut self, consumer: &str) -> bool {
        let held = self.leases.iter().filter(|(_, lease)| *lease.consumer == *consumer);
        let held: Vec<u64> = held.map(|(&grant, _)| grant).collect();
        for &grant in &held {
            self.end_lease(grant);
        }
        !held.is_empty()
    }

    /// See [`super::Queue::seek`].
    pub fn seek(&mut self, offset: u64) -> u64 {
        let progress = Progress { seek_grant: self.next_grant, ..Progress::at(offset) };
        *self = Self { next_grant: self.next_grant, ..Self::new(&progress, self.first_grant) };
        self.seek_grant
    }

    /// See [`super::Queue::next_due_ns`].
    pub fn next_due_ns(&self) -> Option<u64> {
        let first = |set: &BTreeSet<(u64, u64)>| set.first().map(|&(due, _)| due);
        first(&self.deadlines).into_iter().chain(first(&self.delayed)).min()
    }

    /// See [`super::Queue::attempt`].
    pub fn attempt(&self, offset: u64) -> u32 {
        self.overlapping(&(offset..offset + 1)).next().map_or(0, |(_, run)| run.attempt)
    }

    /// See [`super::Queue::progress`].
    pub fn progress(&self) -> Progress {
        let given =
            |(&start, run): (&u64, &Run)| Given { range: start..run.end, attempt: run.attempt, grant: run.grant };
        let open = self.runs.iter().map(given).collect();
        Progress { floor: self.floor(), next: self.next, open, seek_grant: self.seek_grant }
    }

    /// See [`super::Queue::floor`].
    pub fn floor(&self) -> u64 {
        self.runs.first_key_value().map_or(self.next, |(&start, _)| start)
    }

    /// See [`super::Queue::next`].
    pub fn next(&self) -> u64 {
        self.next
    }

    /// See [`super::Queue::open`].
    pub fn open(&self) -> u64 {
        self.open
    }

    /// See [`super::Queue::in_flight`].
    pub fn in_flight(&self) -> (u64, u64) {
        (self.leases.len() as u64, self.in_flight)
    }
}
