//! Finished columns as an Arrow record batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, Float64Builder};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, TimeUnit};

use crate::error::{Code, Error, Result};
use crate::telemetry::hash::Xxh3;

/// Name of the time column.
pub(super) const TIME: &str = "time";

/// The tags of one series: index of the tag, value.
pub(super) type Series = Vec<(usize, String)>;

/// What the rows have beside their fields.
pub(super) struct Rows {
    pub times: Vec<i64>,
    /// Index into `series`.
    pub series_of_row: Vec<usize>,
    pub series: Vec<Series>,
}

/// The columns of a finished batch.
#[derive(Debug, Clone)]
pub struct Columns {
    /// `time` (timestamp[ns, UTC], not null), then tags (dictionary of int32 to utf8) by name, then fields (float64) by
    /// name.
    pub batch: RecordBatch,
    /// Names of the tag columns, sorted.
    pub tags: Vec<String>,
    /// Names of the field columns, sorted.
    pub fields: Vec<String>,
}

impl Columns {
    /// Puts the columns together; a tag that no series has gets none. Field columns may end before the last row.
    pub(super) fn assemble(rows: Rows, tags: Vec<String>, mut fields: Vec<(String, Float64Builder)>) -> Result<Self> {
        let count = rows.times.len();
        let mut by_tag: Vec<Vec<(usize, &str)>> = vec![Vec::new(); tags.len()];
        for (series, values) in rows.series.iter().enumerate() {
            for (tag, value) in values {
                by_tag[*tag].push((series, value));
            }
        }
        let mut tags: Vec<_> = tags.into_iter().zip(by_tag).filter(|(_, values)| !values.is_empty()).collect();
        tags.sort_unstable();
        fields.sort_unstable_by(|one, other| one.0.cmp(&other.0));

        let mut schema = vec![Field::new(TIME, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false)];
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(TimestampNanosecondArray::from(rows.times).with_timezone("UTC"))];
        for (name, values) in &tags {
            let array = dictionary(values, rows.series.len(), &rows.series_of_row).map_err(|err| defect(&err))?;
            schema.push(Field::new(name, DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into()), true));
            arrays.push(Arc::new(array));
        }
        for (name, values) in &mut fields {
            values.append_nulls(count - values.len());
            schema.push(Field::new(&*name, DataType::Float64, true));
            arrays.push(Arc::new(values.finish()));
        }
        Ok(Self {
            batch: RecordBatch::try_new(Arc::new(Schema::new(schema)), arrays).map_err(|err| defect(&err))?,
            tags: tags.into_iter().map(|(name, _)| name).collect(),
            fields: fields.into_iter().map(|(name, _)| name).collect(),
        })
    }
}

/// One tag's column, from its value in each series and the series of each row.
fn dictionary(
    values: &[(usize, &str)],
    series_count: usize,
    series_of_row: &[usize],
) -> std::result::Result<DictionaryArray<Int32Type>, ArrowError> {
    let mut distinct: Vec<&str> = Vec::new();
    let mut key_by_value: HashMap<&str, i32, Xxh3> = HashMap::default();
    let mut key_of_series: Vec<Option<i32>> = vec![None; series_count];
    for &(series, value) in values {
        let next = i32::try_from(distinct.len()).map_err(|_| ArrowError::DictionaryKeyOverflowError)?;
        let key = *key_by_value.entry(value).or_insert_with(|| {
            distinct.push(value);
            next
        });
        key_of_series[series] = Some(key);
    }
    let keys: Int32Array = series_of_row.iter().map(|&series| key_of_series[series]).collect();
    DictionaryArray::try_new(keys, Arc::new(StringArray::from_iter_values(distinct)))
}

fn defect(err: &ArrowError) -> Error {
    Error::new(Code::Internal, format!("the columns do not make a batch: {err}; please report it with the lines"))
}
