//! `SOAK_SECONDS=n`: a test goes on for so long, with a seed of its own at every run, which it prints.
#![allow(clippy::print_stderr, reason = "whoever wants to see a failure again needs the seed")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub struct Soak {
    end: Instant,
    /// Never 0; `SOAK_SEED=n` gives it again.
    pub seed: u64,
}

impl Soak {
    /// None in an ordinary run.
    pub fn asked() -> Option<Soak> {
        let seconds = std::env::var("SOAK_SECONDS").ok()?.parse().unwrap();
        let seed = std::env::var("SOAK_SEED").map_or_else(
            |_| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1,
            |seed| seed.parse().unwrap(),
        );
        eprintln!("SOAK_SEED={seed}");
        Some(Soak { end: Instant::now() + Duration::from_secs_f64(seconds), seed })
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}
