//! What the benches share: the batch that everything is measured with, rates across a run, and what they are held against.
#![allow(dead_code, reason = "each bench uses its part")]

use std::cell::Cell;
use std::time::Duration;

use broker_core::wire::record::put_record;

/// Bytes of a record's payload.
pub const PAYLOAD_BYTES: usize = 450;
/// Records of a batch.
pub const BATCH_RECORDS: u32 = 500;

/// One encoded batch.
pub fn batch() -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in 0..BATCH_RECORDS {
        let mut payload = format!("gpu,hostname=mtv5-dgx1-hgpu-{record:03} DCGM_FI_DEV_GPU_UTIL=").into_bytes();
        payload.resize(PAYLOAD_BYTES, b'7');
        put_record(&mut bytes, &payload, None, 0, &[]).expect("450 bytes fit into a record");
    }
    bytes
}

/// What all samples of one measurement come to.
#[derive(Default)]
pub struct Rate {
    units: Cell<f64>,
    seconds: Cell<f64>,
}

impl Rate {
    /// Adds a sample and passes its time on.
    pub fn add(&self, units: u64, elapsed: Duration) -> Duration {
        self.units.set(self.units.get() + units as f64);
        self.seconds.set(self.seconds.get() + elapsed.as_secs_f64());
        elapsed
    }

    /// Units a second; not a number when nothing was measured (a filter left it out).
    pub fn per_second(&self) -> f64 {
        self.units.get() / self.seconds.get()
    }
}

/// Prints a figure beside its target, and says which side of it it lies on.
pub fn report(name: &str, value: f64, unit: &str, target: f64) {
    if value.is_finite() {
        let verdict = if value >= target { "met" } else { "MISSED" };
        println!("{name}: {value:.3} {unit} (target >= {target} {unit}: {verdict})");
    }
}

/// The same where less is better.
pub fn report_at_most(name: &str, value: f64, unit: &str, target: f64) {
    if value.is_finite() {
        let verdict = if value <= target { "met" } else { "MISSED" };
        println!("{name}: {value:.3} {unit} (target <= {target} {unit}: {verdict})");
    }
}
