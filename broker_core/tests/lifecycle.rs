//! What becomes of records, groups and producers in the long run: attempts, dead letters, retention, bounds, expiry.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

mod support;

use std::path::Path;
use std::sync::Arc;

use broker_core::broker::{Broker, BrokerOptions};
use broker_core::clock::ManualClock;
use broker_core::disk::{Disk, MemoryDisk};
use broker_core::error::{Code, Error};
use broker_core::wire::v1;
use prost::Message;

const SECOND_NS: u64 = 1_000_000_000;
const DAY_NS: u64 = 86_400 * SECOND_NS;

struct Setup {
    disk: Arc<dyn Disk>,
    clock: Arc<ManualClock>,
    options: BrokerOptions,
    broker: Broker,
}

impl Setup {
    fn new() -> Self {
        Self::on(Arc::new(MemoryDisk::default()), BrokerOptions::default())
    }

    fn on(disk: Arc<dyn Disk>, options: BrokerOptions) -> Self {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000_000_000));
        let broker = Broker::open_on(disk.clone(), Path::new("/b"), options.clone(), clock.clone()).unwrap();
        Self { disk, clock, options, broker }
    }

    fn crash(self) -> Self {
        self.reopen(false)
    }

    fn reopen(self, flush: bool) -> Self {
        self.broker.close(flush).unwrap();
        let Self { disk, clock, options, .. } = self;
        let broker = Broker::open_on(disk.clone(), Path::new("/b"), options.clone(), clock.clone()).unwrap();
        Self { disk, clock, options, broker }
    }

    fn call<M: Message + Default>(&self, method: &str, request: &impl Message) -> Result<M, Error> {
        Ok(M::decode(self.broker.call(method, &request.encode_to_vec())?.as_slice()).unwrap())
    }

    fn create(&self, partitions: u32, change: impl FnOnce(&mut v1::TopicConfig)) {
        let mut config = v1::TopicConfig { partitions: Some(partitions), ..Default::default() };
        change(&mut config);
        let request = v1::CreateTopicRequest { name: "t".into(), config: Some(config), ..Default::default() };
        self.call::<v1::CreateTopicResponse>("CreateTopic", &request).unwrap();
    }

    /// A batch of records of so many bytes, of a named producer where `sequence` is set.
    fn produce_batch(&self, partition: u32, sizes: &[usize], sequence: u64) -> Result<v1::ProduceResponse, Error> {
        let record = |&size: &usize| v1::Record { value: vec![0; size], ..Default::default() };
        let request = v1::ProduceRequest {
            topic: "t".into(),
            partition: Some(partition),
            producer: if sequence > 0 { "p" } else { "" }.into(),
            sequence,
            records: sizes.iter().map(record).collect(),
            ..Default::default()
        };
        self.call("Produce", &request)
    }

    fn lag(&self, group: &str) -> u64 {
        let request = v1::DescribeGroupRequest { topic: "t".into(), group: group.into() };
        let answer = self.call::<v1::DescribeGroupResponse>("DescribeGroup", &request).unwrap();
        answer.partitions.iter().map(|partition| partition.lag).sum()
    }

    fn drain(&self) -> u64 {
        let request = v1::DrainBrokerRequest { draining: true, ..Default::default() };
        self.call::<v1::DrainBrokerResponse>("DrainBroker", &request).unwrap().remaining
    }

    fn try_produce(&self, partition: u32, value: &[u8]) -> Result<v1::ProduceResponse, Error> {
        let records = vec![v1::Record { value: value.to_vec(), ..Default::default() }];
        let request =
            v1::ProduceRequest { topic: "t".into(), partition: Some(partition), records, ..Default::default() };
        self.call("Produce", &request)
    }

    fn produce(&self, value: &[u8]) {
        self.try_produce(0, value).unwrap();
    }

    fn receive(&self, topic: &str, group: &str) -> Option<v1::Delivery> {
        let request =
            v1::ReceiveRequest { topic: topic.into(), group: group.into(), consumer: "c".into(), ..Default::default() };
        self.call::<v1::ReceiveResponse>("Receive", &request).unwrap().deliveries.pop()
    }

    fn ack(&self, delivery: &v1::Delivery, group: &str) {
        let leases = vec![v1::LeaseRange { lease_id: delivery.lease_id.clone(), ranges: vec![] }];
        let request = v1::AckRequest { topic: delivery.topic.clone(), group: group.into(), leases };
        self.call::<v1::AckResponse>("Ack", &request).unwrap();
    }

    fn consume_all(&self, group: &str) -> usize {
        let mut count = 0;
        while let Some(delivery) = self.receive("t", group) {
            count += delivery.records.len();
            self.ack(&delivery, group);
        }
        count
    }

    fn state(&self) -> v1::PartitionState {
        let request = v1::DescribeTopicRequest { name: "t".into() };
        self.call::<v1::DescribeTopicResponse>("DescribeTopic", &request).unwrap().partitions.remove(0)
    }

    fn letters(&self) -> v1::ListDeadLettersResponse {
        self.call("ListDeadLetters", &v1::ListDeadLettersRequest { topic: "t".into(), ..Default::default() }).unwrap()
    }

    fn redrive(&self, change: impl FnOnce(&mut v1::RedriveDeadLettersRequest)) -> u64 {
        let mut request = v1::RedriveDeadLettersRequest { topic: "t".into(), ..Default::default() };
        change(&mut request);
        self.call::<v1::RedriveDeadLettersResponse>("RedriveDeadLetters", &request).unwrap().redriven
    }

    fn has_group(&self, topic: &str, group: &str) -> bool {
        let request = v1::ListGroupsRequest { topic: topic.into() };
        let groups = self.call::<v1::ListGroupsResponse>("ListGroups", &request).unwrap().groups;
        groups.iter().any(|known| known.name == group)
    }
}

