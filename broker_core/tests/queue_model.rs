//! Both queues against plain models that keep one entry a record.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::single_range_in_vec_init,
    reason = "a test says what is wrong by failing"
)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use broker_core::queue::{MAX_IN_FLIGHT, MAX_LEASES, Mode, Queue, Settled};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Receive { consumer: u8, max: u64, timeout: u64 },
    Ack { lease: prop::sample::Index, from: u64, len: u64 },
    Nack { lease: prop::sample::Index, from: u64, len: u64, delay: u64 },
    Extend { lease: prop::sample::Index, timeout: u64 },
    Release { consumer: u8 },
    Advance(u64),
    Restart,
    Seek(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (1..20u64).prop_map(Step::Append),
        6 => (0..3u8, 1..9u64, 1..50u64)
            .prop_map(|(consumer, max, timeout)| Step::Receive { consumer, max, timeout }),
        6 => (index(), 0..6u64, 1..12u64).prop_map(|(lease, from, len)| Step::Ack { lease, from, len }),
        3 => (index(), 0..6u64, 1..12u64, prop_oneof![Just(0), 1..30u64])
            .prop_map(|(lease, from, len, delay)| Step::Nack { lease, from, len, delay }),
        1 => (index(), 1..50u64).prop_map(|(lease, timeout)| Step::Extend { lease, timeout }),
        1 => (0..3u8).prop_map(|consumer| Step::Release { consumer }),
        3 => (1..30u64).prop_map(Step::Advance),
        1 => Just(Step::Restart),
        1 => index().prop_map(Step::Seek),
    ]
}

#[derive(Debug, Clone)]
struct Given {
    grant: u64,
    range: Range<u64>,
}

/// A part of a lease's range; the whole of it where the step asks for more.
fn part(given: &Given, from: u64, len: u64) -> Range<u64> {
    let start = (given.range.start + from).min(given.range.end - 1);
    start..(start + len).min(given.range.end)
}

fn offsets(ranges: &[Range<u64>]) -> Vec<u64> {
    let mut all: Vec<u64> = ranges.iter().cloned().flatten().collect();
    all.sort_unstable();
    all
}

