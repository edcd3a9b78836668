//! The broker as a whole, on a real folder and over its wire calls.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use broker_core::broker::{Broker, BrokerOptions};
use broker_core::clock::ManualClock;
use broker_core::error::{Code, Error};
use broker_core::log::Durability;
use broker_core::wire::delivery::parse_deliveries;
use broker_core::wire::{RecordView, record_entries, v1};
use prost::Message;

fn call<M: Message + Default>(broker: &Broker, method: &str, request: &impl Message) -> Result<M, Error> {
    let response = broker.call(method, &request.encode_to_vec())?;
    Ok(M::decode(response.as_slice()).unwrap())
}

fn create(broker: &Broker, name: &str, partitions: u32, durability: v1::Durability) {
    let config = v1::TopicConfig { partitions: Some(partitions), durability: durability.into(), ..Default::default() };
    let request = v1::CreateTopicRequest { name: name.into(), config: Some(config), ..Default::default() };
    call::<v1::CreateTopicResponse>(broker, "CreateTopic", &request).unwrap();
}

fn produce(broker: &Broker, topic: &str, partition: Option<u32>, values: &[&str]) -> v1::ProduceResponse {
    let record = |value: &&str| v1::Record { value: value.as_bytes().to_vec(), ..Default::default() };
    let records = values.iter().map(record).collect();
    let request = v1::ProduceRequest { topic: topic.into(), partition, records, ..Default::default() };
    call(broker, "Produce", &request).unwrap()
}

fn wish(topic: &str, group: &str) -> v1::ReceiveRequest {
    v1::ReceiveRequest { topic: topic.into(), group: group.into(), consumer: "c".into(), ..Default::default() }
}

fn receive(broker: &Broker, wish: &v1::ReceiveRequest) -> Vec<v1::Delivery> {
    call::<v1::ReceiveResponse>(broker, "Receive", wish).unwrap().deliveries
}

fn values(delivery: &v1::Delivery) -> Vec<String> {
    delivery.records.iter().map(|record| String::from_utf8(record.value.clone()).unwrap()).collect()
}

fn lease(delivery: &v1::Delivery, range: Option<(u64, u64)>) -> Vec<v1::LeaseRange> {
    let ranges = range.into_iter().map(|(start, end)| v1::OffsetRange { start, end }).collect();
    vec![v1::LeaseRange { lease_id: delivery.lease_id.clone(), ranges }]
}

fn ack(broker: &Broker, delivery: &v1::Delivery, group: &str, range: Option<(u64, u64)>) -> v1::AckResponse {
    let leases = lease(delivery, range);
    let request = v1::AckRequest { topic: delivery.topic.clone(), group: group.into(), leases };
    call(broker, "Ack", &request).unwrap()
}

fn nack(
    broker: &Broker,
    delivery: &v1::Delivery,
    group: &str,
    change: impl FnOnce(&mut v1::NackRequest),
) -> v1::NackResponse {
    let mut request = v1::NackRequest {
        topic: delivery.topic.clone(),
        group: group.into(),
        leases: lease(delivery, None),
        ..Default::default()
    };
    change(&mut request);
    call(broker, "Nack", &request).unwrap()
}

fn open(dir: &Path) -> Broker {
    Broker::open(dir, BrokerOptions::default(), None).unwrap()
}

#[test]
fn given_acked_and_unacked_records_when_killed_then_the_acked_stay_away_and_the_others_come_back() {
    for durability in [v1::Durability::Os, v1::Durability::Fsync] {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(dir.path());
        create(&broker, "t", 1, durability);
        produce(&broker, "t", Some(0), &["a", "b", "c", "d"]);
        let delivery = receive(&broker, &wish("t", "g")).remove(0);
        assert_eq!(values(&delivery), ["a", "b", "c", "d"]);
        assert_eq!(ack(&broker, &delivery, "g", Some((1, 3))).acked, 2);
        broker.close(false).unwrap();

        let broker = open(dir.path());
        let first = receive(&broker, &wish("t", "g")).remove(0);
        let second = receive(&broker, &wish("t", "g")).remove(0);
        assert_eq!((values(&first), values(&second)), (vec!["a".to_owned()], vec!["d".to_owned()]));
        // The old lease may no longer ack what others have by now.
        let response = ack(&broker, &delivery, "g", None);
        assert_eq!(response.acked, 0);
        assert_eq!(response.stale[0].ranges.len(), 2);
    }
}