#[test]
fn a_record_given_out_too_often_becomes_a_dead_letter_and_its_neighbours_flow() {
    let setup = Setup::new();
    setup.create(1, |config| config.max_attempts = Some(3));
    setup.produce(b"poison");
    for attempt in 1..=3 {
        assert_eq!(setup.receive("t", "g").unwrap().attempt, attempt);
        setup.clock.advance_ns(31 * SECOND_NS);
    }
    setup.produce(b"good");
    let delivery = setup.receive("t", "g").unwrap();
    assert_eq!(delivery.records[0].value, b"good");
    setup.ack(&delivery, "g");
    let letters = setup.letters();
    let letter = letters.deliveries[0].records[0].dead_letter.as_ref().unwrap();
    assert_eq!((letters.total, letter.reason.as_str(), letter.attempts), (1, "max attempts", 3));
}

#[test]
fn attempts_survive_a_crash_so_that_a_record_which_kills_its_broker_ends_among_the_dead_letters() {
    let mut setup = Setup::new();
    setup.create(1, |config| config.max_attempts = Some(3));
    setup.produce(b"poison");
    for attempt in 1..=3 {
        assert_eq!(setup.receive("t", "g").unwrap().attempt, attempt);
        setup = setup.crash();
    }
    assert_eq!(setup.receive("t", "g"), None);
    assert_eq!(setup.letters().total, 1);
}

#[test]
fn an_ordered_group_never_gives_up_by_count() {
    let setup = Setup::new();
    setup.create(1, |config| config.max_attempts = Some(1));
    setup.produce(b"a");
    let request = v1::ReceiveRequest {
        topic: "t".into(),
        group: "g".into(),
        consumer: "c".into(),
        mode: v1::GroupMode::Ordered.into(),
        ..Default::default()
    };
    for attempt in 1..=5 {
        let delivery = setup.call::<v1::ReceiveResponse>("Receive", &request).unwrap().deliveries.remove(0);
        assert_eq!(delivery.attempt, attempt);
        setup.clock.advance_ns(31 * SECOND_NS);
    }
    assert_eq!(setup.letters().total, 0);
}

