//! Series and metrics by number, so that a row costs a hash of its bytes and not a parse of its labels.
//!
//! Rows of one GPU differ in time, metric, value and the label `__name__` only. What is left of a row without those is
//! looked up as bytes; only bytes that were not seen yet are parsed.

use std::collections::HashMap;

use memchr::memmem::Finder;

use super::header::{CONTAINER, Columns, DEVICE, GPU, HOSTNAME, LABELS, METRIC, MODEL, NAMESPACE, POD, UUID};
use super::split::Field;
use crate::partitioner::partition_for_key;
use crate::telemetry::hash::Xxh3;
use crate::telemetry::lines::escape::{carried, push_name};
use crate::telemetry::names::{self, Kind, Names};
use crate::telemetry::sample::RowFault;
use crate::telemetry::tags::{GpuLabels, TagSet};

/// Past this, what was learned is forgotten before the next block.
const MAX_BYTES: usize = 32 << 20;
/// Cost of an entry beside its bytes, about.
const ENTRY_BYTES: usize = 128;

/// A GPU (or MIG slice) with its labels.
pub(super) struct Series {
    pub tags: TagSet,
    /// Partition of its uuid.
    pub partition: usize,
}

/// A field of the points.
pub(super) struct Metric {
    pub name: String,
    /// The name as a line has it, with the equals sign.
    pub written: Vec<u8>,
}

pub(super) struct Interner {
    partitions: u32,
    series: Vec<Series>,
    series_by_row: HashMap<Box<[u8]>, usize, Xxh3>,
    series_by_text: HashMap<Vec<u8>, usize, Xxh3>,
    metrics: Vec<Metric>,
    metric_by_name: HashMap<String, usize, Xxh3>,
    /// Kept when the rest is forgotten: which spelling counts must not change within a dump.
    names: Names,
    bytes: usize,
    key: Vec<u8>,
    metric_label: Finder<'static>,
}

impl Interner {
    /// `metrics` are names of metrics that the store has already.
    pub fn new(partitions: u32, metrics: &[String]) -> Self {
        let mut names = Names::default();
        for name in metrics {
            names.add(Kind::Metric, name);
        }
        Self::with_names(partitions, names)
    }

    fn with_names(partitions: u32, names: Names) -> Self {
        let hashes = Xxh3::default();
        Self {
            partitions,
            series: Vec::new(),
            series_by_row: HashMap::with_hasher(hashes.clone()),
            series_by_text: HashMap::with_hasher(hashes.clone()),
            metrics: Vec::new(),
            metric_by_name: HashMap::with_hasher(hashes),
            names,
            bytes: 0,
            key: Vec::new(),
            metric_label: Finder::new(b"__name__=\"\""),
        }
    }

    /// Numbers given before a block do not hold in the next one.
    pub fn begin_block(&mut self) {
        if self.bytes > MAX_BYTES {
            let names = std::mem::take(&mut self.names);
            *self =
                Self::with_names(self.partitions, if names.nbytes() > MAX_BYTES { Names::default() } else { names });
        }
    }

    pub fn series_at(&self, number: usize) -> &Series {
        &self.series[number]
    }

    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// The series of a row.
    pub fn series(&mut self, row: &[u8], fields: &[Field], columns: &Columns) -> Result<usize, RowFault> {
        let field = |column: usize| fields[columns.indexes[column]];
        self.key.clear();
        for column in [GPU, DEVICE, UUID, MODEL, HOSTNAME, CONTAINER, POD, NAMESPACE] {
            self.key.extend_from_slice(field(column).raw(row));
            // Neither separator comes in UTF-8.
            self.key.push(0xFF);
        }
        let labels = field(LABELS).raw(row);
        match self.find_metric_label(labels, field(METRIC).raw(row)) {
            Some((start, end)) => {
                self.key.extend_from_slice(&labels[..start]);
                self.key.push(0xFE);
                self.key.extend_from_slice(&labels[end..]);
            }
            None => self.key.extend_from_slice(labels),
        }
        if let Some(&number) = self.series_by_row.get(self.key.as_slice()) {
            return Ok(number);
        }
        let text = |column: usize| field(column).text(row);
        let tags = TagSet::new(&GpuLabels {
            hostname: &text(HOSTNAME),
            gpu: &text(GPU),
            uuid: &text(UUID),
            device: &text(DEVICE),
            model: &text(MODEL),
            namespace: &text(NAMESPACE),
            pod: &text(POD),
            container: &text(CONTAINER),
            labels: &text(LABELS),
        })?;
        self.bytes += self.key.len() + ENTRY_BYTES;
        let number = match self.series_by_text.get(&tags.series) {
            Some(&number) => number,
            None => self.add_series(tags)?,
        };
        self.series_by_row.insert(self.key.as_slice().into(), number);
        Ok(number)
    }

