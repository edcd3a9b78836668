//! The protobuf wire: generated messages for what is rare, a walk over the bytes for what is hot.

pub mod cursor;
pub mod delivery;
pub mod record;
pub mod stream;
/// Messages of `broker.proto`, written by `make proto`.
#[allow(missing_docs, clippy::pedantic, clippy::all)]
#[rustfmt::skip]
pub mod v1;

use self::cursor::{Cursor, Malformed, Value};
use crate::error::{Code, Error, Result};

pub use record::{ProduceAddress, ProduceHead, RecordView, Records, record_entries};

/// The topic that a request names: its field 1, and the last one where there are several, as every parser takes it.
pub fn topic_of(request: &[u8]) -> Result<&str> {
    let broken = |bad: Malformed| {
        let message = format!("a request that is no protobuf message: {} at byte {}", bad.what, bad.at);
        Error::new(Code::InvalidArgument, message)
    };
    let mut cursor = Cursor::new(request);
    let mut topic: &[u8] = &[];
    while let Some(field) = cursor.next_field().map_err(broken)? {
        if let (1, Value::Bytes(name)) = (field.number, field.value) {
            topic = name;
        }
    }
    std::str::from_utf8(topic)
        .map_err(|_| Error::new(Code::InvalidArgument, "the topic of a request is not UTF-8").field("topic"))
}