#[test]
fn redriven_records_are_what_they_were_and_are_listed_no_more() {
    let setup = Setup::new();
    setup.create(2, |config| config.max_attempts = Some(1));
    for value in [b"a", b"b", b"c"] {
        setup.try_produce(1, value).unwrap();
    }
    for _ in 0..3 {
        setup.receive("t", "g").unwrap();
    }
    setup.clock.advance_ns(31 * SECOND_NS);
    assert_eq!(setup.receive("t", "g"), None);
    assert_eq!(setup.letters().total, 3);
    assert_eq!(setup.redrive(|request| request.group = "other".into()), 0);
    let first = |request: &mut v1::RedriveDeadLettersRequest| {
        request.partition = Some(1);
        request.ranges = vec![v1::OffsetRange { start: 1, end: 2 }];
    };
    assert_eq!(setup.redrive(first), 1);
    assert_eq!((setup.redrive(first), setup.letters().total), (0, 2));
    let again = setup.receive("t", "g").unwrap();
    let record = &again.records[0];
    assert_eq!(
        (record.value.as_slice(), &record.dead_letter, again.partition, again.attempt),
        (&b"b"[..], &None, 1, 1)
    );
    setup.ack(&again, "g");
    let setup = setup.crash();
    assert_eq!(setup.letters().total, 2);
    assert_eq!((setup.redrive(|_| ()), setup.letters().total), (2, 0));
    assert_eq!(setup.consume_all("g"), 2);
}

#[test]
fn records_that_every_group_acked_go_when_they_are_old_and_others_stay() {
    let setup = Setup::new();
    setup.create(1, |config| config.retention_ms = Some(1000));
    setup.produce(b"a");
    setup.receive("t", "slow").unwrap();
    assert_eq!(setup.consume_all("quick"), 1);
    setup.clock.advance_ns(2 * SECOND_NS);
    setup.broker.retain(false);
    assert_eq!(setup.state().start_offset, 0, "one group has not acked");
    setup.clock.advance_ns(30 * SECOND_NS);
    assert_eq!(setup.consume_all("slow"), 1);
    setup.broker.retain(false);
    let state = setup.state();
    assert_eq!((state.start_offset, state.end_offset), (1, 1));
    let setup = setup.crash();
    assert_eq!(setup.state().end_offset, 1, "offsets go on");
    setup.produce(b"b");
    assert_eq!(setup.receive("t", "quick").unwrap().base_offset, 1);
}

#[test]
fn without_a_group_records_go_by_age_and_young_ones_stay() {
    let setup = Setup::new();
    setup.create(1, |_| ());
    setup.produce(b"a");
    setup.clock.advance_ns(DAY_NS / 2);
    setup.broker.retain(false);
    assert_eq!(setup.state().start_offset, 0);
    setup.clock.advance_ns(DAY_NS);
    setup.broker.retain(false);
    assert_eq!(setup.state().start_offset, 1);
}

#[test]
fn above_its_size_a_partition_lets_acked_segments_go_oldest_first() {
    let setup = Setup::new();
    setup.create(1, |config| {
        config.segment_bytes = Some(1 << 20);
        config.retention_bytes = Some(3 << 20);
    });
    for _ in 0..20 {
        setup.produce(&[0; 500_000]);
    }
    setup.receive("t", "g").unwrap();
    setup.broker.retain(false);
    assert_eq!(setup.state().start_offset, 0, "nothing is acked");
    setup.clock.advance_ns(31 * SECOND_NS);
    assert_eq!(setup.consume_all("g"), 20);
    setup.broker.retain(false);
    let state = setup.state();
    assert!(state.bytes <= 3 << 20 && state.bytes > 1 << 20, "{} bytes", state.bytes);
    assert_eq!(state.end_offset, 20);
}

#[test]
fn a_full_partition_rejects_with_a_delay_and_takes_records_again_after_acks() {
    let setup = Setup::new();
    setup.create(1, |config| {
        config.segment_bytes = Some(1 << 20);
        config.max_partition_bytes = Some(2 << 20);
        config.retention_bytes = Some(1);
    });
    let mut taken = 0;
    let err = loop {
        match setup.try_produce(0, &[0; 100_000]) {
            Ok(_) => taken += 1,
            Err(err) => break err,
        }
    };
    assert_eq!((err.code(), err.retry_after()), (Code::LogFull, Some(1000)));
    assert!(err.message().contains("max_partition_bytes"), "{err}");
    assert_eq!(taken, 20);
    assert_eq!(setup.consume_all("g"), 20);
    setup.broker.retain(false);
    setup.produce(b"again");
}

