//! Lines into Arrow columns: time, a dictionary column per tag, a `f64` column per field.
//!
//! Invariants (tests: `tests/line_columns.rs`)
//! - A line is taken whole or not at all; one that is not is in [`ColumnBuilder::rejected`], and its neighbours are not
//!   touched.
//! - Rows are in the order of the lines; a line without a tag or field has a null there.
//! - A name is a tag or a field, not both, and no two names differ only in case: a Delta table could not hold them.
//!   Which one it is, is said by [`ColumnBuilder::new`], else by the first line that was taken with it.
//!
//! Lines of one series begin with the same bytes, so those are parsed once a batch; fields mostly come in the order of
//! the line before, so their columns are guessed from it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use arrow_array::builder::{ArrayBuilder, Float64Builder};

use super::batch::{Columns, Rows, Series, TIME};
use super::escape::{carried, push_name, unescape};
use super::parse::{LineFault, Tag, field_value, find_unescaped, split_line, split_tag, time};
use crate::error::{Code, Error, Result};
use crate::telemetry::hash::Xxh3;
use crate::telemetry::names::{self, Kind, fold};
use crate::wire::RecordView;
use crate::wire::cursor::{Cursor, Malformed, Value};

/// Most columns of a table beside the time.
pub const MAX_COLUMNS: usize = 500;
/// Most input bytes between two [`ColumnBuilder::finish`]: far below where 32-bit offsets of a string column end.
pub const MAX_INPUT_BYTES: usize = 1 << 30;

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Offset of its record.
    pub offset: u64,
    /// The line as it came, without its line end.
    pub line: Vec<u8>,
    /// Why.
    pub reason: LineFault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Tag(usize),
    Field(usize),
}

struct FieldColumn {
    name: String,
    /// The name as a line has it, with the equals sign; none for a name that our own encoder would not write so.
    written: Option<Vec<u8>>,
    values: Float64Builder,
    /// Number of the last line that set it.
    line: u64,
}

/// Names and values of the tags of a line.
type Tags<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// A field of the line at hand: of a known column, or of a new one by name.
enum Target<'a> {
    Known(usize),
    New(Cow<'a, str>),
}

/// Collects lines of one measurement.
pub struct ColumnBuilder {
    measurement: Vec<u8>,
    default_time_ns: Option<i64>,
    names: HashMap<String, Column, Xxh3>,
    /// Names in lower case, to find those that differ only in case.
    folded: HashSet<String>,
    tags: Vec<String>,
    fields: Vec<FieldColumn>,
    known_tags: Vec<String>,
    known_fields: Vec<String>,
    series: Vec<Series>,
    series_by_text: HashMap<Box<[u8]>, usize, Xxh3>,
    times: Vec<i64>,
    series_of_row: Vec<usize>,
    /// Fields of the last line taken, in its order: the guess for the next.
    shape: Vec<usize>,
    line: u64,
    input_bytes: usize,
    rejected: Vec<Rejected>,
}

impl ColumnBuilder {
    /// Starts an empty batch.
    ///
    /// `tags` and `fields` are names the table already has: they settle what such a name is, and count as columns, but
    /// a batch has columns only for what its lines use. `default_time_ns` is given to lines without a time.
    pub fn new(measurement: &str, tags: &[String], fields: &[String], default_time_ns: Option<i64>) -> Self {
        let mut builder = Self {
            measurement: measurement.as_bytes().to_vec(),
            default_time_ns,
            names: HashMap::default(),
            folded: HashSet::new(),
            tags: Vec::new(),
            fields: Vec::new(),
            known_tags: tags.to_vec(),
            known_fields: fields.to_vec(),
            series: Vec::new(),
            series_by_text: HashMap::default(),
            times: Vec::new(),
            series_of_row: Vec::new(),
            shape: Vec::new(),
            line: 0,
            input_bytes: 0,
            rejected: Vec::new(),
        };
        builder.add_known_names();
        builder
    }

    fn add_known_names(&mut self) {
        self.folded.insert(TIME.to_owned());
        for name in self.known_tags.clone() {
            if !self.names.contains_key(&name) {
                self.add_tag(name);
            }
        }
        for name in self.known_fields.clone() {
            if !self.names.contains_key(&name) {
                self.add_field(name);
            }
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// About the bytes that the finished columns will take, nulls included.
    pub fn nbytes(&self) -> usize {
        let used = self.fields.iter().filter(|field| field.line > 0).count();
        self.rows() * (8 + 4 * self.tags.len() + 8 * used + used.div_ceil(8))
            + self.series.iter().flatten().map(|tag| tag.1.len()).sum::<usize>()
    }

    /// Lines not taken since the last [`Self::finish`], in order.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Appends the lines of a run of encoded record entries, the first of which has offset `base_offset`; returns how
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

    /// Appends the lines of the values of records with offsets from `base_offset` on.
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
            self.append_lines(value.as_ref(), offset);
        }
        Ok(())
    }

