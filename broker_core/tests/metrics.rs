//! What the broker's metrics say, against what was done to it.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use broker_core::broker::{Broker, BrokerOptions};
use broker_core::clock::ManualClock;
use broker_core::disk::{Disk, MemoryDisk};
use broker_core::wire::v1;
use prost::Message;
use support::TestDisk;

const SECOND_NS: u64 = 1_000_000_000;

struct Setup {
    disk: Arc<dyn Disk>,
    clock: Arc<ManualClock>,
    broker: Broker,
}

impl Setup {
    fn new() -> Self {
        Self::on(Arc::new(MemoryDisk::default()))
    }

    fn on(disk: Arc<dyn Disk>) -> Self {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000_000_000));
        let broker = Self::open(&disk, &clock);
        Self { disk, clock, broker }
    }

    fn open(disk: &Arc<dyn Disk>, clock: &Arc<ManualClock>) -> Broker {
        let options = BrokerOptions { queue_size: 10, ..BrokerOptions::default() };
        Broker::open_on(disk.clone(), Path::new("/b"), options, clock.clone()).unwrap()
    }

    fn reopen(mut self, flush: bool) -> Self {
        self.broker.close(flush).unwrap();
        self.broker = Self::open(&self.disk, &self.clock);
        self
    }

    fn call<M: Message + Default>(&self, method: &str, request: &impl Message) -> M {
        M::decode(self.broker.call(method, &request.encode_to_vec()).unwrap().as_slice()).unwrap()
    }

    fn create(&self, name: &str, partitions: u32, change: impl FnOnce(&mut v1::TopicConfig)) {
        let mut config = v1::TopicConfig { partitions: Some(partitions), ..Default::default() };
        change(&mut config);
        let request = v1::CreateTopicRequest { name: name.into(), config: Some(config), ..Default::default() };
        self.call::<v1::CreateTopicResponse>("CreateTopic", &request);
    }

    fn delete(&self, name: &str) {
        self.call::<v1::DeleteTopicResponse>("DeleteTopic", &v1::DeleteTopicRequest { name: name.into() });
    }

    fn produce_to(&self, topic: &str, partition: u32, sizes: &[usize]) {
        let record = |&size: &usize| v1::Record { value: vec![0; size], ..Default::default() };
        let records = sizes.iter().map(record).collect();
        let request =
            v1::ProduceRequest { topic: topic.into(), partition: Some(partition), records, ..Default::default() };
        self.call::<v1::ProduceResponse>("Produce", &request);
    }

    fn receive(&self, max_records: u32, mode: v1::GroupMode) -> Vec<v1::Delivery> {
        let request = v1::ReceiveRequest {
            topic: "t".into(),
            group: "g".into(),
            consumer: "c".into(),
            max_records,
            mode: mode.into(),
            ..Default::default()
        };
        self.call::<v1::ReceiveResponse>("Receive", &request).deliveries
    }

    fn leases(delivery: &v1::Delivery, range: (u64, u64)) -> Vec<v1::LeaseRange> {
        let ranges = vec![v1::OffsetRange { start: range.0, end: range.1 }];
        vec![v1::LeaseRange { lease_id: delivery.lease_id.clone(), ranges }]
    }

    fn ack(&self, delivery: &v1::Delivery, range: (u64, u64)) {
        let leases = Self::leases(delivery, range);
        self.call::<v1::AckResponse>("Ack", &v1::AckRequest { topic: "t".into(), group: "g".into(), leases });
    }

    fn nack(&self, delivery: &v1::Delivery, range: (u64, u64), dead_letter: bool) {
        let request = v1::NackRequest {
            topic: "t".into(),
            group: "g".into(),
            leases: Self::leases(delivery, range),
            dead_letter,
            ..Default::default()
        };
        self.call::<v1::NackResponse>("Nack", &request);
    }

    fn page(&self) -> String {
        self.broker.render_metrics("broker").unwrap()
    }

    /// The value of a sample; `labels` without `service`, which is "broker".
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let labels: BTreeMap<_, _> = labels.chain([("service".to_owned(), "broker".to_owned())]).collect();
        samples(&self.page()).into_iter().find(|sample| (&*sample.0, &sample.1) == (name, &labels)).map(|found| found.2)
    }

    fn topic(&self, name: &str) -> Option<f64> {
        self.value(name, &[("topic", "t")])
    }

    fn group(&self, name: &str) -> Option<f64> {
        self.value(name, &[("group", "g"), ("topic", "t")])
    }

    fn partition(&self, name: &str) -> Option<f64> {
        self.value(name, &[("partition", "0"), ("topic", "t")])
    }

    fn group_partition(&self, name: &str) -> Option<f64> {
        self.value(name, &[("group", "g"), ("partition", "0"), ("topic", "t")])
    }
}

type Sample = (String, BTreeMap<String, String>, f64);

