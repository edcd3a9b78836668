//! One line into a point: the index of its series, its fields by index of their column, its time.
//!
//! Invariants (tests: `tests/line_columns.rs`)
//! - A line that is refused leaves no trace in what is known of names and series.
//! - A name is a tag or a field, not both, and no two names differ only in case: a Delta table could not hold them.
//!   Which one it is, is said by [`PointReader::new`], else by the first line that was taken with it.
//!
//! Lines of one series begin with the same bytes, so those are parsed once a batch; fields mostly come in the order of
//! the line before, so their columns are guessed from it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::MAX_COLUMNS;
use super::batch::{Series, TIME};
use super::escape::{carried, push_name, unescape};
use super::parse::{LineFault, Tag, field_value, find_unescaped, is_plain_number, split_tag, time};
use crate::telemetry::hash::Xxh3;
use crate::telemetry::names::{self, Kind, fold};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Tag(usize),
    Field(usize),
}

struct FieldName {
    name: String,
    /// The name as a line has it, with the equals sign; none for a name that our own encoder would not write so.
    written: Option<Vec<u8>>,
}

/// Names and values of the tags of a line.
type Tags<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// A value that is not written as the float it is read as: `7i`, `t`, `.5`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Respelled {
    /// Where its text begins in the line.
    pub start: usize,
    /// Where its text ends.
    pub end: usize,
    /// What it is.
    pub value: f64,
}

/// A line that was taken.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    /// Its text, without blanks in front and without its line end.
    pub line: &'a [u8],
    /// Index of its series, by first appearance.
    pub series: usize,
    /// Its values, with the indexes of their fields.
    pub fields: &'a [(usize, f64)],
    /// Those of its values that other readers take for something else than a float.
    pub respelled: &'a [Respelled],
    /// Its time, or the default.
    pub time_ns: i64,
    /// Whether the time is the line's own.
    pub is_timed: bool,
}

/// What all points of a batch are about.
#[derive(Default)]
pub struct Names {
    /// Tags by index.
    pub tags: Vec<String>,
    /// Fields by index.
    pub fields: Vec<String>,
    /// Series by index: the tags of each.
    pub(super) series: Vec<Series>,
}

/// Reads lines of one measurement.
pub(super) struct PointReader {
    measurement: Vec<u8>,
    default_time_ns: Option<i64>,
    names: HashMap<String, Column, Xxh3>,
    /// Names in lower case, to find those that differ only in case.
    folded: HashSet<String>,
    tags: Vec<String>,
    fields: Vec<FieldName>,
    known_tags: Vec<String>,
    known_fields: Vec<String>,
    series: Vec<Series>,
    series_by_text: HashMap<Box<[u8]>, usize, Xxh3>,
    /// Fields of the last line taken, in its order: the guess for the next.
    shape: Vec<usize>,
    /// Of the line at hand.
    values: Vec<(usize, f64)>,
    respelled: Vec<Respelled>,
}

impl PointReader {
    pub(super) fn new(measurement: &[u8], tags: &[String], fields: &[String], default_time_ns: Option<i64>) -> Self {
        let mut reader = Self {
            measurement: measurement.to_vec(),
            default_time_ns,
            names: HashMap::default(),
            folded: HashSet::new(),
            tags: Vec::new(),
            fields: Vec::new(),
            known_tags: tags.to_vec(),
            known_fields: fields.to_vec(),
            series: Vec::new(),
            series_by_text: HashMap::default(),
            shape: Vec::new(),
            values: Vec::new(),
            respelled: Vec::new(),
        };
        reader.folded.insert(TIME.to_owned());
        for name in reader.known_tags.clone() {
            if !reader.names.contains_key(&name) {
                reader.add_tag(name);
            }
        }
        for name in reader.known_fields.clone() {
            if !reader.names.contains_key(&name) {
                reader.add_field(name);
            }
        }
        reader
    }

    /// A reader as this one was when it was new.
    pub(super) fn renewed(&self) -> Self {
        Self::new(&self.measurement, &self.known_tags, &self.known_fields, self.default_time_ns)
    }

    pub(super) fn default_time_ns(&self) -> Option<i64> {
        self.default_time_ns
    }

    pub(super) fn tag_count(&self) -> usize {
        self.tags.len()
    }

    /// Bytes of the values of all tags of all series.
    pub(super) fn tag_bytes(&self) -> usize {
        self.series.iter().flatten().map(|tag| tag.1.len()).sum()
    }

    pub(super) fn into_names(self) -> Names {
        let fields = self.fields.into_iter().map(|field| field.name).collect();
        Names { tags: self.tags, fields, series: self.series }
    }

    /// Reads one line, which begins with no blank.
    pub(super) fn read<'a>(&'a mut self, line: &'a [u8]) -> Result<Point<'a>, LineFault> {
        // Taken out, so that they can be filled while the names are looked at.
        let mut values = std::mem::take(&mut self.values);
        let mut respelled = std::mem::take(&mut self.respelled);
        values.clear();
        respelled.clear();
        let read = self.read_into(line, &mut values, &mut respelled);
        self.values = values;
        self.respelled = respelled;
        let (series, time_ns, is_timed) = read?;
        self.shape.clear();
        self.shape.extend(self.values.iter().map(|(index, _)| *index));
        Ok(Point { line, series, fields: &self.values, respelled: &self.respelled, time_ns, is_timed })
    }

