//! Points into Arrow columns: time, a dictionary column per tag, a `f64` column per field. Tests: `tests/line_columns.rs`.

use arrow_array::builder::{ArrayBuilder, Float64Builder};

use super::batch::{Columns, Rows};
use super::decoder::{Decoder, Output, Place};
use super::reader::{Names, Point};
use crate::error::Result;

/// Collects points into columns; a point without a tag or field has a null there.
pub type ColumnBuilder = Decoder<ColumnOutput>;

/// The columns so far.
#[derive(Default)]
pub struct ColumnOutput {
    times: Vec<i64>,
    series_of_row: Vec<usize>,
    /// By the index of the field; empty for one that no point had, and shorter than there are rows after its last point.
    values: Vec<Float64Builder>,
}

impl Output for ColumnOutput {
    type Batch = Columns;

    fn push(&mut self, point: &Point<'_>, _: Place) {
        let row = self.times.len();
        self.times.push(point.time_ns);
        self.series_of_row.push(point.series);
        for &(index, value) in point.fields {
            if index >= self.values.len() {
                self.values.resize_with(index + 1, Float64Builder::new);
            }
            let column = &mut self.values[index];
            column.append_nulls(row - column.len());
            column.append_value(value);
        }
    }

    fn rows(&self) -> usize {
        self.times.len()
    }

    fn nbytes(&self, tags: usize) -> usize {
        let used = self.values.iter().filter(|column| !column.is_empty()).count();
        self.rows() * (8 + 4 * tags + 8 * used + used.div_ceil(8))
    }

    fn finish(self, names: Names) -> Result<Columns> {
        let used = names.fields.into_iter().zip(self.values).filter(|(_, column)| !column.is_empty());
        let rows = Rows { times: self.times, series_of_row: self.series_of_row, series: names.series };
        Columns::assemble(rows, names.tags, used.collect())
    }
}
