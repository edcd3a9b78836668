//! The two JSON records of older senders, each one sample: the 12 fields of a row of the dump as an array, in the order
//! of its columns, and an object as the REST API takes it. Each becomes a line. Tests: `tests/json_records.rs`.

use serde_json::{Map, Value};

use super::lines::escape::{push_name, push_number, push_time};
use super::names::{self, Kind};
use super::sample::{Reading, RowFault, parse_time, parse_value};
use super::tags::{GpuLabels, TagSet};

/// Fields of a row.
const COLUMNS: usize = 12;

/// Why a JSON record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JsonFault {
    /// Not JSON, or of another shape: an array of another length, something else than texts and numbers in it.
    Shape,
    /// What it says is no sample, as with a row of a dump.
    Sample(RowFault),
}

impl JsonFault {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "json",
            Self::Sample(fault) => fault.as_str(),
        }
    }
}

impl From<RowFault> for JsonFault {
    fn from(fault: RowFault) -> Self {
        Self::Sample(fault)
    }
}

/// Whether a record is meant to be JSON: no line of ours begins so.
pub fn is_json(record: &[u8]) -> bool {
    matches!(record.trim_ascii_start().first(), Some(b'[' | b'{'))
}

/// Appends the line of a record, without a line end; false, and nothing appended, where its value is missing.
///
/// `default_time_ns` is the time of an object that has none.
pub fn push_line(out: &mut Vec<u8>, record: &[u8], default_time_ns: Option<i64>) -> Result<bool, JsonFault> {
    match serde_json::from_slice(record).map_err(|_| JsonFault::Shape)? {
        Value::Array(fields) => push_row(out, &fields),
        Value::Object(object) => push_object(out, &object, default_time_ns),
        _ => Err(JsonFault::Shape),
    }
}

fn push_row(out: &mut Vec<u8>, fields: &[Value]) -> Result<bool, JsonFault> {
    let texts: Vec<String> = fields.iter().map(text).collect::<Result<_, _>>()?;
    let texts: &[String; COLUMNS] = texts.as_slice().try_into().map_err(|_| JsonFault::Shape)?;
    let [time, metric, gpu, device, uuid, model, hostname, container, pod, namespace, value, labels] = texts;
    let time_ns = parse_time(time.as_bytes()).ok_or(RowFault::Timestamp)?;
    push_sample(
        out,
        &GpuLabels { hostname, gpu, uuid, device, model, namespace, pod, container, labels },
        metric,
        value,
        time_ns,
    )
}

fn push_object(
    out: &mut Vec<u8>,
    object: &Map<String, Value>,
    default_time_ns: Option<i64>,
) -> Result<bool, JsonFault> {
    let member = |names: &[&str]| names.iter().find_map(|name| object.get(*name)).map_or(Ok(String::new()), text);
    let time = member(&["time"])?;
    let time_ns = if time.is_empty() { default_time_ns } else { parse_time(time.as_bytes()) };
    let device = member(&["device_id"])?;
    let uuid = member(&["uuid"])?;
    push_sample(
        out,
        &GpuLabels {
            hostname: &member(&["hostname", "Hostname"])?,
            gpu: &member(&["gpu_id"])?,
            uuid: if uuid.is_empty() { &device } else { &uuid },
            device: &device,
            model: &member(&["model_name", "modelName"])?,
            namespace: &member(&["namespace"])?,
            pod: &member(&["pod"])?,
            container: &member(&["container"])?,
            labels: &member(&["labels_raw"])?,
        },
        &member(&["metric"])?,
        &member(&["value"])?,
        time_ns.ok_or(RowFault::Timestamp)?,
    )
}

/// A text, or a number as its text; `null` is an empty one.
fn text(value: &Value) -> Result<String, JsonFault> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(JsonFault::Shape),
    }
}

fn push_sample(
    out: &mut Vec<u8>,
    labels: &GpuLabels<'_>,
    metric: &str,
    value: &str,
    time_ns: i64,
) -> Result<bool, JsonFault> {
    names::check(Kind::Metric, metric).map_err(|_| RowFault::Metric)?;
    let tags = TagSet::new(labels)?;
    if tags.has_name(metric) {
        return Err(RowFault::Metric.into());
    }
    let Reading::Value(value) = parse_value(value.as_bytes())? else {
        return Ok(false);
    };
    out.extend_from_slice(&tags.series);
    out.push(b' ');
    if !push_name(out, metric) {
        return Err(RowFault::Metric.into());
    }
    out.push(b'=');
    push_number(out, value);
    out.push(b' ');
    push_time(out, time_ns);
    Ok(true)
}
