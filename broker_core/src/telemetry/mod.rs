//! Codecs of the telemetry payload: DCGM rows in, line protocol through the log, Arrow columns out.
//!
//! - [`csv`] reads a tall dump (one sample a row) and makes wide points (one line per GPU and time), as encoded
//!   batches.
//! - [`fleet`] makes such points, or such a dump, of GPUs that it simulates.
//! - [`lines`] writes points as line protocol, and turns stored records into Arrow columns, or into line protocol again.
//! - [`json`] reads the two JSON records that older senders make.
//! - [`names`] says what a metric or a tag may be called, whichever way it comes in.
//! - [`newest`] keeps what each GPU showed last.
//! - [`sample`] and [`tags`] say what a single DCGM row means, whatever it was wrapped in.
//!
//! One record holds one or more lines; ours hold one. The record's key is the GPU's uuid.

pub mod csv;
pub mod fleet;
mod hash;
pub mod json;
pub mod lines;
pub mod names;
pub mod newest;
pub mod sample;
pub mod tags;

/// Measurement of every GPU point.
pub const MEASUREMENT: &str = "gpu";

/// Encoded record entries of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The entries, one after the other.
    pub records: Vec<u8>,
    /// How many.
    pub count: u32,
}