#[test]
fn groups_do_not_see_each_others_acks() {
    let broker = Broker::in_memory(BrokerOptions::default(), None).unwrap();
    create(&broker, "t", 1, v1::Durability::Os);
    produce(&broker, "t", None, &["a"]);
    let delivery = receive(&broker, &wish("t", "one")).remove(0);
    ack(&broker, &delivery, "one", None);
    assert_eq!(values(&receive(&broker, &wish("t", "two"))[0]), ["a"]);
    assert!(receive(&broker, &wish("t", "one")).is_empty());
}

#[test]
fn a_lease_ends_to_the_millisecond_and_its_records_come_again_with_the_next_attempt() {
    let clock = Arc::new(ManualClock::new(0));
    let broker = Broker::in_memory(BrokerOptions::default(), Some(clock.clone())).unwrap();
    create(&broker, "t", 1, v1::Durability::Os);
    produce(&broker, "t", None, &["a"]);
    let request = v1::ReceiveRequest { visibility_timeout_ms: 1500, ..wish("t", "g") };
    assert_eq!(receive(&broker, &request)[0].attempt, 1);
    clock.advance_ns(1_499_000_000);
    let response: v1::ReceiveResponse = call(&broker, "Receive", &request).unwrap();
    assert_eq!((response.deliveries.len(), response.next_due_ms), (0, 1));
    clock.advance_ns(1_000_000);
    assert_eq!(receive(&broker, &request)[0].attempt, 2);
}

#[test]
fn an_ordered_group_has_one_holder_and_rewinds() {
    let broker = Broker::in_memory(BrokerOptions::default(), None).unwrap();
    create(&broker, "t", 1, v1::Durability::Os);
    produce(&broker, "t", None, &["a", "b", "c"]);
    let one = v1::ReceiveRequest { mode: v1::GroupMode::Ordered.into(), max_records: 2, ..wish("t", "g") };
    let other = v1::ReceiveRequest { consumer: "d".into(), ..one.clone() };
    let delivery = receive(&broker, &one).remove(0);
    assert_eq!(values(&delivery), ["a", "b"]);
    assert!(receive(&broker, &other).is_empty(), "the partition is held");
    nack(&broker, &delivery, "g", |request| request.leases = lease(&delivery, Some((1, 2))));
    ack(&broker, &delivery, "g", Some((0, 1)));
    let again = receive(&broker, &other);
    assert_eq!((values(&again[0]), again[0].attempt), (vec!["b".to_owned()], 2));
    let err = call::<v1::ReceiveResponse>(&broker, "Receive", &v1::ReceiveRequest { mode: 1, ..one }).unwrap_err();
    assert_eq!(err.code(), Code::GroupMode);
}

#[test]
fn a_dead_lettered_record_keeps_its_bytes_and_says_where_it_came_from() {
    let broker = Broker::in_memory(BrokerOptions::default(), None).unwrap();
    create(&broker, "t", 2, v1::Durability::Os);
    for mode in [v1::GroupMode::Shared, v1::GroupMode::Ordered] {
        let group = mode.as_str_name();
        let request = v1::ReceiveRequest { mode: mode.into(), ..wish("t", group) };
        produce(&broker, "t", Some(1), &["good", "bad", "fine"]);
        let delivery = receive(&broker, &request).remove(0);
        let base = delivery.base_offset;
        let response = nack(&broker, &delivery, group, |request| {
            request.leases = lease(&delivery, Some((base + 1, base + 2)));
            request.dead_letter = true;
            request.reason = "no number".into();
        });
        assert_eq!((response.nacked, response.stale.len()), (1, 0));
        ack(&broker, &delivery, group, None);
        assert!(receive(&broker, &request).is_empty());
        let letter = receive(&broker, &wish("t.dlq", group)).remove(0);
        let record = letter.records.last().unwrap();
        let reason = record.dead_letter.clone().unwrap();
        assert_eq!((letter.partition, record.value.as_slice()), (1, &b"bad"[..]));
        assert_eq!((reason.reason.as_str(), reason.attempts, reason.group.as_str()), ("no number", 1, group));
        assert_eq!((reason.topic.as_str(), reason.partition, reason.offset), ("t", 1, base + 1));
        assert_eq!(reason.log_id, delivery.log_id);
    }
}

