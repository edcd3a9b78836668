//! Leases and acks of a shared group: the rate at many records in flight, and what those cost in memory.
#![allow(
    clippy::pedantic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends where it fails"
)]

mod support;

use std::collections::VecDeque;
use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::queue::{Mode, Progress, Queue};
use criterion::{Criterion, Throughput};
use support::{BATCH_RECORDS, Rate, report, report_at_most};

const TIMEOUT_NS: u64 = 30_000_000_000;

/// A group with leases of one batch each, which are acked oldest first.
struct InFlight {
    queue: Queue,
    consumer: Arc<str>,
    leases: VecDeque<(u64, Range<u64>)>,
    now_ns: u64,
}

impl InFlight {
    fn new(records: u64) -> Self {
        let queue = Queue::new(Mode::Shared, &Progress::default(), 1);
        let mut group = Self { queue, consumer: "bench".into(), leases: VecDeque::new(), now_ns: 0 };
        for _ in 0..records.div_ceil(BATCH_RECORDS.into()) {
            group.lease();
        }
        group
    }

    fn lease(&mut self) {
        self.now_ns += 1000;
        let candidate = self.queue.candidate(&self.consumer, self.now_ns, u64::MAX / 2).expect("records are ready");
        let range = candidate.start..candidate.start + u64::from(BATCH_RECORDS);
        let grant = self.queue.grant(&self.consumer, range.clone(), self.now_ns + TIMEOUT_NS * 1000);
        self.leases.push_back((grant, range));
    }

    fn ack(&mut self) {
        let (grant, range) = self.leases.pop_front().expect("leases are in flight");
        let settled = self.queue.ack(grant, range, u64::MAX / 2);
        assert!(settled.stale.is_empty());
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux tells about a process");
    let line = status.lines().find(|line| line.starts_with("Anonymous:")).expect("memory is told");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") * 1024
}

fn main() {
    let before = resident();
    let group = InFlight::new(10_000_000);
    let leases = group.leases.capacity() * size_of::<(u64, Range<u64>)>();
    let bytes = (resident() - before).saturating_sub(leases as u64);
    report_at_most("10,000,000 records in flight", bytes as f64 / 1e6, "MB", 4.0);
    drop(group);

    let mut criterion =
        Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3)).configure_from_args();
    let mut rates = Vec::new();
    for exponent in 3..=7 {
        let in_flight = 10u64.pow(exponent);
        let (mut state, rate) = (InFlight::new(in_flight), Rate::default());
        let mut group = criterion.benchmark_group("lease + ack");
        group.throughput(Throughput::Elements(BATCH_RECORDS.into()));
        group.bench_function(format!("10^{exponent} in flight"), |b| {
            b.iter_custom(|iters| {
                let start = Instant::now();
                for _ in 0..iters {
                    state.lease();
                    state.ack();
                }
                rate.add(iters * u64::from(BATCH_RECORDS), start.elapsed())
            });
        });
        group.finish();
        report(&format!("lease + ack, 10^{exponent} in flight"), rate.per_second() / 1e6, "M records/s", 10.0);
        rates.push(rate.per_second());
    }
    criterion.final_summary();
    println!("lease + ack, 10^7 in flight over 10^3: {:.0} %", rates[4] / rates[0] * 100.0);
}
