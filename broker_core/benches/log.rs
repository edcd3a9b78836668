//! Appending to one log from one thread, beside what the machine makes of the same bytes: memcpy, and write(2) by 1 MiB.
#![allow(
    clippy::pedantic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends where it fails"
)]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::disk::RealDisk;
use broker_core::log::{Durability, Log, LogId, LogOptions};
use criterion::{Criterion, Throughput};
use support::{BATCH_RECORDS, Rate, batch, report};

/// Bytes after which a file is begun anew, for the log and for write(2) alike, so that neither fills the disk.
const FILE_BYTES: usize = 256 << 20;
const CHUNK: usize = 1 << 20;

fn open(dir: &Path, durability: Durability) -> Log {
    let options = LogOptions {
        durability,
        tail_records: 2000,
        segment_bytes: 1 << 30,
        segment_age_ns: i64::MAX,
        max_bytes: None,
        drop_oldest: false,
    };
    Log::open(Arc::new(RealDisk), dir.to_owned(), "bench/0".into(), LogId([7; 16]), options).expect("the log opens")
}

/// Appends `iters` batches; every [`FILE_BYTES`] to a log of its own, whose making is not measured.
fn append(durability: Durability, batch: &[u8], iters: u64) -> Duration {
    let (mut elapsed, mut left) = (Duration::ZERO, iters);
    while left > 0 {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut log = open(dir.path(), durability);
        log.append(batch, BATCH_RECORDS, None, 1).expect("the first batch, which makes the segment, is appended");
        let appends = left.min((FILE_BYTES / batch.len()) as u64);
        let start = Instant::now();
        for now_ns in 0..appends {
            if log.wants_flush() {
                // Consumers keep up: what was acked before a spill is never written.
                log.flush(log.end()).expect("the tail is let go");
            }
            log.append(batch, BATCH_RECORDS, None, now_ns as i64).expect("the batch is appended");
        }
        elapsed += start.elapsed();
        left -= appends;
    }
    elapsed
}

fn copy(chunk: &[u8], iters: u64) -> Duration {
    let mut target = vec![1u8; 8 * CHUNK];
    let start = Instant::now();
    for index in 0..iters as usize {
        let at = index % 8 * CHUNK;
        target[at..at + CHUNK].copy_from_slice(std::hint::black_box(chunk));
        std::hint::black_box(&mut target);
    }
    start.elapsed()
}

fn write(chunk: &[u8], iters: u64) -> Duration {
    let (mut elapsed, mut left) = (Duration::ZERO, iters);
    while left > 0 {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut file = File::create(dir.path().join("written")).expect("a file");
        let writes = left.min((FILE_BYTES / CHUNK) as u64);
        let start = Instant::now();
        for _ in 0..writes {
            file.write_all(chunk).expect("the chunk is written");
        }
        elapsed += start.elapsed();
        left -= writes;
    }
    elapsed
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    let batch = batch();
    let chunk: Vec<u8> = batch.iter().copied().cycle().take(CHUNK).collect();
    let [memory, os, memcpy, written]: [Rate; 4] = Default::default();
    // Of all four, in bytes a second, since an entry is a little more than its payload.
    let mut group = criterion.benchmark_group("limit");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    let bytes = |iters: u64| iters * CHUNK as u64;
    group.bench_function("memcpy", |b| b.iter_custom(|iters| memcpy.add(bytes(iters), copy(&chunk, iters))));
    group.bench_function("write", |b| b.iter_custom(|iters| written.add(bytes(iters), write(&chunk, iters))));
    group.finish();
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(u64::from(BATCH_RECORDS)));
    let bytes = |iters: u64| iters * batch.len() as u64;
    for (name, durability, rate) in [("memory", Durability::Memory, &memory), ("os", Durability::Os, &os)] {
        group.bench_function(name, |b| {
            b.iter_custom(|iters| rate.add(bytes(iters), append(durability, &batch, iters)));
        });
    }
    group.finish();
    criterion.final_summary();
    let record = batch.len() as f64 / f64::from(BATCH_RECORDS);
    report("append (memory)", memory.per_second() / record / 1e6, "M records/s", 6.0);
    report("append (memory) / memcpy", memory.per_second() / memcpy.per_second() * 100.0, "%", 50.0);
    report("append (os)", os.per_second() / record / 1e6, "M records/s", 4.0);
    report("append (os) / write(2) by 1 MiB", os.per_second() / written.per_second() * 100.0, "%", 60.0);
}
