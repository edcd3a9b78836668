//! Producers of an `fsync` topic: 64 at once share their fsyncs, one alone waits for each of its own.
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
    for producers in [1, 64] {
        let rate = Rate::default();
        let mut group = criterion.benchmark_group("fsync");
        group.throughput(Throughput::Elements(producers));
        group.bench_function(format!("{producers} producers"), |b| {
            b.iter_custom(|iters| rate.add(iters * producers, produce(&partition, producers, &entry, iters)));
        });
        group.finish();
        rates.push(rate.per_second());
    }
    criterion.final_summary();
    println!("fsync, one producer: {:.0} records/s; 64: {:.0} records/s", rates[0], rates[1]);
    report("fsync, 64 producers / one", rates[1] / rates[0], "times", 20.0);
}