fn consumer(number: u8) -> Arc<str> {
    format!("consumer-{number}").into()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum RecordState {
    Ready {
        due: u64,
    },
    Leased {
        grant: u64,
    },
    /// Acked; by which lease, where one from this life may be asked for again.
    Acked {
        grant: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Record {
    state: RecordState,
    attempts: u32,
    last_grant: Option<u64>,
}

/// A shared group, one entry a record.
#[derive(Default)]
struct SharedModel {
    now: u64,
    records: Vec<Record>,
    leases: BTreeMap<u64, (u8, u64)>,
    life_starts: u64,
    seek_grant: u64,
}

impl SharedModel {
    fn expire(&mut self) {
        let ended: Vec<u64> =
            self.leases.iter().filter(|(_, (_, deadline))| *deadline <= self.now).map(|(&grant, _)| grant).collect();
        ended.into_iter().for_each(|grant| self.end(grant));
    }

    fn end(&mut self, grant: u64) {
        self.leases.remove(&grant);
        for record in &mut self.records {
            if record.state == (RecordState::Leased { grant }) {
                record.state = RecordState::Ready { due: 0 };
            }
        }
    }

    fn is_ready(&self, record: &Record) -> bool {
        matches!(record.state, RecordState::Ready { due } if due <= self.now)
    }

    /// Given-back records come first, then new ones, each the lowest offset first.
    fn expected(&self) -> Option<u64> {
        let given_before = |(offset, record): &(usize, &Record)| *offset < self.next() && self.is_ready(record);
        let again = self.records.iter().enumerate().find(given_before).map(|(offset, _)| offset as u64);
        again.or_else(|| (self.next() < self.records.len()).then(|| self.next() as u64))
    }

    /// The first record from which on none was ever given, counting as given what lies below an acked one.
    fn next(&self) -> usize {
        let untouched = |record: &Record| record.last_grant.is_none() && record.attempts == 0 && self.is_fresh(record);
        self.records.iter().rposition(|record| !untouched(record)).map_or(0, |last| last + 1)
    }

    fn is_fresh(&self, record: &Record) -> bool {
        matches!(record.state, RecordState::Ready { due: 0 })
    }

    fn settle(&self, grant: u64, range: Range<u64>) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        let (mut ours, mut stale, mut either) = (vec![], vec![], vec![]);
        let earlier_life = grant < self.life_starts;
        for offset in range {
            let record = &self.records[offset as usize];
            if grant < self.seek_grant {
                stale.push(offset);
                continue;
            }
            match (record.state, record.last_grant) {
                (RecordState::Acked { grant: None }, _) => {}
                (RecordState::Acked { grant: Some(by) }, _) if by == grant => {}
                (RecordState::Acked { .. }, _) if earlier_life => either.push(offset),
                (RecordState::Acked { .. }, _) => stale.push(offset),
                (_, Some(last)) if last == grant => ours.push(offset),
                (_, None) if earlier_life => ours.push(offset),
                _ => stale.push(offset),
            }
        }
        (ours, stale, either)
    }
}

fn same(settled: &Settled, (ours, stale, either): &(Vec<u64>, Vec<u64>, Vec<u64>)) -> Result<(), TestCaseError> {
    prop_assert_eq!(&offsets(&settled.done), ours);
    let mut refused = offsets(&settled.stale);
    refused.retain(|offset| !either.contains(offset));
    prop_assert_eq!(&refused, stale);
    Ok(())
}

/// Offsets below `end` that are not acked.
fn lag(queue: &Queue, end: u64) -> u64 {
    let progress = queue.progress();
    let open = progress.open.into_iter().map(|given| given.range).chain(std::iter::once(progress.next..end));
    let lag = open.map(|range| range.end.min(end).saturating_sub(range.start)).sum();
    assert_eq!(queue.open() + (end - queue.next()), lag, "counted as it goes, it is the same");
    lag
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_shared_queue_does_what_one_entry_a_record_would_do(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = SharedModel { life_starts: 1000, ..SharedModel::default() };
        let mut queue = Queue::new(Mode::Shared, &Default::default(), 1000);
        let mut given: Vec<Given> = Vec::new();
        for step in steps {
            let end = model.records.len() as u64;
            match step {
                Step::Append(count) => {
                    let fresh = Record { state: RecordState::Ready { due: 0 }, attempts: 0, last_grant: None };
                    model.records.resize((end + count) as usize, fresh);
                }
                Step::Receive { consumer: number, max, timeout } => {
                    model.expire();
                    let candidate = queue.candidate(&consumer(number), model.now, end);
                    prop_assert_eq!(candidate.map(|candidate| candidate.start), model.expected());
                    let Some(candidate) = candidate else { continue };
                    let range = candidate.start..candidate.end.min(candidate.start + max);
                    let grant = queue.grant(&consumer(number), range.clone(), model.now + timeout);
                    for record in &mut model.records[range.start as usize..range.end as usize] {
                        let ready = matches!(record.state, RecordState::Ready { due } if due <= model.now);
                        prop_assert!(ready, "{:?} was given at {}", record, model.now);
                        prop_assert_eq!(candidate.attempt, record.attempts + 1);
                        *record = Record {
                            state: RecordState::Leased { grant }, attempts: record.attempts + 1, last_grant: Some(grant),
                        };
                    }
                    model.leases.insert(grant, (number, model.now + timeout));
                    given.push(Given { grant, range });
                }
                Step::Ack { lease, from, len } => {
                    if given.is_empty() { continue }
                    let given = lease.get(&given);
                    let range = part(given, from, len);
                    let expected = model.settle(given.grant, range.clone());
                    same(&queue.ack(given.grant, range, end), &expected)?;
                    for offset in &expected.0 {
                        model.records[*offset as usize].state = RecordState::Acked { grant: Some(given.grant) };
                    }
                }
                Step::Nack { lease, from, len, delay } => {
                    if given.is_empty() { continue }
                    let given = lease.get(&given);
                    let range = part(given, from, len);
                    let expected = model.settle(given.grant, range.clone());
                    let due = if delay == 0 { 0 } else { model.now + delay };
                    same(&queue.nack(given.grant, range, due), &expected)?;
                    for offset in &expected.0 {
                        model.records[*offset as usize].state = RecordState::Ready { due };
                    }
                }
                Step::Extend { lease, timeout } => {
                    if given.is_empty() { continue }
                    let grant = lease.get(&given).grant;
                    let open = model.records.iter().any(|record| record.state == (RecordState::Leased { grant }));
                    prop_assert_eq!(queue.extend(grant, model.now + timeout), open);
                    if let (true, Some(lease)) = (open, model.leases.get_mut(&grant)) {
                        lease.1 = model.now + timeout;
                    }
                }
                Step::Release { consumer: number } => {
                    queue.release(&consumer(number));
                    let held: Vec<u64> =
                        model.leases.iter().filter(|(_, (by, _))| *by == number).map(|(&grant, _)| grant).collect();
                    held.into_iter().for_each(|grant| model.end(grant));
                }
                Step::Advance(time) => model.now += time,
                Step::Restart => {
                    let progress = queue.progress();
                    model.life_starts += 1000;
                    queue = Queue::new(Mode::Shared, &progress, model.life_starts);
                    model.leases.clear();
                    for record in &mut model.records {
                        record.state = match record.state {
                            RecordState::Acked { .. } => RecordState::Acked { grant: None },
                            _ => RecordState::Ready { due: 0 },
                        };
                    }
                    prop_assert_eq!(queue.next(), model.next() as u64);
                }
                Step::Seek(to) => {
                    let to = to.index(end as usize + 1);
                    model.seek_grant = queue.seek(to as u64);
                    model.leases.clear();
                    for (offset, record) in model.records.iter_mut().enumerate() {
                        let state =
                            if offset < to { RecordState::Acked { grant: None } } else { RecordState::Ready { due: 0 } };
                        *record = Record { state, attempts: 0, last_grant: None };
                    }
                }
            }
            let open = |record: &&Record| !matches!(record.state, RecordState::Acked { .. });
            prop_assert_eq!(lag(&queue, model.records.len() as u64), model.records.iter().filter(open).count() as u64);
            let in_flight = |record: &&Record| matches!(record.state, RecordState::Leased { .. });
            prop_assert_eq!(queue.in_flight().1, model.records.iter().filter(in_flight).count() as u64);
            let first_open = model.records.iter().position(|record| open(&record));
            prop_assert_eq!(queue.floor(), first_open.unwrap_or(model.next()).min(model.next()) as u64);
        }
    }

    #[test]
    fn an_ordered_queue_gives_every_offset_in_order_and_loses_none(steps in prop::collection::vec(step(), 1..80)) {
        let (mut now, mut end, mut life) = (0u64, 0u64, 1000u64);
        let mut queue = Queue::new(Mode::Ordered, &Default::default(), life);
        let mut floor = 0u64;
        let mut next = 0u64;
        // In flight, in order; and every lease ever given in this life, with the newest grant when it ended.
        let mut flying: Vec<(Given, u64, u8)> = Vec::new();
        let mut given: Vec<Given> = Vec::new();
        let mut ended: BTreeMap<u64, u64> = BTreeMap::new();
        // What was acked when a lease was given, by grant.
        let mut floors: BTreeMap<u64, u64> = BTreeMap::new();
        let mut newest = life - 1;
        let mut not_before = 0u64;
        for step in steps {
            match step {
                Step::Append(count) => end += count,
                Step::Receive { consumer: number, max, timeout } => {
                    if let Some(index) = flying.iter().position(|(_, deadline, _)| *deadline <= now) {
                        next = flying[index].0.range.start;
                        for (lease, ..) in flying.drain(index..) {
                            ended.insert(lease.grant, newest);
                        }
                    }
                    let held = flying.first().is_some_and(|(_, _, by)| *by != number);
                    let candidate = queue.candidate(&consumer(number), now, end);
                    let expected = (!held && next < end && now >= not_before).then_some(next);
                    prop_assert_eq!(candidate.map(|candidate| candidate.start), expected);
                    let Some(candidate) = candidate else { continue };
                    let range = candidate.start..candidate.end.min(candidate.start + max);
                    newest = queue.grant(&consumer(number), range.clone(), now + timeout);
                    next = range.end;
                    floors.insert(newest, floor);
                    let lease = Given { grant: newest, range };
                    flying.push((lease.clone(), now + timeout, number));
                    given.push(lease);
                }
                Step::Ack { lease, .. } => {
                    if given.is_empty() { continue }
                    let lease = lease.get(&given).clone();
                    let settled = queue.ack(lease.grant, lease.range.clone(), end);
                    // The first lease given since it ended took what was not acked by then.
                    let taken_from = ended.get(&lease.grant).and_then(|&then| floors.range(then + 1..).next());
                    if let Some((_, &taken_from)) = taken_from {
                        let refused = if lease.range.end <= taken_from { 0..0 } else { lease.range };
                        prop_assert_eq!(offsets(&settled.stale), refused.collect::<Vec<_>>());
                        prop_assert_eq!(offsets(&settled.done), Vec::<u64>::new());
                    } else {
                        prop_assert_eq!(offsets(&settled.done), (floor..lease.range.end).collect::<Vec<_>>());
                        floor = floor.max(lease.range.end);
                        next = next.max(floor);
                        flying.retain(|(flying, ..)| flying.range.end > floor);
                    }
                }
                Step::Nack { lease, delay, .. } => {
                    if flying.is_empty() { continue }
                    let index = lease.index(flying.len());
                    let lease = flying[index].0.clone();
                    not_before = if delay == 0 { 0 } else { now + delay };
                    let settled = queue.nack(lease.grant, lease.range.clone(), not_before);
                    let start = lease.range.start.max(floor);
                    prop_assert_eq!(offsets(&settled.done), (start..next).collect::<Vec<_>>());
                    next = start;
                    for (lease, ..) in flying.drain(index..) {
                        ended.insert(lease.grant, newest);
                    }
                }
                Step::Extend { lease, timeout } => {
                    if given.is_empty() { continue }
                    let grant = lease.get(&given).grant;
                    let open = flying.iter_mut().find(|(lease, ..)| lease.grant == grant);
                    prop_assert_eq!(queue.extend(grant, now + timeout), open.is_some());
                    if let Some((_, deadline, _)) = open {
                        *deadline = now + timeout;
                    }
                }
                Step::Release { consumer: number } => {
                    queue.release(&consumer(number));
                    if flying.first().is_some_and(|(_, _, by)| *by == number) {
                        next = flying[0].0.range.start.max(floor);
                        for (lease, ..) in flying.drain(..) {
                            ended.insert(lease.grant, newest);
                        }
                    }
                }
                Step::Advance(time) => now += time,
                Step::Restart | Step::Seek(_) => {
                    life += 1000;
                    if let Step::Seek(to) = step {
                        floor = to.index(end as usize + 1) as u64;
                        queue.seek(floor);
                        life = newest.max(life);
                    }
                    let progress = queue.progress();
                    prop_assert_eq!(progress.floor, floor);
                    queue = Queue::new(Mode::Ordered, &progress, life);
                    (next, newest, not_before) = (floor, life - 1, 0);
                    flying.clear();
                    given.clear();
                    ended.clear();
                    floors.clear();
                }
            }
            prop_assert_eq!(queue.floor(), floor);
            prop_assert_eq!(queue.next(), next);
            prop_assert_eq!(lag(&queue, end), end - floor);
            let open = |(lease, ..): &(Given, u64, u8)| lease.range.end - lease.range.start.max(floor);
            prop_assert_eq!(queue.in_flight(), (flying.len() as u64, flying.iter().map(open).sum()));
        }
    }
}

#[test]
fn what_is_in_flight_of_an_ordered_group_follows_partial_acks_and_nacks() {
    let mut queue = Queue::new(Mode::Ordered, &Default::default(), 10);
    let first = queue.grant(&consumer(0), 0..5, 100);
    let second = queue.grant(&consumer(0), 5..10, 100);
    assert_eq!(queue.in_flight(), (2, 10));
    queue.ack(first, 0..2, 10);
    assert_eq!(queue.in_flight(), (2, 8));
    queue.nack(second, 7..10, 0);
    assert_eq!(queue.in_flight(), (2, 5));
    queue.nack(first, 3..5, 0);
    assert_eq!(queue.in_flight(), (1, 1));
    queue.release("consumer-0");
    assert_eq!(queue.in_flight(), (0, 0));
}

#[test]
fn a_lease_from_before_a_restart_is_acked_unless_its_records_were_given_again() {
    for mode in [Mode::Shared, Mode::Ordered] {
        let mut queue = Queue::new(mode, &Default::default(), 10);
        let grant = queue.grant(&consumer(0), 0..5, 100);
        let mut after = Queue::new(mode, &queue.progress(), 20);
        assert_eq!(after.ack(grant, 0..5, 5), Settled { done: vec![0..5], stale: vec![] });
        assert_eq!(lag(&after, 5), 0);

        let mut after = Queue::new(mode, &queue.progress(), 20);
        let candidate = after.candidate(&consumer(1), 0, 5).unwrap();
        after.grant(&consumer(1), candidate.start..candidate.end, 100);
        assert_eq!(after.ack(grant, 0..5, 5), Settled { done: vec![], stale: vec![0..5] });
    }
}

#[test]
fn a_seek_ends_every_lease_and_refuses_its_acks() {
    for mode in [Mode::Shared, Mode::Ordered] {
        let mut queue = Queue::new(mode, &Default::default(), 10);
        let grant = queue.grant(&consumer(0), 0..5, 100);
        queue.seek(2);
        assert_eq!(queue.ack(grant, 0..5, 5), Settled { done: vec![], stale: vec![0..5] });
        assert_eq!(queue.candidate(&consumer(1), 0, 5).map(|candidate| candidate.start), Some(2));
    }
}

#[test]
fn a_nack_in_the_middle_of_an_ordered_lease_keeps_what_is_before_it() {
    let mut queue = Queue::new(Mode::Ordered, &Default::default(), 10);
    let grant = queue.grant(&consumer(0), 0..10, 100);
    assert_eq!(queue.nack(grant, 4..5, 0).done, vec![4..10]);
    assert_eq!(queue.candidate(&consumer(0), 0, 10).map(|next| (next.start, next.attempt)), Some((4, 2)));
    let again = queue.grant(&consumer(0), 4..10, 100);
    let settled = queue.ack(grant, 0..10, 10);
    assert_eq!(settled, Settled { done: vec![0..4], stale: vec![4..10] });
    assert_eq!(queue.ack(again, 4..10, 10).done, vec![4..10]);
}

#[test]
fn behind_the_most_records_and_leases_nothing_is_given_until_some_are_acked_or_end() {
    for mode in [Mode::Shared, Mode::Ordered] {
        for (records, leases) in [(1, MAX_LEASES as u64), (1 << 16, MAX_IN_FLIGHT >> 16)] {
            let mut queue = Queue::new(mode, &Default::default(), 1);
            let mut grants = Vec::new();
            for n in 0..leases {
                let candidate = queue.candidate(&consumer(0), 0, u64::MAX / 2).unwrap();
                let range = candidate.start..candidate.start + records;
                assert!(range.end <= candidate.end);
                grants.push((queue.grant(&consumer(0), range.clone(), 100 + n), range));
            }
            assert!(!queue.take_withheld());
            assert_eq!(queue.candidate(&consumer(0), 0, u64::MAX / 2), None, "{mode:?} {records}");
            assert!(queue.take_withheld());
            let (grant, range) = grants[0].clone();
            queue.ack(grant, range, u64::MAX / 2);
            let candidate = queue.candidate(&consumer(0), 0, u64::MAX / 2).unwrap();
            assert_eq!(candidate.start, records * leases);
            assert!(candidate.end - candidate.start <= MAX_IN_FLIGHT);
            queue.grant(&consumer(0), candidate.start..candidate.start + records, 1 << 40);
            assert_eq!(queue.candidate(&consumer(0), 0, u64::MAX / 2), None);
            assert_eq!(queue.candidate(&consumer(0), 101, u64::MAX / 2).map(|next| next.start), Some(records));
        }
    }
}

#[test]
fn runs_that_acks_cut_up_count_as_well() {
    let mut queue = Queue::new(Mode::Shared, &Default::default(), 1);
    let count = 2 * MAX_LEASES as u64;
    queue.candidate(&consumer(0), 0, count).unwrap();
    let grant = queue.grant(&consumer(0), 0..count, 100);
    for offset in (1..count).step_by(2) {
        queue.ack(grant, offset..offset + 1, count);
    }
    assert_eq!(queue.in_flight(), (1, count / 2));
    assert_eq!(queue.candidate(&consumer(0), 0, 2 * count), None);
    assert_eq!(queue.candidate(&consumer(0), 100, 2 * count).map(|next| next.start), Some(0), "given again");
}