#[test]
fn a_topic_that_drops_the_oldest_goes_on_and_counts_what_is_lost() {
    let setup = Setup::new();
    setup.create(1, |config| {
        config.segment_bytes = Some(1 << 20);
        config.max_partition_bytes = Some(2 << 20);
        config.full_policy = v1::FullPolicy::DropOldest.into();
    });
    setup.receive("t", "forgotten");
    for _ in 0..50 {
        setup.produce(&[0; 100_000]);
    }
    let state = setup.state();
    assert!(state.bytes <= 2 << 20 && state.start_offset > 0);
    assert_eq!(state.dropped_records, state.start_offset);
    assert_eq!(setup.consume_all("forgotten") as u64, 50 - state.start_offset);
}

#[test]
fn with_slow_traffic_old_acked_records_go_although_new_ones_come() {
    for durability in [v1::Durability::Os, v1::Durability::Memory] {
        let setup = Setup::new();
        setup.create(1, |config| {
            config.retention_ms = Some(60_000);
            config.durability = durability.into();
        });
        for _ in 0..3000 {
            setup.produce(b"a");
            assert_eq!(setup.consume_all("g"), 1);
            setup.clock.advance_ns(SECOND_NS);
        }
        setup.produce(b"not acked");
        setup.broker.retain(false);
        let state = setup.state();
        let kept = state.end_offset - state.start_offset;
        // The retention, a segment's own age, and what a `memory` topic has not written.
        let most = if durability == v1::Durability::Memory { 2100 } else { 72 };
        assert!(kept <= most, "{durability:?}: {kept} records are kept");
        assert_eq!(setup.lag("g"), 1);
    }
}

#[test]
fn a_topic_that_drops_the_oldest_takes_every_batch_that_fits_and_drops_nothing_for_one_that_never_will() {
    for durability in [v1::Durability::Os, v1::Durability::Fsync, v1::Durability::Memory] {
        let setup = Setup::new();
        setup.create(1, |config| {
            config.segment_bytes = Some(1 << 20);
            config.max_partition_bytes = Some(2 << 20);
            config.full_policy = v1::FullPolicy::DropOldest.into();
            config.durability = durability.into();
        });
        setup.receive("t", "g");
        for sizes in
            [&[800_000, 800_000][..], &[800_000, 800_000], &[800_000], &[700_000, 700_000], &[1_000_000, 900_000]]
        {
            setup.produce_batch(0, sizes, 0).unwrap_or_else(|err| panic!("{durability:?}: {err}"));
            assert!(setup.state().bytes <= 2 << 20);
        }
        let before = setup.state();
        assert_eq!(before.dropped_records, before.start_offset, "{durability:?}");
        let err = setup.produce_batch(0, &[900_000, 900_000, 900_000], 0).unwrap_err();
        assert_eq!((err.code(), err.retry_after()), (Code::InvalidArgument, None), "{err}");
        assert_eq!(setup.state(), before, "nothing was dropped for it");
        // What was dropped is no lag.
        assert_eq!(setup.lag("g"), before.end_offset - before.start_offset);
        assert_eq!(setup.drain(), setup.lag("g"));
    }
}

#[test]
fn lag_counts_records_also_across_a_gap_that_is_in_flight() {
    for mode in [v1::GroupMode::Shared, v1::GroupMode::Ordered] {
        let mut setup = Setup::new();
        setup.create(1, |config| config.durability = v1::Durability::Memory.into());
        setup.produce_batch(0, &[1; 20], 0).unwrap();
        setup.broker.close(true).unwrap();
        setup = setup.crash();
        // The second life dies with a record in memory: about a million offsets are skipped.
        setup.produce(b"lost");
        setup = setup.crash();
        setup.produce_batch(0, &[1; 10], 0).unwrap();
        let request = v1::ReceiveRequest {
            topic: "t".into(),
            group: "g".into(),
            consumer: "c".into(),
            mode: mode.into(),
            max_deliveries: 2,
            ..Default::default()
        };
        let leased = setup.call::<v1::ReceiveResponse>("Receive", &request).unwrap().deliveries;
        assert_eq!(leased.iter().map(|delivery| delivery.records.len()).collect::<Vec<_>>(), [20, 10]);
        assert_eq!((setup.lag("g"), setup.drain()), (30, 30), "{mode:?}: all in flight");
        setup.clock.advance_ns(31 * SECOND_NS);
        setup.call::<v1::ReceiveResponse>("Receive", &request).unwrap();
        assert_eq!(setup.lag("g"), 30, "{mode:?}: given again");
    }
}

