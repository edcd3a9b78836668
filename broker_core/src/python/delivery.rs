//! `Delivery`: the records of a response, decoded when they are asked for.

use std::ops::Range;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyList, PyMemoryView, PySlice};

use super::errors::to_py_err;
use crate::wire::delivery::parse_deliveries;
use crate::wire::record::Entry;
use crate::wire::{RecordView, record_entries, v1};

#[pyclass(name = "Delivery", module = "telemetry_broker._core", frozen)]
pub struct PyDelivery {
    response: PyBackedBytes,
    range: Range<usize>,
    count: usize,
    head: v1::Delivery,
}

impl PyDelivery {
    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        record_entries(&self.response[self.range.clone()])
    }

    fn list<'py, T: IntoPyObject<'py>>(
        &self,
        py: Python<'py>,
        item: impl Fn(&[u8]) -> PyResult<T>,
    ) -> PyResult<Bound<'py, PyList>> {
        let items = self.entries().map(|entry| item(entry.record)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, items)
    }

    /// The response, to be sliced without a copy; who holds a slice holds the response.
    fn whole<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(self.response.clone_ref(py).into_pyobject(py)?.as_any())
    }

    /// `part`, a slice of the response, as a view of `whole`.
    fn view<'py>(&self, whole: &Bound<'py, PyMemoryView>, part: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        // An empty part may point anywhere.
        let start = if part.is_empty() { 0 } else { part.as_ptr() as usize - self.response.as_ptr() as usize };
        let index = |at: usize| isize::try_from(at).unwrap_or(isize::MAX);
        whole.get_item(PySlice::new(whole.py(), index(start), index(start + part.len()), 1))
    }
}

#[pymethods]
impl PyDelivery {
    #[staticmethod]
    fn parse(response: &Bound<'_, PyBytes>) -> PyResult<Vec<Self>> {
        let found = parse_deliveries(response.as_bytes()).map_err(|err| to_py_err(&err))?;
        let deliveries = found.into_iter().map(|view| Self {
            response: PyBackedBytes::from(response.clone()),
            range: view.records,
            count: view.count,
            head: view.head,
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
        self.range.len()
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
        let whole = self.whole(py)?;
        self.list(py, |record| self.view(&whole, RecordView::of(record).value))
    }

    #[getter]
    fn key_views<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let whole = self.whole(py)?;
        self.list(py, |record| RecordView::of(record).key.map(|key| self.view(&whole, key)).transpose())
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
        self.view(&self.whole(py)?, &self.response[self.range.clone()])
    }
}
