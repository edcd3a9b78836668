//! The newest value of each metric of each GPU: a column a metric, by the GPUs' numbers, which somebody else gives.
//!
//! Invariants (tests: `tests/newest.rs`)
//! - A value is replaced by one of the same time or a later one, never by an older one, and never by none (NaN).
//! - Every column, and what else there is of a GPU, is as long as there are GPUs.

use std::collections::{BTreeMap, HashMap};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, TimestampNanosecondType};
use arrow_array::{Array, Int32Array, StringArray};

use super::hash::Xxh3;
use super::lines::Columns;

/// One metric's value and its time, by GPU.
#[derive(Default)]
struct Column {
    /// NaN: none yet.
    values: Vec<f64>,
    times_ns: Vec<i64>,
}

impl Column {
    fn of(gpus: usize) -> Self {
        Self { values: vec![f64::NAN; gpus], times_ns: vec![i64::MIN; gpus] }
    }
}

/// Rows whose tags have no number.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown {
    /// A value for each name; empty: none.
    pub tags: Vec<String>,
    /// All rows of a batch that have these.
    pub rows: Vec<usize>,
}

/// The columns, and the numbers that tags stand for.
pub struct Newest {
    tags: Vec<String>,
    max_metrics: usize,
    max_names: usize,
    names: HashMap<Box<[u8]>, i64, Xxh3>,
    seen_ns: Vec<i64>,
    changed: Vec<bool>,
    columns: BTreeMap<String, Column>,
}

impl Newest {
    /// Without a GPU. `tags`: whose values tell one from another. Of more than `max_metrics` the later ones are left
    /// out; of more than `max_names` known combinations of tags all are forgotten, and asked for again.
    pub fn new(tags: Vec<String>, max_metrics: usize, max_names: usize) -> Self {
        Self {
            tags,
            max_metrics,
            max_names,
            names: HashMap::default(),
            seen_ns: Vec::new(),
            changed: Vec::new(),
            columns: BTreeMap::new(),
        }
    }

    /// How many GPUs there are.
    pub fn gpus(&self) -> usize {
        self.seen_ns.len()
    }

    /// A GPU more: gives its number. It was seen at 0 and has no value.
    pub fn add(&mut self) -> usize {
        self.seen_ns.push(0);
        self.changed.push(false);
        for column in self.columns.values_mut() {
            column.values.push(f64::NAN);
            column.times_ns.push(i64::MIN);
        }
        self.gpus() - 1
    }

    /// From now on tags mean a number.
    pub fn name(&mut self, tags: &[String], number: i64) {
        if self.names.len() >= self.max_names {
            self.names.clear();
        }
        self.names.insert(key(tags.iter().map(String::as_str)), number);
    }

    /// From now on tags mean nothing.
    pub fn forget(&mut self, tags: &[String]) {
        self.names.remove(&key(tags.iter().map(String::as_str)));
    }

    /// What tags mean.
    pub fn number(&self, tags: &[String]) -> Option<i64> {
        self.names.get(&key(tags.iter().map(String::as_str))).copied()
    }

    /// The number of each row's GPU, -1 where its tags mean none; and those tags, each combination once.
    pub fn numbers(&self, columns: &Columns) -> (Vec<i64>, Vec<Unknown>) {
        let texts: Vec<Option<(&Int32Array, &StringArray)>> = self
            .tags
            .iter()
            .map(|tag| {
                let column = columns.batch.column_by_name(tag)?.as_dictionary_opt::<Int32Type>()?;
                Some((column.keys(), column.values().as_string::<i32>()))
            })
            .collect();
        let of_row = |row: usize| {
            texts.iter().map(move |text| match text {
                Some((keys, values)) if keys.is_valid(row) => {
                    usize::try_from(keys.value(row)).map_or("", |at| values.value(at))
                }
                _ => "",
            })
        };
        let mut numbers = Vec::with_capacity(columns.batch.num_rows());
        let mut unknown: Vec<Unknown> = Vec::new();
        let mut places: HashMap<Vec<u8>, usize, Xxh3> = HashMap::default();
        let mut found = Vec::new();
        for row in 0..columns.batch.num_rows() {
            found.clear();
            push_key(&mut found, of_row(row));
            let number = self.names.get(&*found).copied();
            if number.is_none() {
                let place = *places.entry(found.clone()).or_insert_with(|| {
                    unknown.push(Unknown { tags: of_row(row).map(str::to_owned).collect(), rows: Vec::new() });
                    unknown.len() - 1
                });
                unknown[place].rows.push(row);
            }
            numbers.push(number.unwrap_or(-1));
        }
        (numbers, unknown)
    }

