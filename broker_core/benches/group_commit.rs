//! Producers of an `fsync` topic: 64 at once share their fsyncs, one alone waits for each of its own.
//!
//! 64 producers come in two kinds: each a thread of its own that waits, so that each round wakes 64 threads, which alone
//! costs more than the fsync; or all on one event loop, as the gRPC broker and `telemetry_broker.aio` have them.
#![allow(
    clippy::pedantic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends where it fails"
)]

mod support;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use broker_core::broker::{Broker, BrokerOptions, Partition, TopicConfig};
use broker_core::log::Durability;
use broker_core::log::frame::Entries;
use broker_core::wire::Records;
use broker_core::wire::record::put_record;
use criterion::{Criterion, Throughput};
use support::{PAYLOAD_BYTES, Rate, report};

/// Each of `producers` threads appends `iters` records, one at a time.
fn produce(partition: &Arc<Partition>, producers: u64, entry: &[u8], iters: u64) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..producers {
            scope.spawn(|| {
                let record = Records::parse(entry).expect("the record is sound");
                for _ in 0..iters {
                    partition.append(&record, None, 1).expect("the record is appended");
                }
            });
        }
    });
    start.elapsed()
}

/// `producers` append one record each, `iters` times over, from one thread that waits for all of them at once.
fn produce_on_a_loop(partition: &Arc<Partition>, producers: u64, entry: &[u8], iters: u64) -> Duration {
    let record = Records::parse(entry).expect("the record is sound");
    let start = Instant::now();
    for _ in 0..iters {
        let written: Vec<_> = (0..producers)
            .map(|_| {
                partition
                    .append_unsettled(Entries::Borrowed(record.bytes()), record.count(), None, 1)
                    .expect("the record is appended")
                    .1
            })
            .collect();
        for write in written {
            partition.settle(write.as_ref()).expect("the record is on disk");
        }
    }
    start.elapsed()
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = BrokerOptions { partitions: 1, durability: Durability::Fsync, ..BrokerOptions::default() };
    let broker = Broker::open(dir.path(), options.clone(), None).expect("the broker opens");
    let topic = broker.create_topic("bench", TopicConfig::new(&options)).expect("the topic is made");
    let partition = topic.partition(0).expect("the topic has a partition");
    let mut entry = Vec::new();
    put_record(&mut entry, &[b'7'; PAYLOAD_BYTES], None, 0, &[]).expect("450 bytes fit into a record");

    let mut rates = Vec::new();
    type Produce = fn(&Arc<Partition>, u64, &[u8], u64) -> Duration;
    let kinds: [(&str, u64, Produce); 3] = [
        ("one producer", 1, produce),
        ("64 producers, a thread each", 64, produce),
        ("64 producers on an event loop", 64, produce_on_a_loop),
    ];
    for (name, producers, produce) in kinds {
        let rate = Rate::default();
        let mut group = criterion.benchmark_group("fsync");
        group.throughput(Throughput::Elements(producers));
        group.bench_function(name, |b| {
            b.iter_custom(|iters| rate.add(iters * producers, produce(&partition, producers, &entry, iters)));
        });
        group.finish();
        rates.push(rate.per_second());
    }
    criterion.final_summary();
    println!("fsync, one producer: {:.0} records/s", rates[0]);
    println!("fsync, 64 producers, a thread each, / one: {:.1} times", rates[1] / rates[0]);
    report("fsync, 64 producers on an event loop / one", rates[2] / rates[0], "times", 20.0);
}
