//! `Delivery`: the records of a response, decoded when they are asked for.

use std::ops::Range;

use ::bytes::Bytes;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyMemoryView, PySlice};

use super::errors::to_py_err;
use crate::broker::{Chunk, Handed};
use crate::error::Result;
use crate::wire::delivery::{DELIVERY_TAG, parse_deliveries};
use crate::wire::{RecordView, record_entries, v1};

/// Bytes of memory that a delivery may keep of the log for each of its own; what would keep more is copied.
const MOST_KEPT: usize = 4;

/// A message of a stream below so many bytes is copied: it may stand in a buffer with far larger ones.
const SMALL_MESSAGE: usize = 64 << 10;

/// Where the records of a delivery are.
enum Records {
    /// In a response of a broker.
    Response { bytes: PyBackedBytes, range: Range<usize> },
    /// In a message of a broker's stream.
    Message(Bytes),
    /// In the log of this process.
    Log(Vec<Chunk>),
}

#[pyclass(name = "Delivery", module = "telemetry_broker._core", frozen)]
pub struct PyDelivery {
    records: Records,
    /// The records side by side in the interpreter, once somebody has asked for views of them.
    joined: PyOnceLock<PyBackedBytes>,
    count: usize,
    head: v1::Delivery,
}

/// What a message of a Consume stream holds.
pub enum Streamed {
    /// A delivery.
    Delivery(Box<PyDelivery>),
    /// Anything else.
    Message(Bytes),
}

impl Streamed {
    /// Takes a `ConsumeResponse` apart.
    pub fn of(message: Bytes) -> Result<Self> {
        if message.first() != Some(&DELIVERY_TAG) {
            return Ok(Self::Message(message));
        }
        let Some(view) = parse_deliveries(&message)?.pop() else { return Ok(Self::Message(message)) };
        let records = message.slice(view.records);
        let records = if message.len() < SMALL_MESSAGE { Bytes::copy_from_slice(&records) } else { records };
        Ok(Self::Delivery(Box::new(PyDelivery::new(Records::Message(records), view.count, view.head))))
    }
}

impl PyDelivery {
    /// What the broker of this process hands out.
    pub fn of(py: Python<'_>, handed: Handed) -> Self {
        let count = handed.records();
        let Handed { head, chunks } = handed;
        let (kept, needed) = chunks
            .iter()
            .fold((0, 0), |(kept, needed), chunk| (kept + chunk.kept_bytes(), needed + chunk.entries().len()));
        let records = if kept > MOST_KEPT * needed {
            let bytes = joined(py, &chunks);
            let range = 0..bytes.len();
            Records::Response { bytes, range }
        } else {
            Records::Log(chunks)
        };
        Self::new(records, usize::try_from(count).unwrap_or(usize::MAX), head)
    }

    fn new(records: Records, count: usize, head: v1::Delivery) -> Self {
        Self { records, joined: PyOnceLock::new(), count, head }
    }

    /// The runs of entries, in order.
    fn runs(&self) -> impl Iterator<Item = &[u8]> {
        let (response, chunks) = match &self.records {
            Records::Response { bytes, range } => (Some(&bytes[range.clone()]), &[][..]),
            Records::Message(bytes) => (Some(&bytes[..]), &[][..]),
            Records::Log(chunks) => (None, &chunks[..]),
        };
        response.into_iter().chain(chunks.iter().map(Chunk::entries))
    }

    fn list<'py, T: IntoPyObject<'py>>(
        &self,
        py: Python<'py>,
        item: impl Fn(&[u8]) -> PyResult<T>,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut items = Vec::with_capacity(self.count);
        for entry in self.runs().flat_map(record_entries) {
            items.push(item(entry.record)?);
        }
        PyList::new(py, items)
    }

    /// The entries side by side, and what keeps them: to be sliced without a copy.
    fn contiguous(&self, py: Python<'_>) -> (&PyBackedBytes, Range<usize>) {
        let bytes = match &self.records {
            Records::Response { bytes, range } => return (bytes, range.clone()),
            Records::Message(bytes) => self.joined.get_or_init(py, || PyBackedBytes::from(PyBytes::new(py, bytes))),
            Records::Log(chunks) => self.joined.get_or_init(py, || joined(py, chunks)),
        };
        (bytes, 0..bytes.len())
    }