    /// Takes in rows of these GPUs; those of no GPU are passed over.
    pub fn take_in(&mut self, columns: &Columns, numbers: &[i64]) {
        let gpus = self.gpus();
        let times = columns.batch.column(0).as_primitive::<TimestampNanosecondType>().values();
        let rows: Vec<(usize, usize, i64)> = numbers
            .iter()
            .zip(times)
            .enumerate()
            .filter_map(|(row, (number, time))| Some((row, usize::try_from(*number).ok()?, *time)))
            .filter(|(_, number, _)| *number < gpus)
            .collect();
        for &(_, number, time) in &rows {
            self.seen_ns[number] = self.seen_ns[number].max(time);
            self.changed[number] = true;
        }
        let first = 1 + columns.tags.len();
        for (name, values) in columns.fields.iter().zip(columns.batch.columns().iter().skip(first)) {
            let Some(column) = self.column_mut(name) else { continue };
            let values = values.as_primitive::<Float64Type>();
            for &(row, number, time) in &rows {
                if values.is_valid(row) && !values.value(row).is_nan() && time >= column.times_ns[number] {
                    (column.values[number], column.times_ns[number]) = (values.value(row), time);
                }
            }
        }
    }

    /// Takes in what is known of a GPU from elsewhere; of two values of the same time the first stays. Says whether
    /// anything is new.
    pub fn put<'a>(
        &mut self,
        number: usize,
        seen_ns: i64,
        values: impl IntoIterator<Item = (&'a str, f64, i64)>,
    ) -> bool {
        if number >= self.gpus() {
            return false;
        }
        let mut is_news = seen_ns > self.seen_ns[number];
        self.seen_ns[number] = self.seen_ns[number].max(seen_ns);
        for (name, value, time) in values {
            let Some(column) = self.column_mut(name) else { continue };
            if column.values[number].is_nan() || time > column.times_ns[number] {
                (column.values[number], column.times_ns[number]) = (value, time);
                is_news = true;
            }
        }
        self.changed[number] |= is_news;
        is_news
    }

    fn column_mut(&mut self, name: &str) -> Option<&mut Column> {
        if !self.columns.contains_key(name) {
            if self.columns.len() >= self.max_metrics {
                return None;
            }
            self.columns.insert(name.to_owned(), Column::of(self.gpus()));
        }
        self.columns.get_mut(name)
    }

    /// The names of all metrics, sorted.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    /// A metric's values by GPU, NaN where there is none; None: no GPU has one.
    pub fn column(&self, metric: &str) -> Option<&[f64]> {
        self.columns.get(metric).map(|column| &*column.values)
    }

    /// What a GPU has: metric, value and its time, sorted by metric.
    pub fn values(&self, number: usize) -> impl Iterator<Item = (&str, f64, i64)> {
        let of = move |column: &Column| Some((*column.values.get(number)?, *column.times_ns.get(number)?));
        let all =
            self.columns.iter().filter_map(move |(name, column)| of(column).map(|(value, at)| (&**name, value, at)));
        all.filter(|(_, value, _)| !value.is_nan())
    }

    /// When each GPU was last seen.
    pub fn seen_ns(&self) -> &[i64] {
        &self.seen_ns
    }

    /// The GPUs of which something came in since the last call, in order.
    pub fn drain_changed(&mut self) -> Vec<usize> {
        let mut changed = Vec::new();
        for (number, has) in self.changed.iter_mut().enumerate() {
            if std::mem::take(has) {
                changed.push(number);
            }
        }
        changed
    }
}

/// Tags as one key: lengths tell where each ends.
fn push_key<'a>(key: &mut Vec<u8>, tags: impl Iterator<Item = &'a str>) {
    for tag in tags {
        key.extend_from_slice(&(tag.len() as u64).to_le_bytes());
        key.extend_from_slice(tag.as_bytes());
    }
}

fn key<'a>(tags: impl Iterator<Item = &'a str>) -> Box<[u8]> {
    let mut key = Vec::new();
    push_key(&mut key, tags);
    key.into()
}
