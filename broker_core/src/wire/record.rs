//! Records as they travel: a run of `0x7A, length, Record` entries, the encoding of field 15 in every message.
//!
//! A batch is checked once, when it is produced; everything behind that point relies on it. The entries of a checked
//! batch are canonical (one-byte tag, shortest length), so the bytes of several batches can be joined and cut anywhere
//! between two entries. What is inside a record stays as the producer encoded it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use super::cursor::{Cursor, Malformed, Value, put_bytes, put_varint, varint_len};
use crate::error::{Code, Error, Result};
use crate::partitioner::partition_for_key;

/// Tag of field 15, wire type 2: what each entry begins with.
pub const ENTRY_TAG: u8 = 0x7A;
/// Encoded size of one record, at most.
pub const MAX_RECORD_BYTES: usize = 1 << 20;
/// Encoded size of one batch, at most.
pub const MAX_BATCH_BYTES: usize = 8 << 20;
/// Records in one batch, at most.
pub const MAX_BATCH_RECORDS: u32 = 1 << 16;
/// Headers of one record, at most.
pub const MAX_HEADERS: usize = 64;
/// Bytes of a header's name, at most.
pub const MAX_HEADER_NAME_BYTES: usize = 255;

/// A checked run of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records<'a> {
    bytes: Cow<'a, [u8]>,
    count: u32,
}

impl<'a> Records<'a> {
    /// No records.
    pub fn empty() -> Records<'static> {
        Records { bytes: Cow::Borrowed(&[]), count: 0 }
    }

    /// Checks a run of entries, such as an encoded `RecordBatch`.
    pub fn parse(batch: &'a [u8]) -> Result<Records<'a>> {
        let head = ProduceHead::parse(batch)?;
        Ok(head.records)
    }

    /// Joins entries that were checked before.
    pub(crate) fn trusted(bytes: Vec<u8>, count: u32) -> Records<'static> {
        Records { bytes: Cow::Owned(bytes), count }
    }

    /// The entries.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The records of each partition that has some, and how many they are; those without a key are `keyless`'s.
    pub fn by_key(&self, partitions: u32, keyless: u32) -> BTreeMap<u32, (Vec<u8>, u32)> {
        let mut parts: BTreeMap<u32, (Vec<u8>, u32)> = BTreeMap::new();
        let mut start = 0;
        for entry in record_entries(&self.bytes) {
            let key = RecordView::of(entry.record).key;
            let (bytes, count) =
                parts.entry(key.map_or(keyless, |key| partition_for_key(key, partitions))).or_default();
            bytes.extend_from_slice(&self.bytes[start..entry.end]);
            *count += 1;
            start = entry.end;
        }
        parts
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The encoded records, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        record_entries(&self.bytes).map(|entry| entry.record)
    }
}

/// The fields of an encoded `ProduceRequest`, found by one walk that also checks every record.
#[derive(Debug)]
pub struct ProduceHead<'a> {
    /// Field 1.
    pub topic: &'a str,
    /// Field 2.
    pub partition: Option<u32>,
    /// Field 3.
    pub producer: &'a str,
    /// Field 4.
    pub sequence: u64,
    /// Field 15.
    pub records: Records<'a>,
    /// Where in the request they stand; None: not side by side, or nowhere.
    pub records_at: Option<Range<usize>>,
}

