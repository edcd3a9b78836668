//! Bindings of the telemetry codecs. Documented in `_core.pyi`.

use std::path::PathBuf;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{Array, RecordBatch, RecordBatchIterator, StructArray};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyCapsule, PyDict, PyTuple};

use super::bytes::Input;
use super::errors::to_py_err;
use crate::error::{Code, Error};
use crate::telemetry::csv::{self, Counts, CsvOptions, RejectOptions};
use crate::telemetry::lines::{self, Columns, LineBatch, LineIndex};
use crate::telemetry::names::{self, Kind};
use crate::telemetry::sample::RowFault;

/// Adds the classes and functions of this file to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyCsvReader>()?;
    module.add_class::<PyCsvBlock>()?;
    module.add_class::<PyColumnBuilder>()?;
    module.add_class::<PyColumnBatch>()?;
    module.add_class::<PyLineBuilder>()?;
    module.add_class::<PyLineBatch>()?;
    module.add("RESERVED_COLUMNS", PyTuple::new(module.py(), names::RESERVED)?)?;
    module.add("TAG_COLUMNS", PyTuple::new(module.py(), names::TAGS)?)?;
    module.add_function(wrap_pyfunction!(check_name, module)?)?;
    module.add_function(wrap_pyfunction!(encode_point, module)?)
}

#[pyfunction]
#[pyo3(signature = (name, *, tag = false))]
fn check_name(name: &str, tag: bool) -> PyResult<()> {
    let kind = if tag { Kind::Tag } else { Kind::Metric };
    names::check(kind, name).map_err(|fault| {
        let message = format!("the {} {name:?} cannot be stored: its name {fault}; rename it", kind.as_str());
        to_py_err(&Error::new(Code::InvalidArgument, message))
    })
}

#[pyfunction]
fn encode_point<'py>(
    py: Python<'py>,
    measurement: &str,
    tags: &Bound<'py, PyAny>,
    fields: &Bound<'py, PyAny>,
    time_ns: i64,
) -> PyResult<Bound<'py, PyBytes>> {
    let tags: Vec<(String, String)> = items(tags)?;
    let fields: Vec<(String, f64)> = items(fields)?;
    let line = lines::encode_point(
        measurement,
        tags.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        fields.iter().map(|(name, value)| (name.as_str(), *value)),
        time_ns,
    )
    .map_err(|err| to_py_err(&err))?;
    Ok(PyBytes::new(py, &line))
}

/// The items of any mapping.
fn items<V>(mapping: &Bound<'_, PyAny>) -> PyResult<Vec<(String, V)>>
where
    V: for<'a, 'py> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    mapping.call_method0("items")?.try_iter()?.map(|item| item?.extract::<(String, V)>()).collect()
}

fn rejected(counts: &Counts, py: Python<'_>) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    for reason in RowFault::ALL {
        let count = counts.rejected(reason);
        if count > 0 {
            dict.set_item(reason.as_str(), count)?;
        }
    }
    Ok(dict.unbind())
}

#[pyclass(name = "CsvReader", module = "telemetry_broker._core")]
struct PyCsvReader {
    /// Boxed for its alignment: the vectors inside want 32 bytes, and Python gives its objects 16.
    reader: Box<csv::CsvReader>,
}

const _: () = assert!(
    align_of::<PyCsvReader>() <= 16 && align_of::<PyColumnBuilder>() <= 16 && align_of::<PyLineBuilder>() <= 16
);

