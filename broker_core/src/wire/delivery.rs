//! Deliveries as a consumer finds them in a response.

use std::ops::Range;

use prost::Message;

use super::cursor::{Cursor, Malformed, Value};
use super::record::ENTRY_TAG;
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
    loop {
        let start = cursor.position();
        let mut passed = cursor.pass_run(ENTRY_TAG);
        if passed == 0 {
            match cursor.next_field().map_err(broken)? {
                Some(field) if field.number == 15 => passed = 1,
                Some(field) => {
                    head.extend_from_slice(&delivery[field.start..field.end]);
                    continue;
                }
                None => break,
            }
        }
        if count > 0 && records.end != start {
            return Err(Error::new(Code::InvalidArgument, "a delivery whose records do not stand side by side"));
        }
        records = if count == 0 { start..cursor.position() } else { records.start..cursor.position() };
        count += passed;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cursor::{put_bytes, varint_len};

    #[test]
    fn records_of_every_length_are_found_and_counted() {
        let head = v1::Delivery { topic: "t".into(), base_offset: 7, attempt: 3, ..v1::Delivery::default() };
        for lengths in [&[][..], &[0], &[127, 128, 0, 16_383, 16_384, 1], &[20_000, 5]] {
            let mut records = Vec::new();
            for &len in lengths {
                put_bytes(&mut records, 15, &vec![1; len]);
            }
            let fields = head.encode_to_vec();
            // Behind the records too there may be other fields.
            for delivery in [[&fields[..], &records].concat(), [&records[..], &fields].concat()] {
                let mut response = Vec::new();
                put_bytes(&mut response, 1, &delivery);
                let found = parse_deliveries(&response).unwrap().pop().unwrap();
                assert_eq!((&found.head, found.count), (&head, lengths.len()));
                assert_eq!(response[found.records], records);
            }
            for end in 1..records.len().min(300) {
                let mut response = Vec::new();
                put_bytes(&mut response, 1, &records[..records.len() - end]);
                let mut ends = (0..lengths.len())
                    .map(|count| lengths[..count].iter().map(|&len| 1 + varint_len(len as u64) + len).sum::<usize>());
                let is_whole = ends.any(|sum| sum == records.len() - end);
                assert_eq!(parse_deliveries(&response).is_ok(), is_whole, "{lengths:?} without the last {end} bytes");
            }
        }
    }

    #[test]
    fn records_that_do_not_stand_side_by_side_are_refused() {
        let mut delivery = Vec::new();
        put_bytes(&mut delivery, 15, b"\x0a\x01a");
        put_bytes(&mut delivery, 1, b"topic");
        put_bytes(&mut delivery, 15, b"\x0a\x01b");
        let mut response = Vec::new();
        put_bytes(&mut response, 1, &delivery);
        assert!(parse_deliveries(&response).unwrap_err().message().contains("side by side"));
    }
}
