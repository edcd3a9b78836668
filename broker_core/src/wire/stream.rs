//! Messages of the streams, as both who keeps records and who passes them on take them.

use std::ops::Range;

use prost::Message;

use super::cursor::{Cursor, Value};
use super::v1;
use crate::error::{Code, Error, Result};

/// Field of `ProduceStreamRequest`.
pub const PRODUCE: u8 = 1;

/// Where in the message of a `ProduceStream` its `ProduceRequest` stands.
pub fn produce_request(message: &[u8]) -> Result<Range<usize>> {
    let mut cursor = Cursor::new(message);
    loop {
        match cursor.next_field() {
            Ok(Some(field)) => {
                if let (true, Value::Bytes(request)) = (field.number == u32::from(PRODUCE), field.value) {
                    return Ok(field.end - request.len()..field.end);
                }
            }
            Ok(None) => return Ok(0..0),
            Err(malformed) => {
                let message = format!(
                    "a message of a ProduceStream is no ProduceStreamRequest: malformed protobuf at byte {}: {}",
                    malformed.at, malformed.what
                );
                return Err(Error::new(Code::InvalidArgument, message));
            }
        }
    }
}

/// A client's message on a `Consume`.
pub fn consume_request(message: &[u8]) -> Result<v1::ConsumeRequest> {
    v1::ConsumeRequest::decode(message).map_err(|err| {
        Error::new(Code::InvalidArgument, format!("a message of a Consume stream is no ConsumeRequest: {err}"))
    })
}

/// A server's message on a `Consume`, encoded.
pub fn consume_response(response: v1::consume_response::Response) -> Vec<u8> {
    v1::ConsumeResponse { response: Some(response) }.encode_to_vec()
}