#[test]
fn a_named_producers_batch_is_stored_once_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, "t", 2, v1::Durability::Os);
    let record = v1::Record { value: b"x".to_vec(), ..Default::default() };
    let request = v1::ProduceRequest {
        topic: "t".into(),
        partition: Some(1),
        producer: "p".into(),
        sequence: 7,
        records: vec![record],
        ..Default::default()
    };
    let first: v1::ProduceResponse = call(&broker, "Produce", &request).unwrap();
    assert_eq!((first.appended[0].count, first.appended[0].duplicate), (1, false));
    broker.close(false).unwrap();
    let broker = open(dir.path());
    let again: v1::ProduceResponse = call(&broker, "Produce", &request).unwrap();
    assert_eq!((again.appended[0].count, again.appended[0].duplicate), (0, true));
    let request = v1::OpenProducerRequest { topic: "t".into(), producer: "p".into(), ..Default::default() };
    let state: v1::OpenProducerResponse = call(&broker, "OpenProducer", &request).unwrap();
    assert_eq!(state.partitions.iter().map(|state| state.sequence).collect::<Vec<_>>(), [0, 7]);
}

#[test]
fn keyed_records_are_split_and_unkeyed_ones_stay_together() {
    let broker = Broker::in_memory(BrokerOptions::default(), None).unwrap();
    create(&broker, "t", 4, v1::Durability::Os);
    let record = |key: Option<u8>| v1::Record { key: key.map(|key| vec![key]), ..Default::default() };
    let records = (0..50).map(|key| record(Some(key))).chain((0..50).map(|_| record(None))).collect();
    let request = v1::ProduceRequest { topic: "t".into(), records, ..Default::default() };
    let response: v1::ProduceResponse = call(&broker, "Produce", &request).unwrap();
    assert_eq!(response.appended.len(), 4);
    assert_eq!(response.appended.iter().map(|appended| appended.count).sum::<u32>(), 100);
    assert!(response.appended.iter().any(|appended| appended.count >= 50));
    let request = v1::ReceiveRequest { max_deliveries: 4, ..wish("t", "g") };
    for delivery in receive(&broker, &request) {
        for key in delivery.records.iter().filter_map(|record| record.key.as_deref()) {
            assert_eq!(broker_core::partitioner::partition_for_key(key, 4), delivery.partition);
        }
    }
}

#[test]
fn a_folder_is_for_one_process_and_says_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let err = Broker::open(dir.path(), BrokerOptions::default(), None).err().unwrap();
    assert_eq!(err.code(), Code::DataInUse);
    assert!(err.message().contains(&format!("process {}", std::process::id())), "{err}");
    assert!(err.message().contains("telemetry broker --data"), "{err}");
    broker.close(true).unwrap();
    open(dir.path());
}

#[test]
fn a_folder_of_a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close(true).unwrap();
    std::fs::write(dir.path().join("broker.json"), r#"{"format": 2, "broker_id": "1", "opened": 1}"#).unwrap();
    let err = Broker::open(dir.path(), BrokerOptions::default(), None).err().unwrap();
    assert_eq!(err.code(), Code::DataFormat);
    assert!(err.message().contains("newer telemetry-broker"), "{err}");
}

