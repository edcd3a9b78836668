//! `NewestValues`: what each GPU showed last. Documented in `_core.pyi`.

use parking_lot::Mutex;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyTuple;

use super::telemetry::PyColumnBatch;
use crate::telemetry::newest::Newest;

#[pyclass(name = "NewestValues", module = "telemetry_broker._core", frozen)]
pub struct PyNewestValues(Mutex<Newest>);

impl PyNewestValues {
    fn with<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Newest) -> T + Send) -> T {
        py.detach(|| work(&mut self.0.lock()))
    }
}

#[pymethods]
impl PyNewestValues {
    #[new]
    fn new(tags: Vec<String>, max_metrics: usize, max_names: usize) -> Self {
        Self(Mutex::new(Newest::new(tags, max_metrics, max_names)))
    }

    fn add(&self, py: Python<'_>) -> usize {
        self.with(py, Newest::add)
    }

    fn name(&self, py: Python<'_>, tags: Vec<String>, number: i64) {
        self.with(py, |newest| newest.name(&tags, number));
    }

    fn forget(&self, py: Python<'_>, tags: Vec<String>) {
        self.with(py, |newest| newest.forget(&tags));
    }

    fn number(&self, py: Python<'_>, tags: Vec<String>) -> i64 {
        self.with(py, |newest| newest.number(&tags)).unwrap_or(-1)
    }

    fn numbers(&self, py: Python<'_>, batch: &PyColumnBatch, number: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
        let (mut numbers, unknown) = self.with(py, |newest| newest.numbers(&batch.batch));
        for unknown in unknown {
            let found: i64 = number.call1((PyTuple::new(py, unknown.tags)?,))?.extract()?;
            for row in unknown.rows {
                numbers[row] = found;
            }
        }
        Ok(numbers)
    }

    fn take_in(&self, py: Python<'_>, batch: &PyColumnBatch, numbers: Vec<i64>) {
        self.with(py, |newest| newest.take_in(&batch.batch, &numbers));
    }

    fn put(&self, py: Python<'_>, number: usize, seen_ns: i64, values: Vec<(PyBackedStr, f64, i64)>) -> bool {
        let values = values.iter().map(|(name, value, at)| (&**name, *value, *at));
        self.with(py, |newest| newest.put(number, seen_ns, values))
    }

    fn metrics(&self, py: Python<'_>) -> Vec<String> {
        self.with(py, |newest| newest.metrics().map(str::to_owned).collect())
    }

    fn column(&self, py: Python<'_>, metric: &str) -> Vec<f64> {
        self.with(py, |newest| newest.column(metric).map_or_else(|| vec![f64::NAN; newest.gpus()], <[f64]>::to_vec))
    }

    fn values(&self, py: Python<'_>, number: usize) -> Vec<(String, f64, i64)> {
        self.with(py, |newest| newest.values(number).map(|(name, value, at)| (name.to_owned(), value, at)).collect())
    }

    #[pyo3(signature = (numbers = None))]
    fn seen_ns(&self, py: Python<'_>, numbers: Option<Vec<usize>>) -> PyResult<Vec<i64>> {
        let found = self.with(py, |newest| match numbers {
            None => Some(newest.seen_ns().to_vec()),
            Some(numbers) => numbers.iter().map(|number| newest.seen_ns().get(*number).copied()).collect(),
        });
        found.ok_or_else(|| PyIndexError::new_err("there is no GPU of such a number"))
    }

    fn drain_changed(&self, py: Python<'_>) -> Vec<usize> {
        self.with(py, Newest::drain_changed)
    }
}