#[test]
fn a_disk_that_others_filled_is_freed_by_what_was_acked_and_no_producer_is_forgotten() {
    for by_producing in [false, true] {
        let disk = Arc::new(support::TestDisk::default());
        let min_free_bytes = if by_producing { 1 } else { 0 };
        let mut setup = Setup::on(disk.clone(), BrokerOptions { min_free_bytes, ..Default::default() });
        setup.create(1, |config| config.retention_ms = Some(1000));
        for round in 1..=3 {
            setup.produce_batch(0, &[9000; 3], round).unwrap();
            assert_eq!(setup.consume_all("g"), 3);
            disk.leave_room(0);
            if by_producing {
                setup.clock.advance_ns(SECOND_NS);
            } else {
                // More than the segment has space for.
                assert_eq!(setup.try_produce(0, &[0; 100_000]).unwrap_err().code(), Code::LogFull);
                setup.clock.advance_ns(12 * SECOND_NS);
                setup.broker.retain(false);
                let state = setup.state();
                assert_eq!((state.start_offset, state.bytes), (state.end_offset, 40), "round {round}");
            }
            setup.produce(b"again");
            assert_eq!(setup.consume_all("g"), 1);
            disk.make_room();
            if round == 2 {
                setup = setup.crash();
            }
            assert!(setup.produce_batch(0, &[1], round).unwrap().appended[0].duplicate, "round {round}");
        }
    }
}

#[test]
fn with_little_free_space_acked_segments_go_oldest_first_over_all_partitions_and_no_more_than_needed() {
    let disk = Arc::new(support::TestDisk::default());
    let setup = Setup::on(disk.clone(), BrokerOptions::default());
    setup.create(3, |config| config.segment_bytes = Some(1 << 20));
    for partition in [1, 0] {
        for _ in 0..8 {
            setup.produce_batch(partition, &[300_000], 0).unwrap();
            setup.clock.advance_ns(SECOND_NS);
        }
    }
    assert_eq!(setup.consume_all("g"), 16);
    setup.produce_batch(2, &[300_000; 8], 0).unwrap();
    disk.leave_room((256 << 20) - 1_000_000);
    setup.clock.advance_ns(SECOND_NS);
    setup.try_produce(0, b"fits again").unwrap();
    let request = v1::DescribeTopicRequest { name: "t".into() };
    let states = setup.call::<v1::DescribeTopicResponse>("DescribeTopic", &request).unwrap().partitions;
    assert_eq!(states.iter().map(|state| state.start_offset).collect::<Vec<_>>(), [0, 6, 0]);
}

#[test]
fn a_group_without_consumers_goes_after_a_week_and_the_keeper_of_dead_letters_stays() {
    let setup = Setup::new();
    setup.create(1, |config| config.max_attempts = Some(1));
    setup.produce(b"a");
    setup.receive("t", "g").unwrap();
    setup.clock.advance_ns(31 * SECOND_NS);
    assert_eq!(setup.receive("t", "g"), None);
    for day in 0..10 {
        // After a week it is found idle, and by the next look its consumers have had the time to say that they are there.
        assert_eq!(setup.has_group("t", "g"), day < 8, "day {day}");
        setup.clock.advance_ns(DAY_NS);
        setup.broker.retain(false);
    }
    assert_eq!(setup.broker.expired_groups(), 1);
    assert_eq!(setup.letters().total, 1, "a dead letter stays until it is redriven");
}