#[test]
fn a_subscription_is_readable_exactly_while_something_changed() {
    let broker = Broker::in_memory(BrokerOptions::default(), None).unwrap();
    create(&broker, "t", 1, v1::Durability::Os);
    create(&broker, "u", 1, v1::Durability::Os);
    let subscription = broker.wakeups().subscribe(Some("t".into())).unwrap();
    let readable = || {
        let fd = subscription.fd();
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    produce(&broker, "u", None, &["a"]);
    assert!(!readable(), "another topic");
    produce(&broker, "t", None, &["a"]);
    produce(&broker, "t", None, &["b"]);
    assert!(readable());
    assert_eq!(subscription.drain(), ["t".into()]);
    assert!(!readable());
    assert!(subscription.drain().is_empty());
    let delivery = receive(&broker, &wish("t", "g")).remove(0);
    nack(&broker, &delivery, "g", |_| ());
    assert!(readable(), "records came back");
    let _ = subscription.fd().as_fd();
}

#[test]
fn with_fsync_many_producers_share_a_sync_and_see_their_records_durable() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Arc::new(open(dir.path()));
    create(&broker, "t", 1, v1::Durability::Fsync);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    produce(&broker, "t", Some(0), &["x"]);
                    let request = v1::DescribeTopicRequest { name: "t".into() };
                    let topic: v1::DescribeTopicResponse = call(&broker, "DescribeTopic", &request).unwrap();
                    assert!(topic.partitions[0].synced_end_offset > 0);
                }
            });
        }
    });
    broker.close(false).unwrap();
    let broker = open(dir.path());
    let request = v1::ReceiveRequest { max_records: 1000, ..wish("t", "g") };
    assert_eq!(receive(&broker, &request)[0].records.len(), 160);
}

#[test]
fn bounds_of_a_delivery_are_kept_but_one_large_record_is_given() {
    let broker = Broker::in_memory(BrokerOptions::default(), None).unwrap();
    create(&broker, "t", 1, v1::Durability::Os);
    let large = "x".repeat(5000);
    produce(&broker, "t", None, &[&large, "a", "b", &large, "c"]);
    let request = v1::ReceiveRequest { max_bytes: 100, ..wish("t", "g") };
    let mut sizes = Vec::new();
    while let Some(delivery) = receive(&broker, &request).pop() {
        sizes.push(delivery.records.len());
    }
    assert_eq!(sizes, [1, 2, 1, 1]);
}

#[test]
fn what_a_reader_finds_is_what_was_produced_to_the_byte() {
    let broker = Broker::in_memory(BrokerOptions { queue_size: 1, ..Default::default() }, None).unwrap();
    create(&broker, "t", 1, v1::Durability::Os);
    // An unknown field of a newer client stays in the record.
    let mut record =
        v1::Record { value: b"v".to_vec(), key: Some(b"k".to_vec()), ..Default::default() }.encode_to_vec();
    record.extend([0xA0, 0x06, 0x2A]);
    let mut request = v1::ProduceRequest { topic: "t".into(), ..Default::default() }.encode_to_vec();
    request.push(0x7A);
    request.push(u8::try_from(record.len()).unwrap());
    request.extend(&record);
    broker.call("Produce", &request).unwrap();
    let at = v1::Position { at: Some(v1::position::At::Offset(0)), log_id: vec![] };
    let read = v1::ReadRequest { topic: "t".into(), from: Some(at), ..Default::default() };
    let response = broker.call("Read", &read.encode_to_vec()).unwrap();
    let delivery = &parse_deliveries(&response).unwrap()[0];
    let entry = record_entries(&response[delivery.records.clone()]).next().unwrap();
    assert_eq!(entry.record, record);
    assert_eq!(RecordView::of(entry.record).key, Some(&b"k"[..]));
}

