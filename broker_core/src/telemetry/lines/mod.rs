//! Influx line protocol: `measurement[,tag=value...] field=value[,field=value...] [time]`.
//!
//! What is read is what `InfluxDB` 3 reads: a backslash escapes a comma, an equals sign, a space and itself, and is an
//! ordinary character before anything else. What is written is the same in reverse, so a written name or value returns
//! as it was, with two exceptions that the protocol cannot carry; see [`escape`].

mod batch;
pub mod columns;
pub mod decoder;
pub mod escape;
mod parse;
pub mod point;
pub mod protocol;
mod reader;

pub use batch::Columns;
pub use columns::ColumnBuilder;
pub use decoder::{Decoder, Fault, Rejected};
pub use parse::LineFault;
pub use point::encode_point;
pub use protocol::{LineBatch, LineBuilder, LineIndex};

/// Most columns of a table beside the time.
pub const MAX_COLUMNS: usize = 500;
/// Most input bytes between two [`Decoder::finish`]: far below where 32-bit offsets of a string column end.
pub const MAX_INPUT_BYTES: usize = 1 << 30;
