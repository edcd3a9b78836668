//! Whole broker lives from a seed: random calls over the wire messages, on a disk and a clock that the simulation moves,
//! with crashes between any two writes, power cuts, full disks, failed writes and syncs, and flipped bits. After each
//! step the answers are held against a plain model (`model.rs`).
//!
//! `SIM_SEED=n cargo test -p broker_core --test simulation` replays one life, step by step; `SIM_SECONDS=n` goes on with
//! fresh seeds for so long.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test says what is wrong by failing"
)]

mod disk;
mod files;
mod life;
mod model;
mod random;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use life::Life;

/// Lives of one `cargo test`.
const SEEDS: u64 = 6000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn live(seed: u64) {
    let mut life = Life::new(seed);
    if let Err(failure) = catch_unwind(AssertUnwindSafe(|| life.run())) {
        let from = life.steps.len().saturating_sub(400);
        eprintln!("{}", life.steps[from..].join("\n"));
        eprintln!(
            "--- seed {seed} failed; replay it with: SIM_SEED={seed} cargo test -p broker_core --test simulation"
        );
        resume_unwind(failure);
    }
}

fn live_all(seeds: impl Iterator<Item = u64>, until: Option<Instant>) {
    for seed in seeds {
        if until.is_some_and(|until| Instant::now() >= until) {
            return;
        }
        live(seed);
    }
}

#[test]
fn whatever_happens_to_a_broker_it_keeps_its_promises() {
    if let Some(seed) = number("SIM_SEED") {
        return live(seed);
    }
    let until = number("SIM_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (first, count) = match until {
        Some(_) => (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64, u64::MAX / 4),
        None => (0, SEEDS),
    };
    std::thread::scope(|scope| {
        for lane in 0..2 {
            scope.spawn(move || live_all((first..first + count).skip(lane).step_by(2), until));
        }
    });
}