#[test]
fn a_request_is_stored_as_it_is_in_the_memory_that_it_came_in() {
    let broker = Broker::in_memory(BrokerOptions { queue_size: 1, ..Default::default() }, None).unwrap();
    create(&broker, "t", 2, v1::Durability::Os);
    let head = |producer: &str, partition, sequence| {
        let producer = producer.to_owned();
        v1::ProduceRequest { topic: "t".into(), producer, partition, sequence, ..Default::default() }.encode_to_vec()
    };
    let entries = |values: &[&str]| {
        let record = |value: &&str| v1::Record { value: value.as_bytes().to_vec(), ..Default::default() };
        v1::RecordBatch { records: values.iter().map(record).collect() }.encode_to_vec()
    };
    let padded = b"\x7A\x83\x00\x0A\x01p"; // a length in two bytes, where one does
    let requests = [
        [&head("p", Some(0), 1)[..], &entries(&["a", "b"])].concat(),
        [&entries(&["c"])[..], &head("p", Some(0), 2)].concat(), // the records in front
        [&entries(&["d"])[..], &head("p", Some(0), 3), &entries(&["e"])].concat(), // and on both sides
        [&head("p", Some(0), 4)[..], padded].concat(),
        head("p", Some(0), 5), // none at all
        [&head("", Some(0), 0)[..], &entries(&["f"])].concat(),
        [&head("", None, 0)[..], &entries(&["g"])].concat(), // split by the broker
    ];
    for (room, behind) in [(0, 0), (60, 0), (3, 7), (100, 1)] {
        let mut stored = Vec::new();
        for request in &requests {
            let bytes = [vec![9; room], request.clone(), vec![9; behind]].concat();
            let (answer, unsettled) = broker.call_produce_in(bytes, room..room + request.len()).unwrap();
            assert!(unsettled.is_none());
            let answer = v1::ProduceResponse::decode(answer.as_slice()).unwrap();
            stored.extend(answer.appended.iter().map(|appended| (appended.count, appended.duplicate)));
        }
        let repeats = room > 0; // the named ones
        let named = [2, 1, 2, 1, 0].map(|count| if repeats { (0, true) } else { (count, false) });
        assert_eq!(stored, [&named[..], &[(1, false), (1, false)]].concat(), "{room} bytes of room");
    }
    let mut found = Vec::new();
    loop {
        let deliveries = receive(&broker, &wish("t", "g"));
        let Some(delivery) = deliveries.first() else { break };
        found.extend(values(delivery));
        ack(&broker, delivery, "g", None);
    }
    found.sort();
    assert_eq!(found.concat(), "abcdeffffggggp");
    let broken = [&head("", Some(0), 0)[..], b"\x7A\x7Fx"].concat();
    let len = broken.len();
    assert_eq!(broker.call_produce_in(broken, 0..len).err().unwrap().code(), Code::InvalidBatch);
    let unknown = [&head("", Some(9), 0)[..], &entries(&["h"])].concat();
    let len = unknown.len();
    assert_eq!(broker.call_produce_in(unknown, 0..len).err().unwrap().code(), Code::PartitionNotFound);
}

#[test]
fn errors_name_the_value_and_what_was_expected() {
    let broker = Broker::in_memory(BrokerOptions::default(), None).unwrap();
    create(&broker, "t", 2, v1::Durability::Os);
    let err = |method: &str, request: &dyn Fn() -> Vec<u8>| broker.call(method, &request()).unwrap_err();
    let produce = |topic: &str, partition: Option<u32>, producer: &str, sequence: u64| v1::ProduceRequest {
        topic: topic.into(),
        partition,
        producer: producer.into(),
        sequence,
        records: vec![],
        ..Default::default()
    };
    let cases = [
        (err("Produce", &|| produce("no", None, "", 0).encode_to_vec()), Code::TopicNotFound, "\"no\""),
        (err("Produce", &|| produce("t", Some(2), "", 0).encode_to_vec()), Code::PartitionNotFound, "0 to 1, not 2"),
        (err("Produce", &|| produce("t", Some(0), "p", 0).encode_to_vec()), Code::InvalidArgument, "count from 1"),
        (err("Produce", &|| produce("t", None, "p", 1).encode_to_vec()), Code::InvalidArgument, "named no partition"),
        (err("Produce", &|| vec![0x7A, 0x05, 0x0A]), Code::InvalidBatch, "past the end"),
        (err("Receive", &|| wish("t", "../g").encode_to_vec()), Code::InvalidName, "../g"),
        (
            err("Receive", &|| v1::ReceiveRequest { max_records: 70_000, ..wish("t", "g") }.encode_to_vec()),
            Code::InvalidArgument,
            "70000",
        ),
        (
            err("Ack", &|| v1::AckRequest { topic: "t".into(), group: "none".into(), leases: vec![] }.encode_to_vec()),
            Code::GroupNotFound,
            "none",
        ),
        (
            err("CreateTopic", &|| v1::CreateTopicRequest { name: "..".into(), ..Default::default() }.encode_to_vec()),
            Code::InvalidName,
            "..",
        ),
        (err("NoSuchCall", &Vec::new), Code::Unsupported, "NoSuchCall"),
    ];
    for (err, code, part) in cases {
        assert_eq!(err.code(), code, "{err}");
        assert!(err.message().contains(part), "{err}");
    }
}