#[pymethods]
impl PyCsvReader {
    #[new]
    #[pyo3(signature = (path, *, partitions, resume = None, block_bytes = 4_194_304, rejects_path = None,
                        rejects_max_bytes = 1_073_741_824, time_shift_ns = 0, time_ns = None, metrics = None))]
    #[expect(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        partitions: u32,
        resume: Option<Vec<u64>>,
        block_bytes: u64,
        rejects_path: Option<PathBuf>,
        rejects_max_bytes: u64,
        time_shift_ns: i64,
        time_ns: Option<i64>,
        metrics: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let rejects = rejects_path.map(|path| RejectOptions { path, max_bytes: rejects_max_bytes });
        let resume = resume.unwrap_or_default();
        let metrics = metrics.unwrap_or_default();
        let options = CsvOptions { partitions, resume, block_bytes, rejects, time_shift_ns, metrics, time_ns };
        let reader = py.detach(|| csv::CsvReader::open(&path, options)).map_err(|err| to_py_err(&err))?;
        Ok(Self { reader: Box::new(reader) })
    }

    #[pyo3(signature = (max_rows = None))]
    fn next_block(&mut self, py: Python<'_>, max_rows: Option<u64>) -> PyResult<Option<PyCsvBlock>> {
        let reader = &mut self.reader;
        let block = py.detach(|| reader.next_block(max_rows)).map_err(|err| to_py_err(&err))?;
        Ok(block.map(|block| PyCsvBlock {
            end: block.end,
            counts: block.counts,
            record_counts: block.batches.iter().map(|batch| batch.count).collect(),
            batches: block.batches.iter().map(|batch| PyBytes::new(py, &batch.records).unbind()).collect(),
        }))
    }

    #[getter]
    fn producer_name(&self) -> &str {
        self.reader.producer_name()
    }

    #[getter]
    fn size(&self) -> u64 {
        self.reader.size()
    }

    #[getter]
    fn position(&self) -> u64 {
        self.reader.position()
    }

    #[getter]
    fn rejects_path(&self) -> Option<PathBuf> {
        self.reader.rejects_path().map(Into::into)
    }

    #[getter]
    fn rejects_unkept(&self) -> u64 {
        self.reader.rejects_unkept()
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.reader.totals().rows
    }

    #[getter]
    fn samples(&self) -> u64 {
        self.reader.totals().samples
    }

    #[getter]
    fn points(&self) -> u64 {
        self.reader.totals().points
    }

    #[getter]
    fn duplicates(&self) -> u64 {
        self.reader.totals().duplicates
    }

    #[getter]
    fn missing(&self) -> u64 {
        self.reader.totals().missing
    }

    #[getter]
    fn resumed(&self) -> u64 {
        self.reader.totals().resumed
    }

    #[getter]
    fn times_ns(&self) -> Option<(i64, i64)> {
        self.reader.totals().times_ns
    }

    #[getter]
    fn rejected(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        rejected(self.reader.totals(), py)
    }
}

#[pyclass(frozen, name = "CsvBlock", module = "telemetry_broker._core")]
struct PyCsvBlock {
    #[pyo3(get)]
    end: u64,
    counts: Counts,
    record_counts: Vec<u32>,
    batches: Vec<Py<PyBytes>>,
}

#[pymethods]
impl PyCsvBlock {
    #[getter]
    fn batches(&self, py: Python<'_>) -> Vec<Py<PyBytes>> {
        self.batches.iter().map(|batch| batch.clone_ref(py)).collect()
    }

    #[getter]
    fn counts(&self) -> Vec<u32> {
        self.record_counts.clone()
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.counts.rows
    }

    #[getter]
    fn samples(&self) -> u64 {
        self.counts.samples
    }

    #[getter]
    fn points(&self) -> u64 {
        self.counts.points
    }

    #[getter]
    fn duplicates(&self) -> u64 {
        self.counts.duplicates
    }

    #[getter]
    fn missing(&self) -> u64 {
        self.counts.missing
    }

    #[getter]
    fn resumed(&self) -> u64 {
        self.counts.resumed
    }

    #[getter]
    fn times_ns(&self) -> Option<(i64, i64)> {
        self.counts.times_ns
    }

    #[getter]
    fn rejected(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        rejected(&self.counts, py)
    }
}

/// A builder class over a decoder, for Python has no generic ones.
macro_rules! builder {
    ($class:ident, $name:literal, $decoder:ty, $batch:ident) => {
        #[pyclass(name = $name, module = "telemetry_broker._core")]
        struct $class {
            builder: $decoder,
        }

        #[pymethods]
        impl $class {
            #[new]
            #[pyo3(signature = (measurement, *, tags = None, fields = None, default_time_ns = None))]
            fn new(
                measurement: &str,
                tags: Option<Vec<String>>,
                fields: Option<Vec<String>>,
                default_time_ns: Option<i64>,
            ) -> Self {
                let (tags, fields) = (tags.unwrap_or_default(), fields.unwrap_or_default());
                Self { builder: <$decoder>::new(measurement, &tags, &fields, default_time_ns) }
            }

            #[pyo3(signature = (records, base_offset = 0))]
            fn append_records(&mut self, py: Python<'_>, records: Input, base_offset: u64) -> PyResult<u64> {
                let builder = &mut self.builder;
                py.detach(|| builder.append_records(records.as_slice(), base_offset)).map_err(|err| to_py_err(&err))
            }

            #[pyo3(signature = (values, base_offset = 0))]
            fn append_values(&mut self, py: Python<'_>, values: Vec<PyBackedBytes>, base_offset: u64) -> PyResult<()> {
                let builder = &mut self.builder;
                py.detach(|| builder.append_values(&values, base_offset)).map_err(|err| to_py_err(&err))
            }

            #[getter]
            fn rows(&self) -> usize {
                self.builder.rows()
            }

            #[getter]
            fn nbytes(&self) -> usize {
                self.builder.nbytes()
            }

            #[getter]
            fn rejected<'py>(&self, py: Python<'py>) -> Vec<(u64, Bound<'py, PyBytes>, &'static str)> {
                let rejected = self.builder.rejected().iter();
                rejected.map(|line| (line.offset, PyBytes::new(py, &line.line), line.reason.as_str())).collect()
            }

            fn finish(&mut self, py: Python<'_>) -> PyResult<$batch> {
                let builder = &mut self.builder;
                Ok($batch::new(py, py.detach(|| builder.finish()).map_err(|err| to_py_err(&err))?))
            }
        }
    };
}