    /// A view of each record's part; who holds one holds all the records.
    fn views<'py>(&self, py: Python<'py>, part: impl Fn(&[u8]) -> Option<&[u8]>) -> PyResult<Bound<'py, PyList>> {
        let (bytes, range) = self.contiguous(py);
        let whole = whole(py, bytes)?;
        let mut views = Vec::with_capacity(self.count);
        for entry in record_entries(&bytes[range]) {
            views.push(part(entry.record).map(|part| view(&whole, bytes, part)).transpose()?);
        }
        PyList::new(py, views)
    }
}

fn joined(py: Python<'_>, chunks: &[Chunk]) -> PyBackedBytes {
    let runs: Vec<&[u8]> = chunks.iter().map(Chunk::entries).collect();
    PyBackedBytes::from(PyBytes::new(py, &runs.concat()))
}

fn whole<'py>(py: Python<'py>, bytes: &PyBackedBytes) -> PyResult<Bound<'py, PyMemoryView>> {
    PyMemoryView::from(bytes.clone_ref(py).into_pyobject(py)?.as_any())
}

/// `part`, a slice of `bytes`, as a view of `whole`, which is of all of them.
fn view<'py>(whole: &Bound<'py, PyMemoryView>, bytes: &[u8], part: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // An empty part may point anywhere.
    let start = if part.is_empty() { 0 } else { part.as_ptr() as usize - bytes.as_ptr() as usize };
    let index = |at: usize| isize::try_from(at).unwrap_or(isize::MAX);
    whole.get_item(PySlice::new(whole.py(), index(start), index(start + part.len()), 1))
}

#[pymethods]
impl PyDelivery {
    #[staticmethod]
    fn parse(response: &Bound<'_, PyBytes>) -> PyResult<Vec<Self>> {
        let found = parse_deliveries(response.as_bytes()).map_err(|err| to_py_err(&err))?;
        let deliveries = found.into_iter().map(|view| {
            let records = Records::Response { bytes: PyBackedBytes::from(response.clone()), range: view.records };
            Self::new(records, view.count, view.head)
        });
        Ok(deliveries.collect())
    }

    #[getter]
    fn topic(&self) -> &str {
        &self.head.topic
    }

    #[getter]
    fn partition(&self) -> u32 {
        self.head.partition
    }

    #[getter]
    fn log_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.head.log_id)
    }

    #[getter]
    fn base_offset(&self) -> u64 {
        self.head.base_offset
    }

    #[getter]
    fn lease_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.head.lease_id)
    }

    #[getter]
    fn attempt(&self) -> u32 {
        self.head.attempt
    }

    #[getter]
    fn visibility_timeout_ms(&self) -> u32 {
        self.head.visibility_timeout_ms
    }

    fn __len__(&self) -> usize {
        self.count
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.runs().map(<[u8]>::len).sum()
    }

    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, |record| Ok(PyBytes::new(py, RecordView::of(record).value)))
    }

    #[getter]
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, |record| Ok(RecordView::of(record).key.map(|key| PyBytes::new(py, key))))
    }

    #[getter]
    fn value_views<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.views(py, |record| Some(RecordView::of(record).value))
    }

    #[getter]
    fn key_views<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.views(py, |record| RecordView::of(record).key)
    }

    #[getter]
    fn timestamps_ns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, |record| Ok(RecordView::of(record).timestamp_ns))
    }

    #[getter]
    fn append_times_ns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let runs = self.head.append_runs.iter();
        let times: Vec<i64> =
            runs.flat_map(|run| std::iter::repeat_n(run.append_time_ns, run.count as usize)).collect();
        PyList::new(py, times)
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, |record| {
            let dict = PyDict::new(py);
            for (name, value) in RecordView::headers(record) {
                dict.set_item(name, PyBytes::new(py, value))?;
            }
            Ok(dict)
        })
    }

    #[getter]
    fn records<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (bytes, range) = self.contiguous(py);
        view(&whole(py, bytes)?, bytes, &bytes[range])
    }
}
