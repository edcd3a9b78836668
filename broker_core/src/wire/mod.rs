//! The protobuf wire: generated messages for what is rare, a walk over the bytes for what is hot.

pub mod cursor;
pub mod delivery;
pub mod record;
/// Messages of `broker.proto`, written by `make proto`.
#[allow(missing_docs, clippy::pedantic, clippy::all)]
#[rustfmt::skip]
pub mod v1;

pub use record::{ProduceHead, RecordView, Records, record_entries};