#[test]
fn a_topic_is_never_made_in_a_folder_of_something_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("store/_delta_log")).unwrap();
    let broker = open(dir.path());
    let request = v1::CreateTopicRequest { name: "store".into(), config: None, ..Default::default() };
    assert_eq!(
        call::<v1::CreateTopicResponse>(&broker, "CreateTopic", &request).unwrap_err().code(),
        Code::TopicExists
    );
    assert!(dir.path().join("store/_delta_log").exists());
}

#[test]
fn a_deleted_topic_is_gone_and_can_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, "t", 1, v1::Durability::Os);
    produce(&broker, "t", None, &["old"]);
    call::<v1::DeleteTopicResponse>(&broker, "DeleteTopic", &v1::DeleteTopicRequest { name: "t".into() }).unwrap();
    create(&broker, "t", 1, v1::Durability::Os);
    assert!(receive(&broker, &wish("t", "g")).is_empty());
    broker.close(true).unwrap();
    assert_eq!(open(dir.path()).topics().unwrap().len(), 1);
}

#[test]
fn the_defaults_of_a_broker_are_those_of_its_options() {
    let options =
        BrokerOptions { partitions: 3, durability: Durability::Fsync, visibility_timeout_ms: 5, ..Default::default() };
    let broker = Broker::in_memory(options, None).unwrap();
    let request = v1::CreateTopicRequest { name: "t".into(), config: None, ..Default::default() };
    let topic = call::<v1::CreateTopicResponse>(&broker, "CreateTopic", &request).unwrap().topic.unwrap();
    let config = topic.config.unwrap();
    assert_eq!(
        (config.partitions, config.durability(), config.visibility_timeout_ms),
        (Some(3), v1::Durability::Fsync, Some(5))
    );
    assert_eq!(
        Broker::in_memory(BrokerOptions { partitions: 0, ..Default::default() }, None).err().unwrap().code(),
        Code::InvalidArgument
    );
}

#[test]
fn after_a_close_whoever_still_holds_a_partition_cannot_touch_its_files() {
    for flush in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(dir.path());
        create(&broker, "t", 1, v1::Durability::Os);
        produce(&broker, "t", None, &["a"]);
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        broker.close(flush).unwrap();
        let records = broker_core::wire::Records::empty();
        assert_eq!(partition.append(&records, None, 0).unwrap_err().code(), Code::BrokerClosed);
        assert_eq!(partition.seek("g", 0).unwrap_err().code(), Code::BrokerClosed);
        let request = v1::ListTopicsRequest::default();
        assert_eq!(
            call::<v1::ListTopicsResponse>(&broker, "ListTopics", &request).unwrap_err().code(),
            Code::BrokerClosed
        );
    }
}

#[test]
fn an_answer_of_many_deliveries_stays_under_8_mib() {
    let broker = Broker::in_memory(BrokerOptions::default(), None).unwrap();
    create(&broker, "t", 4, v1::Durability::Os);
    let large = "x".repeat(1_000_000);
    for partition in 0..4 {
        for _ in 0..5 {
            produce(&broker, "t", Some(partition), &[&large]);
        }
    }
    let request = v1::ReceiveRequest { max_deliveries: 64, max_bytes: 8 << 20, ..wish("t", "g") };
    let records: usize = receive(&broker, &request).iter().map(|delivery| delivery.records.len()).sum();
    assert_eq!(records, 9, "8 MiB and the record that passes it");
    assert_eq!(receive(&broker, &request).iter().map(|delivery| delivery.records.len()).sum::<usize>(), 9);
}