/// Reads a page whose label values hold nothing special.
fn samples(page: &str) -> Vec<Sample> {
    let read = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.strip_suffix('}').unwrap().split_once('{').unwrap();
        let label = |label: &str| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        };
        (name.to_owned(), labels.split(',').map(label).collect(), value.parse().unwrap())
    };
    page.lines().filter(|line| !line.starts_with('#')).map(read).collect()
}

#[test]
fn given_traffic_when_scraped_then_each_number_is_what_happened() {
    let setup = Setup::new();
    setup.create("t", 2, |_| {});
    setup.produce_to("t", 0, &[10, 10]);
    assert_eq!(setup.partition("message_queue_size"), Some(2.0), "all records, where there is no group");
    setup.clock.advance_ns(2 * SECOND_NS);
    setup.produce_to("t", 0, &[10, 10]);
    setup.clock.advance_ns(SECOND_NS);

    let first = setup.receive(3, v1::GroupMode::Shared).remove(0);
    assert_eq!(setup.group_partition("broker_group_in_flight_records"), Some(3.0));
    assert_eq!(setup.group_partition("broker_group_oldest_unacked_age_seconds"), Some(3.0));
    setup.ack(&first, (0, 2));
    setup.nack(&first, (2, 3), false);
    assert_eq!(setup.group_partition("broker_group_in_flight_records"), Some(0.0));
    assert_eq!(setup.group_partition("broker_group_oldest_unacked_age_seconds"), Some(1.0), "of the third record");
    let again = setup.receive(1, v1::GroupMode::Shared).remove(0);
    assert_eq!((again.base_offset, again.attempt), (2, 2));
    setup.nack(&again, (2, 3), true);

    assert_eq!(setup.group_partition("broker_group_lag_records"), Some(1.0));
    assert_eq!(setup.partition("message_queue_size"), Some(1.0));
    assert!(setup.partition("message_queue_bytes").unwrap() > 40.0);
    assert_eq!(setup.topic("messages_produced_total"), Some(4.0));
    assert_eq!(setup.topic("messages_consumed_total"), Some(4.0), "each time they were given");
    assert_eq!(setup.topic("broker_appended_bytes_total"), Some(4.0 * 14.0), "10 bytes, in a field, in an entry");
    assert_eq!(setup.group("broker_group_delivered_records_total"), Some(4.0));
    assert_eq!(setup.group("broker_group_redelivered_records_total"), Some(1.0));
    assert_eq!(setup.group("broker_group_dead_lettered_records_total"), Some(1.0));
    assert_eq!(setup.group("broker_group_acked_records_total"), Some(3.0), "with the dead letter");
    assert_eq!(setup.value("messages_produced_total", &[("topic", "t.dlq")]), Some(1.0));
    let redrive = [("group", "redrive"), ("partition", "0"), ("topic", "t.dlq")];
    assert_eq!(setup.value("broker_group_lag_records", &redrive), Some(1.0));
    assert_eq!(setup.topic("broker_partitions"), Some(2.0));
    assert_eq!(setup.topic("broker_poisoned_partitions"), Some(0.0));
    assert_eq!(setup.value("broker_disk_min_free_bytes", &[]), Some(f64::from(256 << 20)));
    assert!(setup.value("broker_disk_free_bytes", &[]).is_some());

    let rest = setup.receive(10, v1::GroupMode::Shared).remove(0);
    setup.ack(&rest, (3, 4));
    setup.clock.advance_ns(SECOND_NS);
    assert_eq!(setup.group_partition("broker_group_oldest_unacked_age_seconds"), Some(0.0));
}

#[test]
fn given_a_topic_made_again_when_scraped_then_its_counters_went_on_and_its_gauges_began_anew() {
    let setup = Setup::new();
    for round in 1..=3 {
        setup.create("t", 1, |_| {});
        setup.produce_to("t", 0, &[1, 1]);
        let delivery = setup.receive(10, v1::GroupMode::Ordered).remove(0);
        setup.ack(&delivery, (0, 1));
        assert_eq!(setup.topic("messages_produced_total"), Some(f64::from(2 * round)));
        assert_eq!(setup.topic("messages_consumed_total"), Some(f64::from(2 * round)));
        assert_eq!(setup.group("broker_group_acked_records_total"), Some(f64::from(round)));
        assert_eq!(setup.partition("message_queue_size"), Some(1.0));
        setup.delete("t");
        assert_eq!(setup.topic("messages_produced_total"), None, "what is not there is not shown");
    }
}