#[test]
fn a_named_producer_is_known_through_retention_and_forgotten_after_a_week() {
    let setup = Setup::new();
    setup.create(1, |config| config.retention_ms = Some(1000));
    let request = v1::ProduceRequest {
        topic: "t".into(),
        partition: Some(0),
        producer: "p".into(),
        sequence: 5,
        records: vec![v1::Record::default()],
        ..Default::default()
    };
    setup.call::<v1::ProduceResponse>("Produce", &request).unwrap();
    setup.clock.advance_ns(2 * SECOND_NS);
    setup.broker.retain(false);
    assert_eq!(setup.state().start_offset, 1);
    let setup = setup.crash();
    let again = setup.call::<v1::ProduceResponse>("Produce", &request).unwrap();
    assert!(again.appended[0].duplicate);
    setup.clock.advance_ns(8 * DAY_NS);
    setup.broker.retain(false);
    let again = setup.call::<v1::ProduceResponse>("Produce", &request).unwrap();
    assert!(!again.appended[0].duplicate);
}

#[test]
fn below_the_free_space_records_are_refused_and_consumers_drain() {
    let disk = Arc::new(support::TestDisk::default());
    let setup = Setup::on(disk.clone(), BrokerOptions::default());
    setup.create(1, |_| ());
    setup.produce(b"a");
    disk.leave_room(100 << 20);
    setup.clock.advance_ns(SECOND_NS);
    let err = setup.try_produce(0, b"b").unwrap_err();
    assert_eq!((err.code(), err.retry_after()), (Code::LogFull, Some(1000)));
    assert!(err.message().contains("min_free_bytes"), "{err}");
    assert_eq!(setup.consume_all("g"), 1);
    disk.make_room();
    setup.clock.advance_ns(SECOND_NS);
    setup.produce(b"b");
}

#[test]
fn an_ordered_group_is_spread_evenly_over_consumers_that_wait() {
    let setup = Setup::new();
    setup.create(4, |_| ());
    let ask = |consumer: &str| {
        let request = v1::ReceiveRequest {
            topic: "t".into(),
            group: "g".into(),
            consumer: consumer.into(),
            mode: v1::GroupMode::Ordered.into(),
            wait_ms: 1000,
            max_deliveries: 4,
            ..Default::default()
        };
        setup.call::<v1::ReceiveResponse>("Receive", &request).unwrap().deliveries
    };
    ask("a");
    ask("b");
    ask("a");
    ask("b");
    for partition in 0..4 {
        setup.try_produce(partition, b"x").unwrap();
    }
    assert_eq!((ask("a").len(), ask("b").len()), (2, 2));
}

#[test]
fn one_who_always_reads_ahead_keeps_no_more_than_its_share_of_an_ordered_group() {
    let setup = Setup::new();
    setup.create(4, |_| ());
    for number in 0..800 {
        setup.try_produce(number % 4, b"x").unwrap();
    }
    let ask = |consumer: &str| {
        let request = v1::ReceiveRequest {
            topic: "t".into(),
            group: "g".into(),
            consumer: consumer.into(),
            mode: v1::GroupMode::Ordered.into(),
            max_records: 1,
            max_deliveries: 4,
            wait_ms: 1000,
            ..Default::default()
        };
        setup.call::<v1::ReceiveResponse>("Receive", &request).unwrap().deliveries
    };
    let (mut held, mut got) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        // It acks a batch once it has the next one.
        let next = ask("ahead");
        held.iter().for_each(|delivery| setup.ack(delivery, "g"));
        held = next;
        let deliveries = ask("other");
        deliveries.iter().for_each(|delivery| setup.ack(delivery, "g"));
        got.push(deliveries.into_iter().map(|delivery| delivery.partition).collect::<Vec<_>>());
    }
    let mut partitions = got.pop().unwrap();
    partitions.sort_unstable();
    partitions.dedup();
    assert_eq!(partitions.len(), 2, "half of the partitions: {got:?}");
    for deliveries in &got[4..] {
        assert!(!deliveries.is_empty() && deliveries.iter().all(|at| partitions.contains(at)), "they stay: {got:?}");
    }
}

