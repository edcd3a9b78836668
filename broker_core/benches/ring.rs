//! Ring lookups: a key to its node.
#![allow(
    clippy::pedantic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends where it fails"
)]

mod support;

use std::hint::black_box;
use std::time::Instant;

use broker_core::ring::{DEFAULT_VIRTUAL_NODES, HashRing};
use criterion::{Criterion, Throughput};
use support::{Rate, report_at_most};

fn main() {
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let keys: Vec<String> = (0..4096).map(|gpu| format!("GPU-{gpu:08x}-86f3-7a43-b711-4771313afc50")).collect();
    for (nodes, target_ns) in [(10, 25.0), (1000, 60.0)] {
        let members = (0..nodes).map(|node| (format!("broker-{node}"), 1.0));
        let ring = HashRing::with_nodes(DEFAULT_VIRTUAL_NODES, members).expect("the members are sound");
        let rate = Rate::default();
        let mut group = criterion.benchmark_group("ring");
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{nodes} x {DEFAULT_VIRTUAL_NODES}"), |b| {
            b.iter_custom(|iters| {
                let start = Instant::now();
                for key in keys.iter().cycle().take(iters as usize) {
                    black_box(ring.node_for(black_box(key.as_bytes())).expect("the ring has nodes"));
                }
                rate.add(iters, start.elapsed())
            });
        });
        group.finish();
        report_at_most(&format!("lookup, {nodes} x {DEFAULT_VIRTUAL_NODES}"), 1e9 / rate.per_second(), "ns", target_ns);
    }
    criterion.final_summary();
}
