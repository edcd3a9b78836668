//! Records into points, and points into whatever a store takes.
//!
//! Invariants (tests: `tests/line_columns.rs`, `tests/line_batches.rs`)
//! - A line is taken whole or not at all; one that is not is in [`Decoder::rejected`], and its neighbours are not
//!   touched.
//! - Points are in the order of the lines.

use super::MAX_INPUT_BYTES;
use super::parse::{LineFault, split_line};
use super::reader::{Names, Point, PointReader};
use crate::error::{Code, Error, Result};
use crate::telemetry::json::{self, JsonFault};
use crate::wire::RecordView;
use crate::wire::cursor::{Cursor, Malformed, Value};

/// Why a line, or a record, was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The line is not good, or what a JSON record says cannot be one.
    Line(LineFault),
    /// It is a JSON record, and not a good one.
    Json(JsonFault),
}

impl Fault {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Line(fault) => fault.as_str(),
            Self::Json(fault) => fault.as_str(),
        }
    }
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Offset of its record.
    pub offset: u64,
    /// The line as it came, without its line end.
    pub line: Vec<u8>,
    /// Why.
    pub reason: Fault,
}

/// Where a point came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which call of [`Decoder::append_records`] or [`Decoder::append_values`] brought it, from 0.
    pub append: u32,
    /// Offset of its record.
    pub offset: u64,
}

/// What becomes of points.
pub trait Output: Default {
    /// What it is once it is finished.
    type Batch;
    /// Takes the next point.
    fn push(&mut self, point: &Point<'_>, place: Place);
    /// Points so far.
    fn rows(&self) -> usize;
    /// About the bytes of the finished batch, without the values of tags, of which there are so many.
    fn nbytes(&self, tags: usize) -> usize;
    /// Puts the batch together.
    fn finish(self, names: Names) -> Result<Self::Batch>;
}

/// Collects the points of one measurement.
pub struct Decoder<O: Output> {
    reader: PointReader,
    output: O,
    appends: u32,
    input_bytes: usize,
    rejected: Vec<Rejected>,
    /// The line of the JSON record at hand.
    scratch: Vec<u8>,
}

impl<O: Output> Decoder<O> {
    /// Starts an empty batch.
    ///
    /// `tags` and `fields` are names the table already has: they settle what such a name is, and count as columns, but
    /// a batch has columns only for what its lines use. `default_time_ns` is given to lines without a time.
    pub fn new(measurement: &str, tags: &[String], fields: &[String], default_time_ns: Option<i64>) -> Self {
        Self::over(PointReader::new(measurement.as_bytes(), tags, fields, default_time_ns))
    }

    fn over(reader: PointReader) -> Self {
        Self { reader, output: O::default(), appends: 0, input_bytes: 0, rejected: Vec::new(), scratch: Vec::new() }
    }

    /// Points so far.
    pub fn rows(&self) -> usize {
        self.output.rows()
    }

    /// About the bytes that the finished batch will take, nulls included.
    pub fn nbytes(&self) -> usize {
        self.output.nbytes(self.reader.tag_count()) + self.reader.tag_bytes()
    }

    /// Lines not taken since the last [`Self::finish`], in order.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Appends the points of a run of encoded record entries, the first of which has offset `base_offset`; returns how
    /// many records it holds. A buffer that is not one appends nothing.
    pub fn append_records(&mut self, buffer: &[u8], base_offset: u64) -> Result<u64> {
        let mut values = Vec::new();
        let mut cursor = Cursor::new(buffer);
        while let Some(field) = cursor.next_field().map_err(|err| not_records(&err))? {
            match (field.number, field.value) {
                (15, Value::Bytes(record)) => values.push(RecordView::of(record).value),
                _ => {
                    return Err(not_records(&Malformed { at: field.start, what: "a field other than a record" }));
                }
            }
        }
        self.append_values(&values, base_offset)?;
        Ok(values.len() as u64)
    }

    /// Appends the points of the values of records with offsets from `base_offset` on.
    pub fn append_values<V: AsRef<[u8]>>(&mut self, values: &[V], base_offset: u64) -> Result<()> {
        let bytes: usize = values.iter().map(|value| value.as_ref().len()).sum();
        let input_bytes = self.input_bytes + bytes;
        if input_bytes > MAX_INPUT_BYTES {
            let message = format!(
                "{bytes} bytes more would pass the bound of {MAX_INPUT_BYTES} bytes of lines; call finish() first"
            );
            return Err(Error::new(Code::InvalidArgument, message));
        }
        self.input_bytes = input_bytes;
        for (offset, value) in (base_offset..).zip(values) {
            let place = Place { append: self.appends, offset };
            if json::is_json(value.as_ref()) {
                self.append_json(value.as_ref(), place);
            } else {
                self.append_lines(value.as_ref(), place);
            }
        }
        self.appends += 1;
        Ok(())
    }

    /// The sample of a JSON record; nothing where it says that there is no value.
    fn append_json(&mut self, value: &[u8], place: Place) {
        let mut line = std::mem::take(&mut self.scratch);
        line.clear();
        let taken = match json::push_line(&mut line, value, self.reader.default_time_ns()) {
            Ok(true) => self.append_line(&line, place).map_err(Fault::Line),
            Ok(false) => Ok(()),
            Err(fault) => Err(Fault::Json(fault)),
        };
        self.scratch = line;
        if let Err(reason) = taken {
            self.rejected.push(Rejected { offset: place.offset, line: value.to_vec(), reason });
        }
    }

    /// The lines of one record; blank lines and comments (`#`) are passed over.
    fn append_lines(&mut self, value: &[u8], place: Place) {
        let mut rest = value;
        let mut empty = true;
        while !rest.is_empty() {
            let (line, after) = split_line(rest);
            rest = after;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let text = line.trim_ascii_start();
            if text.is_empty() || text[0] == b'#' {
                continue;
            }
            empty = false;
            if let Err(fault) = self.append_line(text, place) {
                let reason = Fault::Line(fault);
                self.rejected.push(Rejected { offset: place.offset, line: line.to_vec(), reason });
            }
        }
        if empty {
            let reason = Fault::Line(LineFault::Empty);
            self.rejected.push(Rejected { offset: place.offset, line: value.to_vec(), reason });
        }
    }

    fn append_line(&mut self, line: &[u8], place: Place) -> std::result::Result<(), LineFault> {
        self.output.push(&self.reader.read(line)?, place);
        Ok(())
    }

    /// The batch of the points taken, and an empty builder again; [`Self::rejected`] is emptied too.
    pub fn finish(&mut self) -> Result<O::Batch> {
        let fresh = Self::over(self.reader.renewed());
        let done = std::mem::replace(self, fresh);
        done.output.finish(done.reader.into_names())
    }
}

fn not_records(err: &Malformed) -> Error {
    let message = format!(
        "not a run of encoded records: {} at byte {}; pass the records of a delivery or a batch unchanged",
        err.what, err.at
    );
    Error::new(Code::InvalidBatch, message)
}