#[test]
fn a_group_that_somebody_waits_in_stays_however_quiet_the_topic_is() {
    let setup = Setup::new();
    setup.create(1, |_| ());
    let waiting = setup.broker.wakeups().subscribe(Some("t".into())).unwrap();
    assert_eq!(setup.receive("t", "g"), None);
    setup.receive("t", "gone");
    for _ in 0..10 {
        setup.clock.advance_ns(DAY_NS);
        // What moved the clock by hand wakes everyone; here only what the broker does itself shall.
        waiting.drain();
        setup.broker.retain(false);
        if !waiting.drain().is_empty() {
            setup.receive("t", "g");
        }
    }
    assert_eq!((setup.has_group("t", "g"), setup.has_group("t", "gone")), (true, false));
}

#[test]
fn after_a_long_stop_the_consumers_of_a_group_have_time_to_come_back() {
    let mut setup = Setup::new();
    setup.create(1, |_| ());
    setup.produce(b"a");
    setup.receive("t", "g").unwrap();
    setup = setup.reopen(true);
    setup.clock.advance_ns(8 * DAY_NS);
    setup.broker.retain(false);
    assert_eq!(setup.consume_all("g"), 1);
    setup.clock.advance_ns(3600 * SECOND_NS);
    setup.broker.retain(false);
    assert!(setup.has_group("t", "g"));
}

#[test]
fn a_group_that_never_had_a_consumer_goes_after_a_week_however_often_the_broker_is_opened() {
    let mut setup = Setup::new();
    setup.create(1, |_| ());
    let request = v1::CreateGroupRequest { topic: "t".into(), group: "g".into(), ..Default::default() };
    setup.call::<v1::CreateGroupResponse>("CreateGroup", &request).unwrap();
    for day in 0..9 {
        assert!(setup.has_group("t", "g") || day > 7, "day {day}");
        setup.broker.retain(false);
        setup.clock.advance_ns(DAY_NS / 2);
        setup.broker.retain(false);
        setup.clock.advance_ns(DAY_NS / 2);
        setup = setup.reopen(true);
    }
    assert!(!setup.has_group("t", "g"));
}

fn configure(
    setup: &Setup,
    name: &str,
    change: impl FnOnce(&mut v1::TopicConfig),
) -> Result<v1::ConfigureTopicResponse, Error> {
    let mut config = v1::TopicConfig::default();
    change(&mut config);
    let request = v1::ConfigureTopicRequest { name: name.into(), config: Some(config), ..Default::default() };
    setup.call("ConfigureTopic", &request)
}

fn give_up(setup: &Setup, delivery: &v1::Delivery) {
    let request = v1::NackRequest {
        topic: "t".into(),
        group: "g".into(),
        leases: vec![v1::LeaseRange { lease_id: delivery.lease_id.clone(), ranges: vec![] }],
        dead_letter: true,
        reason: "bad".into(),
        ..Default::default()
    };
    setup.call::<v1::NackResponse>("Nack", &request).unwrap();
}

#[test]
fn dead_letters_are_as_durable_as_the_topic_they_come_from_whenever_it_became_so() {
    let mut setup = Setup::new();
    setup.create(1, |config| config.durability = v1::Durability::Memory.into());
    setup.produce(b"a");
    give_up(&setup, &setup.receive("t", "g").unwrap());
    configure(&setup, "t", |config| config.durability = v1::Durability::Fsync.into()).unwrap();
    setup = setup.crash();
    assert_eq!(setup.letters().total, 1, "what there was is written when the topic's durability rises");
    for _ in 0..5 {
        setup.produce(b"b");
        give_up(&setup, &setup.receive("t", "g").unwrap());
    }
    setup = setup.crash();
    assert_eq!(setup.letters().total, 6);
    let weaker = configure(&setup, "t.dlq", |config| config.durability = v1::Durability::Memory.into());
    assert_eq!(weaker.unwrap_err().code(), Code::InvalidArgument);
    configure(&setup, "t.dlq", |config| config.retention_ms = Some(1000)).unwrap();
}

