//! Deliveries as a consumer finds them in a response.

use std::ops::Range;

use prost::Message;

use super::cursor::{Cursor, Malformed, Value};
use super::v1;
use crate::error::{Code, Error, Result};

/// What stands in front of a delivery in `ReceiveResponse`, `ReadResponse` and `ConsumeResponse`: field 1, with a length.
pub const DELIVERY_TAG: u8 = 1 << 3 | 2;

/// A delivery: its fields, and where in the response its records stand, as entries.
#[derive(Debug)]
pub struct DeliveryView {
    /// Everything but the records.
    pub head: v1::Delivery,
    /// Bytes of the response.
    pub records: Range<usize>,
    /// Records there.
    pub count: usize,
}

/// Finds the deliveries (field 1) of an encoded `ReceiveResponse` or `ReadResponse`.
pub fn parse_deliveries(response: &[u8]) -> Result<Vec<DeliveryView>> {
    let mut deliveries = Vec::new();
    let mut cursor = Cursor::new(response);
    while let Some(field) = cursor.next_field().map_err(broken)? {
        if let (1, Value::Bytes(delivery)) = (field.number, field.value) {
            deliveries.push(parse_delivery(delivery, field.end - delivery.len())?);
        }
    }
    Ok(deliveries)
}

/// Records of the delivery that a `ConsumeResponse` is, by its append runs: those stand in front of the records, which are
/// not looked at. 0 for what is none.
pub fn records_in_response(response: &[u8]) -> u64 {
    let mut records = 0;
    let mut cursor = Cursor::new(response);
    let Ok(Some(field)) = cursor.next_field() else { return 0 };
    let (1, Value::Bytes(delivery)) = (field.number, field.value) else { return 0 };
    let mut cursor = Cursor::new(delivery);
    while let Ok(Some(field)) = cursor.next_field() {
        match (field.number, field.value) {
            (15, _) => break,
            (8, Value::Bytes(run)) => records += v1::AppendRun::decode(run).map_or(0, |run| u64::from(run.count)),
            _ => {}
        }
    }
    records
}

fn parse_delivery(delivery: &[u8], start: usize) -> Result<DeliveryView> {
    let mut cursor = Cursor::new(delivery);
    let (mut head, mut records, mut count) = (Vec::new(), 0..0, 0);
    while let Some(field) = cursor.next_field().map_err(broken)? {
        if field.number == 15 {
            if count > 0 && records.end != field.start {
                return Err(Error::new(Code::InvalidArgument, "a delivery whose records do not stand side by side"));
            }
            records = if count == 0 { field.start..field.end } else { records.start..field.end };
            count += 1;
        } else {
            head.extend_from_slice(&delivery[field.start..field.end]);
        }
    }
    let head = v1::Delivery::decode(head.as_slice())
        .map_err(|err| Error::new(Code::InvalidArgument, format!("a delivery that is no protobuf message: {err}")))?;
    Ok(DeliveryView { head, records: start + records.start..start + records.end, count })
}

fn broken(bad: Malformed) -> Error {
    Error::new(
        Code::InvalidArgument,
        format!("a response that is no protobuf message: {} at byte {}", bad.what, bad.at),
    )
}