impl<'a> ProduceHead<'a> {
    /// Walks and checks a request. The message of an error names the record and the byte.
    pub fn parse(request: &'a [u8]) -> Result<Self> {
        let mut head = ProduceHead {
            topic: "",
            partition: None,
            producer: "",
            sequence: 0,
            records: Records::empty(),
            records_at: None,
        };
        let mut cursor = Cursor::new(request);
        let mut run = Run::default();
        loop {
            let field = match cursor.next_field() {
                Ok(Some(field)) => field,
                Ok(None) => break,
                Err(bad) => return Err(malformed(run.count, bad)),
            };
            match (field.number, field.value) {
                (15, Value::Bytes(record)) => {
                    if run.count == MAX_BATCH_RECORDS {
                        return Err(over(&format!("a batch of more than {MAX_BATCH_RECORDS} records")));
                    }
                    check_record(record).map_err(|bad| bad.located(run.count, field.end - record.len()))?;
                    run.push(request, field.start, field.end, record);
                    if run.len() > MAX_BATCH_BYTES {
                        return Err(over(&format!("a batch of more than {MAX_BATCH_BYTES} bytes")));
                    }
                }
                (1, Value::Bytes(text)) => head.topic = utf8(text, "topic", field.start)?,
                (2, Value::Varint(partition)) => {
                    head.partition = Some(u32::try_from(partition).map_err(|_| {
                        Error::new(
                            Code::InvalidArgument,
                            format!(
                                "partition {partition} does not exist: partitions are numbered from 0 and fit 32 bits"
                            ),
                        )
                        .field("partition")
                    })?);
                }
                (3, Value::Bytes(text)) => head.producer = utf8(text, "producer", field.start)?,
                (4, Value::Varint(sequence)) => head.sequence = sequence,
                // Of no use here, but what strict parsers refuse is refused.
                (5, Value::Bytes(text)) => {
                    utf8(text, "resent_to", field.start)?;
                }
                (1..=5 | 15, _) => {
                    return Err(malformed(
                        run.count,
                        Malformed { at: field.start, what: "a field of the wrong wire type" },
                    ));
                }
                _ => {}
            }
        }
        head.records_at = (run.count > 0 && run.copy.is_none()).then_some(run.start..run.end);
        head.records = run.finish(request);
        Ok(head)
    }
}

/// Where an encoded `ProduceRequest` goes, found without a look at its records.
#[derive(Debug, PartialEq, Eq)]
pub struct ProduceAddress<'a> {
    /// Field 1.
    pub topic: &'a str,
    /// Field 2.
    pub partition: Option<u32>,
    /// Field 3.
    pub producer: &'a str,
    /// Field 4.
    pub sequence: u64,
    /// Field 5.
    pub resent_to: Option<&'a str>,
}

impl<'a> ProduceAddress<'a> {
    /// Finds it. Whoever stores the records checks them.
    pub fn parse(request: &'a [u8]) -> Result<Self> {
        let mut address = ProduceAddress { topic: "", partition: None, producer: "", sequence: 0, resent_to: None };
        let mut cursor = Cursor::new(request);
        while let Some(field) = cursor.next_field().map_err(|bad| malformed(0, bad))? {
            match (field.number, field.value) {
                (1, Value::Bytes(text)) => address.topic = utf8(text, "topic", field.start)?,
                // What does not fit is refused by whoever it comes to.
                (2, Value::Varint(partition)) => address.partition = Some(u32::try_from(partition).unwrap_or(u32::MAX)),
                (3, Value::Bytes(text)) => address.producer = utf8(text, "producer", field.start)?,
                (4, Value::Varint(sequence)) => address.sequence = sequence,
                (5, Value::Bytes(text)) => address.resent_to = Some(utf8(text, "resent_to", field.start)?),
                _ => {}
            }
        }
        Ok(address)
    }
}

/// The entries met so far: a slice of the request while they stand side by side, a copy once they do not.
#[derive(Default)]
struct Run {
    start: usize,
    end: usize,
    copy: Option<Vec<u8>>,
    count: u32,
}

impl Run {
    fn len(&self) -> usize {
        self.copy.as_ref().map_or(self.end - self.start, Vec::len)
    }

    fn push(&mut self, request: &[u8], start: usize, end: usize, record: &[u8]) {
        let canonical = end - start == 1 + varint_len(record.len() as u64) + record.len();
        if self.count == 0 && canonical {
            (self.start, self.end) = (start, end);
        } else if let (None, true, true) = (&self.copy, canonical, self.end == start) {
            self.end = end;
        } else {
            let copy = self.copy.get_or_insert_with(|| request[self.start..self.end].to_vec());
            put_bytes(copy, 15, record);
        }
        self.count += 1;
    }

    fn finish(self, request: &[u8]) -> Records<'_> {
        let bytes = self.copy.map_or_else(|| Cow::Borrowed(&request[self.start..self.end]), Cow::Owned);
        Records { bytes, count: self.count }
    }
}

fn over(what: &str) -> Error {
    Error::new(Code::InvalidBatch, format!("{what}; send it as several batches"))
}

fn malformed(record: u32, bad: Malformed) -> Error {
    Error::new(
        Code::InvalidBatch,
        format!("malformed protobuf after {record} records, at byte {}: {}; nothing was stored", bad.at, bad.what),
    )
}