#[test]
fn a_topic_that_drops_the_oldest_keeps_its_dead_letters() {
    let setup = Setup::new();
    setup.create(1, |config| {
        config.segment_bytes = Some(1 << 20);
        config.max_partition_bytes = Some(2 << 20);
        config.full_policy = v1::FullPolicy::DropOldest.into();
        config.retention_ms = Some(1000);
        config.retention_bytes = Some(1);
    });
    for _ in 0..30 {
        setup.produce(&[0; 300_000]);
        give_up(&setup, &setup.receive("t", "g").unwrap());
        setup.clock.advance_ns(10 * SECOND_NS);
        setup.broker.retain(false);
    }
    let mut request = v1::ListDeadLettersRequest { topic: "t".into(), ..Default::default() };
    let (mut listed, mut pages) = (0, 1);
    loop {
        let letters: v1::ListDeadLettersResponse = setup.call("ListDeadLetters", &request).unwrap();
        assert_eq!(letters.total, 30);
        listed += letters.deliveries.iter().map(|delivery| delivery.records.len()).sum::<usize>();
        let Some(next) = letters.next_partition else { break };
        (request.from_partition, request.from_offset) = (Some(next), letters.next_offset);
        pages += 1;
    }
    assert_eq!((listed, pages), (30, 10), "three of 300 kB fit into the 1 MiB that nobody asked to be more");
    let drops = configure(&setup, "t.dlq", |config| {
        config.max_partition_bytes = Some(4 << 20);
        config.full_policy = v1::FullPolicy::DropOldest.into();
    });
    assert_eq!(drops.unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn redrives_at_the_same_time_put_each_letter_back_once() {
    let setup = Setup::new();
    setup.create(1, |_| ());
    for _ in 0..20 {
        for _ in 0..100 {
            setup.produce(b"a");
        }
        while let Some(delivery) = setup.receive("t", "g") {
            give_up(&setup, &delivery);
        }
        let redriven: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| setup.redrive(|_| ()))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((redriven, setup.consume_all("g")), (100, 100));
    }
}

#[test]
fn dead_letters_stay_while_the_broker_takes_no_records() {
    let disk = Arc::new(support::TestDisk::default());
    let clock = Arc::new(ManualClock::new(1));
    let broker = Broker::open_on(disk.clone(), Path::new("/b"), BrokerOptions::default(), clock.clone()).unwrap();
    let setup = Setup { disk: disk.clone(), clock, broker, options: BrokerOptions::default() };
    setup.create(1, |_| ());
    setup.produce(b"a");
    give_up(&setup, &setup.receive("t", "g").unwrap());
    let refused = || {
        let request = v1::RedriveDeadLettersRequest { topic: "t".into(), ..Default::default() };
        setup.call::<v1::RedriveDeadLettersResponse>("RedriveDeadLetters", &request).unwrap_err().code()
    };
    setup.broker.drain(true).unwrap();
    assert_eq!(refused(), Code::BrokerDraining);
    setup.broker.drain(false).unwrap();
    disk.leave_room(100 << 20);
    setup.clock.advance_ns(SECOND_NS);
    assert_eq!(refused(), Code::LogFull);
    disk.make_room();
    setup.clock.advance_ns(SECOND_NS);
    assert_eq!((setup.letters().total, setup.redrive(|_| ())), (1, 1));
}

#[test]
fn where_the_first_attempt_is_the_last_a_killer_takes_no_neighbour_along() {
    let mut setup = Setup::new();
    setup.create(1, |config| config.max_attempts = Some(1));
    for value in [b"poison", b"good-1", b"good-2"] {
        setup.produce(value);
    }
    assert_eq!(setup.receive("t", "g").unwrap().records.len(), 1);
    setup = setup.crash();
    assert_eq!((setup.consume_all("g"), setup.letters().total), (2, 1));
    // Nothing is given up by count in an ordered group, so whole batches are given there.
    let request = v1::ReceiveRequest {
        topic: "t".into(),
        group: "ordered".into(),
        consumer: "c".into(),
        mode: v1::GroupMode::Ordered.into(),
        ..Default::default()
    };
    let delivery = setup.call::<v1::ReceiveResponse>("Receive", &request).unwrap().deliveries.remove(0);
    assert_eq!(delivery.records.len(), 3);
}
