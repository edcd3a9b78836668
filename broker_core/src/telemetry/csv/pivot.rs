//! The samples of one block, gathered into points and written as one batch per partition.

use std::collections::HashMap;

use super::counts::Counts;
use super::intern::Interner;
use crate::telemetry::Batch;
use crate::telemetry::lines::escape::{MAX_NUMBER_BYTES, push_number, push_time};
use crate::wire::record::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, MAX_RECORD_BYTES, put_record};

/// Bytes of a line beside its series and fields: two spaces and a time.
const LINE_BYTES: usize = 22;
/// Bytes of an entry beside its value and key, at most.
const ENTRY_BYTES: usize = 24;

/// One sample, its series and metric by number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub time_ns: i64,
    pub series: usize,
    pub metric: usize,
    pub value: f64,
}

struct Point {
    time_ns: i64,
    series: usize,
    /// Upper bound of its record.
    bytes: usize,
}

struct Cell {
    point: usize,
    metric: usize,
    value: f64,
}

/// Upper bounds of a batch, so that it is known before it is written whether it stays within the protocol's.
#[derive(Clone, Default)]
struct Fill {
    bytes: usize,
    records: u32,
}

pub(super) struct Pivot {
    points: Vec<Point>,
    point_by_key: HashMap<(i64, usize), usize>,
    cells: Vec<Cell>,
    fill: Vec<Fill>,
}

impl Pivot {
    pub fn new(partitions: usize) -> Self {
        Self {
            points: Vec::new(),
            point_by_key: HashMap::new(),
            cells: Vec::new(),
            fill: vec![Fill::default(); partitions],
        }
    }

    /// Adds a sample; false, and nothing added, if a record or a batch would pass its bound.
    pub fn add(&mut self, sample: Sample, interner: &Interner) -> bool {
        let series = interner.series_at(sample.series);
        let cell_bytes = interner.metrics()[sample.metric].written.len() + 1 + MAX_NUMBER_BYTES;
        let key = (sample.time_ns, sample.series);
        let known = self.point_by_key.get(&key).copied();
        let (point_bytes, added) = if let Some(point) = known {
            (self.points[point].bytes + cell_bytes, cell_bytes)
        } else {
            let bytes = series.tags.series.len() + LINE_BYTES + series.tags.uuid.len() + ENTRY_BYTES + cell_bytes;
            (bytes, bytes)
        };
        let fill = &mut self.fill[series.partition];
        let records = fill.records + u32::from(known.is_none());
        if point_bytes > MAX_RECORD_BYTES || fill.bytes + added > MAX_BATCH_BYTES || records > MAX_BATCH_RECORDS {
            return false;
        }
        *fill = Fill { bytes: fill.bytes + added, records };
        let point = known.unwrap_or_else(|| {
            self.points.push(Point { time_ns: sample.time_ns, series: sample.series, bytes: 0 });
            self.point_by_key.insert(key, self.points.len() - 1);
            self.points.len() - 1
        });
        self.points[point].bytes = point_bytes;
        self.cells.push(Cell { point, metric: sample.metric, value: sample.value });
        true
    }

    /// Writes the points in the order in which they first came, their fields by name, and empties the pivot.
    pub fn encode(&mut self, interner: &Interner, counts: &mut Counts) -> Vec<Batch> {
        let mut batches = vec![Batch::default(); self.fill.len()];
        let order = order_of(interner);
        // Stable, so of one cell's values the last one in the file stays last.
        self.cells.sort_by_key(|cell| (cell.point, order[cell.metric]));
        let mut line = Vec::new();
        for cells in self.cells.chunk_by(|one, other| one.point == other.point) {
            let point = &self.points[cells[0].point];
            let series = interner.series_at(point.series);
            line.clear();
            line.extend_from_slice(&series.tags.series);
            let mut separator = b' ';
            for (position, cell) in cells.iter().enumerate() {
                if cells.get(position + 1).is_some_and(|next| next.metric == cell.metric) {
                    counts.duplicates += 1;
                    continue;
                }
                line.push(separator);
                separator = b',';
                line.extend_from_slice(&interner.metrics()[cell.metric].written);
                push_number(&mut line, cell.value);
                counts.samples += 1;
            }
            line.push(b' ');
            push_time(&mut line, point.time_ns);
            let batch = &mut batches[series.partition];
            // `add` keeps every record within its bound.
            let _ = put_record(&mut batch.records, &line, Some(series.tags.uuid.as_bytes()), 0, &[]);
            batch.count += 1;
            counts.points += 1;
            counts.see_time(point.time_ns);
        }
        *self = Self::new(self.fill.len());
        batches
    }
}

/// Rank of each metric by name.
fn order_of(interner: &Interner) -> Vec<usize> {
    let metrics = interner.metrics();
    let mut sorted: Vec<usize> = (0..metrics.len()).collect();
    sorted.sort_unstable_by(|&one, &other| metrics[one].name.cmp(&metrics[other].name));
    let mut order = vec![0; metrics.len()];
    for (rank, metric) in sorted.into_iter().enumerate() {
        order[metric] = rank;
    }
    order
}
