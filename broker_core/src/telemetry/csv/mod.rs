//! A DCGM dump in CSV, one sample a row, as batches of wide points.
//!
//! [`rows`] finds the physical lines, [`split`] their fields, [`header`] the columns; [`pivot`] makes points of a
//! block's rows and batches of its points; [`rejects`] keeps the rows that were refused; [`CsvReader`] drives them.
//!
//! Cuts. A block ends at the last row end before a multiple of `block_bytes` of file position, or at the end of the
//! file; earlier where `max_rows`, or the bound of a batch or of a record, would be passed. Points never span blocks.
//!
//! Invariants (tests: `tests/csv_model.rs`)
//! - A row is one physical line, whatever its quotes say: a quote that is not closed costs its own row only.
//! - Every row that is not blank is counted once: `rows = samples + duplicates + missing + resumed + rejected`.
//! - For every partition, the rows in the batches of blocks that end after `resume[partition]` are just those that end
//!   after it: with the block's end as the sequence of its batches, any cuts store each row once.

mod counts;
mod error;
mod header;
mod intern;
mod pivot;
mod reader;
mod rejects;
mod rows;
mod split;

pub use counts::Counts;
pub use reader::{CsvBlock, CsvOptions, CsvReader};
pub use rejects::RejectOptions;
pub use rows::MAX_ROW_BYTES;
