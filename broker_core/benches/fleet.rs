//! The simulated fleet: 30 fields of a GPU to a record of line protocol, and to the rows of a dump.
#![allow(
    clippy::pedantic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends where it fails"
)]

mod support;

use std::hint::black_box;
use std::time::Instant;

use broker_core::telemetry::fleet::{Fleet, FleetOptions};
use criterion::{Criterion, Throughput};
use support::{Rate, report};

fn fleet() -> Fleet {
    let options = FleetOptions {
        hosts: 125,
        gpus: 8,
        metrics: 30,
        start_ns: 1_752_840_000_000_000_000,
        interval_ns: 10_000_000_000,
        scrapes: None,
        seed: 0,
    };
    Fleet::new(options).expect("the options are sound")
}

fn main() {
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let mut group = criterion.benchmark_group("fleet");
    group.throughput(Throughput::Elements(1000 * 30));
    let rates = [Rate::default(), Rate::default()];
    group.bench_function("records", |b| {
        b.iter_custom(|iters| {
            let mut fleet = fleet();
            let start = Instant::now();
            for _ in 0..iters {
                black_box(fleet.next_records(4, 1000).expect("it goes on"));
            }
            rates[0].add(iters * 1000 * 30, start.elapsed())
        });
    });
    group.bench_function("rows", |b| {
        b.iter_custom(|iters| {
            let mut fleet = fleet();
            let start = Instant::now();
            for _ in 0..iters {
                black_box(fleet.next_rows(1000).expect("it goes on"));
            }
            rates[1].add(iters * 1000 * 30, start.elapsed())
        });
    });
    group.finish();
    report("fleet to records", rates[0].per_second() / 1e6, "M samples/s", 10.0);
    report("fleet to rows", rates[1].per_second() / 1e6, "M samples/s", 1.0);
    criterion.final_summary();
}
