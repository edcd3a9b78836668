//! Opening what is on the disk: a partition of 1 GB, clean and after a crash, and a broker of 1,000 partitions.
#![allow(
    clippy::pedantic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends where it fails"
)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::broker::{Broker, BrokerOptions, TopicConfig};
use broker_core::disk::RealDisk;
use broker_core::log::{Durability, Log, LogId, LogOptions};
use broker_core::wire::Records;
use criterion::Criterion;
use support::{BATCH_RECORDS, Rate, batch, report_at_most};

const LOG_BYTES: usize = 1_000_000_000;
const PARTITIONS: u32 = 1000;

fn open(dir: &Path) -> Log {
    let options = LogOptions {
        durability: Durability::Os,
        tail_records: 2000,
        segment_bytes: 128 << 20,
        segment_age_ns: i64::MAX,
        max_bytes: None,
        drop_oldest: false,
    };
    Log::open(Arc::new(RealDisk), dir.to_owned(), "bench/0".into(), LogId([7; 16]), options).expect("the log opens")
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    let [clean, crashed, opened]: [Rate; 3] = Default::default();
    let mut group = criterion.benchmark_group("open");

    let dir = tempfile::tempdir().expect("a temporary folder");
    let batch = batch();
    let mut log = open(dir.path());
    // As a partition does once it is open; without it each opening is one behind a failed fsync, which writes all anew.
    log.trust_again();
    for now_ns in 0..(LOG_BYTES / batch.len()) as i64 {
        log.append(&batch, BATCH_RECORDS, None, now_ns).expect("the batch is appended");
    }
    let end = log.end();
    drop(log);
    // The log was never closed: each of these opens is one after a crash that nothing was synced before, the worst case,
    // for it checks every byte. An open alone makes the log no cleaner.
    let reopen = |iters: u64, rate: &Rate| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iters {
            let start = Instant::now();
            let log = open(dir.path());
            elapsed += start.elapsed();
            assert_eq!(log.end(), end);
        }
        rate.add(iters, elapsed)
    };
    group.bench_function("1 GB after a crash", |b| b.iter_custom(|iters| reopen(iters, &crashed)));
    open(dir.path()).append(&batch, BATCH_RECORDS, None, 1).expect("the batch is appended");
    let mut log = open(dir.path());
    let end = log.end();
    log.append(&batch, BATCH_RECORDS, None, 1).expect("the batch is appended");
    log.close(0).expect("the log closes");
    drop(log);
    group.bench_function("1 GB, clean", |b| {
        b.iter_custom(|iters| {
            let start = Instant::now();
            for _ in 0..iters {
                assert!(open(dir.path()).end() > end);
            }
            clean.add(iters, start.elapsed())
        });
    });
    drop(dir);

    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = BrokerOptions { partitions: PARTITIONS, ..BrokerOptions::default() };
    let open_broker = || Broker::open(dir.path(), options.clone(), None).expect("the broker opens");
    let broker = open_broker();
    let topic = broker.create_topic("bench", TopicConfig::new(&options)).expect("the topic is made");
    for partition in topic.partitions() {
        let records = Records::parse(&batch).expect("the batch is sound");
        partition.append(&records, None, 1).expect("the batch is appended");
    }
    broker.close(true).expect("the broker closes");
    group.bench_function("1,000 partitions", |b| {
        b.iter_custom(|iters| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iters {
                let start = Instant::now();
                let broker = open_broker();
                elapsed += start.elapsed();
                broker.close(true).expect("the broker closes");
            }
            opened.add(iters, elapsed)
        });
    });
    group.finish();
    criterion.final_summary();
    report_at_most("open 1 GB after a crash", 1.0 / crashed.per_second(), "s", 1.2);
    report_at_most("open 1 GB, clean", 1.0 / clean.per_second(), "s", 1.2);
    report_at_most("open 1,000 partitions", 1.0 / opened.per_second(), "s", 1.0);
}