builder!(PyColumnBuilder, "ColumnBuilder", lines::ColumnBuilder, PyColumnBatch);
builder!(PyLineBuilder, "LineBuilder", lines::LineBuilder, PyLineBatch);

#[pyclass(frozen, name = "LineBatch", module = "telemetry_broker._core")]
struct PyLineBatch {
    /// Python's own, so that a request's body is no copy of it.
    lines: Py<PyBytes>,
    index: LineIndex,
}

impl PyLineBatch {
    fn new(py: Python<'_>, batch: LineBatch) -> Self {
        Self { lines: PyBytes::new(py, &batch.lines).unbind(), index: batch.index }
    }
}

#[pymethods]
impl PyLineBatch {
    fn __len__(&self) -> usize {
        self.index.len()
    }

    #[getter]
    fn samples(&self) -> usize {
        self.index.samples()
    }

    #[getter]
    fn nbytes(&self, py: Python<'_>) -> usize {
        self.lines.as_bytes(py).len()
    }

    fn lines<'py>(&self, py: Python<'py>, start: usize, end: usize) -> Bound<'py, PyBytes> {
        let lines = self.lines.bind(py);
        let range = self.index.bytes(start, end);
        if range.len() == lines.as_bytes().len() { lines.clone() } else { PyBytes::new(py, &lines.as_bytes()[range]) }
    }

    fn place(&self, line: usize) -> PyResult<(u32, u64)> {
        let place = self.index.place(line).ok_or_else(|| {
            let message = format!("there is no line {line}: the batch has {}, counted from 0", self.index.len());
            to_py_err(&Error::new(Code::InvalidArgument, message))
        })?;
        Ok((place.append, place.offset))
    }

    fn cut(&self, max_bytes: usize) -> Vec<(usize, usize)> {
        self.index.cut(max_bytes)
    }
}

#[pyclass(frozen, name = "ColumnBatch", module = "telemetry_broker._core")]
pub(super) struct PyColumnBatch {
    pub(super) batch: Columns,
}

impl PyColumnBatch {
    fn new(_: Python<'_>, batch: Columns) -> Self {
        Self { batch }
    }
}

#[pymethods]
impl PyColumnBatch {
    fn __len__(&self) -> usize {
        self.batch.batch.num_rows()
    }

    #[getter]
    fn tags(&self) -> Vec<String> {
        self.batch.tags.clone()
    }

    #[getter]
    fn fields(&self) -> Vec<String> {
        self.batch.fields.clone()
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.batch.batch.get_array_memory_size()
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        schema_capsule(py, &self.batch.batch)
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        // The interface allows to ignore the wish.
        let _ = requested_schema;
        let array = FFI_ArrowArray::new(&StructArray::from(self.batch.batch.clone()).to_data());
        Ok((schema_capsule(py, &self.batch.batch)?, PyCapsule::new_with_value(py, array, c"arrow_array")?))
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let batch = self.batch.batch.clone();
        let schema = batch.schema();
        let stream = FFI_ArrowArrayStream::new(Box::new(RecordBatchIterator::new([Ok(batch)], schema)));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }
}

fn schema_capsule<'py>(py: Python<'py>, batch: &RecordBatch) -> PyResult<Bound<'py, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(batch.schema().as_ref())
        .map_err(|err| to_py_err(&Error::new(Code::Internal, format!("the schema cannot be exported: {err}"))))?;
    PyCapsule::new_with_value(py, schema, c"arrow_schema")
}