    /// Where the labels repeat the metric's own name: the one part of them that differs between the rows of a GPU.
    fn find_metric_label(&self, labels: &[u8], metric: &[u8]) -> Option<(usize, usize)> {
        let start = self.metric_label.find(labels)?;
        if start > 0 && labels[start - 1] != b',' {
            return None;
        }
        let name = start + self.metric_label.needle().len();
        let end = name + metric.len() + 2;
        (labels.get(name..end - 2) == Some(metric) && labels.get(end - 2..end) == Some(b"\"\"")).then_some((start, end))
    }

    fn add_series(&mut self, tags: TagSet) -> Result<usize, RowFault> {
        // All or none: a row that is refused must not say how the next ones have to spell their labels.
        if tags.names.iter().any(|name| self.names.check(Kind::Tag, name).is_err()) {
            return Err(RowFault::Labels);
        }
        for name in &tags.names {
            self.names.add(Kind::Tag, name);
        }
        let number = self.series.len();
        let partition = partition_for_key(tags.uuid.as_bytes(), self.partitions);
        self.bytes += 2 * tags.series.len() + tags.uuid.len() + ENTRY_BYTES * (1 + tags.names.len());
        self.series_by_text.insert(tags.series.clone(), number);
        self.series.push(Series { tags, partition: partition as usize });
        Ok(number)
    }

    /// The number of a metric, by its name, in a row of this series.
    pub fn metric(&mut self, name: &str, series: usize) -> Result<usize, RowFault> {
        let known = self.metric_by_name.get(name).copied();
        let number = known.map_or_else(|| self.learn_metric(name, series), Ok)?;
        let taken = self.series[series].tags.has_name(&self.metrics[number].name);
        if taken { Err(RowFault::Metric) } else { Ok(number) }
    }

    fn learn_metric(&mut self, name: &str, series: usize) -> Result<usize, RowFault> {
        let name = name.trim();
        names::check(Kind::Metric, name).map_err(|_| RowFault::Metric)?;
        let carried = carried(name).into_owned();
        // A label of the very same row is asked first: a metric named as one must not cost the rows that follow.
        let taken = self.series[series].tags.has_name(&carried);
        if taken || self.names.check(Kind::Metric, &carried).is_err() {
            return Err(RowFault::Metric);
        }
        self.names.add(Kind::Metric, &carried);
        self.bytes += name.len() + ENTRY_BYTES;
        // Two names may be carried as one.
        let known = self.metric_by_name.get(&carried).copied();
        let number = known.unwrap_or_else(|| self.add_metric(carried));
        self.metric_by_name.insert(name.to_owned(), number);
        Ok(number)
    }

    fn add_metric(&mut self, name: String) -> usize {
        let mut written = Vec::with_capacity(name.len() + 1);
        push_name(&mut written, &name);
        written.push(b'=');
        self.bytes += 3 * name.len() + ENTRY_BYTES;
        self.metrics.push(Metric { name: name.clone(), written });
        self.metric_by_name.insert(name, self.metrics.len() - 1);
        self.metrics.len() - 1
    }
}