    /// The lines of one record; blank lines and comments (`#`) are passed over.
    fn append_lines(&mut self, value: &[u8], offset: u64) {
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
            self.line += 1;
            if let Err(reason) = self.append_line(text) {
                self.rejected.push(Rejected { offset, line: line.to_vec(), reason });
            }
        }
        if empty {
            self.rejected.push(Rejected { offset, line: value.to_vec(), reason: LineFault::Empty });
        }
    }

    fn append_line(&mut self, line: &[u8]) -> std::result::Result<(), LineFault> {
        let end = find_unescaped(line, [b' '; 3]).ok_or(LineFault::Syntax)?;
        let (series_text, rest) = line.split_at(end);
        let known_series = self.series_by_text.get(series_text).copied();
        let new_tags = if known_series.is_some() { Vec::new() } else { self.parse_series(series_text)? };
        let mut targets = Vec::with_capacity(self.shape.len());
        let rest = self.parse_fields(rest.trim_ascii_start(), &mut targets)?;
        let time_ns = time(rest)?.or(self.default_time_ns).ok_or(LineFault::Time)?;
        self.check_new_names(&new_tags, &targets)?;

        let row = self.rows();
        let series = known_series.unwrap_or_else(|| self.add_series(series_text, new_tags));
        self.times.push(time_ns);
        self.series_of_row.push(series);
        self.shape.clear();
        for (target, value) in targets {
            let index = match target {
                Target::Known(index) => index,
                Target::New(name) => self.add_field(name.into_owned()),
            };
            let field = &mut self.fields[index];
            field.values.append_nulls(row - field.values.len());
            field.values.append_value(value);
            field.line = self.line;
            self.shape.push(index);
        }
        Ok(())
    }

    /// Tag names and values of a series that no line had yet.
    fn parse_series<'a>(&self, text: &'a [u8]) -> std::result::Result<Tags<'a>, LineFault> {
        let end = find_unescaped(text, [b','; 3]).unwrap_or(text.len());
        if *unescape(&text[..end]) != *self.measurement {
            return Err(LineFault::Measurement);
        }
        let mut tags: Tags<'a> = Vec::new();
        let mut rest = match text.get(end + 1..) {
            Some([]) => return Err(LineFault::Syntax),
            rest => rest.unwrap_or_default(),
        };
        while !rest.is_empty() {
            let Tag { name, value, rest: after } = split_tag(rest)?;
            let name = plain(name)?;
            if matches!(self.names.get(&*name), Some(Column::Field(_))) {
                return Err(LineFault::Name);
            }
            if tags.iter().any(|(other, _)| *other == name) {
                return Err(LineFault::Duplicate);
            }
            tags.push((name, plain(value)?));
            rest = after;
        }
        Ok(tags)
    }

    /// The fields at the start of `rest`; returns what follows them.
    fn parse_fields<'a>(
        &self,
        mut rest: &'a [u8],
        targets: &mut Vec<(Target<'a>, f64)>,
    ) -> std::result::Result<&'a [u8], LineFault> {
        // A field of this line is marked here, for a line that is not taken must leave no mark in its column.
        let mut seen = [0u64; MAX_COLUMNS.div_ceil(64)];
        loop {
            let (target, after_name) = self.field_name(rest, targets.len())?;
            match &target {
                Target::Known(index) => {
                    let bit = 1 << (index % 64);
                    // Indexes of fields are below MAX_COLUMNS: `check_new_names` and `add_known_names` see to it.
                    let word = seen.get_mut(index / 64).ok_or(LineFault::Columns)?;
                    if *word & bit != 0 {
                        return Err(LineFault::Duplicate);
                    }
                    *word |= bit;
                }
                Target::New(name) => {
                    if targets.iter().any(|(other, _)| matches!(other, Target::New(other) if other == name)) {
                        return Err(LineFault::Duplicate);
                    }
                    if targets.len() >= MAX_COLUMNS {
                        return Err(LineFault::Columns);
                    }
                }
            }
            let (value, length) = field_value(after_name)?;
            targets.push((target, value));
            match after_name.get(length) {
                Some(b',') => rest = &after_name[length + 1..],
                _ => return Ok(&after_name[length..]),
            }
        }
    }

    fn field_name<'a>(
        &self,
        rest: &'a [u8],
        position: usize,
    ) -> std::result::Result<(Target<'a>, &'a [u8]), LineFault> {
        let guess = self.shape.get(position).copied();
        let written = guess.and_then(|guess| self.fields[guess].written.as_deref());
        if let (Some(guess), Some(after)) = (guess, written.and_then(|written| rest.strip_prefix(written))) {
            return Ok((Target::Known(guess), after));
        }
        let end = find_unescaped(rest, *b"=, ").filter(|&at| at > 0 && rest[at] == b'=').ok_or(LineFault::Syntax)?;
        let name = plain(&rest[..end])?;
        let target = match self.names.get(&*name) {
            Some(Column::Field(index)) => Target::Known(*index),
            Some(Column::Tag(_)) => return Err(LineFault::Name),
            None => Target::New(name),
        };
        Ok((target, &rest[end + 1..]))
    }

    /// New names must not clash with each other or with known ones, and must have room.
    fn check_new_names(
        &self,
        tags: &[(Cow<'_, str>, Cow<'_, str>)],
        targets: &[(Target<'_>, f64)],
    ) -> std::result::Result<(), LineFault> {
        let new_tags = tags.iter().map(|(name, _)| name).filter(|name| !self.names.contains_key(&***name));
        let new_fields = targets.iter().filter_map(|(target, _)| match target {
            Target::New(name) => Some(name),
            Target::Known(_) => None,
        });
        let new_tags = new_tags.map(|name| (Kind::Tag, name));
        let new_names: Vec<_> = new_tags.chain(new_fields.map(|name| (Kind::Metric, name))).collect();
        if new_names.iter().any(|(kind, name)| names::check(*kind, name).is_err()) {
            return Err(LineFault::Name);
        }
        let mut folded: Vec<String> = new_names.iter().map(|(_, name)| fold(name)).collect();
        if folded.is_empty() {
            return Ok(());
        }
        let count = folded.len();
        if folded.iter().any(|name| self.folded.contains(name)) {
            return Err(LineFault::Name);
        }
        folded.sort_unstable();
        folded.dedup();
        if folded.len() < count {
            return Err(LineFault::Name);
        }
        if self.tags.len() + self.fields.len() + count > MAX_COLUMNS {
            return Err(LineFault::Columns);
        }
        Ok(())
    }

    fn add_series(&mut self, text: &[u8], tags: Tags<'_>) -> usize {
        let mut series = Vec::with_capacity(tags.len());
        for (name, value) in tags {
            let index = match self.names.get(&*name) {
                Some(Column::Tag(index)) => *index,
                _ => self.add_tag(name.into_owned()),
            };
            series.push((index, value.into_owned()));
        }
        self.series.push(series);
        self.series_by_text.insert(text.into(), self.series.len() - 1);
        self.series.len() - 1
    }

    fn add_tag(&mut self, name: String) -> usize {
        self.folded.insert(fold(&name));
        self.names.insert(name.clone(), Column::Tag(self.tags.len()));
        self.tags.push(name);
        self.tags.len() - 1
    }

    fn add_field(&mut self, name: String) -> usize {
        self.folded.insert(fold(&name));
        self.names.insert(name.clone(), Column::Field(self.fields.len()));
        let written = (carried(&name) == name).then(|| {
            let mut written = Vec::with_capacity(name.len() + 1);
            push_name(&mut written, &name);
            written.push(b'=');
            written
        });
        self.fields.push(FieldColumn { name, written, values: Float64Builder::new(), line: 0 });
        self.fields.len() - 1
    }

    /// The columns of the lines taken, and an empty builder again; [`Self::rejected`] is emptied too.
    pub fn finish(&mut self) -> Result<Columns> {
        let done = self.take();
        let used = done.fields.into_iter().filter(|field| field.line > 0);
        let fields = used.map(|field| (field.name, field.values)).collect();
        let rows = Rows { times: done.times, series_of_row: done.series_of_row, series: done.series };
        Columns::assemble(rows, done.tags, fields)
    }

    /// Everything so far; what is left is as new.
    fn take(&mut self) -> Self {
        let mut fresh = Self::new("", &[], &[], self.default_time_ns);
        fresh.measurement.clone_from(&self.measurement);
        fresh.known_tags = std::mem::take(&mut self.known_tags);
        fresh.known_fields = std::mem::take(&mut self.known_fields);
        fresh.add_known_names();
        std::mem::replace(self, fresh)
    }
}

fn plain(text: &[u8]) -> std::result::Result<Cow<'_, str>, LineFault> {
    match unescape(text) {
        Cow::Borrowed(text) => std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| LineFault::Utf8),
        Cow::Owned(text) => String::from_utf8(text).map(Cow::Owned).map_err(|_| LineFault::Utf8),
    }
}

fn not_records(err: &Malformed) -> Error {
    let message = format!(
        "not a run of encoded records: {} at byte {}; pass the records of a delivery or a batch unchanged",
        err.what, err.at
    );
    Error::new(Code::InvalidBatch, message)
}
