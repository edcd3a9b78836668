//! A broker that takes and gives records for long needs no more memory than at the beginning.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

mod support;

use broker_core::broker::{Broker, BrokerOptions};
use broker_core::wire::v1;
use prost::Message;

use support::soak::Soak;

/// Enough batches to fill every buffer: 450 B records, 500 a batch.
const BATCHES: u64 = 600;
/// What an allocator may keep, and no leak that matters stays below.
const SLACK_BYTES: u64 = 32 << 20;

fn call<M: Message + Default>(broker: &Broker, method: &str, request: &impl Message) -> M {
    let response = broker.call(method, &request.encode_to_vec()).unwrap_or_else(|err| panic!("{method}: {err}"));
    M::decode(response.as_slice()).unwrap()
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// Produces a batch and has it acked, in part only after it was given back.
fn round_trip(broker: &Broker, records: &[v1::Record], number: u64) {
    let produce = v1::ProduceRequest {
        topic: "t".into(),
        partition: Some((number % 2) as u32),
        records: records.to_vec(),
        ..Default::default()
    };
    call::<v1::ProduceResponse>(broker, "Produce", &produce);
    for group in ["one", "two"] {
        let mut left = records.len();
        while left > 0 {
            let receive = v1::ReceiveRequest {
                topic: "t".into(),
                group: group.into(),
                consumer: format!("c{}", number % 7),
                ..Default::default()
            };
            let response: v1::ReceiveResponse = call(broker, "Receive", &receive);
            let delivery = &response.deliveries[0];
            let (start, count) = (delivery.base_offset, delivery.records.len() as u64);
            let part = |start, end| {
                let lease_id = delivery.lease_id.clone();
                vec![v1::LeaseRange { lease_id, ranges: vec![v1::OffsetRange { start, end }] }]
            };
            let half = start + count.div_ceil(2);
            let ack = v1::AckRequest { topic: "t".into(), group: group.into(), leases: part(start, half) };
            left -= call::<v1::AckResponse>(broker, "Ack", &ack).acked as usize;
            if half < start + count {
                let leases = part(half, start + count);
                let nack = v1::NackRequest { topic: "t".into(), group: group.into(), leases, ..Default::default() };
                call::<v1::NackResponse>(broker, "Nack", &nack);
            }
        }
    }
}

#[test]
fn given_steady_load_then_the_memory_stays_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(dir.path(), BrokerOptions::default(), None).unwrap();
    let config = v1::TopicConfig {
        partitions: Some(2),
        segment_bytes: Some(4 << 20),
        retention_bytes: Some(16 << 20),
        max_attempts: Some(0),
        ..Default::default()
    };
    let create = v1::CreateTopicRequest { name: "t".into(), config: Some(config), ..Default::default() };
    call::<v1::CreateTopicResponse>(&broker, "CreateTopic", &create);
    let records = vec![v1::Record { value: vec![b'x'; 450], ..Default::default() }; 500];
    (0..BATCHES / 2).for_each(|number| round_trip(&broker, &records, number));
    let before = resident();
    let soak = Soak::asked();
    for number in BATCHES / 2.. {
        round_trip(&broker, &records, number);
        if number >= BATCHES && soak.as_ref().is_none_or(Soak::is_over) {
            break;
        }
    }
    let after = resident();
    assert!(after < before + SLACK_BYTES, "{before} bytes after the first records, {after} after the last");
    broker.close(true).unwrap();
}