fn utf8<'a>(bytes: &'a [u8], field: &str, at: usize) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| {
        Error::new(
            Code::InvalidBatch,
            format!("{field} at byte {at} is not UTF-8: {:?}", String::from_utf8_lossy(bytes)),
        )
    })
}

/// What is wrong inside one record.
struct BadRecord {
    at: usize,
    what: String,
}

impl From<Malformed> for BadRecord {
    fn from(bad: Malformed) -> Self {
        Self { at: bad.at, what: format!("malformed protobuf: {}", bad.what) }
    }
}

impl BadRecord {
    fn located(self, index: u32, start: usize) -> Error {
        Error::new(
            Code::InvalidBatch,
            format!(
                "record {index}, byte {} of the request: {}; nothing of the batch was stored",
                start + self.at,
                self.what
            ),
        )
    }
}

fn check_record(record: &[u8]) -> std::result::Result<(), BadRecord> {
    if record.len() > MAX_RECORD_BYTES {
        let what = format!("it has {} bytes, a record may have {MAX_RECORD_BYTES}", record.len());
        return Err(BadRecord { at: 0, what });
    }
    let mut cursor = Cursor::new(record);
    let mut headers = 0;
    while let Some(field) = cursor.next_field()? {
        match (field.number, field.value) {
            (1 | 2, Value::Bytes(_)) | (4, Value::Varint(_)) => {}
            (3, Value::Bytes(header)) => {
                headers += 1;
                if headers > MAX_HEADERS {
                    return Err(BadRecord { at: field.start, what: format!("more than {MAX_HEADERS} headers") });
                }
                check_strings(header, &[1], &[2], &[], field.start)?;
            }
            (15, Value::Bytes(letter)) => check_strings(letter, &[1, 3, 4], &[6], &[2, 5, 7, 8], field.start)?,
            (1..=4 | 15, _) => {
                return Err(BadRecord {
                    at: field.start,
                    what: format!("field {} has the wrong wire type", field.number),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks a message inside a record: these fields are UTF-8 text, these bytes, these varints; others are skipped.
fn check_strings(
    message: &[u8],
    text: &[u32],
    bytes: &[u32],
    varints: &[u32],
    at: usize,
) -> std::result::Result<(), BadRecord> {
    let mut cursor = Cursor::new(message);
    let mut name_len = None;
    while let Some(field) = cursor.next_field()? {
        let number = field.number;
        match field.value {
            Value::Bytes(value) if text.contains(&number) => {
                if std::str::from_utf8(value).is_err() {
                    return Err(BadRecord {
                        at,
                        what: format!("text that is not UTF-8: {:?}", String::from_utf8_lossy(value)),
                    });
                }
                name_len = Some(value.len());
            }
            Value::Bytes(_) if bytes.contains(&number) => {}
            Value::Varint(_) if varints.contains(&number) => {}
            _ if text.contains(&number) || bytes.contains(&number) || varints.contains(&number) => {
                return Err(BadRecord { at, what: format!("field {number} inside has the wrong wire type") });
            }
            _ => {}
        }
    }
    let is_header = varints.is_empty();
    if is_header && !name_len.is_some_and(|len| (1..=MAX_HEADER_NAME_BYTES).contains(&len)) {
        let what = format!("a header name must have 1 to {MAX_HEADER_NAME_BYTES} bytes, not {}", name_len.unwrap_or(0));
        return Err(BadRecord { at, what });
    }
    Ok(())
}

/// One entry of a checked run.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The encoded `Record`.
    pub record: &'a [u8],
    /// Behind the entry, from the start of the run.
    pub end: usize,
}

/// Walks a checked run. Ends early, rather than fail, at bytes that no checked run has.
#[inline]
pub fn record_entries(run: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let (mut length, mut shift, mut at) = (0usize, 0, position + 1);
        loop {
            let byte = *run.get(at)?;
            length |= usize::from(byte & 0x7f) << shift;
            at += 1;
            if byte < 0x80 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return None;
            }
        }
        let record = run.get(at..at + length)?;
        position = at + length;
        Some(Entry { record, end: position })
    })
}

/// Where so many entries of a checked run end that begin at the byte `start`.
pub(crate) fn entries_end(run: &[u8], start: usize, count: u32) -> usize {
    let entries = record_entries(run.get(start..).unwrap_or_default());
    entries.take(count as usize).last().map_or(start, |entry| start + entry.end)
}

/// What follows a length, where that is all that follows and the length has one or two bytes.
#[inline]
fn only(bytes: &[u8]) -> Option<&[u8]> {
    let (len, value) = match *bytes {
        [len @ ..0x80, ref value @ ..] => (usize::from(len), value),
        [low, high @ ..0x80, ref value @ ..] => (usize::from(low & 0x7f) | usize::from(high) << 7, value),
        _ => return None,
    };
    (value.len() == len).then_some(value)
}

/// A record's parts, borrowed from its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The payload.
    pub value: &'a [u8],
    /// The key, where there is one.
    pub key: Option<&'a [u8]>,
    /// The producer's time; 0: none.
    pub timestamp_ns: i64,
    /// The encoded dead letter, where there is one.
    pub dead_letter: Option<&'a [u8]>,
}

impl<'a> RecordView<'a> {
    /// Finds the parts of a checked record; where a field stands several times, the last one holds.
    #[inline]
    pub fn of(record: &'a [u8]) -> Self {
        let mut view = Self::default();
        // Most records are a value and nothing else.
        if let [0x0A, rest @ ..] = record
            && let Some(value) = only(rest)
        {
            view.value = value;
            return view;
        }
        let mut cursor = Cursor::new(record);
        while let Ok(Some(field)) = cursor.next_field() {
            match (field.number, field.value) {
                (1, Value::Bytes(value)) => view.value = value,
                (2, Value::Bytes(key)) => view.key = Some(key),
                (4, Value::Varint(time)) => view.timestamp_ns = time.cast_signed(),
                (15, Value::Bytes(letter)) => view.dead_letter = Some(letter),
                _ => {}
            }
        }
        view
    }

    /// Names and values of a record's headers, in order.
    pub fn headers(record: &'a [u8]) -> Vec<(&'a str, &'a [u8])> {
        let mut headers = Vec::new();
        let mut cursor = Cursor::new(record);
        while let Ok(Some(field)) = cursor.next_field() {
            if let (3, Value::Bytes(header)) = (field.number, field.value) {
                let (mut name, mut value): (&str, &[u8]) = ("", &[]);
                let mut inner = Cursor::new(header);
                while let Ok(Some(part)) = inner.next_field() {
                    match (part.number, part.value) {
                        (1, Value::Bytes(bytes)) => name = std::str::from_utf8(bytes).unwrap_or_default(),
                        (2, Value::Bytes(bytes)) => value = bytes,
                        _ => {}
                    }
                }
                headers.push((name, value));
            }
        }
        headers
    }
}

/// Appends one entry, encoding the record from its parts.
pub fn put_record(
    out: &mut Vec<u8>,
    value: &[u8],
    key: Option<&[u8]>,
    timestamp_ns: i64,
    headers: &[(&str, &[u8])],
) -> std::result::Result<(), usize> {
    let field = |len: usize| 1 + varint_len(len as u64) + len;
    let header_len = |name: &str, value: &[u8]| field(name.len()) + field(value.len());
    let size = field(value.len())
        + key.map_or(0, |key| field(key.len()))
        + if timestamp_ns == 0 { 0 } else { 1 + varint_len(timestamp_ns.cast_unsigned()) }
        + headers.iter().map(|(name, value)| field(header_len(name, value))).sum::<usize>();
    if size > MAX_RECORD_BYTES {
        return Err(size);
    }
    out.reserve(field(size));
    out.push(ENTRY_TAG);
    put_varint(out, size as u64);
    put_bytes(out, 1, value);
    if let Some(key) = key {
        put_bytes(out, 2, key);
    }
    for (name, value) in headers {
        out.push(3 << 3 | 2);
        put_varint(out, header_len(name, value) as u64);
        put_bytes(out, 1, name.as_bytes());
        put_bytes(out, 2, value);
    }
    if timestamp_ns != 0 {
        out.push(4 << 3);
        put_varint(out, timestamp_ns.cast_unsigned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    use crate::wire::v1;

    fn record() -> impl Strategy<Value = v1::Record> {
        let header = (".{1,20}", proptest::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(name, value)| v1::Header { name, value });
        (
            proptest::collection::vec(any::<u8>(), 0..300),
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..30)),
            proptest::collection::vec(header, 0..3),
            any::<i64>(),
        )
            .prop_map(|(value, key, headers, timestamp_ns)| v1::Record {
                value,
                key,
                headers,
                timestamp_ns,
                dead_letter: None,
            })
    }

    proptest! {
        #[test]
        fn what_prost_encodes_is_accepted_and_kept_to_the_byte(records in proptest::collection::vec(record(), 0..20)) {
            let request = v1::ProduceRequest {
                topic: "t".into(), partition: Some(3), producer: "p".into(), sequence: 9, records: records.clone(), ..Default::default() };
            let bytes = request.encode_to_vec();
            let head = ProduceHead::parse(&bytes).unwrap();
            prop_assert_eq!((head.topic, head.partition, head.producer, head.sequence), ("t", Some(3), "p", 9));
            prop_assert_eq!(head.records.count() as usize, records.len());
            prop_assert_eq!(head.records.bytes(), v1::RecordBatch { records: records.clone() }.encode_to_vec());
            for (bytes, record) in head.records.iter().zip(&records) {
                let view = RecordView::of(bytes);
                prop_assert_eq!(view.value, &record.value[..]);
                prop_assert_eq!(view.key, record.key.as_deref());
                prop_assert_eq!(view.timestamp_ns, record.timestamp_ns);
                prop_assert_eq!(RecordView::headers(bytes).len(), record.headers.len());
            }
        }

        #[test]
        fn what_is_accepted_of_any_bytes_a_strict_parser_accepts_too(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(records) = Records::parse(&bytes) {
                prop_assert!(v1::RecordBatch::decode(records.bytes()).is_ok());
            }
        }

        #[test]
        fn what_is_accepted_of_broken_batches_a_strict_parser_accepts_too(
            records in proptest::collection::vec(record(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = v1::RecordBatch { records }.encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(records) = Records::parse(&bytes) {
                prop_assert!(v1::RecordBatch::decode(records.bytes()).is_ok());
            }
        }

        #[test]
        fn put_record_encodes_what_prost_decodes(record in record()) {
            let mut bytes = Vec::new();
            let headers: Vec<_> = record.headers.iter().map(|h| (h.name.as_str(), h.value.as_slice())).collect();
            put_record(&mut bytes, &record.value, record.key.as_deref(), record.timestamp_ns, &headers).unwrap();
            prop_assert_eq!(v1::RecordBatch::decode(bytes.as_slice()).unwrap().records, vec![record]);
        }
    }

    #[test]
    fn records_around_other_fields_are_joined_and_made_canonical() {
        // field 15 with a two-byte length of 2, then topic, then field 15 with the shortest length
        let bytes = [0x7A, 0x82, 0x00, 0x0A, 0x00, 0x0A, 0x01, b't', 0x7A, 0x02, 0x0A, 0x00];
        let head = ProduceHead::parse(&bytes).unwrap();
        assert_eq!(head.topic, "t");
        assert_eq!(head.records.bytes(), [0x7A, 0x02, 0x0A, 0x00, 0x7A, 0x02, 0x0A, 0x00]);
        assert_eq!(head.records.count(), 2);
    }

    #[test]
    fn a_header_name_that_is_not_utf8_is_refused_with_its_place() {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 15, &[0x1A, 0x04, 0x0A, 0x02, 0xFF, 0xFE]);
        let err = Records::parse(&bytes).unwrap_err();
        assert_eq!(err.code(), Code::InvalidBatch);
        assert!(err.message().contains("record 0, byte 2"), "{err}");
    }

    #[test]
    fn bounds_are_held() {
        let mut bytes = Vec::new();
        assert_eq!(put_record(&mut bytes, &vec![0; MAX_RECORD_BYTES], None, 0, &[]), Err(MAX_RECORD_BYTES + 4));
        put_bytes(&mut bytes, 15, &vec![0; MAX_RECORD_BYTES + 1]);
        assert!(Records::parse(&bytes).unwrap_err().message().contains("a record may have 1048576"));
        let many = [0x7A, 0x00].repeat(MAX_BATCH_RECORDS as usize + 1);
        assert!(Records::parse(&many).unwrap_err().message().contains("more than 65536 records"));
        let mut large = Vec::new();
        for _ in 0..9 {
            put_record(&mut large, &vec![0; 1_000_000], None, 0, &[]).unwrap();
        }
        assert!(Records::parse(&large).unwrap_err().message().contains("more than 8388608 bytes"));
    }
}