    fn read_into(
        &mut self,
        line: &[u8],
        values: &mut Vec<(usize, f64)>,
        respelled: &mut Vec<Respelled>,
    ) -> Result<(usize, i64, bool), LineFault> {
        let end = find_unescaped(line, [b' '; 3]).ok_or(LineFault::Syntax)?;
        let (series_text, rest) = line.split_at(end);
        let known_series = self.series_by_text.get(series_text).copied();
        let new_tags = if known_series.is_some() { Vec::new() } else { self.parse_series(series_text)? };
        let mut new_fields = Vec::new();
        let rest = self.parse_fields(line, rest.trim_ascii_start(), values, respelled, &mut new_fields)?;
        let own_time = time(rest)?;
        let time_ns = own_time.or(self.default_time_ns).ok_or(LineFault::Time)?;
        self.check_new_names(&new_tags, &new_fields)?;

        let series = known_series.unwrap_or_else(|| self.add_series(series_text, new_tags));
        for name in new_fields {
            self.add_field(name.into_owned());
        }
        Ok((series, time_ns, own_time.is_some()))
    }

    /// Tag names and values of a series that no line had yet.
    fn parse_series<'a>(&self, text: &'a [u8]) -> Result<Tags<'a>, LineFault> {
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

    /// The fields at the start of `rest`, which is a part of `line`; returns what follows them. New fields are given the
    /// indexes that they will have once they are added.
    fn parse_fields<'a>(
        &self,
        line: &[u8],
        mut rest: &'a [u8],
        values: &mut Vec<(usize, f64)>,
        respelled: &mut Vec<Respelled>,
        new: &mut Vec<Cow<'a, str>>,
    ) -> Result<&'a [u8], LineFault> {
        // A field of this line is marked here, for a line that is not taken must leave no mark in its column.
        let mut seen = [0u64; MAX_COLUMNS.div_ceil(64)];
        loop {
            let (index, after_name) = self.field_name(rest, values.len(), new)?;
            // A known field's index is below MAX_COLUMNS, and of new ones the first that is not ends the line.
            let word = seen.get_mut(index / 64).ok_or(LineFault::Columns)?;
            let bit = 1 << (index % 64);
            if *word & bit != 0 {
                return Err(LineFault::Duplicate);
            }
            *word |= bit;
            let (value, length) = field_value(after_name)?;
            if !is_plain_number(&after_name[..length]) {
                let start = line.len() - after_name.len();
                respelled.push(Respelled { start, end: start + length, value });
            }
            values.push((index, value));
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
        new: &mut Vec<Cow<'a, str>>,
    ) -> Result<(usize, &'a [u8]), LineFault> {
        let guess = self.shape.get(position).copied();
        let written = guess.and_then(|guess| self.fields[guess].written.as_deref());
        if let (Some(guess), Some(after)) = (guess, written.and_then(|written| rest.strip_prefix(written))) {
            return Ok((guess, after));
        }
        let end = find_unescaped(rest, *b"=, ").filter(|&at| at > 0 && rest[at] == b'=').ok_or(LineFault::Syntax)?;
        let name = plain(&rest[..end])?;
        let index = match self.names.get(&*name) {
            Some(Column::Field(index)) => *index,
            Some(Column::Tag(_)) => return Err(LineFault::Name),
            None => {
                let place = new.iter().position(|other| *other == name).unwrap_or(new.len());
                if place == new.len() {
                    new.push(name);
                }
                self.fields.len() + place
            }
        };
        Ok((index, &rest[end + 1..]))
    }

    /// New names must not clash with each other or with known ones, and must have room.
    fn check_new_names(&self, tags: &Tags<'_>, fields: &[Cow<'_, str>]) -> Result<(), LineFault> {
        let new_tags = tags.iter().map(|(name, _)| name).filter(|name| !self.names.contains_key(&***name));
        let new_tags = new_tags.map(|name| (Kind::Tag, name));
        let new_names: Vec<_> = new_tags.chain(fields.iter().map(|name| (Kind::Metric, name))).collect();
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

    fn add_field(&mut self, name: String) {
        self.folded.insert(fold(&name));
        self.names.insert(name.clone(), Column::Field(self.fields.len()));
        let written = (carried(&name) == name).then(|| {
            let mut written = Vec::with_capacity(name.len() + 1);
            push_name(&mut written, &name);
            written.push(b'=');
            written
        });
        self.fields.push(FieldName { name, written });
    }
}

fn plain(text: &[u8]) -> Result<Cow<'_, str>, LineFault> {
    match unescape(text) {
        Cow::Borrowed(text) => std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| LineFault::Utf8),
        Cow::Owned(text) => String::from_utf8(text).map(Cow::Owned).map_err(|_| LineFault::Utf8),
    }
}