#[test]
fn given_a_topic_that_drops_the_oldest_when_scraped_then_the_lost_records_are_counted() {
    let setup = Setup::new();
    setup.create("t", 1, |config| {
        config.segment_bytes = Some(1 << 20);
        config.max_partition_bytes = Some(2 << 20);
        config.full_policy = v1::FullPolicy::DropOldest.into();
    });
    assert!(setup.receive(1, v1::GroupMode::Ordered).is_empty());
    for _ in 0..50 {
        setup.produce_to("t", 0, &[100_000]);
    }
    let dropped = setup.topic("broker_dropped_records_total").unwrap();
    assert!(dropped >= 30.0, "{dropped}");
    assert_eq!(setup.group_partition("broker_group_lag_records"), Some(50.0 - dropped));
}

#[test]
fn given_records_that_are_on_disk_only_when_scraped_then_their_age_is_known_without_a_read() {
    let mut setup = Setup::new();
    setup.create("t", 1, |_| {});
    assert!(setup.receive(1, v1::GroupMode::Ordered).is_empty());
    for _ in 0..200 {
        setup.produce_to("t", 0, &[4096]);
        setup.clock.advance_ns(SECOND_NS);
    }
    for flush in [false, true] {
        let age = setup.group_partition("broker_group_oldest_unacked_age_seconds").unwrap();
        assert!((age - 200.0).abs() < 0.1, "{age}");
        setup = setup.reopen(flush);
    }
    // Neither the first of an index entry nor in the tail.
    let delivery = setup.receive(90, v1::GroupMode::Ordered).remove(0);
    setup.ack(&delivery, (0, 90));
    let age = setup.group_partition("broker_group_oldest_unacked_age_seconds").unwrap();
    assert!((age - 110.0).abs() < 1.0, "{age}: as evenly as they came, it is nearly exact");
}

#[test]
fn given_a_torn_tail_when_opened_then_its_bytes_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Broker::open(dir.path(), BrokerOptions::default(), None).unwrap();
    let broker = open();
    let config = v1::TopicConfig { partitions: Some(1), ..Default::default() };
    let request = v1::CreateTopicRequest { name: "t".into(), config: Some(config), ..Default::default() };
    broker.call("CreateTopic", &request.encode_to_vec()).unwrap();
    let record = v1::Record { value: b"1".to_vec(), ..Default::default() };
    let request = v1::ProduceRequest { topic: "t".into(), records: vec![record], ..Default::default() };
    broker.call("Produce", &request.encode_to_vec()).unwrap();
    broker.close(false).unwrap();
    let segment = dir.path().join("t/partition-0/00000000000000000000.log");
    let before = samples(&open().render_metrics("broker").unwrap());
    let cut =
        |samples: &[Sample]| samples.iter().find(|sample| sample.0 == "broker_recovery_cut_bytes_total").unwrap().2;
    assert_eq!(cut(&before), 0.0);
    let length = segment.metadata().unwrap().len();
    OpenOptions::new().append(true).open(&segment).unwrap().write_all(&[7; 33]).unwrap();
    assert_eq!(segment.metadata().unwrap().len(), length + 33);
    assert_eq!(cut(&samples(&open().render_metrics("broker").unwrap())), 33.0);
}

#[test]
fn given_an_fsync_topic_when_its_syncs_fail_then_they_are_timed_and_the_partition_is_told() {
    let disk = Arc::new(TestDisk::default());
    let setup = Setup::on(disk.clone());
    setup.create("t", 2, |config| config.durability = v1::Durability::Fsync.into());
    let count = |durability| setup.value("broker_fsync_duration_seconds_count", &[("durability", durability)]);
    assert_eq!((count("fsync"), count("os")), (Some(0.0), Some(0.0)));
    setup.produce_to("t", 1, &[1]);
    assert_eq!((count("fsync"), count("os")), (Some(1.0), Some(0.0)));
    let all = [("durability", "fsync"), ("le", "+Inf")];
    assert_eq!(setup.value("broker_fsync_duration_seconds_bucket", &all), Some(1.0));
    assert!(setup.value("broker_fsync_duration_seconds_sum", &[("durability", "fsync")]).unwrap() > 0.0);
    disk.fail_syncs(true);
    let records = vec![v1::Record::default()];
    let request = v1::ProduceRequest { topic: "t".into(), partition: Some(1), records, ..Default::default() };
    assert!(setup.broker.call("Produce", &request.encode_to_vec()).is_err());
    assert_eq!(setup.topic("broker_poisoned_partitions"), Some(1.0));
}

#[test]
fn given_a_thousand_partitions_when_scraped_then_the_page_is_sound_and_below_a_megabyte() {
    let setup = Setup::new();
    setup.create("t", 1000, |_| {});
    assert!(setup.receive(1, v1::GroupMode::Shared).is_empty());
    for partition in 0..1000 {
        setup.produce_to("t", partition, &[100]);
    }
    let page = setup.page();
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut family = String::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} comes twice");
        } else if !line.starts_with("# TYPE ") {
            assert!(line.starts_with(&family), "{line} stands under {family}");
            assert!(series.insert(line.rsplit_once(' ').unwrap().0), "{line} comes twice");
        }
    }
    assert!(series.len() > 5000);
}
